#!/usr/bin/env bash
# --device: what is refused, and a device's way of running, on the emulated one: memory of its own, work done later,
# captured steps, ranks that talk through pinned memory. A GPU's own tests are tests/cuda/on_device.sh.
source "$(dirname "$0")/lib.sh" "$@"

train=("$meshard" train "${tiny[@]}" --text text)
refused '--device is "gpu", not one of: cpu, cuda, emulated' "${train[@]}" --device gpu
refused '--tf32 goes with --device cuda: the host'"'"'s products are of f32' "${train[@]}" --tf32
refused '--share-gpu goes with --device cuda' "${train[@]}" --share-gpu

run "${train[@]}" --device cuda
if [[ $status == 0 ]]; then
  printed 'on NVIDIA'
else
  case $(cat err) in
    'meshard: this build of Meshard has no CUDA: install nvcc and configure again, or leave out --device cuda' | \
      'meshard: this machine has no GPU, or no driver for it; see nvidia-smi, or leave out --device cuda' | \
      'meshard: no GPU is visible here; see nvidia-smi and CUDA_VISIBLE_DEVICES, or leave out --device cuda' | \
      'meshard: the GPU'\''s driver serves CUDA up to '*) echo "no run on a GPU: $(cat err)" ;;
    *) fail "--device cuda: $(cat err)" ;;
  esac
  [[ $status == 2 && ! -s out ]] || fail "--device cuda ends with status $status and prints $(head -n 2 out)"
fi

# The same losses as one device of the host, step by step and captured, and the bytes of the bill.
for flags in '' '--no-graph' '--lockstep --plan data_tensor --mesh data=2,model=2' '--lockstep --overlap --plan zero3 --mesh data=2 --accumulate 2' \
  '--lockstep --no-graph --plan tensor_sequence --mesh model=2' '--lockstep --ring always --plan tensor_sequence --mesh model=2' '--tf32' '--dtype bf16' '--dtype f16'; do
  wants 0 "$meshard" train "${small[@]}" --text text --device emulated --steps 4 --compare 4 --validate 1 --sample 4 $flags
  printed 'on an emulated device'
  printed ': equal'
  printed 'what was seen is what was billed'
done

# Two ranks with a device each: blocks go through pinned memory to the other rank.
wants 0 "$meshard" launch --ranks 2 -- train "${small[@]}" --text text --device emulated --steps 3 --compare 3 --plan zero1 --mesh data=2
printed 'on an emulated device'
printed ': equal'
printed 'what was seen is what was billed'

# More than the device has: what takes it, before anything is allocated.
refused_like 'the run needs [0-9.]+ TiB on an emulated device, of which 1.00 TiB are free; take a smaller --batch, --seq or model, more --accumulate, or a mesh and plan that split more
  parameters  +[0-9.]+ GiB
  the optimizer.s states  +[0-9.]+ GiB
  activations, workspaces and inputs  +[0-9.]+ TiB
  devices of the mesh on this GPU  +1' "$meshard" train --text text --model gpt-1.5b --batch 4096 --seq 1024 --threads 1 --device emulated
finish
