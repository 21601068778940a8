#!/usr/bin/env bash
# The bill as a test of a user's own: limits, a program text's bill, and what another plan costs.
source "$(dirname "$0")/lib.sh" "$@"

cat > product.mesh <<'P'
mesh data=2, model=2

func main(%x: f32[5,6] [data, -], %up: f32[6,9] [-, model], %down: f32[9,6] [model, -]) {
  %h = einsum %x, %up {rule = "b i, i j -> b j"} : f32[5,9]
  %g = gelu %h : f32[5,9]
  %y = einsum %g, %down {rule = "b j, j i -> b i"} : f32[5,6] [data, -]
  return %y
}
P
wants 0 "$meshard" plan product.mesh --max-bytes 72 --max-collectives 1 --json bill.json && printed 'product.mesh: 3 ops in 1 function; mesh data=2, model=2'
json bill.json 'j["bytes"] == 72'
wants 2 "$meshard" plan product.mesh --max-bytes 71 --max-collectives 0 && printed 'busiest device receives 72 bytes'
[[ $(cat err) == "meshard: the bill is over its limits
  bytes that the busiest device receives: 72, at most 71 allowed
  collectives in a step: 1, at most 0 allowed
most of it:
  all_reduce over model of %y@1: 72 bytes, 1 run" ]] || fail "limits: $(cat err)"
wants 0 "$meshard" plan product.mesh --mesh 'data=1, model=1' --max-bytes 0 --max-collectives 0
refused '--batch is of models; the program is read from product.mesh' "$meshard" plan product.mesh --batch 4
refused 'plan takes one program file, not 2' "$meshard" plan product.mesh product.mesh

step=(--model gpt-tiny --batch 4 --seq 16 --mesh data=4)
wants 0 "$meshard" plan "${step[@]}" --diff data zero3 --json diff.json && printed 'from data to zero3' && printed 'parameter %up'
good='j["version"] == 1 and j["before"]["plan"] == "data" and j["after"]["bytes"] > j["before"]["bytes"]
  and j["after"]["peak_bytes"] < j["before"]["peak_bytes"] and j["values"][0]["before"] != j["values"][0]["after"]'
json diff.json "${good//$'\n'/ }"
wants 0 "$meshard" plan "${step[@]}" --diff zero3 zero3 && printed "no value's communication changes"
refused '--diff needs 2 values: --diff A B' "$meshard" plan "${step[@]}" --diff data
refused '--diff takes 2 values without "=": --diff A B' "$meshard" plan "${step[@]}" --diff=data zero3
refused '--diff A B compares two plans and takes no --plan' "$meshard" plan "${step[@]}" --plan data --diff data zero3

# Why: as text, as JSON of its own, and as a page that fetches nothing.
wants 0 "$meshard" plan product.mesh --explain --json why.json --html page.html && printed 'made by einsum %g, %down (product.mesh:6:3)'
json why.json 'j["version"] == 1 and j["kind"] == "explanation" and j["collectives"][0]["change"]["from"] == "[data, -] + sum(model)"'
grep -q 'id="data">{' page.html || fail 'the page has no data'
! grep -qE 'src=|href="[^#]|@import|url\(' page.html || fail 'the page fetches something'
wants 0 "$meshard" plan product.mesh --mode explicit
sed 's/ \[data, -\]$//' product.mesh > free.mesh
wants 2 "$meshard" plan free.mesh --mode explicit && printed 'explicit mode: 1 collective is neither written' err && printed 'behind %y' err
wants 2 "$meshard" plan product.mesh --mode budget=71 && printed '72 is the least known for these layouts' err
finish
