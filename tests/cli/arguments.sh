#!/usr/bin/env bash
# What a caller can write wrong on the command line, in one process.
source "$(dirname "$0")/lib.sh" "$@"
train=("$meshard" train "${tiny[@]}" --text text)
plan=("$meshard" plan --model gpt-tiny)

# Commands and flags.
refused 'which command? train, plan, partition, reshard, bench or launch; see meshard --help' "$meshard"
refused 'unknown command "trian"; did you mean "train"?; see meshard --help' "$meshard" trian
refused 'unknown flag --stpes; did you mean "--steps"?' "$meshard" train --stpes 3
refused 'unknown flag --frobnicate' "$meshard" plan --frobnicate
refused 'unknown flag --text' "${plan[@]}" --text text
refused 'unexpected word "foo"; flags begin with --' "${train[@]}" foo
refused '--steps is given twice' "${train[@]}" --steps=3
refused '--lockstep takes no value' "${train[@]}" --lockstep=1
refused '--text needs a value: --text FILE|DIR' "$meshard" train --text
refused 'train needs a text: --text FILE or --text FOLDER' "$meshard" train
refused '--steps is "1e3", not a whole number' "$meshard" train --steps 1e3
refused '--steps is "", not a whole number' "$meshard" train --steps ''
refused '--steps is 0, out of the range 1 to 1e+12' "$meshard" train --steps 0
refused '--batch is -1, out of the range 1 to 1e+09' "$meshard" train --batch -1
refused '--batch is 99999999999999999999999999, out of the range 1 to 1e+09' "$meshard" train --batch 99999999999999999999999999
refused '--rate is "nan", not a number' "$meshard" train --rate nan
refused '--rate is -1, out of the range 0 to 1000' "$meshard" train --rate -1
refused '--threads is 0, out of the range 1 to 4096' "$meshard" train --threads 0
refused '--without: no rewrite "shar"; there are fold, share, shorten, drop, regather, ring, onto, epilogue, bucket, overlap, and all; did you mean "share"?' "${plan[@]}" --without drop,shar
refused '--bucket is -1, out of the range 0 to 1e+15' "${train[@]}" --bucket -1
refused '--dtype is "f8", not one of: f32, f64, bf16, f16' "${train[@]}" --dtype f8
refused '--loss-scale is of --dtype f16; add it, or leave out --loss-scale' "${train[@]}" --dtype bf16 --loss-scale 8
refused '--loss-scale 3: it must be a power of two, so that nothing is rounded; take 2' "${train[@]}" --dtype f16 --loss-scale 3
refused "--keep-f32 says what stays f32 with --dtype bf16 or f16; add it, or leave out --keep-f32" "${train[@]}" --keep-f32 logits
refused '--keep-f32: "logit" matches no f32 value; did you mean "logits"?' "${plan[@]}" --dtype bf16 --keep-f32 logit
refused "--keep-f32 logits,: a name is missing; write names with single commas between" "${plan[@]}" --dtype bf16 --keep-f32 logits,
refused '--batch 4 does not divide into --accumulate 3 micro-batches' "${train[@]}" --accumulate 3
refused 'cannot write the log /nonexistent/log; check the folder and its permissions' "${train[@]}" --log /nonexistent/log

# Models.
refused $'model:1:1: no model "gpt-tny"; did you mean "gpt-tiny"?\n  gpt-tny\n  ^' "$meshard" plan --model gpt-tny
refused $'model:1:10: a model has no "layrs"; did you mean "layers"?\n  gpt-tiny:layrs=2\n           ^' "$meshard" plan --model gpt-tiny:layrs=2
refused $'model:1:17: layers is 0; it must be 1 or more\n  gpt-tiny:layers=0\n                  ^' "$meshard" plan --model gpt-tiny:layers=0
refused 'gpt-tiny: heads=3 does not divide d=64; give heads that do, or d_head' "$meshard" plan --model gpt-tiny:heads=3
refused 'the vocabulary has 100 tokens, a text of bytes needs 256; write vocab=256 or more' \
  "$meshard" train --text text --model gpt-tiny:vocab=100

# Meshes.
mesh() { refused "--mesh:1:$1" "${plan[@]}" --plan data --mesh "$2"; }
mesh $'6: axis data has size 0; a size is 1 or more\n  data=0\n       ^' 'data=0'
mesh $'6: axis data has size -2; a size is 1 or more\n  data=-2\n       ^' 'data=-2'
mesh $'6: axis data=99999999999 makes 99999999999 devices; a mesh has at most 2^24 = 16777216\n  data=99999999999\n       ^' 'data=99999999999'
mesh $'6: expected the size of axis data, a whole number, but 9999999999999999999999 does not fit in 63 bits\n  data=9999999999999999999999\n       ^' 'data=9999999999999999999999'
mesh $'19: axis model=65536 makes 65536 times the 65536 of data=65536 devices; a mesh has at most 2^24 = 16777216\n  data=65536, model=65536\n                    ^' 'data=65536, model=65536'
mesh $'9: axis data is given twice, first as data=2; name each axis once\n  data=2, data=2\n          ^' 'data=2, data=2'
mesh $'8: expected "," or the end of the line after data=2\n  data=2 model=2\n         ^' 'data=2 model=2'
mesh $'5: axis data has no size; write data=2 or another number of devices\n  data\n      ^' 'data'

# Plans: names, axes, ranks of layouts, lines that match nothing.
refused '--plan tensr: there is no such file, and no such plan among: data, data_tensor, replicated, tensor, tensor_sequence, tensor_zero3, zero1, zero2, zero3; did you mean "tensor"?' \
  "${plan[@]}" --plan tensr
refused 'cannot read the plan .; check the path and its permissions' "${plan[@]}" --plan .
refused 'data.plan: the plan has no mesh line and none is given; give one, as in --mesh "data=2, model=4"' "${plan[@]}" --plan data
plan_text() {  # MESSAGE LINES: the plan my.plan, on data=2, model=2
  printf 'mesh data=2, model=2\n%b' "$2" > my.plan
  refused "my.plan:$1" "${plan[@]}" --plan my.plan
}
plan_text $'2:26: no axis "modle" in mesh data=2, model=2; did you mean "model"?\n  embedding               [modle, -]\n                           ^' \
  'embedding               [modle, -]\n'
plan_text $'2:29: axis model is used twice; an axis splits one dimension, once\n  embedding           [model, model]\n                              ^' \
  'embedding           [model, model]\n'
plan_text $'2:21: layout [model] has 1 entry, but embedding [257,64] has 2 dimensions\n  embedding           [model]\n                      ^' 'embedding           [model]\n'
plan_text '3: "block.*.wqq" matches nothing; names under block.0: a add bk bo bq bv c clip down down_b einsum g h k m norm1 norm1_b norm2 norm2_b o ...' \
  'embedding [model, -]\nblock.*.wqq          [-, model, -]\n'

# The mesh and the processes.
refused 'the mesh data=2, model=2 has 4 devices, but 1 rank is running; start 4 (mpirun -n 4), change --mesh, or add --lockstep to run all in one process' \
  "${train[@]}" --plan tensor --mesh 'data=2, model=2'

# Help.
wants 0 "$meshard" --help && for word in train plan partition reshard --accumulate tensor_zero3 llama-tiny; do printed "$word"; done
wants 0 "$meshard" train --help && printed '--text FILE|DIR' && ! grep -q -- --explain out || fail 'train --help shows other flags or not its own'
finish
