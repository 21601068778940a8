#!/usr/bin/env bash
# Installs what is missing, builds everything with warnings as errors, and runs the tests.
#   tests/run.sh [--slow] [--build FOLDER]     --slow: the long tests too; FOLDER: build, by default
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
skip=(-LE '^slow$')
while [[ $# -gt 0 ]]; do
  case $1 in
    --slow) skip=() ;;
    --build)
      build=${2:?--build needs a folder}
      shift
      ;;
    *)
      echo "tests/run.sh: unknown flag $1; it takes --slow and --build FOLDER" >&2
      exit 2
      ;;
  esac
  shift
done

"$root/launch/install_packages.sh"
"$root/launch/build.sh" "$build" all -D MESHARD_TESTS=ON -D MESHARD_WERROR=ON
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cd "$build"
exec ctest --output-on-failure --no-tests=error -j "$(nproc)" "${skip[@]}"
