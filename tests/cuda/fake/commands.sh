#!/usr/bin/env bash
# --device cuda on the stand-in for a GPU (stream.h): graphs, NCCL between ranks, what is refused, what fails in the middle.
source "$(dirname "$0")/../../cli/lib.sh" "$@"
export MESHARD_TIMEOUT=60 TMPDIR=$scratch
patience=100  # of a machine that does other things beside
heads4=(--model gpt-tiny:layers=1,d=16,heads=4 --batch 4 --seq 16 --threads 1)
on=(--text text --device cuda --validate 0 --steps 4 --compare 4)

for order in 0 1 2; do
  export MESHARD_FAKE_ORDER=$order
  wants 0 "$meshard" train "${small[@]}" "${on[@]}" --sample 4
  printed 'on a stand-in for a GPU'
  printed ': equal'
  printed '  as a graph, mean of 1:'
  wants 0 "$meshard" train "${heads4[@]}" "${on[@]}" --lockstep --plan tensor_zero3 --mesh data=2,model=2 --accumulate 2 --overlap
  printed ': equal'
  for job in '4 --plan data_tensor --mesh data=2,model=2' '3 --plan data --mesh data=3' '2 --plan tensor_sequence --mesh model=2 --no-graph' \
    '2 --plan zero3 --mesh data=2 --overlap --accumulate 2'; do
    read -r ranks flags <<< "$job"
    # shellcheck disable=SC2086
    wants 0 $mpirun --oversubscribe --bind-to none -n "$ranks" "$meshard" train "${heads4[@]}" "${on[@]}" --share-gpu $flags
    printed ': equal'
    printed 'what was seen is what was billed'
  done
done
unset MESHARD_FAKE_ORDER

# The device against itself, and NCCL.
wants 0 "$meshard" bench --device cuda --sizes small --seconds 0 --match norm --json bench.json
json bench.json 'j["device"].startswith("a stand-in") and j["bf16_matmul_flops"] > 0 and len(j["kernels"]) == 2'
# shellcheck disable=SC2086
wants 0 $mpirun --oversubscribe --bind-to none -n 2 "$meshard" bench --device cuda --share-gpu --only collectives --largest 65536 --seconds 0 --json bench.json
json bench.json 'len(j["collectives"]) == 8 and all(c["seconds"] > 0 for c in j["collectives"])'

# What the machine lacks.
train=("$meshard" train "${small[@]}" --text text --device cuda --validate 0)
refused 'no GPU is visible here; see nvidia-smi and CUDA_VISIBLE_DEVICES, or leave out --device cuda' env MESHARD_FAKE_GPUS=0 "${train[@]}"
refused_like 'the GPU.s driver serves CUDA up to 12\.4, this meshard was built with CUDA [0-9.]+; install a newer driver, or build with an older toolkit' \
  env MESHARD_FAKE_DRIVER=12040 "${train[@]}"
refused_like 'the run needs [0-9.]+ MiB on a stand-in for a GPU, .*, of which 488.28 KiB are free; take a smaller --batch, .*' env MESHARD_FAKE_GPU_BYTES=500000 "${train[@]}"
# shellcheck disable=SC2086
refused_like 'host .* runs 2 ranks, but has 1 GPU; start at most 1 there, take --lockstep for all devices in one process, or add --share-gpu to put several ranks on one' \
  $mpirun --oversubscribe --bind-to none -n 2 "${train[@]}" --plan zero3 --mesh data=2

# A kernel that fails: the op, its shapes and layouts where each op is waited for, else how to learn them.
wants 3 env MESHARD_FAKE_FAILS=200 "${train[@]}" --steps 20 --no-graph
printed ': CUDA: a kernel or copy failed: an illegal memory access was encountered (cudaErrorIllegalAddress)' err
grep -Eq 'rank 0: internal error: block\.0: [a-z_]+ %.*: f32\[.*\] \[.*\]' err || fail "no op in: $(cat err)"
wants 3 env MESHARD_FAKE_FAILS=2000 "${train[@]}" --steps 20
printed '(cudaErrorIllegalAddress); a run without graphs (--no-graph) waits for each op and names it' err

# Ranks that meet over TCP, of which one fails in the middle of a step: the other says what it waited for, and ends.
export MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 20000)) WORLD_SIZE=2 MESHARD_TIMEOUT=3
both=("${train[@]}" --steps 200 --plan zero3 --mesh data=2 --share-gpu)
RANK=1 MESHARD_FAKE_FAILS=3000 timeout 60 "${both[@]}" > other 2>&1 &
wants 3 env RANK=0 "${both[@]}"
grep -Eq '^rank 0: [a-z_]+ \(.*\), call [0-9]+, waited 3.* s for other ranks to come to it' err || fail "rank 0 says: $(cat err)"
wait $!
[[ $? == 3 ]] || fail "rank 1: $(tail -n 2 other)"
printed 'rank 1: internal error: ' other

# A rank that is killed in the middle of a step is named, and the other ends too.
unset MASTER_ADDR MASTER_PORT WORLD_SIZE
for victim in 0 1; do
  begin "$meshard" launch --ranks 2 -- bash -c 'echo $$ > id.$MESHARD_RANK; exec "$@"' _ "${train[@]}" --steps 1000000000 \
    --plan zero3 --mesh data=2 --share-gpu
  kill -KILL "$(cat id.$victim)"
  ends 137 'the ranks on a device'
  printed "meshard: rank $victim was ended by signal 9 (Killed)" err
  kill -0 "$(cat id.$((1 - victim)))" 2> kill.err && fail "rank $((1 - victim)) lives on"
done
finish
