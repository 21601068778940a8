#!/usr/bin/env bash
# Builds the command without MPI, as where there is none, and runs what needs several ranks.
#   tests/install/without_mpi.sh FOLDER     where to build; it is kept, so the next time takes less
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$(realpath -m "$1")
"$root/launch/build.sh" "$folder" meshard -D MESHARD_MPI=OFF -D MESHARD_TESTS=OFF -D MESHARD_WERROR=ON
if ldd "$folder/launch/meshard" | grep libmpi; then
  echo 'FAILED: the command is linked to MPI'
  exit 1
fi
for script in start launchers device partition; do
  echo "$script:"
  "$root/tests/cli/$script.sh" "$folder/launch/meshard"
done
