// Rules: what an op does to dimensions, as text. A name is a factor.
//
//   "b t i, i j -> b t j"                  einsum: i is reduced
//   "... c -> ... c | whole(c)"            softmax: a row stays on one device
//   "b t, v d -> b t d"                    embedding: v only in an operand; split, it leaves a pending sum
//   "..., , -> ..."                        an empty operand is a scalar
//   "b t (h e) -> b h t e"                 a dimension made of factors, major first; h or e is given as an attribute
//   "b t d -> 1 d"                         "1": a dimension of size 1 with no factor
//   "... v, ... -> ... | lower(v)"         v may be split: the op is then lowered to a list of other ops
//   "b t~ c, k c o -> b t o | size(t=5)"   a dimension of a size of its own, split as t is; for a block of t the op reads
//                                          a range of it (OpDef::reach), and fetches what of it other devices hold
//   "... -> "                              everything reduced
//
// In operands and a result: passes through. Only in operands: reduced, for each result by itself. Only in results:
// made, its size an attribute of the same name (or from an explicit type, or a mark size(name=5)). "..." stands for any
// leading dimensions, aligned at the last one as in numpy. Where the op repeats operands (OpDef::repeats), one may lack
// leading ones, or have size 1 where another has more.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/attributes.h"
#include "meshard/base/shape.h"
#include "meshard/layout/layout.h"

namespace meshard {

struct OpDef;

struct Factor {
  std::string name;  // factors of "..." are called "...0", "...1", from the first dimension on
  int64_t size = 1;
  bool whole = false;  // may not be split
  bool lower = false;  // splitting it lowers the op
};

// A rule with "..." spelled out and all sizes known.
struct BoundRule {
  using Dim = std::vector<int>;  // indices into factors, major first; empty: size 1
  std::vector<Factor> factors;   // in order of first appearance
  std::vector<std::vector<Dim>> operands, results;
  // "t~": a dimension of an operand whose size is its own, but which is split as its factor is.
  struct Halo {
    int operand = 0, dim = 0, factor = 0;
  };
  std::vector<Halo> halos;
  bool zero = false;  // the result is zero everywhere (OpDef::zero_if_value0): it may pend as a sum over anything

  bool in(const std::vector<Dim>& dims, int factor) const;
  bool in_operands(int factor) const;
  bool reduced(int factor, int result) const;  // in some operand, not in this result
  int64_t points() const;                      // product of all factor sizes
};

// A rule as written, parsed once.
struct Rule {
  struct Term {
    std::vector<std::vector<std::string>> dims;  // "..." is the dim {"..."}; "1" is {}
    std::vector<size_t> halos;                   // the dims written with "~"
  };
  std::vector<Term> operands, results;
  std::vector<std::string> whole, lower;
  std::vector<std::pair<std::string, int64_t>> sizes;

  bool names(std::string_view factor) const;  // in an operand or result

  static Rule parse(std::string_view text, const Place& place = {});
  std::string str() const;
};

// The text of an op's rule for these operands: what rule_for says, else its own, else its "rule" attribute or that
// one's default.
std::string rule_text(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                      const Place& place);

// Binds the op's rule to operand types. `results` may be empty, then they are inferred; made "..." factors need them.
// Errors are UserErrors at `place` naming the op, both sizes and their places:
// `einsum "b m k, b k n -> b m n": factor k is 64 in operand 0 dimension 2 but 32 in operand 1 dimension 1`.
BoundRule bind_rule(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                    std::span<const Type> results, const Place& place);
std::vector<Shape> result_shapes(const BoundRule& rule);

// For each factor the atoms that split it.
using FactorAtoms = std::vector<Atoms>;

// Why this assignment is not allowed ("" if it is): a `whole` factor split; an atom used twice; in a dimension of
// several factors, a split of a factor that is not the last which does not divide it, or below a factor not split down
// to 1.
std::string illegal_split(const Mesh& mesh, const BoundRule& rule, const FactorAtoms& atoms);

// The layout of a tensor whose dimensions are `dims`; nothing pending.
Layout layout_from_factors(const std::vector<BoundRule::Dim>& dims, const FactorAtoms& atoms);
// The atoms that `layout` puts on the factors of `dims`, poured major first; factors not in `dims` stay as they are in
// `atoms`. false: it can't be said in factors (a part that does not divide), and `atoms` gets what could.
bool pour_layout(const Mesh& mesh, const BoundRule& rule, const std::vector<BoundRule::Dim>& dims, const Layout& layout,
                 FactorAtoms& atoms);

// The assignment under which an op of a local program runs, from the layouts of its operands and results, with the
// atoms that pass through pending. The reverse of result_layouts. Returns a reason instead where the layouts do not
// agree with the rule.
struct OpSplit {
  FactorAtoms atoms;
  std::array<AtomSet, kReductions> passing;  // pending atoms that pass through the op's linear operands
};
std::optional<OpSplit> find_split(const Mesh& mesh, const OpDef& def, const BoundRule& rule,
                                  std::span<const Layout> operands, std::span<const Layout> results, std::string* why);
// The layouts that results have when the op runs under `split`: reduced factors leave their atoms pending.
std::vector<Layout> result_layouts(const OpDef& def, const BoundRule& rule, const OpSplit& split);
// The layouts that the operands need: factors' atoms, and the passing atoms pending on the operands of linear group
// `group` (index into def.linear; -1: none). A base (OpDef::base) is pending as the result.
std::vector<Layout> operand_layouts(const OpDef& def, const BoundRule& rule, const OpSplit& split, int group);

}  // namespace meshard
