#!/bin/bash
# Training speed of gpt-124m (f32, batch 4 x 64) on this machine, beside PyTorch on the same work in the same minutes.
#
#   bench/gpt_bench.sh [--rounds 3] [--steps 8] [--only cpu,single,data,tensor] [--json FILE]
#                      [--meshard build/launch/meshard] [--peer .../torch_gpt.py] [--peer-python .../bin/python]
#
# Rows: one thread, in tokens per second of CPU time, which other work on the machine disturbs least; one process with
# two threads; two ranks of one thread under the data plan, and under the tensor plan. The peer is a script that takes
# --mode single|ddp|tp --ranks N --threads N --steps N --batch B --seq T and prints a JSON line with "tokens_s"; it
# may also be named by MESHARD_PEERS, and its Python, which has torch, by MESHARD_PEER_PYTHON. Without a peer its
# columns stay empty. The peer runs with denormal numbers flushed to zero (--denormals keep: as it is): its scores at
# the start are so large that most probabilities are denormal, which slows Intel's cores several times. The two run by
# turns, and each figure is the median over the rounds of the median step of a run; the first two steps of a run are
# left out. The load average is taken before each pair: other work on the machine makes both slower, not always alike.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
rounds=3 steps=8 only=cpu,single,data,tensor json= denormals=flush meshard=$root/build/launch/meshard
peer=${MESHARD_PEERS:-} python=${MESHARD_PEER_PYTHON:-python3}
batch=4 seq=64 model=gpt-124m

fail() { echo "gpt_bench: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
  [ "$1" != --help ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0; }
  [ $# -ge 2 ] || fail "$1 needs a value; see --help"
  case $1 in
    --rounds) rounds=$2 ;; --steps) steps=$2 ;; --only) only=$2 ;; --json) json=$2 ;;
    --meshard) meshard=$2 ;; --peer) peer=$2 ;; --peer-python) python=$2 ;;
    --denormals) denormals=$2 ;;
    *) fail "unknown flag $1; see --help" ;;
  esac
  shift 2
done
[ -x "$meshard" ] || fail "there is no $meshard; build it (ninja -C build meshard) or give --meshard"
[ -z "$peer" ] || [ -f "$peer" ] || fail "there is no peer $peer"
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail "--rounds is $rounds, not a whole number above 0"
[[ $steps =~ ^[1-9][0-9]*$ ]] && [ "$steps" -ge 3 ] || fail "--steps is $steps; it takes 3 or more, two left out"
[[ $denormals =~ ^(flush|keep)$ ]] || fail "--denormals is $denormals; it is flush or keep"
for row in ${only//,/ }; do
  [[ $row =~ ^(cpu|single|data|tensor)$ ]] || fail "no row $row; there are cpu, single, data, tensor"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$denormals" = flush ]; then  # Python runs this before the peer, in each process that it starts
  mkdir "$work/python"
  printf 'import torch\ntorch.set_flush_denormal(True)\n' > "$work/python/sitecustomize.py"
fi
# Root may start ranks where the whole machine is a container.
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

median() {
  sort -g | awk '{x[NR] = $1} END {if (NR) printf "%.1f\n", (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2}'
}
load() { cut -d' ' -f1 /proc/loadavg; }


# Runs a command with its output in $work/out; what it used of the cores goes to $work/seconds.
timed() {
  local TIMEFORMAT='%U %S' status=0
  { time "$@" > "$work/out" 2> "$work/err"; } 2> "$work/time" || status=$?
  [ $status -eq 0 ] || { cat "$work/out" "$work/err" >&2; fail "$1 ended with status $status"; }
  awk '{print $1 + $2}' "$work/time" > "$work/seconds"
}

# steps, threads, flags; what stands before the command is in `start`
train() {
  timed "${start[@]}" "$meshard" train --model $model --threads "$2" --batch $batch --seq $seq --steps "$1" \
    --validate 0 --text "$root/ir" --log "$work/log" "${@:3}"
}

peer_train() {  # steps, threads, flags
  timed env PYTHONPATH="$work/python" OMP_NUM_THREADS="$2" "$python" "$peer" --threads "$2" --batch $batch --seq $seq \
    --steps "$1" "${@:3}"
}

# Tokens per CPU second from two runs that differ by steps - 2 steps: what comes before the first step falls out.
per_cpu_second() {  # the CPU seconds of the short and of the long run
  awk "BEGIN {printf \"%.1f\\n\", $batch * $seq * ($steps - 2) / ($2 - $1)}"
}

# row -> tokens per second; adds the seconds to ready to $work/row.ready and writes the peak to $work/row.peak
run_meshard() {
  local start=() short=
  case $1 in
    cpu)
      train 2 1
      short=$(cat "$work/seconds")
      train "$steps" 1
      ;;
    single) train "$steps" 2 ;;
    data) start=(mpirun --oversubscribe --bind-to none -n 2); train "$steps" 1 --plan data --mesh data=2 ;;
    tensor) start=(mpirun --oversubscribe --bind-to none -n 2); train "$steps" 1 --plan tensor --mesh model=2 ;;
  esac
  sed -n 's/^ready after \([0-9.]*\) s.*/\1/p' "$work/out" >> "$work/$1.ready"
  sed -n 's/.*"peak_bytes":\([0-9]*\)}$/\1/p' "$work/log" | tail -1 > "$work/$1.peak"
  if [ -n "$short" ]; then
    per_cpu_second "$short" "$(cat "$work/seconds")"
  else
    sed -n 's/.*"tokens_per_second":\([0-9.e+-]*\).*/\1/p' "$work/log" | tail -n +3 | median
  fi
}

run_peer() {  # row -> tokens per second
  case $1 in
    cpu)
      peer_train 1 1 --mode single
      local short
      short=$(cat "$work/seconds")
      peer_train $((steps - 1)) 1 --mode single
      per_cpu_second "$short" "$(cat "$work/seconds")"
      return
      ;;
    single) peer_train $((steps - 2)) 2 --mode single ;;
    data) peer_train $((steps - 2)) 1 --mode ddp --ranks 2 ;;
    tensor) peer_train $((steps - 2)) 1 --mode tp --ranks 2 ;;
  esac
  sed -n 's/.*"tokens_s": *\([0-9.]*\).*/\1/p' "$work/out" | tail -1
}

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | paste -sd, -)
simd=$(grep -oEw 'amx_bf16|avx512_bf16|avx512f|avx2' /proc/cpuinfo | sort -u | paste -sd' ' -)
date=$(date -u +%F) commit=$(git -C "$root" rev-parse --short HEAD 2> /dev/null || echo unknown)
echo "$model, f32, batch $batch x $seq; $processor ($simd), $(nproc) cores; $date, commit $commit;" \
  "$rounds rounds of $steps steps"

for ((round = 1; round <= rounds; ++round)); do
  for row in ${only//,/ }; do
    before=$(load) mine=$(run_meshard "$row") theirs=
    [ -z "$peer" ] || theirs=$(run_peer "$row")
    echo "$mine" >> "$work/$row.mine"
    echo "$before" >> "$work/$row.load"
    [ -z "$theirs" ] || echo "$theirs" >> "$work/$row.theirs"
    echo "  round $round $row: meshard $mine${theirs:+, peer $theirs} tokens/s, load before $before" >&2
  done
done

titles() {
  case $1 in
    cpu) echo "1 thread, per CPU second|single" ;;
    single) echo "1 process x 2 threads|single" ;;
    data) echo "2 ranks, data plan|ddp" ;;
    tensor) echo "2 ranks, tensor plan|tp" ;;
  esac
}
list() { [ ! -f "$1" ] || paste -sd, "$1"; }
echo
echo "| run | meshard tokens/s | peer | peer tokens/s | ratio | ready after s | load |"
echo "|---|---|---|---|---|---|---|"
rows=
for row in ${only//,/ }; do
  IFS='|' read -r title mode <<< "$(titles "$row")"
  mine=$(median < "$work/$row.mine") theirs= ratio=
  if [ -f "$work/$row.theirs" ]; then
    theirs=$(median < "$work/$row.theirs")
    ratio=$(awk "BEGIN {printf \"%.2f\", $mine / $theirs}")
  fi
  ready=$(sort -g "$work/$row.ready" | head -1)  # the least: the others waited for other work
  least=$(sort -g "$work/$row.load" | head -1) most=$(sort -g "$work/$row.load" | tail -1)
  echo "| $title | $mine | ${theirs:+torch $mode} | $theirs | $ratio | $ready | $least to $most |"
  rows+="${rows:+, }{\"row\": \"$row\", \"tokens_per_second\": $mine, \"runs\": [$(list "$work/$row.mine")]"
  rows+=", \"peer_mode\": \"$mode\", \"peer_tokens_per_second\": ${theirs:-null}"
  rows+=", \"peer_runs\": [$(list "$work/$row.theirs")], \"ratio\": ${ratio:-null}, \"ready_seconds\": $ready"
  rows+=", \"peak_bytes\": $(cat "$work/$row.peak"), \"load\": [$(list "$work/$row.load")]}"
done
if [ -n "$json" ]; then
  cat > "$json" << END
{"version": 1, "date": "$date", "commit": "$commit", "model": "$model", "dtype": "f32", "batch": $batch, "seq": $seq,
 "machine": {"processor": "$processor", "vector": "$simd", "cores": $(nproc)}, "denormals": "$denormals",
 "rounds": $rounds, "steps": $steps,
 "rows": [$rows]}
END
fi
