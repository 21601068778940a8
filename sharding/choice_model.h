// The choice of layouts as a problem: sites that have labels, and values that cost between them. Internal to choose.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "meshard/ir/program.h"
#include "meshard/sharding/min_sum.h"
#include "meshard/sharding/reshard_costs.h"

namespace meshard {

using SplitId = int32_t;
using LabelListId = int32_t;

// What ops that are alike share: a rule bound to types.
struct ChoiceSignature {
  const OpDef* def = nullptr;           // null: a parameter or result of a function, whose dimensions are its factors
  BoundRule rule;
  std::vector<int> result_shapes;
  std::vector<int64_t> result_sizes;    // bytes of an element
  std::vector<std::vector<int>> linear;
  int64_t flops_per_point = 1;
  std::vector<Type> operands;           // of ops that fetch edges (ir/halo.h), with their attributes
  Attributes attributes;
  int kind = 0;                         // signatures of one kind have the same splits: they differ in sizes that no split can tell apart
};

// One way to run the signatures of a kind.
struct Split {
  int kind = 0;
  OpSplit split;
  int group = -1;
  bool parts = false;
  std::vector<LayoutId> needed, made;
  int64_t shares = 1;                   // into how many parts the work is cut, blocks taken as even
  int64_t edge_bytes = 0, edge_messages = 0;  // what the op fetches itself, over all devices; in how many exchanges
};

// What has labels: an op, or an unpinned parameter or result of a function other than main.
struct Site {
  enum Kind : uint8_t { op, param, returned } kind = op;
  int function = 0, index = 0;
  int signature = 0;
  int64_t weight = 1;
  SplitId propagated = 0;
  bool limited = true;                  // no label may cut it into fewer parts than propagation did
};

struct Reader {
  enum Kind : uint8_t {
    label,      // what the label of `site` needs at `port`
    fixed,      // `layout`
    separate,   // `layout`, by a copy of its own made from the value itself
    reduced     // any layout without pending sums
  } kind = label;
  int site = -1, port = 0;
  LayoutId layout = -1;
};

struct ValueNode {
  int function = 0;
  ValueId value = ValueId::none;
  int shape = 0;
  int64_t size = 1;                     // bytes of an element
  int64_t weight = 1;
  int maker = -1, port = 0;             // site; -1: made as `layout`
  LayoutId layout = -1;
  LayoutId propagated = -1;
  bool binds = false;
  std::vector<Reader> readers;
};

// The program as sites and values. Labels are named by SplitIds, which are numbered in a fixed order.
class ChoiceModel {
 public:
  explicit ChoiceModel(const Program& program);
  ~ChoiceModel();

  ReshardCosts& costs() { return costs_; }
  const std::vector<Site>& sites() const { return sites_; }
  const std::vector<ValueNode>& values() const { return values_; }
  const Split& split(SplitId id) const { return splits_[static_cast<size_t>(id)]; }
  const ChoiceSignature& signature(int id) const { return signatures_[static_cast<size_t>(id)]; }
  std::vector<SplitId> propagated() const;   // of each site

  // Lists of labels: the current one first, then those that differ from it along these units (axes, or parts of axes) only.
  LabelListId vary(size_t site, SplitId current, const std::vector<Atoms>& units);
  LabelListId all_labels(size_t site, size_t most);  // every legal label, what propagation said first; more than `most`: none
  LabelListId only(SplitId id);
  const std::vector<SplitId>& list(LabelListId id) const { return lists_[static_cast<size_t>(id)]; }

  // The cost of a value when its maker gives `made` and readers need `needs` (effective, any order, also equal ones; left in order,
  // each once, without what is made).
  Cost value_cost(const ValueNode& value, LayoutId made, std::vector<LayoutId>& needs);
  // The same by parts: what moves for all copies, what for those that go their own way (Reader::separate), and the bytes of the
  // copies' blocks, as often as they are made.
  Cost value_cost(const ValueNode& value, Cost moved, Cost extra, Cost held) const;
  Cost price(const ValueNode& value, const ReshardCosts::Entry& entry) const;
  Cost separate_cost(const ValueNode& value, LayoutId made);
  // What a reader asks of the value made as `made`.
  LayoutId effective(const ValueNode& value, const Reader& reader, const Split* label, LayoutId made);
  Cost own_cost(size_t site, SplitId label);
  LayoutId made(const ValueNode& value, const std::vector<SplitId>& labels) const;
  std::vector<LayoutId> needs(const ValueNode& value, const std::vector<SplitId>& labels, LayoutId made);
  static int64_t bytes_of(Cost cost) { return static_cast<int64_t>(cost >> kBytesShift); }
  static constexpr int kBytesShift = 48, kMessagesShift = 28;

  // Which value of a function (through roles that change nothing) another one is.
  ValueId root(int function, ValueId v) const { return roots_[static_cast<size_t>(function)][index(v)]; }
  bool remade(int function, ValueId v) const;
  // Index of the node of a value; -1: it has none.
  int node(int function, ValueId v) const { return nodes_[static_cast<size_t>(function)][index(v)]; }
  int site_of_op(int function, int op) const { return op_sites_[static_cast<size_t>(function)][static_cast<size_t>(op)]; }

 private:
  void read(const Program& program, int function, int64_t weight);
  void read_edges(const Program& program, int function);
  int add_signature(const OpDef& def, const Op& op, const std::vector<Type>& operands, const std::vector<Type>& results);
  int port_signature(const Type& type);
  void set_kind(ChoiceSignature& signature);
  int add_port(const Program& program, Site::Kind kind, int function, int index, const ValueInfo& value, int64_t weight);
  SplitId intern(int kind, OpSplit split, int group);
  SplitId propagated_split(int signature, const std::vector<Layout>& operands, const std::vector<Layout>& results);
  bool allowed(const Site& site, const Split& split) const;
  void neighbours(const Split& from, const Atoms& unit, bool all_positions, std::vector<SplitId>& out);

  const Mesh mesh_;
  ReshardCosts costs_;
  std::deque<ChoiceSignature> signatures_;
  std::vector<int> kinds_;            // of each kind one of its signatures
  std::deque<Split> splits_;
  std::deque<std::vector<SplitId>> lists_;
  struct Ids;                         // by what determines them; only looked up
  std::unique_ptr<Ids> ids_;
  std::vector<Site> sites_;
  std::vector<ValueNode> values_;
  std::vector<std::vector<ValueId>> roots_;
  std::vector<std::vector<char>> remade_;
  std::vector<std::vector<int>> nodes_, op_sites_, param_sites_, return_sites_;
  Cost work_ = 1, memory_ = 1;        // of the whole program: what ties are shares of
  Cost work_rate_ = 0, memory_rate_ = 0;  // units of a tie for each of them, in 2^-64
  int64_t largest_block_ = 0;         // bytes, under propagation
};

}  // namespace meshard
