// explain_plan: compiles a program and says for each of its collectives why it is there and what would remove it.
//
//   Explained e = explain_plan(trace.program(), plan, Mesh::parse("data=4"));
//   fmt::print("{}", e.why.text());           // the same as `meshard plan --explain`
//   write(e.why.json());
//
// The search for edits compiles the program again for each change of one layout that could matter, so it costs up to
// `most_edits` times what compile costs; 0 looks for none.
#pragma once

#include <optional>

#include "meshard/runtime/compile.h"
#include "meshard/sharding/explain.h"

namespace meshard {

struct ExplainOptions {
  size_t most_edits = 120;
  size_t most_alternatives = 6;  // ops of which the choices not taken are priced; each takes a search over the program an option
  CostModel cost;
};

struct Explained {
  Compiled step;
  Explanations why;
};

// `plan` may be empty for a program text with layouts and a mesh of its own.
Explained explain_plan(const Program& program, const std::optional<Plan>& plan, const std::optional<Mesh>& mesh,
                       const CompileOptions& options = {}, const ExplainOptions& explaining = {});

}  // namespace meshard
