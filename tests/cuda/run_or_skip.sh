#!/usr/bin/env bash
# run_or_skip.sh MESHARD COMMAND...: the command where MESHARD can use a GPU, else why it cannot, and status 77.
meshard=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
seq 1 2000 > "$scratch/text"
if ! "$meshard" train --model gpt-tiny:layers=1,d=16,heads=2 --batch 2 --seq 16 --steps 1 --validate 0 --text "$scratch/text" \
  --device cuda > "$scratch/out" 2> "$scratch/err" && grep -qE 'no CUDA|no GPU|driver' "$scratch/err"; then
  echo "skipped: $(cat "$scratch/err")"
  exit 77
fi
"$@"
