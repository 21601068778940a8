// One op with operand types, drawn from the table: a case of an op's entry gives the rule, the attributes and the dtypes;
// the sizes are new, the leading dimensions of "..." more or fewer, and a rule that is an attribute may get other letters.
// No op is named: what an op does not take is drawn again.
#pragma once

#include <optional>

#include "meshard/ir/op.h"
#include "random.h"

namespace meshard::fuzz {

struct Proposal {
  const OpDef* def = nullptr;
  Attributes attributes;
  std::vector<Type> operands, results;
  std::vector<int64_t> below;  // of each operand: integers must be less; 0 for floats
};

class Proposer {
 public:
  explicit Proposer(const OpTable& table);
  // An op, one operand of which has a type of `pool` where that is possible. Floats are `dtype` unless the op converts.
  // None: what was drawn is no op.
  std::optional<Proposal> propose(Rng& rng, Dtype dtype, const std::vector<Type>& pool) const;
  // The ops that are proposed: all that compute something or mark a value, sorted by name.
  const std::vector<std::string>& names() const { return names_; }

 private:
  struct Template {
    Attributes attributes;
    std::vector<Type> operands, results;
    int64_t below = 4;
  };
  struct Entry {
    const OpDef* def;
    std::vector<Template> cases;
  };
  std::vector<Entry> entries_;
  std::vector<std::string> names_;
};

}  // namespace meshard::fuzz
