"""PyTorch's speed at generating with a GPT-2 shape, token by token, with a cache of keys and values, f32.

    python torch_generate.py --layers 12 --d 768 --heads 12 --vocab 50257 --prompt 16 --tokens 64 --length 256 --threads 2
The peer of: generate_bench --model gpt-124m
Prints one JSON line: milliseconds for the prompt and a token (median), tokens/s, the rate at which weights are read.
"""
import argparse, json, resource, statistics, time
p = argparse.ArgumentParser()
for name, value in dict(layers=12, d=768, heads=12, vocab=50257, batch=1, prompt=16, tokens=64, length=256, threads=2).items():
    p.add_argument("--" + name, type=int, default=value)
p.add_argument("--dtype", default="float32")
p.add_argument("--compile", action="store_true")
a = p.parse_args()
import torch, torch.nn as nn, torch.nn.functional as F
torch.set_num_threads(a.threads)
torch.manual_seed(0)
e = a.d // a.heads

class Block(nn.Module):
    def __init__(s):
        super().__init__()
        s.n1, s.n2 = nn.LayerNorm(a.d), nn.LayerNorm(a.d)
        s.qkv, s.o = nn.Linear(a.d, 3 * a.d), nn.Linear(a.d, a.d)
        s.up, s.down = nn.Linear(a.d, 4 * a.d), nn.Linear(4 * a.d, a.d)
        for name in ("k", "v"):
            s.register_buffer(name, torch.zeros(a.batch, a.heads, a.length, e), persistent=False)
    def forward(s, x, at):
        n = x.shape[1]
        q, k, v = (y.unflatten(-1, (a.heads, e)).transpose(1, 2) for y in s.qkv(s.n1(x)).chunk(3, -1))
        s.k[:, :, at:at + n] = k
        s.v[:, :, at:at + n] = v
        mask = None if n == 1 else torch.ones(n, at + n, dtype=torch.bool).tril(at)
        z = F.scaled_dot_product_attention(q, s.k[:, :, :at + n], s.v[:, :, :at + n], attn_mask=mask)
        x = x + s.o(z.transpose(1, 2).flatten(2))
        return x + s.down(F.gelu(s.up(s.n2(x)), approximate="tanh"))

class GPT(nn.Module):
    def __init__(s):
        super().__init__()
        s.wte, s.wpe = nn.Embedding(a.vocab, a.d), nn.Embedding(max(1024, a.length), a.d)
        s.blocks = nn.ModuleList(Block() for _ in range(a.layers))
        s.norm = nn.LayerNorm(a.d)
    def forward(s, i, at):
        x = s.wte(i) + s.wpe(torch.arange(at, at + i.shape[1]))
        for b in s.blocks: x = b(x, at)
        return s.norm(x[:, -1]) @ s.wte.weight.T

model = GPT().to(getattr(torch, a.dtype)).eval()
run = torch.compile(model) if a.compile else model
prompt = torch.arange(a.batch * a.prompt).reshape(a.batch, a.prompt) * 7919 % a.vocab
prompts, times = [], []
with torch.inference_mode():
    for round in range(3):
        start = time.perf_counter()
        scores = run(prompt, 0)
        prompts.append(time.perf_counter() - start)
        for i in range(min(a.tokens, a.length - a.prompt)):
            token = scores.argmax(-1, keepdim=True)
            start = time.perf_counter()
            scores = run(token, a.prompt + i)
            if round > 0: times.append(time.perf_counter() - start)
seconds = statistics.median(times)
weights = sum(q.numel() * q.element_size() for n, q in model.named_parameters() if n != "wpe.weight")
print(json.dumps(dict(what="torch generate", dtype=a.dtype, batch=a.batch, length=a.length, threads=a.threads, compiled=a.compile,
                      prompt_ms=1e3 * statistics.median(prompts), token_ms=1e3 * seconds, tokens_per_second=a.batch / seconds,
                      weights_gb_per_second=weights / seconds / 1e9,
                      peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)))
