// Program text: print and parse, each the inverse of the other.
//
//   meshard 1                                        # version, first line (optional when read)
//   mesh data=2, model=4                             # optional; layouts need it
//   func mlp(%x: f32[32,128,1024] [data, -, -], %up: f32[1024,4096] [-, model]) {
//     %h = einsum %x, %up {rule = "b t i, i j -> b t j"} : f32[32,128,4096] [data, -, model]
//     %a, %a.rstd = rms_norm %h, %w {eps = 1e-05} : f32[..] [..], f32[..] [..]
//     %y@1 = all_gather %y {over = model} : f32[..] [..]
//     %z@1 = start all_reduce %z {over = (data,model)} : f32[..] [..]
//     wait %z@1
//     %g = gelu %h {..} at pipe=2 : f32[..]          # guard
//     return %h, %w2 -> %w                            # in place
//   }
//   func main(%tokens: i32[3,5] [data, -] below=13, %w: f32[7] [data] param init=normal(0.02),
//             %w.m: f32[7] [data] state of %w, %block.0..11.wq: f32[7,3,2] [data, model, -] param) {
//     call block as block.0 (x = %x@1)                # parameter n that is not written binds to %block.0.n
//     call block as block.0..11 (x = %block.#-1.y first %x@1)
//     call block_vjp as block.11..0 (y.d = %block.#+1.x.d first %h.d, x = %block.#-1.y last %x@1)
//     repeat 3 call micro as micro (i = index, w.sum = %zero)
//     return %loss, %block.0..11.wq.new -> %block.0..11.wq
//   }
//
// Types are written for parameters and for results of ops; a call's result n is called %block.0.n (also where the
// function returns %n@k) and has the type and layout that the function returns.
//
// Pinned layouts: where any layout in a text is followed by "!" (`[data, -]!`), those with a mark are pinned; where
// none is, all are, so what a user writes is pinned. Printing marks only where a program has layouts of both kinds.
//
// Runs. Of header entries and of returned values, a sequence that repeats with one number of its names counting up is
// written once with a range, `%block.0..11.wq`. Entries next to one another whose first ranges stand behind the same
// parts belong together and are expanded index by index: all of block.0, then all of block.1. A ";" in place of a ","
// ends a run. Of calls, those that differ in one number of their prefix, counting up or down by one, are a line: `#` is
// the number of each call, `first` says what the first call in program order reads instead and `last` the last. So the
// text of a 12-layer model and of a 100-layer one have the same number of lines. The printer's exact rules are in
// print.cc and runs.h; parse expands them.
#pragma once

#include <string>
#include <string_view>

#include "meshard/ir/program.h"

namespace meshard {

inline constexpr int kTextVersion = 1;

std::string print(const Program& program);
// One line, for messages and explain. Ids must be in range.
std::string print_op(const Program& program, const Function& function, const Op& op);

// The last function is main; where one is called main it must be the last.
// Errors (UserError at file:line:column, with line and caret): unknown op or function (with a suggestion), a value
// read before it is made or made twice, wrong number of operands, types that don't follow, a text cut in the middle
// (`the text ends inside func main, begun at line 3`), a newer version. What is parsed still wants verify().
Program parse_program(std::string_view text, std::string_view file, const OpTable& table);

// Whether both say the same: functions, names, types, layouts, ops in order. Ids, places and what is pinned may differ.
// If not, and `why` is not null, it says where.
bool equal(const Program& a, const Program& b, std::string* why = nullptr);

}  // namespace meshard
