// Program text: print and parse, each the inverse of the other.
//
//   meshard 1                                        # version, first line (optional when read)
//   mesh data=2, model=4                             # optional
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
//     call block as block.0 (x = %x@1)
//     call block as block.0..11 (x = %x@1 then y)     # block.1 reads x = %block.0.y, and so on
//     call block_vjp as block.11..0 (y.d = %h.d then x.d, x = %x@1 first %block.#-1.y)
//     repeat 3 call micro as micro (i = index, w.sum = %zero)
//     return %loss, %block.0..11.wq.new -> %block.0..11.wq
//   }
//
// A layout marked with "!" after it (`[data, -]!`) is pinned; layouts of parameters and of text that a user wrote are pinned.
// A run of calls that differ in one number of their prefix prints as one line, and a run of header entries or returned values
// likewise, so the text of a 12-layer model and of a 100-layer one have the same number of lines. The printer's exact rules
// are in print.cc; parse expands them.
#pragma once

#include <string>
#include <string_view>

#include "meshard/ir/program.h"

namespace meshard {

inline constexpr int kTextVersion = 1;

std::string print(const Program& program);
std::string print_op(const Program& program, const Function& function, const Op& op);  // one line, for messages and explain

// Errors (UserError at file:line:column, with the line and a caret): unknown op or function (with a suggestion), a value
// read before it is made or made twice, wrong number of operands, types that don't follow, a text cut in the middle (`the text ends
// inside func main, begun at line 3`), a newer version.
Program parse_program(std::string_view text, std::string_view file, const OpTable& table);

}  // namespace meshard
