#!/usr/bin/env bash
# What a training run says about itself: time by op, the trace, numbers that are not finite.
source "$(dirname "$0")/lib.sh" "$@"

wants 0 "$meshard" train "${small[@]}" --validate 0 --steps 6 --text text --lockstep --plan data --mesh data=2 --trace trace.json --trace-steps 2
printed "time of a step on all devices in turn, mean of 4"
printed "einsum"
printed "all_reduce"
printed "memory of a device: planned "
json trace.json 'j["otherData"]["version"] == 1 and j["otherData"]["mesh"] == "data=2"'
json trace.json '{e["args"]["run"] for e in j["traceEvents"] if e["ph"] == "X"} == {2, 3}'
json trace.json '{e["pid"] for e in j["traceEvents"] if e["ph"] == "X"} == {0, 1}'
json trace.json 'any(e["args"]["bytes"] > 0 and "f32" in e["args"]["gives"] for e in j["traceEvents"] if e.get("cat") == "communication")'
json trace.json 'min(e["ts"] for e in j["traceEvents"] if e["ph"] == "X") >= 0'

refused "cannot write the trace none/trace.json; check the folder and its permissions" \
  "$meshard" train "${tiny[@]}" --text text --trace none/trace.json
cores=$(getconf _NPROCESSORS_ONLN)
refused "--threads $((cores + 1)), but this host has $cores cores; give at most $cores" "$meshard" train "${small[@]:0:6}" --steps 2 --text text --threads $((cores + 1))
# Such a rate throws the weights away: the step and the op in which it shows are named.
wants 2 "$meshard" train "${small[@]}" --text text --steps 3000 --rate 1000 --warmup 0
pattern="^meshard: step [0-9]+: the loss is .*, the gradient's norm (inf|nan): it begins where .* gives (inf|-inf|nan) in %.*on rank 0; "
pattern+='the largest number in its operands is .*; try a lower --rate or a longer --warmup$'
[[ $(cat err) =~ $pattern ]] || fail "numbers that are not finite: $(cat err)"

# The machine against itself: every row has a figure and a bound.
wants 0 "$meshard" bench --seconds 0 --threads 1 --json bench.json
printed "in a product of 2048 x 2048 x 2048"
json bench.json 'j["version"] == 1 and j["matmul_flops"] > 1e8 and j["copy_bytes"] > 1e7'
json bench.json 'len(j["kernels"]) == 21 and all(k["seconds"] > 0 and k["bound_seconds"] > 0 and k["bytes"] > 0 for k in j["kernels"])'
json bench.json 'j["kernels"][0]["flops"] == 2 * 1024 * 768 * 3072'
wants 0 "$meshard" bench --seconds 0 --device emulated --match layer_norm --json bench.json
json bench.json 'j["device"] == "an emulated device" and [k["op"] for k in j["kernels"]] == ["layer_norm", "layer_norm_vjp"]'
refused "--match norms: no kernel's op has that in its name; there are adamw, add, attention, attention_vjp, convert, cross_entropy, cross_entropy_vjp, einsum, embedding, gelu, gelu_vjp, layer_norm, layer_norm_vjp" \
  "$meshard" bench --match norms
refused "--only collectives: one process has nobody to talk to; start more, as with mpirun -n 2 meshard bench" "$meshard" bench --only collectives
refused "cannot write none/bench.json; check the folder and its permissions" "$meshard" bench --json none/bench.json
finish
