// The op table: every op of the library, by name. An op is one OpDef in one file of this folder, named in table.cc and
// nowhere else.
#pragma once

#include "meshard/ir/op.h"

namespace meshard {

const OpTable& op_table();

}  // namespace meshard
