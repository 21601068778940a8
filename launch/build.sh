#!/usr/bin/env bash
# Configures and builds one target, and prints what the compiler says only if it fails.
#   launch/build.sh FOLDER TARGET [flags of cmake]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$1 target=$2
shift 2

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A folder configured before keeps its generator.
[[ -f $build/CMakeCache.txt ]] || set -- -G Ninja "$@"
if ! cmake -S "$root" -B "$build" -D CMAKE_BUILD_TYPE=Release -D CMAKE_REQUIRE_FIND_PACKAGE_MPI=ON "$@" >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
echo "building $target in $build"
begin=$SECONDS
if ! cmake --build "$build" --target "$target" --parallel "$(nproc)" >"$log" 2>&1; then
  # Ninja's lines for what went well are of no use here.
  grep -v '^\[[0-9]*/[0-9]*\] \(Building\|Linking\|Generating\)' "$log" >&2 || true
  exit 1
fi
echo "built in $((SECONDS - begin)) s"
