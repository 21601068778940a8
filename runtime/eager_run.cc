// How an op runs: the look-up of what was compiled for it, and what compiles it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>

#include "meshard/base/error.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/eager_context.h"

namespace meshard::eager {
namespace {

uint64_t mix(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9E3779B97F4A7C15u;
  return h ^ h >> 29;
}

uint64_t hash_of(std::string_view text) { return std::hash<std::string_view>()(text); }

uint64_t hash_of(const Attributes& attributes) {
  uint64_t h = 0;
  for (const auto& [name, value] : attributes) {
    h = mix(h, hash_of(name));
    switch (value.index()) {
      case 0: h = mix(h, std::get<bool>(value)); break;
      case 1: h = mix(h, static_cast<uint64_t>(std::get<int64_t>(value))); break;
      case 2: h = mix(h, std::hash<double>()(std::get<double>(value))); break;
      default: h = mix(h, hash_of(std::get<std::string>(value)));
    }
  }
  return h;
}

uint64_t hash_of(const Request& r) {
  uint64_t h = mix(reinterpret_cast<uintptr_t>(r.def), hash_of(*r.attributes));
  for (const DTensor& t : r.operands) h = mix(h, static_cast<uint64_t>(Context::node(t)->kind->id));
  if (r.asked != nullptr) h = mix(h, ~static_cast<uint64_t>(r.asked->id));
  if (r.type != nullptr) {
    h = mix(h, static_cast<uint64_t>(r.type->dtype));
    for (int64_t d : r.type->shape.dims) h = mix(h, static_cast<uint64_t>(d));
  }
  return h;
}

bool same(const Entry& e, const Request& r, uint64_t hash) {
  if (e.hash != hash || e.def != r.def || e.asked != r.asked || e.operands.size() != r.operands.size()) return false;
  for (size_t i = 0; i < e.operands.size(); ++i) {
    if (e.operands[i] != Context::node(r.operands[i])->kind) return false;
  }
  if ((e.type == nullptr) != (r.type == nullptr) || (r.type != nullptr && *e.type != *r.type)) return false;
  return e.attributes == *r.attributes;
}

}  // namespace

void Context::check(std::string_view op, std::span<const DTensor> operands, const std::source_location& where) const {
  for (size_t i = 0; i < operands.size(); ++i) {
    const Node* n = node(operands[i]);
    if (n == nullptr) {
      throw UserError(place_of(where), fmt::format("{}: operand {} is none; a DTensor comes from an Eager or an op", op, i));
    }
    if (n->context != this) {
      throw UserError(place_of(where), fmt::format("{}: operand {} lives on another Eager than operand 0; make both on one", op, i));
    }
    if (n->trace != 0 && n->trace != tracing.number) {
      throw UserError(place_of(where), fmt::format("{}: operand {} stands for a value of a function that has been compiled; return it there",
                                                   op, i));
    }
  }
}

Entry& Context::find(const Request& r, const std::source_location& where) {
  const uint64_t hash = hash_of(r);
  size_t at = hash & (slots.size() - 1);
  while (slots[at] != nullptr) {
    if (same(*slots[at], r, hash)) {
      ++stats.hits;
      return *slots[at];
    }
    at = (at + 1) & (slots.size() - 1);
  }
  return compile(r, hash, where);
}

void Context::insert(Entry* entry) {
  size_t at = entry->hash & (slots.size() - 1);
  while (slots[at] != nullptr) at = (at + 1) & (slots.size() - 1);
  slots[at] = entry;
}

Entry& Context::compile(const Request& r, uint64_t hash, const std::source_location& where) {
  const Place place = place_of(where);
  if (r.def->collective) {
    throw UserError(place, fmt::format("{} is an op of local programs; redistribute() changes a layout", r.def->name));
  }
  auto entry = std::make_unique<Entry>();
  entry->hash = hash;
  entry->id = static_cast<int>(entries.size());
  entry->def = r.def;
  entry->attributes = *r.attributes;
  for (const DTensor& t : r.operands) entry->operands.push_back(node(t)->kind);
  entry->asked = r.asked;
  if (r.type != nullptr) entry->type = std::make_unique<Type>(*r.type);
  const OneOp one = one_op_program(op_table(), mesh, *r.def, *r.attributes, entry->operands, r.asked, r.type, place);
  Compiled compiled;
  if (one.local) {
    compiled.local = one.program;
  } else {
    CompileOptions compile_options{.partition = options.partition, .threads = options.threads, .account = false};
    compile_options.passes.verify = false;
    compiled = meshard::compile(one.program, compile_options);
  }
  entry->bound = bind(std::move(compiled), fmt::format("{}: {}", place.str(), r.def->name));
  if (r.asked != nullptr) entry->bound->results[0] = r.asked;
  ++stats.misses;
  entries.push_back(std::move(entry));
  if (entries.size() * 2 > slots.size()) {
    slots.assign(slots.size() * 2, nullptr);
    for (const auto& e : entries) insert(e.get());
  } else {
    insert(entries.back().get());
  }
  return *entries.back();
}

std::unique_ptr<Bound> Context::bind(Compiled compiled, const std::string& what) {
  auto bound = std::make_unique<Bound>();
  bound->compiled = std::move(compiled);
  const Bill& bill = bound->compiled.bill;
  for (const BillLine& line : bill.lines) {
    if (line.asked) continue;
    bound->unasked_bytes += line.bytes;
    if (options.report) {
      options.report(fmt::format("{}: {} over {} of {}, {} bytes on the busiest device: {}", what, name(line.kind), mesh.atoms_text(line.over),
                                 line.value, line.bytes, line.cause));
    }
  }
  bound->executor = std::make_unique<Executor>(bound->compiled, nullptr, devices, ExecutorOptions{.threads = options.threads, .borrow = true});
  Executor& e = *bound->executor;
  for (int r = 0; r < e.results(); ++r) {
    const FlatValue& v = e.flat().values[static_cast<size_t>(e.flat().results[static_cast<size_t>(r)])];
    bound->results.push_back(kind(v.type, v.layout, 0));
    bound->shares.push_back(e.shares(r));
  }
  for (size_t d = 0; d < devices.size(); ++d) {
    bound->arena_offsets.push_back(bound->arena_bytes);
    bound->arena_bytes += e.memory(static_cast<int>(d)).arena_bytes;
  }
  return bound;
}

void Context::execute(Bound& b, std::span<const DTensor> inputs, std::vector<DTensor>* all, DTensor* first) {
  Executor& e = *b.executor;
  const int here = static_cast<int>(devices.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Node* n = node(inputs[i]);
    for (int d = 0; d < here; ++d) {
      e.place(Executor::Part::input, static_cast<int>(i), d, n->buffer.data() + n->kind->offsets[static_cast<size_t>(d)]);
    }
  }
  std::array<DTensor, 4> few;
  std::vector<DTensor> many(b.results.size() > few.size() ? b.results.size() : 0);
  const std::span<DTensor> results = many.empty() ? std::span(few).first(b.results.size()) : std::span(many);
  for (size_t r = 0; r < results.size(); ++r) {
    if (b.shares[r] >= 0) continue;
    results[r] = make(b.results[r]);
    const Node* n = node(results[r]);
    for (int d = 0; d < here; ++d) {
      e.place(Executor::Part::result, static_cast<int>(r), d, n->buffer.data() + n->kind->offsets[static_cast<size_t>(d)]);
    }
  }
  if (b.arena_bytes > arena.bytes()) arena = Buffer(b.arena_bytes);
  if (b.arena != arena.data()) {
    for (int d = 0; d < here; ++d) e.place(Executor::Part::arena, 0, d, arena.data() + b.arena_offsets[static_cast<size_t>(d)]);
    b.arena = arena.data();
  }
  e.run();
  stats.unasked_bytes += b.unasked_bytes;
  for (size_t r = 0; r < results.size(); ++r) {
    if (b.shares[r] < 0) continue;
    const auto from = static_cast<size_t>(b.shares[r]);
    const DTensor& source = from < inputs.size() ? inputs[from] : results[from - inputs.size()];
    results[r] = renamed(source, b.results[r]);
  }
  if (first != nullptr) *first = results[0];
  if (all != nullptr) all->assign(std::make_move_iterator(results.begin()), std::make_move_iterator(results.end()));
}

DTensor Context::renamed(const DTensor& source, const Kind* kind) {
  const Node* from = node(source);
  if (from->kind->type == kind->type && from->kind->layout == kind->layout) return source;
  MESHARD_CHECK(from->kind->bytes == kind->bytes, "two names of one value have one size");
  DTensor copy = make(kind);
  if (kind->bytes > 0) std::copy_n(from->buffer.data(), kind->bytes, node(copy)->buffer.data());
  return copy;
}

void Context::run(const Request& r, std::vector<DTensor>* all, DTensor* first, const std::source_location& where) {
  bool symbolic = tracing.trace != nullptr;
  for (const DTensor& t : r.operands) {
    const Node* n = node(t);
    if (n == nullptr || n->context != this || n->trace != 0) {
      check(r.def->name, r.operands, where);
      symbolic = true;
    }
  }
  if (symbolic) {
    const std::vector<Value> values = trace(r, where);
    if (first != nullptr) *first = symbol(values[0]);
    for (size_t i = 0; i < values.size() && all != nullptr; ++i) all->push_back(symbol(values[i]));
    return;
  }
  Entry& entry = find(r, where);
  if (tapes.empty()) return execute(*entry.bound, r.operands, all, first);
  Recorded record{&entry, {r.operands.begin(), r.operands.end()}, {}};
  execute(*entry.bound, r.operands, &record.results, nullptr);
  if (first != nullptr) *first = record.results[0];
  if (all != nullptr) *all = record.results;
  for (size_t t = 0; t + 1 < tapes.size(); ++t) tapes[t]->push_back(record);
  tapes.back()->push_back(std::move(record));
}

Value Context::value(const DTensor& t, std::string_view what, const std::source_location& where) const {
  if (node(t)->trace != 0) return node(t)->value;
  throw UserError(place_of(where), fmt::format("{}: {} {} is a value from outside of the function that is being compiled; pass it as an argument", what,
                                               t.type().str(), t.layout_text()));
}

std::vector<Value> Context::trace(const Request& r, const std::source_location& where) {
  std::vector<Value> operands;
  for (const DTensor& t : r.operands) operands.push_back(value(t, r.def->name, where));
  std::vector<Type> results;
  if (r.type != nullptr) results = {*r.type};
  if (r.asked != nullptr && r.def->explicit_type) results = {r.asked->type};
  std::vector<Value> made = tracing.trace->main().apply(*r.def, std::move(operands), *r.attributes, std::move(results), "", place_of(where));
  if (r.asked != nullptr) {
    ValueInfo& info = tracing.trace->main().function().value(made[0].id());
    info.layout = r.asked->layout;
    info.pinned = true;
  }
  return made;
}

}  // namespace meshard::eager
