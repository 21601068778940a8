#!/usr/bin/env bash
# Installs what the build needs and this machine lacks, from Debian 12's packages. Does nothing where all is there.
set -euo pipefail

packages=(g++ cmake ninja-build libopenmpi-dev openmpi-bin libabsl-dev libfmt-dev catch2 libdnnl-dev libhwy-dev
  nlohmann-json3-dev)

missing=()
for package in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)" == "install ok installed" ]] || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "meshard needs these Debian 12 packages, or the same from elsewhere: ${missing[*]}; there is no apt-get here to install them" >&2
  exit 2
fi
run=(env DEBIAN_FRONTEND=noninteractive)
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "meshard needs: apt-get install ${missing[*]}; run that as root, there is no sudo here" >&2
    exit 2
  fi
  run=(sudo "${run[@]}")
fi
echo "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${run[@]}" apt-get update && "${run[@]}" apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  cat "$log" >&2
  echo "apt-get could not install ${missing[*]}; its messages stand above" >&2
  exit 2
fi
