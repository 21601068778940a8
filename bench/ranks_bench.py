#!/usr/bin/env python3
"""A training step of gpt-124m (f32, batch 4 x 64) split over ranks of one thread, beside PyTorch's ways of splitting it.

    bench/ranks_bench.py [--rows data,zero1,tensor,tensor_sequence,zero3,tensor4,none,one] [--rounds 2] [--steps 8]
                         [--batch 4] [--seq 64] [--model gpt-124m] [--build build] [--json FILE]
                         [--peer .../torch_gpt.py] [--peer-python .../bin/python]

Each row is run by build/bench/step_bench, which says what the step's bound is: its matrix flops at GEMM peak, the
optimizer's bytes and those of the bill at stream bandwidth, all measured in the same run. The peer runs between our runs,
with denormal numbers flushed to zero; without --peer its columns stay empty. tensor4 is the tensor plan on 4 ranks,
whatever the cores; none and one are a single rank without a mesh and with a mesh of one device. What is printed is the
median over the rounds, with the least and the largest where there are several; the best round decides nothing.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

ROWS = {  # ranks, our flags, the peer's flags
    "data": (2, ["--plan", "data", "--mesh", "data=2"], ["--mode", "ddp", "--ranks", "2"]),
    "zero1": (2, ["--plan", "zero1", "--mesh", "data=2"], ["--mode", "ddp", "--ranks", "2"]),
    "tensor": (2, ["--plan", "tensor", "--mesh", "model=2"], ["--mode", "tp", "--ranks", "2"]),
    "tensor_sequence": (2, ["--plan", "tensor_sequence", "--mesh", "model=2"], ["--mode", "sp", "--ranks", "2"]),
    "zero3": (2, ["--plan", "zero3", "--mesh", "data=2"], ["--mode", "fsdp", "--ranks", "2"]),
    "tensor4": (4, ["--plan", "tensor", "--mesh", "model=4"], None),
    "none": (1, [], None),
    "one": (1, ["--plan", "data", "--mesh", "data=1"], None),
}

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rows", default="data,zero1,tensor,tensor_sequence,zero3")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--seq", type=int, default=64)
parser.add_argument("--model", default="gpt-124m")
parser.add_argument("--build", default=os.path.join(root, "build"))
parser.add_argument("--json")
parser.add_argument("--peer")
parser.add_argument("--peer-python", default=sys.executable)
options = parser.parse_args()
rows = options.rows.split(",")
for row in rows:
    if row not in ROWS:
        parser.error(f"no row {row}; there are {', '.join(ROWS)}")

work = tempfile.TemporaryDirectory()
with open(os.path.join(work.name, "sitecustomize.py"), "w") as file:  # Python runs it first, in each process of the peer
    file.write("import torch\ntorch.set_flush_denormal(True)\n")


def run(command, **environment):
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}\n{done.stdout}{done.stderr}")
    return next(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))


def ours(row):
    ranks, flags, _ = ROWS[row]
    root_too = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.getuid() == 0 else {}
    return run(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks),
                os.path.join(options.build, "bench", "step_bench"), "--model", options.model, "--batch",
                str(options.batch), "--seq", str(options.seq), "--steps", str(options.steps), "--threads", "1", *flags],
               **root_too)


def theirs(row):
    flags = ROWS[row][2]
    if options.peer is None or flags is None:
        return None
    return run([options.peer_python, options.peer, "--threads", "1", "--batch", str(options.batch), "--seq",
                str(options.seq), "--steps", str(options.steps), *flags], PYTHONPATH=work.name, OMP_NUM_THREADS="1")


def text(values, form):
    middle = form.format(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({form.format(min(values))} - {form.format(max(values))})"


results = {row: {"ours": [], "peer": []} for row in rows}
for turn in range(options.rounds):
    for row in rows:
        mine, peer = ours(row), theirs(row)
        results[row]["ours"].append(mine)
        if peer is not None:
            results[row]["peer"].append(peer)
        print(f"  round {turn + 1} {row}: {mine['tokens_s']:.1f} tokens/s, {mine['ratio']:.3f} of GEMM peak "
              f"{mine['gemm_gflops']:.0f}, {mine['of_bound']:.3f} of the bound"
              + (f"; peer {peer['tokens_s']:.1f}, {peer['ratio']:.3f} of {peer['gemm_gflops']:.0f}" if peer else ""), file=sys.stderr)

print("| plan | tokens/s | of GEMM peak | of the bound | planned MiB | libraries MiB | resident MiB | of both | peer | peer's tokens/s | of GEMM peak | ratio |")
print("|---|---|---|---|---|---|---|---|---|---|---|---|")
for row in rows:
    mine, peer = results[row]["ours"], results[row]["peer"]
    get = lambda key: [run[key] for run in mine]
    ratios = [m["tokens_s"] / p["tokens_s"] for m, p in zip(mine, peer)]
    print(f"| {row} | {text(get('tokens_s'), '{:.1f}')} | {text(get('ratio'), '{:.2f}')} | {text(get('of_bound'), '{:.2f}')} "
          f"| {mine[0]['peak_mib']:.0f} | {max(get('libraries_mib')):.0f} "
          f"| {max(get('peak_rss_mib')):.0f} | {max(get('of_plan_and_libraries')):.2f} | {ROWS[row][2][1] if peer else ''} "
          f"| {text([p['tokens_s'] for p in peer], '{:.1f}') if peer else ''} "
          f"| {text([p['ratio'] for p in peer], '{:.2f}') if peer else ''} | {text(ratios, '{:.2f}') if peer else ''} |")
if options.json:
    with open(options.json, "w") as file:
        json.dump(results, file, indent=1)
