// Mixed precision: a pass that makes f32 values narrow (bf16, f16) where the op table allows it, and puts the casts between.
//
//   Program half = mixed(trace.program(), {.keep_f32 = {"block.*.norm1", "logits"}});
//
// It takes the whole program, after reverse mode and the optimizer, and knows ops by their properties alone:
//   OpDef::precision     what an op computes in;
//   OpDef::wide_*        operands and results that stay f32 beside narrow ones (a norm's weights and statistics);
//   OpDef::widens        a product whose result is f32 where all that reads it asks for that (the gradient of a weight).
// Parameters, states, inputs and what main returns keep their types, so a run is fed and read as before, and checkpoints
// are the same. A parameter is cast before its `use`, so that what is gathered is narrow; X.grad and X.total are f32, so
// that gradients are reduced in f32. A function that is called with other types, or of which other results are wanted
// in f32, gets a copy for each.
#pragma once

#include <string>
#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

struct MixedOptions {
  Dtype narrow = Dtype::bf16;
  // Names, as plans write them, of values that stay f32: "logits", "block.*.y". Of a parameter: its use. What reads such a
  // value computes in f32; a product only where all that it reads is named, and where its result is named it gives f32
  // from narrow operands.
  std::vector<std::string> keep_f32;
  bool optional = false;  // a pattern may match nothing: for a program that has only some of the names
};

// The program must be verified as traced. Errors (UserError): a pattern that matches no f32 value, with the nearest name.
Program mixed(const Program& program, const MixedOptions& options);

}  // namespace meshard
