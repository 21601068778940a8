#!/usr/bin/env bash
# What README.md shows of `meshard plan --explain` is what the command says: each part between "..." stands in its output,
# but for how lines are folded and which lines of models/ are named.
source "$(dirname "$0")/lib.sh" "$@"
readme=$here/../../README.md
command=$(sed -n 's/^\$ meshard \(plan .*--explain\)$/\1/p' "$readme" | head -n 1)
[[ -n $command ]] || fail 'README.md shows no "$ meshard plan ... --explain"'
eval "words=($command)"
wants 0 "$meshard" "${words[@]}"
plain() { sed -E 's/([a-z_]+\.cc):[0-9]+/\1/g' | tr -s ' \n' '  '; }
plain < out > said
# One line for each part.
awk -v command="\$ meshard $command" '
  $0 == command { inside = 1; next }
  inside && /^```$/ { exit }
  inside && /^\.\.\.$/ { print ""; next }
  inside { printf "%s ", $0 }
  END { print "" }' "$readme" | while IFS= read -r part; do
  part=$(plain <<< "$part")
  part=${part#"${part%%[! ]*}"} part=${part%"${part##*[! ]}"}
  [[ -z $part ]] && continue
  echo part >> parts
  grep -qF -- "$part" said || { echo "README.md shows what the command does not say: ${part:0:200}"; echo x >> wrong; }
done
checks=$((checks + $(wc -l < parts)))
[[ ! -e wrong ]] || fail "$(wc -l < wrong) parts of README.md differ from what meshard $command says"
finish
