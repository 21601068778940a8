#!/usr/bin/env bash
# meshard plan: every plan file for both families on a virtual mesh, and the bill as JSON.
source "$(dirname "$0")/lib.sh" "$@"

good='j["version"] == 1 and j["mesh"] == {"data": 2, "model": 2} and j["peak_bytes"] > 0 and j["flops"] > 0
  and j["bytes_all_devices"] >= j["bytes"] > 0 and sum(c["bytes_all_devices"] for c in j["collectives"]) == j["bytes_all_devices"]
  and all(c["op"] and c["axes"] and isinstance(c["axes"], list) and c["group"] > 1 and c["count"] > 0 and c["bytes"] > 0
          and "%" in c["value"] and c["cause"] for c in j["collectives"])'
good=${good//$'\n'/ }
for plan in data data_tensor tensor tensor_sequence tensor_zero3 zero1 zero2 zero3; do
  for model in gpt-tiny llama-tiny; do
    wants 0 "$meshard" plan --model $model --batch 4 --seq 16 --plan $plan --mesh 'data=2, model=2' --json bill.json && printed 'communication bill of one step'
    json bill.json "$good"
  done
done
wants 0 "$meshard" plan --model gpt-tiny && printed 'no communication'
wants 0 "$meshard" plan --model gpt-tiny --plan tensor --mesh model=3 --without bucket --explain && printed 'made by mean %nll (model.cc:'

begin=$SECONDS
wants 0 "$meshard" plan --model gpt-124m --plan data_tensor --mesh 'data=64, model=16' --batch 1024 --seq 1024 --json bill.json
json bill.json 'sorted(set(c["group"] for c in j["collectives"])) == [16, 64, 1024]'
((SECONDS - begin <= 5)) || fail "planning on 1,024 devices took $((SECONDS - begin)) s"
refused 'cannot write /nonexistent/bill; check the folder and its permissions' bash -c '"$0" plan --model gpt-tiny --json /nonexistent/bill > /dev/null' "$meshard"
finish
