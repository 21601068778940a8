// Plan: a text that maps names to layouts. Everything about parallelism that a user decides is here and nothing else is:
// data, tensor, sequence parallelism and ZeRO are plan files, and a model never names a mesh axis.
//
//   mesh data=2, model=4
//   tokens, targets     [data, -]
//   block.*.wq          use [-, model, ...]   store [data, model, ...]  # ZeRO-3: kept split, gathered where used
//   block.*.up          use [-, model]        state [data, model]       # ZeRO-1
//   block.*.wo          use [model, ...]      grad [model, ...] + sum(data)
//   block.*.down        [model, -]                                      # one layout for all four
//   router.* optional   [-, -]                                          # may match nothing
//
// A parameter has four roles: use (what ops read), grad, state (of the optimizer), store (between steps). `*` matches one
// part of a dotted name, or a piece of one. For each role the first line that matches a name and gives the role decides, so
// that a line for many names may lay out one role of all of them. A role that no line gives follows: store = use, state =
// store, grad = state. A line that matches nothing is an error unless `optional`; what nothing matches is replicated if it is
// a parameter, and open otherwise. An activation's line is what its consumers read.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/shape.h"
#include "meshard/layout/layout.h"

namespace meshard {

enum class Role : uint8_t { none, use, grad, state, store };
inline constexpr int kRoles = 5;
std::string_view name(Role role);

struct PlanLine {
  std::vector<std::string> patterns;
  bool optional = false;
  struct Entry {
    std::string text;  // "[data, model, ...]"; its rank is that of the tensor it is asked for
    Place place;
    bool given = false;
  };
  Entry roles[kRoles];  // [none]: one layout for all roles
  Place place;
};

bool matches(std::string_view pattern, std::string_view name);

class Plan {
 public:
  Plan() = default;  // everything replicated or open

  // Reads a plan. Syntax errors give file:line:column. Axis names and parts are checked by bind().
  static Plan parse(std::string_view text, std::string_view file = "plan");

  const std::string& file() const { return file_; }
  const std::string& text() const { return text_; }
  std::span<const PlanLine> lines() const { return lines_; }
  const std::optional<Mesh>& mesh() const { return mesh_; }  // the plan's own mesh line

  // The mesh to plan for: `given` (from --mesh) or else the plan's. It gets the cuts that the plan's layouts name. Errors: no mesh
  // at all, or an axis that the plan names and the mesh lacks.
  Mesh bind(const std::optional<Mesh>& given) const;

  // The layout of `name`, of this shape, in a role (none: an input or activation), with the left-out rules above;
  // nullopt: no line matches. `where`, if not null, is set to the place that decided. Errors: wrong rank and the like,
  // naming the tensor and its shape.
  std::optional<Layout> find(std::string_view name, const Shape& shape, Role role, const Mesh& mesh, Place* where = nullptr) const;

  // Throws if a line that is not optional matches none of the names: `"block.*.gate" matches nothing; names under block.0: ...`.
  void check_all_match(std::span<const std::string> names) const;

  // The same plan with every line optional: for programs that have only some of the names (validation, sampling).
  Plan all_optional() const;

 private:
  const PlanLine::Entry* entry(std::string_view name, Role role) const;
  Layout layout(const PlanLine::Entry& entry, const Mesh& mesh, int rank, std::string_view tensor) const;

  std::string file_, text_;
  std::vector<PlanLine> lines_;
  std::optional<Mesh> mesh_;
};

}  // namespace meshard
