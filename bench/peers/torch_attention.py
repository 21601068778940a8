"""PyTorch's scaled_dot_product_attention, causal, forward and backward, f32: the peer of bench/attention_bench.cc.

    python torch_attention.py --t 4096 --threads 2
Prints one JSON line with the same fields.
"""
import argparse, json, resource, time
p = argparse.ArgumentParser()
for name, value in dict(heads=8, e=64, t=4096, batch=1, threads=2, repeat=3).items():
    p.add_argument("--" + name, type=int, default=value)
p.add_argument("--clock", default="wall")
a = p.parse_args()
import torch
torch.set_num_threads(a.threads)
torch.set_flush_denormal(True)
torch.manual_seed(1)
now = time.process_time if a.clock == "cpu" else time.perf_counter
q, k, v = (torch.randn(a.batch, a.heads, a.t, a.e, requires_grad=True) for _ in range(3))
do = torch.randn(a.batch, a.heads, a.t, a.e)
best = [1e30, 1e30]
for i in range(a.repeat + 1):
    q.grad = k.grad = v.grad = None
    begin = now()
    o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    middle = now()
    o.backward(do)
    end = now()
    if i > 0:
        best = [min(best[0], middle - begin), min(best[1], end - middle)]
products = a.batch * a.heads * a.t * a.t * a.e / 2
print(json.dumps(dict(peer="torch " + torch.__version__, heads=a.heads, t=a.t, threads=a.threads, forward_s=round(best[0], 5),
                      backward_s=round(best[1], 5), total_s=round(sum(best), 5),
                      forward_gflops=round(4 * products / best[0] / 1e9, 1), backward_gflops=round(10 * products / best[1] / 1e9, 1),
                      peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)))
