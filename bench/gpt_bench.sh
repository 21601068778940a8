#!/bin/bash
# Training speed of gpt-124m (f32, batch 4 x 64) on this machine, beside PyTorch on the same work in the same minutes.
#
#   bench/gpt_bench.sh [--rounds 3] [--steps 8] [--only single,data,tensor] [--json gpt_bench.json]
#                      [--meshard build/launch/meshard] [--peer .../torch_gpt.py] [--peer-python .../bin/python]
#
# Rows: one process with two threads; two ranks of one thread under the data plan, and under the tensor plan. The peer
# is a script that takes --mode single|ddp|tp --ranks N --threads N --steps N --batch B --seq T and prints a JSON line
# with "tokens_s"; it may also be named by MESHARD_PEERS, and its Python, which has torch, by MESHARD_PEER_PYTHON.
# Without a peer its columns stay empty. The two run by turns, and each figure is the median over the rounds of the
# median step of a run; the first two steps of a run are left out. The load average is taken before each pair: other
# work on the machine makes both slower, not always alike.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
rounds=3 steps=8 only=single,data,tensor json= meshard=$root/build/launch/meshard
peer=${MESHARD_PEERS:-} python=${MESHARD_PEER_PYTHON:-python3}
batch=4 seq=64 model=gpt-124m

fail() { echo "gpt_bench: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
  [ "$1" != --help ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0; }
  [ $# -ge 2 ] || fail "$1 needs a value; see --help"
  case $1 in
    --rounds) rounds=$2 ;; --steps) steps=$2 ;; --only) only=$2 ;; --json) json=$2 ;;
    --meshard) meshard=$2 ;; --peer) peer=$2 ;; --peer-python) python=$2 ;;
    *) fail "unknown flag $1; see --help" ;;
  esac
  shift 2
done
[ -x "$meshard" ] || fail "there is no $meshard; build it (ninja -C build meshard) or give --meshard"
[ -z "$peer" ] || [ -f "$peer" ] || fail "there is no peer $peer"
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail "--rounds is $rounds, not a whole number above 0"
[[ $steps =~ ^[1-9][0-9]*$ ]] && [ "$steps" -ge 3 ] || fail "--steps is $steps; it takes 3 or more, two of them left out"
for row in ${only//,/ }; do [[ $row =~ ^(single|data|tensor)$ ]] || fail "no row $row; there are single, data, tensor"; done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Root may start ranks where the whole machine is a container.
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

median() { sort -g | awk '{x[NR] = $1} END {if (NR) printf "%.1f\n", (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2}'; }
load() { cut -d' ' -f1 /proc/loadavg; }

run_meshard() {  # row -> tokens per second; adds the seconds to ready to $work/row.ready, the peak to $work/row.peak
  local start=() place=(--threads 2)
  case $1 in
    data) start=(mpirun --oversubscribe --bind-to none -n 2); place=(--threads 1 --plan data --mesh data=2) ;;
    tensor) start=(mpirun --oversubscribe --bind-to none -n 2); place=(--threads 1 --plan tensor --mesh model=2) ;;
  esac
  "${start[@]}" "$meshard" train --model $model "${place[@]}" --batch $batch --seq $seq --steps "$steps" --validate 0 \
    --text "$root/ir" --log "$work/log" > "$work/out" 2>&1 || { cat "$work/out" >&2; fail "meshard $1 ended with an error"; }
  sed -n 's/^ready after \([0-9.]*\) s.*/\1/p' "$work/out" >> "$work/$1.ready"
  sed -n 's/.*"peak_bytes":\([0-9]*\)}$/\1/p' "$work/log" | tail -1 > "$work/$1.peak"
  sed -n 's/.*"tokens_per_second":\([0-9.e+-]*\).*/\1/p' "$work/log" | tail -n +3 | median
}

run_peer() {  # row -> tokens per second
  local mode=(--mode single --threads 2)
  case $1 in
    data) mode=(--mode ddp --ranks 2 --threads 1) ;;
    tensor) mode=(--mode tp --ranks 2 --threads 1) ;;
  esac
  "$python" "$peer" "${mode[@]}" --batch $batch --seq $seq --steps $((steps - 2)) > "$work/out" 2> "$work/err" ||
    { cat "$work/err" >&2; fail "the peer ended with an error in ${mode[1]}"; }
  sed -n 's/.*"tokens_s": *\([0-9.]*\).*/\1/p' "$work/out" | tail -1
}

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | paste -sd, -)
simd=$(grep -oEw 'amx_bf16|avx512_bf16|avx512f|avx2' /proc/cpuinfo | sort -u | paste -sd' ' -)
date=$(date -u +%F) commit=$(git -C "$root" rev-parse --short HEAD 2> /dev/null || echo unknown)
echo "$model, f32, batch $batch x $seq; $processor ($simd), $(nproc) cores; $date, commit $commit; $rounds rounds of $steps steps"

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

titles() { case $1 in single) echo "1 process x 2 threads|single" ;; data) echo "2 ranks, data plan|ddp" ;; tensor) echo "2 ranks, tensor plan|tp" ;; esac; }
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
  list() { [ ! -f "$1" ] || paste -sd, "$1"; }
  rows+="${rows:+, }{\"row\": \"$row\", \"tokens_per_second\": $mine, \"runs\": [$(list "$work/$row.mine")]"
  rows+=", \"peer_mode\": \"$mode\", \"peer_tokens_per_second\": ${theirs:-null}, \"peer_runs\": [$(list "$work/$row.theirs")]"
  rows+=", \"ratio\": ${ratio:-null}, \"ready_seconds\": $ready, \"peak_bytes\": $(cat "$work/$row.peak"), \"load\": [$(list "$work/$row.load")]}"
done
if [ -n "$json" ]; then
  cat > "$json" << END
{"version": 1, "date": "$date", "commit": "$commit", "model": "$model", "dtype": "f32", "batch": $batch, "seq": $seq,
 "machine": {"processor": "$processor", "vector": "$simd", "cores": $(nproc)}, "rounds": $rounds, "steps": $steps,
 "rows": [$rows]}
END
fi
