#!/usr/bin/env bash
# Sizes: memory that will not fit is refused before anything is allocated, and numbers too large for a plan say so.
source "$(dirname "$0")/lib.sh" "$@"

# refused_small PATTERN COMMAND...: refused within ten seconds by a process that took less than 1 GiB.
refused_small() {
  local pattern=$1
  shift
  local begin=$SECONDS
  refused_like "$pattern" bash -c 'ulimit -v 1048576; exec "$@"' bash "$@"
  ((SECONDS - begin <= 10)) || fail "$* took $((SECONDS - begin)) s to refuse"
}
size='[0-9.]+ [KMGTP]iB'
remedy='take a smaller --batch, --seq or model, or a mesh and plan that split more'
refused_small "the run needs $size on host [^ ]+ \\(1 x $size a device\\), but $size are free; $remedy" \
  "$meshard" train --text text --model gpt-1.5b --batch 4096 --seq 1024 --threads 1
refused_small "the run needs $size on host [^ ]+ \\(4 x $size a device\\), but $size are free; $remedy" \
  "$meshard" train --text text --model gpt-1.5b --batch 4096 --seq 1024 --threads 1 --lockstep --plan data --mesh data=4
# Counts that would pass 64 bits.
plan=("$meshard" plan --threads 1)
refused 'gpt-124m: about 2.2e+19 parameters; at most 2^50 = 1.1e+15 are planned' "${plan[@]}" --model gpt-124m:d=300000000,heads=1
refused 'gpt-124m: about 1.4e+22 parameters; at most 2^50 = 1.1e+15 are planned' "${plan[@]}" --model gpt-124m:vocab=9000000000000000000
refused 'gpt-124m: 1000000000 layers; at most 1000 are planned' "${plan[@]}" --model gpt-124m:layers=1000000000
refused $'model:1:17: expected layers but 99999999999999999999 does not fit in 63 bits\n  gpt-tiny:layers=99999999999999999999\n                  ^' \
  "${plan[@]}" --model gpt-tiny:layers=99999999999999999999
refused '--batch 1000000000 --seq 1000000000: about 1.9e+25 bytes of activations; at most 2^58 = 2.9e+17 are planned; take a smaller --batch or --seq' \
  "${plan[@]}" --model gpt-1.5b --batch 1000000000 --seq 1000000000

# Large ones that a plan can hold: no bill is negative.
for sizes in '--batch 1000000 --seq 1024' '--batch 1 --seq 1000000000'; do
  wants 0 "${plan[@]}" --model gpt-124m $sizes --plan data_tensor --mesh 'data=64, model=4' --json bill.json
  json bill.json 'all(j[k] > 0 for k in ("bytes", "bytes_all_devices", "peak_bytes", "flops")) and all(c["bytes"] > 0 for c in j["collectives"])'
done
finish
