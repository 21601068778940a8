// edits: every change of one layout of a plan or of a program text by one axis: dropped from a dimension, put on one, or moved
// to another; and a layout given to a value that had none. `explain` searches them for the one that removes a collective,
// the error of explicit mode for the lines to write.
//
//   for (const LayoutEdit& edit : edits_of(closed, plan, asked)) {
//     const auto changed = apply(edit, program, plan);     // program and plan with this one change
//   }
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "meshard/layout/plan.h"
#include "meshard/sharding/bill.h"
#include "meshard/sharding/explain.h"

namespace meshard {

struct LayoutEdit {
  Place place;          // of the layout in the plan or the text; line 0: a line is added to the plan
  std::string before;   // the layout there: "[data, -]"; "" where there is none
  std::string after;
  std::string pattern;  // of a line that is added: "block.*.add"
  std::string role;     // of a plan line that gives one: use, grad, state, store
  std::string function, value;  // in a program text: whose layout it is

  std::string text() const;  // "store [data, -] -> [-, -]", "add the line \"block.*.add [-, model, -]\""
  bool operator==(const LayoutEdit&) const = default;
};

// The changes of a layout's text by one axis, over the mesh's axes that have more than one device:
// "[data, -]" -> "[-, -]", "[-, data]", "[(data,model), -]", "[data, model]". "..." stays.
std::vector<std::string> layouts_near(const std::string& layout, const Mesh& mesh);

// The edits of the layout at one pin. `plan` is null for a program text without one.
std::vector<LayoutEdit> edits_of(const Program& closed, const Plan* plan, const Asked& pin);
// Layouts that could be written for a value that has none: as it is made without its sums, each sum scattered over a
// dimension, and as it is read. `name` is "block: %add", as in a bill.
std::vector<LayoutEdit> edits_that_pin(const Program& closed, const Plan* plan, const std::string& name, const std::string& from, const std::string& to);

struct Edited {
  Program program;
  std::optional<Plan> plan;
};
// UserError where the plan or the program does not take it.
Edited apply(const LayoutEdit& edit, const Program& program, const Plan* plan);

// The bill of a program under a plan; a UserError says that the edit is no legal one.
using Replan = std::function<Bill(const Program&, const Plan*)>;

// Looks for the edits that remove each collective, those of the largest ones first, and compiles each edit once, at most
// `most` of them. Best are those that raise flops by 5 % at most, then by bytes of all devices, then by memory.
void find_edits(Explanations& all, const Program& closed, const Program& program, const Plan* plan, const Replan& replan, size_t most);

}  // namespace meshard
