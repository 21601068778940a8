#!/usr/bin/env bash
# check.sh has to find each breach of a tree that is made to break every rule, and nothing else.
#   tests/repo/self_test.sh SCRATCH
set -euo pipefail
check=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/check.sh
rm -rf "$1"
mkdir -p "$1"
cd "$1"

file() {  # its text is on standard input
  mkdir -p "$(dirname "$1")"
  cat >"$1"
}
file base/shape.h <<'END'
#include <fmt/format.h>
#include "meshard/base/text.h"
#include "meshard/tests/ops/cases.h"
END
file ir/op.cc <<'END'
#include "meshard/base/shape.h"
#include "meshard/kernels/kernel.h"
#include "meshard/kernels/random.h"
END
file autodiff/path.cc <<'END'
#include "meshard/ir/op.h"
  #  include "meshard/sharding/bill.h"
END
file autodiff/path.h <<<'int sum(const Op& op) { return op.def->name == "sum"; }'
file sharding/bill.h <<'END'
#include "meshard/ops/ops.h"
#include "meshard/autodiff/path.h"
END
file sharding/pin.cc <<'END'
// "gelu" in a comment is no use of it.
bool is_sum = part == "sum";
bool is_gelu = def.name == "gelus" || def.name == "gelu";
END
file models/layers.h <<<'#include "meshard/mesh/mesh.h"'
file launch/train.cc <<'END'
#include "meshard/runtime/compile.h"
#include "../models/layers.h"
#include "train.h"
END
file extra/new.h <<<'#include "meshard/base/shape.h"'
file tests/a_test.cc <<'END'
#include "meshard/launch/train.h"
#include "meshard/tests/cases.h"
#include "cases.h"
END
file build-debug/generated.cc <<<'#include "meshard/sharding/bill.h"'
file .hidden/path.cc <<<'#include "meshard/sharding/bill.h"'
file layout/CMakeLists.txt <<<'meshard_library(layout LINKS meshard::mesh meshard::ir)'
file ir/CMakeLists.txt <<<'meshard_library(ir LINKS meshard::layout meshard::kernels)'
file ops/table.cc <<<'static const OpTable table({&gelu_op(), &sum_op()});'
head -c 600 /dev/zero | tr '\0' '\n' | file mesh/mesh.cc
head -c 601 /dev/zero | tr '\0' '\n' | file mesh/mesh.h

cat >expected.txt <<'END'
autodiff/path.cc:2: autodiff may not include meshard/sharding/bill.h
base/shape.h:1: an installed header may include the standard library and meshard only
base/shape.h:3: base may not include meshard/tests/ops/cases.h
extra/new.h: folder extra is not in the table of floors
extra/new.h:1: extra may not include meshard/base/shape.h
ir/op.cc:3: ir may not include meshard/kernels/random.h
launch/train.cc:2: "../models/layers.h" is not written as "meshard/folder/file.h"
launch/train.cc:3: "train.h" is not written as "meshard/folder/file.h"
models/layers.h:1: models may not include meshard/mesh/mesh.h
sharding/bill.h:2: sharding may not include meshard/autodiff/path.h
layout/CMakeLists.txt: layout may not link meshard::ir
mesh/mesh.h: longer than 600 lines
autodiff/path.h:1: a pass names the op "sum"
sharding/pin.cc:3: a pass names the op "gelu"
END
status=0
"$check" . >found.txt || status=$?
diff expected.txt found.txt
[[ $status -eq 1 ]] || { echo "check.sh found breaches and ended with status $status"; exit 1; }
