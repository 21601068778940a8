// Products of two values, by a rule of the caller's.
#include <algorithm>
#include <array>

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

std::string einsum_rule(std::span<const Type>, const Attributes& attributes) {
  const std::string_view rule = attributes.text("rule");
  check_none_made("einsum", rule);
  return std::string(rule);
}

// The gradient is an einsum with letters exchanged: da = (result, b -> a) of the cotangent and b, db = (a, result ->
// b). A letter that only the operand itself has was summed on its own: its cotangent is repeated.
void einsum_vjp(Vjp& v) {
  const std::array<Type, 2> types{v.operand(0).type(), v.operand(1).type()};
  const BoundRule rule = bind_rule(einsum_op(), v.attributes(), types, {}, v.builder().source());
  for (size_t i = 0; i < 2; ++i) {
    if (!v.needs(static_cast<int>(i))) continue;
    const auto& mine = rule.operands[i];
    const auto& other = rule.operands[1 - i];
    const auto& result = rule.results[0];
    std::vector<BoundRule::Dim> known;
    Attributes lonely;
    for (size_t d = 0; d < mine.size(); ++d) {
      const bool alone =
          std::all_of(mine[d].begin(), mine[d].end(), [&](int f) { return !rule.in(other, f) && !rule.in(result, f); });
      if (alone && !mine[d].empty()) {
        lonely.set(factor_name(rule, mine[d][0]), types[i].shape.dims[d]);
      } else {
        known.push_back(mine[d]);
      }
    }
    Value theirs = v.operand(static_cast<int>(1 - i));
    Value cotangent =
        i == 0 ? einsum(bound_text(rule, std::array{result, other}, std::array{known}), v.cotangent(), theirs)
               : einsum(bound_text(rule, std::array{other, result}, std::array{known}), theirs, v.cotangent());
    if (!lonely.empty())
      cotangent = broadcast(cotangent, bound_text(rule, std::array{known}, std::array{mine}), lonely);
    v.set(static_cast<int>(i), cotangent);
  }
}

BlockOps ring_blocks() { return {&ring_part_op(), &ring_place_op(), &fill_op(), &add_op(), &turn_op()}; }

}  // namespace

const OpDef& einsum_op() {
  static const OpDef def = {
      .name = "einsum",
      .purpose = "the products of a and b, summed over every letter that the result lacks",
      .rule_for = einsum_rule,
      .attributes = {{"rule", std::string(), true}},
      .repeats = true,
      .linear = {{0}, {1}},
      .biased = einsum_bias_op,
      .precision = Precision::computes,
      .widens = true,
      .flops_per_point = 2,
      .vjp = einsum_vjp,
      .by_blocks = ring_blocks,
      .reference = reference::einsum,
      .cpu = cpu::einsum,
      .cases = {{"f32[5,3], f32[3,4]", "{rule = \"m k, k n -> m n\"}", "f32[5,4]"},
                {"f32[2,5,3], f32[4,3]", "{rule = \"b t d, v d -> b t v\"}", "f32[2,5,4]"},
                {"f32[2,3,5,2], f32[3,2,4]", "{rule = \"b h t e, h e d -> b t d\"}", "f32[2,5,4]"},
                {"f32[2,5,3], f32[3,2,1]", "{rule = \"b t d, d h e -> b h t e\"}", "f32[2,2,5,1]"},
                {"f32[2,5,3], f32[2,5,4]", "{rule = \"b t d, b t f -> d f\"}", "f32[3,4]"},
                {"f32[5,3], f32[3]", "{rule = \"... d, d -> ...\"}", "f32[5]"},
                {"f32[5], f32[3]", "{rule = \"m, n -> m n\"}", "f32[5,3]"},
                {"f32[5,3], f32[5]", "{rule = \"b t, b -> b\"}", "f32[5]"},
                {"f32[5,3], f32[5,3]", "{rule = \"b t, b t -> \"}", "f32[]"},
                {"f32[2,1,3,4,2], f32[2,1,3,2,2]", "{rule = \"a b c m k, a b c k n -> a b c m n\"}", "f32[2,1,3,4,2]"},
                {"f32[2,3,4], f32[3,2,4]", "{rule = \"a b c, b a c -> c b a\"}", "f32[4,3,2]"},
                {"f32[0,3], f32[3,4]", "{rule = \"m k, k n -> m n\"}", "f32[0,4]"},
                {"f32[5,0], f32[0,4]", "{rule = \"m k, k n -> m n\"}", "f32[5,4]"},
                {"f32[3,17,33], f32[33,65]", "{rule = \"b t d, d f -> b t f\"}", "f32[3,17,65]"},
                {"f32[3,17,65], f32[33,65]", "{rule = \"b t f, d f -> b t d\"}"},
                {"f32[3,17,33], f32[3,17,65]", "{rule = \"b t d, b t f -> d f\"}"},
                {"f32[2,9,24], f32[24,3,8]", "{rule = \"b t d, d h e -> b h t e\"}"},
                {"f32[2,3,9,8], f32[3,8,24]", "{rule = \"b h t e, h e d -> b t d\"}"},
                {"f32[2,3,9,8], f32[2,3,11,8]", "{rule = \"b h t e, b h s e -> b h t s\"}"},
                {"f32[1,1,33], f32[33,65]", "{rule = \"b t d, d f -> b t f\"}"},
                {"f32[3,67], f32[21,67]", "{rule = \"m k, n k -> m n\"}"},
                {"f32[4,67], f32[67,21]", "{rule = \"m k, k n -> n m\"}"},
                {"f32[2,3,1,8], f32[3,8,21]", "{rule = \"b h t e, h e d -> b t d\"}"},
                {"f32[33,19], f32[19]", "{rule = \"m k, k -> m\"}"}},
  };
  return def;
}

}  // namespace meshard
