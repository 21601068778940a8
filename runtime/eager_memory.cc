// Memory of DTensors.
#include <bit>

#include "meshard/runtime/eager_context.h"

namespace meshard::eager {
namespace {

constexpr int64_t kSmallest = kAlignment * 4;

}  // namespace

int64_t Pool::round_up(int64_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 4;
  return (bytes + step - 1) / step * step;
}

size_t Pool::number(int64_t rounded) {
  const int octave = std::countl_zero(uint64_t{1}) - std::countl_zero(static_cast<uint64_t>(rounded));
  const int64_t quarter = (rounded >> (octave - 2)) & 3;
  return static_cast<size_t>(octave) * 4 + static_cast<size_t>(quarter);
}

Buffer Pool::take(int64_t bytes) {
  if (bytes == 0) return {};
  const int64_t rounded = round_up(bytes);
  const size_t n = number(rounded);
  used_ += rounded;
  if (n < free_.size() && !free_[n].empty()) {
    Buffer buffer = std::move(free_[n].back());
    free_[n].pop_back();
    idle_ -= rounded;
    return buffer;
  }
  return Buffer(rounded);
}

void Pool::give(Buffer buffer) {
  const int64_t bytes = buffer.bytes();
  if (bytes == 0) return;
  used_ -= bytes;
  if (idle_ + bytes > most_idle_) return;
  const size_t n = number(bytes);
  if (n >= free_.size()) free_.resize(n + 1);
  free_[n].push_back(std::move(buffer));
  idle_ += bytes;
}

Node* Context::make_node(const Kind* kind) {
  Node* n = nullptr;
  if (spare.empty()) {
    n = new Node;
  } else {
    n = spare.back();
    spare.pop_back();
  }
  n->references = 1;
  n->context = this;
  n->kind = kind;
  ++references;
  return n;
}

DTensor Context::make(const Kind* kind) {
  DTensor t(make_node(kind));
  t.node_->buffer = pool.take(kind->bytes);
  return t;
}

DTensor Context::symbol(Value value) {
  const ValueInfo& info = value.builder().function().value(value.id());
  DTensor t(make_node(kind(info.type, Layout::open(info.type.shape.rank()), info.below)));
  t.node_->value = value;
  t.node_->trace = tracing.number;
  return t;
}

void Context::drop(Node* node) {
  pool.give(std::move(node->buffer));
  node->buffer = Buffer();
  node->value = Value();
  node->trace = 0;
  spare.push_back(node);
  release();
}

Context::Context(const Mesh& m, EagerOptions o) : mesh(m), options(std::move(o)), slots(64), pool(options.idle_bytes) {}

Context::~Context() {
  for (Node* n : spare) delete n;
}

}  // namespace meshard::eager
