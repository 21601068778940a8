#!/usr/bin/env bash
# meshard reshard: the steps between two layouts, their bytes and the lower bound.
source "$(dirname "$0")/lib.sh" "$@"
reshard=("$meshard" reshard)

# steps EXPECTED TYPE FROM TO MESH: the collectives, and the bytes of the busiest device.
steps() {
  wants 0 "${reshard[@]}" "$2" "$3" "$4" --mesh "$5" --json bill.json || return
  json bill.json "' '.join(c['op'] for c in j['collectives'] if c['bytes']) + ' ' + str(j['bytes']) == '$1'"
  json bill.json 'j["version"] == 1 and j["flops"] == 0 and j["peak_bytes"] > 0 and j["lower_bound"] <= j["bytes"] <= j["bytes_all_devices"]'
}
steps 'all_to_all 3145728' 'f32[4096,1024]' '[data, -]' '[-, data]' 'data=4'
steps 'all_gather 12582912' 'f32[4096,1024]' '[data, -]' '[-, -]' 'data=4'
steps ' 0' 'f32[4096,1024]' '[-, -]' '[data, -]' 'data=4'
steps ' 0' 'f32[8,8]' '[data, -]' '[data, -]' 'data=2, model=8'
steps 'all_reduce 128' 'f32[4,8]' '[-, -] + sum(model)' '[-, -]' 'model=2'
steps 'reduce_scatter 64' 'f32[4,8]' '[-, -] + sum(model)' '[model, -]' 'model=2'
steps 'all_gather 32' 'f32[8,8]' '[model:2, -]' '[-, model:(2)4]' 'data=2, model=8'
wants 0 "${reshard[@]}" 'f32[0,8]' '[data, -]' '[-, -]' --mesh data=3 && printed 'busiest device receives 0 bytes'
wants 0 "${reshard[@]}" 'f32[5,7]' '[data, -]' '[-, -]' --mesh data=3 && printed 'busiest device receives 112 bytes, all devices 280; lower bound without reductions 112, of all devices 280'
wants 0 "${reshard[@]}" 'f32[16,16]' '[x, y]' '[y, x]' --mesh 'x=4, y=2' && printed '2 messages, about 4032 ns' &&
  printed 'without an exchange: ' && printed 'chosen for the fewest bytes over all devices; by time it is the same'
wants 0 "${reshard[@]}" 'f32[4,4]' '[-, -] + sum(x)' '[-, -]' --mesh 'x=4, y=2' && printed 'in the least time: all_reduce: busiest device 96 bytes, all devices 768, 6 messages'
# A mesh with more devices than could be visited.
wants 0 timeout 5 "${reshard[@]}" 'f32[16777216,64]' '[data, -]' '[-, -]' --mesh data=16777216 && printed 'busiest device receives 4294967040 bytes'

refused 'usage: meshard reshard "f32[4096,1024]" "[data, -]" "[-, data]" --mesh "data=4"' "${reshard[@]}" 'f32[5,7]'
bad() { refused "$1" "${reshard[@]}" "$2" "$3" "$4" --mesh 'data=2, model=3'; }
bad $'FROM:1:2: no axis "dat" in mesh data=2, model=3; did you mean "data"?\n  [dat, -]\n   ^' 'f32[5,7]' '[dat, -]' '[-, -]'
bad $'FROM:1:8: axis data is used twice; an axis splits one dimension, once\n  [data, data]\n         ^' 'f32[5,7]' '[data, data]' '[-, -]'
bad $'TO:1:1: layout [data] has 1 entry, but the tensor has 2 dimensions\n  [data]\n  ^' 'f32[5,7]' '[-, -]' '[data]'
bad $'type:1:8: expected "," but found the end of the text\n  f32[5,7\n         ^' 'f32[5,7' '[-, -]' '[data, -]'
bad $'type:1:1: f32[5000000000,7000000000] has more than 2^62 bytes up to its dimension 1\n  f32[5000000000,7000000000]\n  ^' 'f32[5000000000,7000000000]' '[-, -]' '[data, -]'
bad '[data, -] cannot become [-, -] + max(data): no reshard leaves a max over data pending; only an op does, such as a matrix product split along the dimension it sums over' \
  'f32[5,7]' '[data, -]' '[-, -] + max(data)'
finish
