#include "meshard/ir/signature.h"

#include <bit>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"

namespace meshard {
namespace {

struct Key {
  const OpDef* def;
  Attributes attributes;
  std::vector<Type> operands, results;
};

// A key that owns nothing, to look up with.
struct KeyView {
  const OpDef* def = nullptr;
  const Attributes* attributes = nullptr;
  absl::InlinedVector<const Type*, 8> operands, results;
};

KeyView view(const KeyView& key) { return key; }
KeyView view(const Key& key) {
  KeyView out{key.def, &key.attributes, {}, {}};
  for (const Type& t : key.operands) out.operands.push_back(&t);
  for (const Type& t : key.results) out.results.push_back(&t);
  return out;
}

// Doubles by their bits, so that a NaN is found again.
bool same(const Attribute& a, const Attribute& b) {
  const auto *x = std::get_if<double>(&a), *y = std::get_if<double>(&b);
  return x != nullptr && y != nullptr ? std::bit_cast<uint64_t>(*x) == std::bit_cast<uint64_t>(*y) : a == b;
}

bool same(const Attributes& a, const Attributes& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first && same(x.second, y.second); });
}

template <class State>
State hash_types(State state, const absl::InlinedVector<const Type*, 8>& types) {
  for (const Type* t : types) {
    state = State::combine(std::move(state), t->dtype);
    state = State::combine_contiguous(std::move(state), t->shape.dims.data(), t->shape.dims.size());
  }
  return State::combine(std::move(state), types.size());
}

template <class State>
State AbslHashValue(State state, const KeyView& key) {
  state = State::combine(std::move(state), key.def);
  for (const auto& [name, value] : *key.attributes) {
    state = State::combine(std::move(state), name);
    if (const auto* number = std::get_if<double>(&value)) {
      state = State::combine(std::move(state), std::bit_cast<uint64_t>(*number));
    } else {
      state = State::combine(std::move(state), value);
    }
  }
  return hash_types(hash_types(std::move(state), key.operands), key.results);
}

struct Hash {
  using is_transparent = void;
  template <class K>
  size_t operator()(const K& key) const {
    return absl::Hash<KeyView>()(view(key));
  }
};

struct Equal {
  using is_transparent = void;
  template <class A, class B>
  bool operator()(const A& a, const B& b) const {
    const auto by_value = [](const Type* x, const Type* y) { return *x == *y; };
    const KeyView x = view(a), y = view(b);
    return x.def == y.def && same(*x.attributes, *y.attributes) &&
           std::equal(x.operands.begin(), x.operands.end(), y.operands.begin(), y.operands.end(), by_value) &&
           std::equal(x.results.begin(), x.results.end(), y.results.begin(), y.results.end(), by_value);
  }
};

}  // namespace

struct Signatures::Table {
  std::mutex mutex;
  absl::flat_hash_map<Key, std::unique_ptr<const Signature>, Hash, Equal> map;  // only looked up

  const Signature& get(const KeyView& key, const Place& place) {
    const std::lock_guard lock(mutex);
    if (const auto found = map.find(key); found != map.end()) return *found->second;
    Key made{key.def, *key.attributes, {}, {}};
    for (const Type* t : key.operands) made.operands.push_back(*t);
    for (const Type* t : key.results) made.results.push_back(*t);
    check_attributes(*key.def, *key.attributes, place);
    auto bound = std::make_unique<Signature>();
    bound->results = infer_types(*key.def, *key.attributes, made.operands, made.results, place, &bound->rule);
    return *map.emplace(std::move(made), std::move(bound)).first->second;
  }
};

Signatures::Signatures() : table_(std::make_unique<Table>()) {}
Signatures::~Signatures() = default;

const Signature& Signatures::get(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                                 std::span<const Type> results, const Place& place) {
  KeyView key{&def, &attributes, {}, {}};
  for (const Type& t : operands) key.operands.push_back(&t);
  for (const Type& t : def.typed() ? results : std::span<const Type>()) key.results.push_back(&t);
  return table_->get(key, place);
}

const Signature& Signatures::get(const Function& function, const Op& op) {
  MESHARD_CHECK(op.kind == Op::apply && op.def != nullptr, "only what is applied has a signature");
  KeyView key{op.def, &op.attributes, {}, {}};
  for (ValueId v : op.operands) key.operands.push_back(&function.value(v).type);
  if (op.def->typed()) {
    for (ValueId v : op.results) key.results.push_back(&function.value(v).type);
  }
  return table_->get(key, op.source);
}

std::shared_ptr<Signatures> make_signatures() { return std::make_shared<Signatures>(); }

const Signature& signature(const Program& program, const Function& function, const Op& op) {
  MESHARD_CHECK(program.signatures != nullptr, "a program that was moved away is asked");
  return program.signatures->get(function, op);
}

const BoundRule& bound_rule(const Program& program, const Function& function, const Op& op) {
  return signature(program, function, op).rule;
}

}  // namespace meshard
