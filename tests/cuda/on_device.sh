#!/usr/bin/env bash
# Everything that needs a GPU, from a bare tree, with one table at the end; status 0: nothing failed.
#   tests/cuda/on_device.sh [--build FOLDER] [--prebuilt FOLDER] [--quick]
# --build: where to build, build by default. --prebuilt: a build folder that is already made, carried here. --quick: no
# compute-sanitizer, no benchmarks. What the machine lacks (mpirun, compute-sanitizer, a second GPU) is a row "skipped".
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build prebuilt= quick=
while [[ $# -gt 0 ]]; do
  case $1 in
    --build) build=$2 && shift ;;
    --prebuilt) build=$2 prebuilt=1 && shift ;;
    --quick) quick=1 ;;
    *)
      echo "on_device.sh: unknown flag $1; it takes --build FOLDER, --prebuilt FOLDER and --quick" >&2
      exit 2
      ;;
  esac
  shift
done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
meshard=$build/launch/meshard
logs=$(mktemp -d)
rows=() failed=0

row() { rows+=("$(printf '%-46s %-8s %s' "$1" "$2" "$3")"); }

# check NAME PATTERN COMMAND...: the last line of its output that matches the pattern is the row's detail.
check() {
  local name=$1 pattern=$2 log begin=$SECONDS
  shift 2
  log=$logs/${name//[^a-z0-9]/_}
  echo "== $name"
  if timeout 900 "$@" >"$log" 2>&1; then
    row "$name" ok "$(grep -aE "$pattern" "$log" | tail -n 1) ($((SECONDS - begin)) s)"
  else
    failed=$((failed + 1))
    row "$name" FAILED "status $?, see $log: $(tail -n 1 "$log" | cut -c 1-120)"
    tail -n 20 "$log"
  fi
}

if [[ -z $prebuilt ]]; then
  flags=()
  command -v ninja >/dev/null && flags=(-G Ninja)
  check 'build' 'Built|ninja|100%' bash -c "cmake -S '$root' -B '$build' ${flags[*]} -D MESHARD_WERROR=ON && cmake --build '$build' --parallel \$(nproc) --target meshard cuda_test multiplier_test"
fi
[[ -x $meshard ]] || { echo "on_device.sh: no $meshard" >&2; exit 1; }
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || true

check 'emulated kernels against the reference' 'passed|failed' "$build/tests/ops/multiplier_test" 'emulated*'
check 'CUDA kernels and training against the host' 'passed|failed' "$build/tests/cuda/cuda_test"

text=$logs/text
cat "$root"/*/*.cc >"$text"
small=("$meshard" train --text "$text" --batch 8 --seq 64 --steps 6 --compare 6 --validate 1 --device cuda)
check 'train gpt-tiny, one device' 'relative difference' "${small[@]}" --model gpt-tiny
check 'train llama-tiny, no graph' 'relative difference' "${small[@]}" --model llama-tiny --no-graph
for plan in data tensor zero1 zero2 zero3; do
  axis=data
  [[ $plan == tensor ]] && axis=model
  check "lockstep on 8 devices, $plan" 'relative difference' "${small[@]}" --model gpt-tiny:heads=8 --lockstep --plan $plan --mesh $axis=8
done
check 'lockstep on 8 devices, data_tensor, accumulate 2' 'relative difference' "${small[@]}" --model gpt-tiny:heads=8 --lockstep --plan data_tensor \
  --mesh 'data=2, model=4' --accumulate 2 --overlap

# Ranks that share a GPU: they prove what is right, not what is fast.
if command -v mpirun >/dev/null && "$meshard" train --help | grep -q share-gpu; then
  export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}
  for ranks in 2 4; do
    check "NCCL, $ranks ranks on one GPU, zero3" 'relative difference' mpirun -n $ranks --oversubscribe --bind-to none "${small[@]}" --model gpt-tiny \
      --plan zero3 --mesh data=$ranks --share-gpu
  done
  check 'NCCL, 3 ranks on one GPU, uneven blocks' 'relative difference' mpirun -n 3 --oversubscribe --bind-to none "${small[@]}" --model gpt-tiny \
    --plan data --mesh data=3 --share-gpu
else
  row 'NCCL under mpirun' skipped 'no mpirun'
fi
# ranks N COMMAND...: N processes that meet over TCP; the first's output, and a status that is not 0 if any has one.
ranks() {
  local count=$1 status=0 pids=() r
  shift
  export MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + RANDOM % 20000)) WORLD_SIZE=$count
  for ((r = 1; r < count; ++r)); do
    RANK=$r "$@" >"$logs/rank$r" 2>&1 &
    pids+=($!)
  done
  RANK=0 "$@" || status=$?
  for r in "${pids[@]}"; do wait "$r" || status=$?; done
  return $status
}
export -f ranks
export logs NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}
for count in 2 4; do
  check "NCCL, $count ranks on one GPU, met over TCP" 'relative difference' bash -c 'ranks "$@"' ranks $count "${small[@]}" --model gpt-tiny \
    --plan zero3 --mesh data=$count --share-gpu
done

if [[ -n $quick ]]; then
  row 'compute-sanitizer' skipped '--quick'
elif ! command -v compute-sanitizer >/dev/null; then
  row 'compute-sanitizer' skipped 'not on this machine'
else
  for tool in memcheck racecheck synccheck; do
    check "compute-sanitizer $tool" 'ERROR SUMMARY|RACECHECK SUMMARY' compute-sanitizer --tool $tool --error-exitcode 1 "$build/tests/cuda/cuda_test" 'CUDA kernels equal the reference'
  done
fi

if [[ -z $quick ]]; then
  check 'kernels against the device' 'attention' "$meshard" bench --device cuda --json "$logs/bench.json"
  cat "$logs/kernels_against_the_device" 2>/dev/null
  big=("$meshard" train --text "$text" --validate 0 --device cuda --steps 20)
  check 'gpt-124m, bf16, batch 32 x 1024' 'tokens/s|tok/s' "${big[@]}" --model gpt-124m --batch 32 --seq 1024 --dtype bf16
  check 'gpt-124m, f32, batch 4 x 512' 'tokens/s|tok/s' "${big[@]}" --model gpt-124m --batch 4 --seq 512
  check 'gpt-124m, f32, batch 4 x 512, no graph' 'tokens/s|tok/s' "${big[@]}" --model gpt-124m --batch 4 --seq 512 --no-graph
fi

echo
printf '%s\n' "${rows[@]}"
echo "logs in $logs"
[[ $failed == 0 ]]
