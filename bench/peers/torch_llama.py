"""PyTorch's speed on a Llama shape: RMS norm, rotary positions, grouped heads, SwiGLU, untied head, fused AdamW, f32.

    python torch_llama.py --d 512 --layers 8 --heads 8 --kv-heads 2 --f 1536 --vocab 32000 --batch 4 --seq 256 --threads 2
The peer of: step_bench --model llama-tiny:d=512,layers=8,heads=8,kv_heads=2,vocab=32000 --batch 4 --seq 256
Prints one JSON line: seconds a step (median), tokens/s, the GEMM peak measured in the same process and the share of it.
"""
import argparse, json, resource, statistics, time
p = argparse.ArgumentParser()
for name, value in dict(d=512, layers=8, heads=8, kv_heads=2, f=1536, vocab=32000, batch=4, seq=256, steps=8, threads=2).items():
    p.add_argument("--" + name.replace("_", "-"), type=int, default=value)
a = p.parse_args()
import torch, torch.nn as nn, torch.nn.functional as F
torch.set_num_threads(a.threads)
torch.set_flush_denormal(True)
torch.manual_seed(0)
e = a.d // a.heads

def turns(t):
    angle = torch.arange(t)[:, None] * 10000.0 ** (-torch.arange(0, e, 2) / e)[None, :]
    return torch.cos(angle), torch.sin(angle)

def rope(x, c, s):
    low, high = x.chunk(2, -1)
    return torch.cat((low * c - high * s, low * s + high * c), -1)

class Block(nn.Module):
    def __init__(s):
        super().__init__()
        s.n1, s.n2 = nn.RMSNorm(a.d), nn.RMSNorm(a.d)
        s.q, s.o = nn.Linear(a.d, a.d, bias=False), nn.Linear(a.d, a.d, bias=False)
        s.k, s.v = (nn.Linear(a.d, a.kv_heads * e, bias=False) for _ in range(2))
        s.gate, s.up = nn.Linear(a.d, a.f, bias=False), nn.Linear(a.d, a.f, bias=False)
        s.down = nn.Linear(a.f, a.d, bias=False)
    def forward(s, x, turn):
        y = s.n1(x)
        q, k, v = (f(y).unflatten(-1, (-1, e)).transpose(1, 2) for f in (s.q, s.k, s.v))
        z = F.scaled_dot_product_attention(rope(q, *turn), rope(k, *turn), v, is_causal=True, enable_gqa=True)
        x = x + s.o(z.transpose(1, 2).flatten(2))
        y = s.n2(x)
        return x + s.down(F.silu(s.gate(y)) * s.up(y))

class Llama(nn.Module):
    def __init__(s):
        super().__init__()
        s.embedding = nn.Embedding(a.vocab, a.d)
        s.blocks = nn.ModuleList(Block() for _ in range(a.layers))
        s.norm, s.head = nn.RMSNorm(a.d), nn.Linear(a.d, a.vocab, bias=False)
    def forward(s, i):
        x, turn = s.embedding(i), turns(i.shape[1])
        for b in s.blocks: x = b(x, turn)
        return s.head(s.norm(x))

model = Llama()
for q in model.parameters():
    if q.dim() > 1: nn.init.normal_(q, 0, 0.02)
opt = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
def step():
    x = torch.randint(0, a.vocab, (a.batch, a.seq + 1))
    loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    loss.backward(); opt.step(); opt.zero_grad()
    return loss.item()
def peak():
    n, best = 2048, 0
    x, y = torch.randn(n, n), torch.randn(n, n)
    for _ in range(6):
        t = time.perf_counter(); x @ y; best = max(best, 2 * n ** 3 / (time.perf_counter() - t))
    return best
gemm = peak()
step(); step()
times = []
for _ in range(a.steps):
    t = time.perf_counter(); loss = step(); times.append(time.perf_counter() - t)
weights = sum(q.numel() for name, q in model.named_parameters() if q.dim() > 1 and not name.startswith("embedding"))
seconds, tokens = statistics.median(times), a.batch * a.seq
flops = tokens * (6 * weights + 12 * a.layers * a.seq * a.d)
print(json.dumps(dict(peer="torch " + torch.__version__, threads=a.threads, batch=a.batch, seq=a.seq, step_s=round(seconds, 4),
                      min_s=round(min(times), 4), tokens_s=round(tokens / seconds, 1), gemm_gflops=round(gemm / 1e9, 1),
                      ratio=round(flops / seconds / gemm, 3), peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                      loss=round(loss, 4))))
