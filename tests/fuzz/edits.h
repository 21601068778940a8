// Small changes that make a program smaller. Each gives false where it does not apply; what it gives may still be no
// program: verify tells.
#pragma once

#include "meshard/ir/program.h"

namespace meshard::fuzz {

// Renumbers values and ops of f after ops were taken out; `drop` has one entry an op. False: a value is still read.
bool drop_ops(Function& f, const std::vector<bool>& drop);
bool drop_unread(Program& program);  // ops and parameters that nothing depends on; false: there were none
bool drop_return(Program& program, size_t function, size_t index);
bool drop_parameter(Program& program, size_t function, size_t index);
// The op's results become parameters: of main, or of a function that main alone calls, whose calls get inputs then.
bool cut(Program& program, size_t function, size_t op);
// Readers of the op's result read the operand instead.
bool bypass(Program& program, size_t function, size_t op, size_t operand);
bool call_once(Program& program, size_t function, size_t op);  // repeat -> call
bool inline_call(Program& program, size_t function, size_t op);
bool drop_atom(Program& program, AtomId atom);           // of the mesh
bool resize(Program& program, int64_t from, int64_t to);  // every dimension and size that is `from`

}  // namespace meshard::fuzz
