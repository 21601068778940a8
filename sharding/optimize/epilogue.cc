// epilogue: a bias that is added to a product, and the activation of that sum, become part of the product where nobody
// else reads it. A library of matrix products does both while it writes the result. Where the sum is read further, for a
// gradient, it is a second result.
#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "meshard/ir/signature.h"
#include "meshard/ops/gradients.h"
#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

class Epilogue {
 public:
  Epilogue(const Program& program, const Function& f) : program_(program), f_(f), lives_(program, f), out_(f), keep_(f.ops.size(), true) {}

  Function run() {
    for (size_t i = 0; i < f_.ops.size(); ++i) {
      const Op& add = f_.ops[i];
      if (add.kind != Op::apply || !add.def->adds || !add.guard.empty()) continue;
      if (!with_bias(i, 0)) with_bias(i, 1);
    }
    return kept(out_, keep_);
  }

 private:
  const ValueInfo& info(ValueId v) const { return f_.value(v); }

  // The bias's dimensions as the product's rule names those of the result: the last ones; none where it is no bias.
  std::optional<std::vector<BoundRule::Dim>> bias_dims(const BoundRule& rule, ValueId bias, ValueId sum) const {
    const Shape &small = info(bias).type.shape, &large = info(sum).type.shape;
    if (info(bias).type.dtype != info(sum).type.dtype || small.rank() > large.rank() || small.elements() >= large.elements()) return std::nullopt;
    std::vector<BoundRule::Dim> dims;
    for (int d = 0; d < small.rank(); ++d) {
      const int at = large.rank() - small.rank() + d;
      if (small[d] != large[at] && small[d] != 1) return std::nullopt;
      dims.push_back(small[d] == large[at] ? rule.results[0][static_cast<size_t>(at)] : BoundRule::Dim());
    }
    return dims;
  }

  // The sum ops[i] of a product, its operand `which`, and a bias.
  bool with_bias(size_t i, size_t which) {
    const ValueId product = f_.ops[i].operands[which], bias = f_.ops[i].operands[1 - which], sum = f_.ops[i].results[0];
    const int made = lives_.made[index(product)];
    if (made < 0 || product == bias || lives_.reads[index(product)] != 1 || lives_.in_place[index(product)]) return false;
    const Op& maker = f_.ops[static_cast<size_t>(made)];
    if (maker.kind != Op::apply || maker.def->biased == nullptr || maker.operands.size() != 2 || !maker.guard.empty()) return false;
    if (info(product).type != info(sum).type || info(product).layout != info(sum).layout) return false;
    for (ValueId v : maker.operands) {
      if (info(v).type.dtype != info(sum).type.dtype || lives_.gone[index(v)] <= static_cast<int>(i)) return false;
    }
    const BoundRule& rule = bound_rule(program_, f_, maker);
    const auto dims = bias_dims(rule, bias, sum);
    if (!dims) return false;
    Op& op = out_.ops[i];
    op.def = &maker.def->biased();
    op.operands = {maker.operands[0], maker.operands[1], bias};
    op.attributes = {};
    op.attributes.set("rule", bound_text(rule, std::array{rule.operands[0], rule.operands[1], *dims}, std::array{rule.results[0]}));
    keep_[static_cast<size_t>(made)] = false;
    with_activation(i);
    return true;
  }

  // The activation of the sum that ops[i] now makes.
  void with_activation(size_t i) {
    const ValueId sum = f_.ops[i].results[0];
    if (lives_.in_place[index(sum)]) return;
    for (size_t j = i + 1; j < f_.ops.size() && static_cast<int>(j) <= lives_.last_read[index(sum)]; ++j) {
      const Op& reader = f_.ops[j];
      if (reader.kind != Op::apply || !reader.def->activation || reader.operands[0] != sum || !reader.guard.empty()) continue;
      const ValueId result = reader.results[0];
      if (lives_.in_place[index(result)] || info(result).type != info(sum).type || info(result).layout != info(sum).layout) return;
      Op& op = out_.ops[i];
      const bool alone = lives_.reads[index(sum)] == 1;
      const auto with = alone ? op.def->activated : op.def->activated_beside;
      if (with == nullptr) return;
      op.def = &with();
      op.attributes.set("activation", std::string(reader.def->name));
      op.results = {result};
      if (!alone) op.results.push_back(sum);
      keep_[j] = false;
      return;
    }
  }

  const Program& program_;
  const Function& f_;
  const Lifetimes lives_;
  Function out_;
  std::vector<bool> keep_;
};

}  // namespace

Program epilogue(const Program& local) {
  Program out = local;
  for (Function& f : out.functions) f = Epilogue(local, f).run();
  return out;
}

}  // namespace meshard
