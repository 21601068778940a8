// OpDef: the one entry that says all about an op. Passes ask it for properties and never ask which op it is.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/ir/rule.h"
#include "meshard/kernels/kernel.h"
#include "meshard/layout/block.h"
#include "meshard/layout/plan.h"
#include "meshard/mesh/group.h"

namespace meshard {

struct OpDef;
class Vjp;       // ir/trace.h
class Lowering;  // ir/trace.h

struct AttributeSpec {
  std::string_view name;
  Attribute otherwise;    // its type is the attribute's type
  bool required = false;  // a factor size that operands don't give, a rule
};

// A case of the multiplier: operand types and attributes, small enough to run thousands of times.
struct OpCase {
  std::string operands;    // "f32[4,6], i32[4]"; integers are drawn below `below`
  std::string attributes;  // "{eps = 1e-05}"
  std::string results;     // only where they are explicit: "f32[4,6]"
  int64_t below = 4;
};

// What OpDef::reach is asked: which range of dimension `dim` of operand `operand` the op reads to compute `block` of the
// factor that stands there as "t~". `size` is the whole factor's.
struct Reach {
  const Attributes& attributes;
  std::span<const Type> operands;  // global
  int operand = 0, dim = 0;
  int64_t size = 0;
  Block block;

  int64_t extent() const { return operands[static_cast<size_t>(operand)].shape[dim]; }
};

// The ops by which a product is made block by block while the blocks travel round a ring of devices
// (sharding/optimize/ring.h). The rules of `part` and `place` are their attributes, with the letters "ring", a device's
// number in the ring, and "block"; their attribute "offset" says by how much the block is ahead of the device.
struct BlockOps {
  const OpDef* part;   // block ring + offset of a value
  const OpDef* place;  // operand 1 put there in operand 0
  const OpDef* zeros;  // attribute "value"; of explicit type
  const OpDef* sum;    // of two values
  const OpDef* turn;   // the collective that hands each block on to the next device
};

constexpr int kInteger = -2;  // of OpDef::result_dtype: the result is i32

// What an op does in a program of mixed precision (ir/mixed.h), where values are narrow (bf16 or f16) or f32.
enum class Precision : uint8_t {
  follows,   // narrow if all it reads is, else f32
  computes,  // narrow: what it reads is cast
  keeps      // f32: what it reads is cast back
};

struct OpDef {
  std::string_view name;
  std::string_view purpose;  // one sentence with the formula
  std::string_view rule;     // empty: the op's "rule" attribute is its rule
  // Where the rule depends on operand ranks (attention with grouped heads).
  std::string (*rule_for)(std::span<const Type> operands, const Attributes&) = nullptr;
  std::vector<AttributeSpec> attributes;
  int results = 1;
  // Types: -1 = the type of the first operand without a dtype of its own, kInteger = i32, else index of the operand
  // whose dtype result r has. Explicit: as written.
  std::vector<int> result_dtype;                     // missing entries are -1
  std::vector<std::optional<Dtype>> operand_dtypes;  // i32 for ids; missing: any float, equal to the other such
  bool integers = false;                             // operands without a dtype may also be i32, all of them
  // Operands may lack dimensions of "..." or have size 1 there, and are then repeated, as numpy does. Where this is not
  // set all operands have all of them.
  bool repeats = false;
  // What else must hold of types and attributes: the reason why it does not ("last dimension is 3, it must be even"), or
  // "". Called when shapes agree with the rule.
  std::string (*check)(std::span<const Type> operands, std::span<const Type> results, const Attributes&) = nullptr;
  bool explicit_type = false;                  // the result's type is part of the op (fill, iota, random, convert)
  std::vector<std::string_view> result_names;  // "", "rstd", "lse": how further results are called: X, X.rstd

  // Groups of operands through which a pending sum may pass, all of a group pending alike, to all results:
  // add {{0, 1}} jointly, einsum {{0}, {1}} one at a time.
  std::vector<std::vector<int>> linear;
  Reduction combine = Reduction::sum;         // of reduced factors
  std::vector<std::pair<int, int>> in_place;  // {result, operand}: may share memory
  // The operand to which all else of the result is added: it is pending as the result is, so that what devices add to
  // their shares of it is reduced with them. -1: there is none.
  int base = -1;
  const OpDef& (*onto)() = nullptr;  // the op that adds what this one makes to a base, which is its last operand
  bool adds = false;                 // the result is the sum of the two operands
  // Of a product: the op that also adds a bias, its last operand; and those that then apply the activation which their
  // attribute names, giving it alone or with the sum as a second result (sharding/optimize/epilogue.cc).
  const OpDef& (*biased)() = nullptr;
  const OpDef& (*activated)() = nullptr;
  const OpDef& (*activated_beside)() = nullptr;
  bool activation = false;  // a function of each element that those ops know by this op's name
  bool zero_if_value0 = false;  // no operands; with `value` 0 the result may be called a pending sum over anything
  bool remake = false;          // cheap: autodiff makes it again instead of saving it
  bool random = false;
  Role role = Role::none;                // identity ops that mark a parameter's use, gradient and the optimizer's copy
  std::optional<Collective> collective;  // an op of local programs; `over` is in Op
  bool identity = false;                 // result equals operand 0 (roles, reshard, collectives)
  bool cast = false;                     // result equals operand 0 but for its dtype
  Precision precision = Precision::follows;
  // Operands and results that stay f32 beside narrow ones: statistics, sums over many elements, gradients of weights. In
  // a program text they may have either dtype.
  std::vector<int> wide_operands, wide_results;
  bool widens = false;                   // result 0 may be f32 where the operands are narrow: where readers ask for it
  double flops_per_point = 1;            // times the product of all factor sizes

  // Appends ops that compute the operands' cotangents; null: not differentiable (integer operands never are).
  void (*vjp)(Vjp&) = nullptr;
  // Rebuilds the op from ops that allow its `lower` factors to be split; null: they can't be.
  void (*lower)(Lowering&) = nullptr;
  // For rules with "t~". May pass the ends of the dimension only where the op reads it as a ring: the elements are then
  // those at the index modulo the extent. At most `extent` long.
  Block (*reach)(const Reach&) = nullptr;
  // Of products of two operands whose rule is the attribute "rule"; null: it is not made block by block.
  BlockOps (*by_blocks)() = nullptr;

  PrepareFn reference = nullptr;  // plain loops, all dtypes: the specification
  PrepareFn cpu = nullptr;  // tuned; null: the reference serves. May return an empty `run` for what it does not take.
  std::string_view elementwise;  // reserved for fusion: the expression in $0, $1 ...

  double tolerance_f64 = 1e-9, tolerance_f32 = 2e-4, tolerance_bf16 = 5e-2, tolerance_f16 = 1e-2;  // relative to the largest magnitude
  std::vector<OpCase> cases;

  bool wide_operand(size_t i) const;
  bool may_be_wide(size_t result) const;  // a wide result, or the one that widens
  // The types of its results are not all known from the operands.
  bool typed() const { return explicit_type || widens || !wide_results.empty(); }
};

// Throws UserError at `place` for an attribute that the op does not have (with a suggestion), one of another type, and
// a required one that is missing. An integer is taken where a number is asked for. A factor of the rule is an integer
// attribute too: its size. An op whose rule is not its own needs the attribute "rule".
void check_attributes(const OpDef& def, const Attributes& attributes, const Place& place);

// The types of the results; `rule`, if not null, gets the rule bound to them. `results` are the types as written: they
// count where the op has explicit_type, and where a result may be wide and is written as f32; else they are ignored. Attributes must have been checked. Errors as of
// bind_rule, and dtypes that the op does not take: `add: operand 0 is f32[2] but operand 1 is bf16[2]; convert one of
// them`.
std::vector<Type> infer_types(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                              std::span<const Type> results, const Place& place, BoundRule* rule = nullptr);

// The ops by name, sorted. A const list: see ops/table.h.
class OpTable {
 public:
  explicit OpTable(std::vector<const OpDef*> ops);
  const OpDef* find(std::string_view name) const;  // nullptr: there is none
  const OpDef& get(std::string_view name) const;   // InternalError if there is none
  const OpDef& cast() const;  // the op that changes nothing but the dtype
  // The op that performs a collective, or marks a role.
  const OpDef& collective(Collective kind) const;
  const OpDef& role(Role role) const;
  std::span<const OpDef* const> all() const { return ops_; }
  std::vector<std::string> names() const;

 private:
  std::vector<const OpDef*> ops_;
};

}  // namespace meshard
