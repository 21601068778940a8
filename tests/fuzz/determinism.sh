#!/usr/bin/env bash
# What is planned does not depend on where memory lies, on the number of threads or on the process: the texts of all
# programs are the same, byte for byte.
#   determinism.sh TEXTS      the program `texts`
set -euo pipefail
texts=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$texts" > "$folder/plain"
"$texts" --allocate 50000000 > "$folder/allocated"
"$texts" --threads 3 > "$folder/threads"
# Without address space randomization, where the system lets a process ask for that.
if setarch -R true 2> /dev/null; then setarch -R "$texts" > "$folder/fixed"; fi
[[ $(wc -l < "$folder/plain") -gt 2000 ]] || { echo "the texts are too short to show anything"; exit 1; }
for other in allocated threads fixed; do
  [[ -f $folder/$other ]] || continue
  if ! cmp "$folder/plain" "$folder/$other"; then
    diff "$folder/plain" "$folder/$other" | head -20
    exit 1
  fi
done
echo "$(wc -l < "$folder/plain") lines, the same in every process"
