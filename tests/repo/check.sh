#!/usr/bin/env bash
# Holds a source tree against the rules that a compiler does not check, and prints each place that breaks one.
#   tests/repo/check.sh ROOT          status 0: none does
set -euo pipefail
rules=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "${1:?check.sh takes the root of a source tree}"

# Sources, without hidden folders and build folders.
sources() {
  find . -mindepth 1 \( -name '.*' -o -name 'build*' \) -prune -o \
    -type f \( -name '*.h' -o -name '*.cc' -o -name '*.cu' "$@" \) -print | sort
}

includes() {
  sources | xargs awk -v table="$rules/floors.txt" '
    BEGIN {
      while ((getline line < table) > 0) {
        if (line ~ /^#/ || line == "") continue
        split(line, part, ":")
        known[part[1]] = 1
        n = split(part[2], words, " ")
        for (i = 1; i <= n; ++i) allowed[part[1], words[i]] = 1
      }
    }
    function folder(path) { sub(/^\.\//, "", path); sub(/\/.*/, "", path); return path }
    FNR == 1 {
      file = substr(FILENAME, 3)
      from = folder(FILENAME)
      if (!(from in known)) { print file ": folder " from " is not in the table of floors"; broken = 1 }
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
      match($0, /"[^"]*"/)
      path = substr($0, RSTART + 1, RLENGTH - 2)
      if (path !~ /^meshard\//) {
        if (path !~ /^(hwy|fmt|absl)\// && !(from == "tests" && path !~ /\//)) { print file ":" FNR ": \"" path "\" is not written as \"meshard/folder/file.h\""; broken = 1 }
        next
      }
      sub(/^meshard\//, "", path)
      to = folder(path)
      if (to == from || ((from, to) in allowed) || ((from, path) in allowed)) next
      if (((from, "*") in allowed) && to != "tests") next
      print file ":" FNR ": " from " may not include meshard/" path
      broken = 1
    }
    # A header that is installed shows no type of another library, whose version an embedder chooses.
    /^[ \t]*#[ \t]*include[ \t]*[<"](absl|fmt|nlohmann|hwy|dnnl|oneapi|mpi|catch2)/ && file ~ /^[a-z]+\/[^\/]*\.h$/ && from != "tests" {
      print file ":" FNR ": an installed header may include the standard library and meshard only"
      broken = 1
    }
    END { exit broken }'
}

links() {
  local broken=0 folder to
  for folder in $(sed -n 's/^\([a-z]*\):.*/\1/p' "$rules/floors.txt"); do
    [[ -f $folder/CMakeLists.txt ]] || continue
    grep -q "^$folder: \*" "$rules/floors.txt" && continue
    for to in $(grep -oE 'meshard::[a-z]+' "$folder/CMakeLists.txt" | sed 's/meshard:://' | sort -u); do
      grep -qE "^$folder:.* $to( |/|$)" "$rules/floors.txt" || { echo "$folder/CMakeLists.txt: $folder may not link meshard::$to"; broken=1; }
    done
  done
  return $broken
}

lengths() {
  sources -o -name '*.sh' -o -name '*.cmake' | xargs awk '
    FNR == 601 { print substr(FILENAME, 3) ": longer than 600 lines"; broken = 1 }
    END { exit broken }'
}

# A pass asks an op for its properties and never asks which op it is.
op_names() {
  [[ -f ops/table.cc ]] || return 0
  local names
  names=$(grep -oE '&[a-z_0-9]+_op\(\)' ops/table.cc | sed 's/^&//; s/_op()$//')
  [[ -n $names ]] || { echo "ops/table.cc: no op is named as &NAME_op()"; return 1; }
  # These are names of values, parts of X.grad, X.sum and X.total, which plans lay out by role, and of attributes.
  sources | grep -E '^\./(sharding|autodiff|runtime)/' | xargs -r awk -v names="$names" '
    BEGIN {
      n = split(names, list, "\n")
      for (i = 1; i <= n; ++i) op[list[i]] = 1
      value["sharding/pin.cc", "grad"] = value["sharding/pin.cc", "sum"] = value["sharding/pin.cc", "total"] = 1
      value["runtime/dtensor_functions.cc", "scale"] = 1
      value["sharding/optimize/ring.cc", "offset"] = value["sharding/optimize/ring_find.cc", "offset"] = 1
    }
    /^[ \t]*(\/\/|#)/ { next }
    {
      file = substr(FILENAME, 3)
      rest = $0
      while (match(rest, /"[a-z_0-9]+"/)) {
        word = substr(rest, RSTART + 1, RLENGTH - 2)
        rest = substr(rest, RSTART + RLENGTH)
        if ((word in op) && !((file, word) in value)) { print file ":" FNR ": a pass names the op \"" word "\""; broken = 1 }
      }
    }
    END { exit broken }'
}

status=0
for rule in includes links lengths op_names; do $rule || status=1; done
exit $status
