#!/usr/bin/env bash
# Any bytes are a text; no bytes, too few and files that are not there are errors.
source "$(dirname "$0")/lib.sh" "$@"
train=("$meshard" train "${tiny[@]}")

refused '--text nothere: there is no such file or folder' "${train[@]}" --text nothere
: > empty
refused '--text empty is empty; give a file or folder with some text' "${train[@]}" --text empty
mkdir none
refused '--text none is empty; give a file or folder with some text' "${train[@]}" --text none
head -c 20 text > short
refused 'the text has 18 bytes to train on and 2 held out, but one sequence takes 17 (--seq 16 and the byte after it); a batch takes 4 of them: give a longer text or a smaller --seq' \
  "${train[@]}" --text short

head -c 3000 /dev/zero > zeros
head -c 3000 /dev/zero | tr '\0' '\377' > ones
head -c 20000 /dev/urandom > random
for i in {0..255}; do printf "\\x$(printf %02x "$i")"; done > all
for i in {1..4}; do cat all all; done > bytes
head -c 30000 /dev/zero | tr '\0' x > line
printf 'tail\0without newline%.0s' {1..100} > nul
mkdir -p folder/inner folder/.hidden && cp random folder/b && cp text 'folder/inner/a name' && : > folder/empty
for bytes in zeros ones random bytes line nul folder; do
  wants 0 "$meshard" train "${small[@]}" --text "$bytes" --steps 2 --sample 20 --validate 1 && printed 'what was seen is what was billed'
  tr -d '\n\t -~' < out | grep -q . && fail "the sample after $bytes has bytes that drive a terminal"
done

# A sample from f32 parameters whose training step is of mixed precision, longer than the model sees at once.
wants 0 "$meshard" train "${small[@]}" --text text --steps 2 --dtype bf16 --sample 40 && printed 'sample:'

# A scale of the loss that is too large: each step that is skipped is named once, its search for the first op leaves no
# trace in the counts, and the log says so.
wants 0 "$meshard" train "${small[@]}" --text text --steps 3 --dtype f16 --loss-scale 68719476736 --log half.jsonl &&
  printed 'skipped step 1: the loss is ' && printed 'it begins where cross_entropy_vjp %logits.d gives inf in %logits.d[0,0,0] on rank 0' &&
  printed 'the loss scale goes from 6.87195e+10 to 3.43597e+10' && printed '3 of 3 steps skipped' && printed 'what was seen is what was billed'
sed -n 2,4p half.jsonl | python3 -c 'import json, sys; print(json.dumps([json.loads(l) for l in sys.stdin]))' > half.json
json half.json '[s["next_loss_scale"] for s in j] == [2.0**35, 2.0**34, 2.0**33] and all(s["skipped"] and s["grad_norm"] is None for s in j)'

# The log: a header, a line a step, the held-out loss.
wants 0 "$meshard" train "${small[@]}" --text text --steps 3 --validate 1 --lockstep --plan tensor --mesh 'model=2' --log log.jsonl
head -n 1 log.jsonl > header.json
json header.json 'all(k in j for k in ("version", "mesh", "plan", "parameters", "flops_per_token", "machine")) and j["mesh"] == {"model": 2}'
sed -n 2,4p log.jsonl | python3 -c 'import json, sys; print(json.dumps([json.loads(l) for l in sys.stdin]))' > steps.json
json steps.json '[s["step"] for s in j] == [1, 2, 3] and all(k in s for s in j for k in ("loss", "grad_norm", "learning_rate", "step_seconds", "tokens_per_second", "communication_bytes", "peak_bytes"))'
json steps.json 'all(s["loss"] > 0 and s["communication_bytes"] > 0 and s["peak_bytes"] > 0 for s in j)'
sed -n '5,$p' log.jsonl > last.json
json last.json 'j["held_out_loss"] > 0 and j["held_out_bigram_entropy"] > 0'
finish
