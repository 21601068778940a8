#!/usr/bin/env bash
# The first C++ block of README.md has to be the text of tests/install/train_mlp.cc, which is built and run there.
#   tests/repo/readme_test.sh ROOT
set -euo pipefail
cd "${1:?readme_test.sh takes the root of a source tree}"
block=$(awk '/^```cpp$/ {if (!seen++) {inside = 1; next}} /^```$/ {inside = 0} inside' README.md)
[[ -n $block ]] || { echo "README.md has no block that begins with \`\`\`cpp"; exit 1; }
diff <(echo "$block") tests/install/train_mlp.cc ||
  { echo "README.md (<) and tests/install/train_mlp.cc (>) differ"; exit 1; }
