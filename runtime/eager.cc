// Eager and DTensor: what users hold.
#include <fmt/format.h>

#include <cmath>

#include "meshard/base/error.h"
#include "meshard/base/text.h"
#include "meshard/collectives/lockstep.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/ops.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/eager_context.h"

namespace meshard {

using eager::Context;
using eager::Kind;
using eager::Node;

namespace eager {

const Kind* Context::kind(const Type& type, const Layout& layout, int64_t below) {
  std::unique_ptr<Kind>& k = kinds[fmt::format("{} {} {}", type.str(), layout.str(mesh), below)];
  if (k != nullptr) return k.get();
  k = std::make_unique<Kind>();
  k->type = type;
  k->layout = layout;
  k->below = below;
  k->id = static_cast<int>(kinds.size());
  for (Rank rank : ranks) {
    k->rects.push_back(local_rect(mesh, type.shape, layout, rank));
    k->offsets.push_back(k->bytes);
    const int64_t bytes = k->rects.back().elements() * size_bytes(type.dtype);
    k->bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return k.get();
}

const Kind* Context::kind_of(std::string_view type, const std::source_location& where) {
  if (const auto known = types.find(type); known != types.end()) return known->second;
  Type parsed;
  try {
    parsed = Type::parse(type);
  } catch (const UserError& error) {
    throw UserError(place_of(where), error.diagnostic().text, error.diagnostic().notes);
  }
  const Kind* made = kind(parsed, Layout(parsed.shape.rank()), 0);
  types.emplace(type, made);
  return made;
}

const Kind* Context::kind_in(const Kind* have, std::string_view layout, const std::source_location& where) {
  for (const auto& [text, other] : have->others) {
    if (text == layout) return other;
  }
  Layout parsed;
  try {
    parsed = Layout::parse(layout, mesh, have->type.shape.rank());
  } catch (const UserError& error) {
    throw UserError(place_of(where), error.diagnostic().text, error.diagnostic().notes);
  }
  if (parsed.has_open()) {
    throw UserError(place_of(where), fmt::format("layout {} is open (\"?\"), but a value lies in one place: write - where it is whole", layout));
  }
  const Kind* other = kind(have->type, parsed, have->below);
  have->others.emplace_back(std::string(layout), other);
  return other;
}

}  // namespace eager

namespace {

const Node* node_of(const DTensor& t, const char* what) {
  const Node* n = Context::node(t);
  if (n == nullptr) throw UserError(fmt::format("{} of a DTensor that is none; it comes from an Eager or an op", what));
  return n;
}

const Node* numbers_of(const DTensor& t, const char* what) {
  const Node* n = node_of(t, what);
  if (n->trace != 0) {
    throw UserError(fmt::format("{} of %{}, {}: in a function that is being compiled a value has no numbers yet; return it", what, n->value.name(),
                                n->kind->type.str()));
  }
  return n;
}

const OpDef& op_named(std::string_view name, const std::source_location& where) {
  const OpDef* def = op_table().find(name);
  if (def == nullptr) throw UserError(place_of(where), fmt::format("no op \"{}\"{}", name, did_you_mean(name, op_table().names())));
  return *def;
}

std::string element_text(const Shape& shape, int64_t i) {
  std::string where;
  for (int d = shape.rank(); d-- > 0;) {
    where = fmt::format("{}{}{}", i % shape[d], where.empty() ? "" : ",", where);
    i /= shape[d];
  }
  return "[" + where + "]";
}

void check_bounds(const View& v, int64_t below, const Place& place) {
  if (below == 0 || v.dtype != Dtype::i32) return;
  for (int64_t i = 0; i < v.elements(); ++i) {
    const int32_t x = v.as<int32_t>()[i];
    if (x < 0 || x >= below) throw UserError(place, fmt::format("tensor: element {} is {}, not in 0 .. {}", element_text(v.shape, i), x, below - 1));
  }
}

Rect whole(const Shape& shape) {
  Rect r;
  for (int64_t d : shape.dims) r.dims.push_back({0, d});
  return r;
}

}  // namespace

void DTensor::retain() const {
  if (node_ != nullptr) ++node_->references;
}
void DTensor::release() {
  if (--node_->references == 0) node_->context->drop(node_);
}

const Type& DTensor::type() const { return node_of(*this, "the type")->kind->type; }
const Layout& DTensor::layout() const { return node_of(*this, "the layout")->kind->layout; }
std::string DTensor::layout_text() const { return layout().str(node_->context->mesh); }
Eager DTensor::eager() const { return Eager(node_of(*this, "the Eager")->context); }

DTensor DTensor::redistribute(std::string_view layout, std::source_location where) const {
  const Node* n = node_of(*this, "redistribute");
  const Kind* to = n->context->kind_in(n->kind, layout, where);
  if (to == n->kind) return *this;
  static const Attributes none;
  DTensor out;
  n->context->run({&reshard_op(), &none, {this, 1}, to}, nullptr, &out, where);
  return out;
}

DTensor DTensor::redistribute(const Layout& layout, std::source_location where) const {
  return redistribute(layout.str(node_of(*this, "redistribute")->context->mesh), where);
}

std::vector<double> DTensor::values() const {
  const Node* n = numbers_of(*this, "values()");
  const DTensor all = redistribute(Layout(n->kind->layout.rank()));
  std::vector<double> out(static_cast<size_t>(n->kind->type.shape.elements()));
  read_doubles(all.local(0), out.data());
  return out;
}

double DTensor::item() const {
  const Node* n = numbers_of(*this, "item()");
  if (n->kind->type.shape.elements() != 1) throw UserError(fmt::format("item() of {}, which is no single element; values() gives all", n->kind->type.str()));
  return values()[0];
}

View DTensor::local(int device) const {
  const Node* n = numbers_of(*this, "local()");
  const auto here = static_cast<int>(n->context->devices.size());
  if (device < 0 || device >= here) throw UserError(fmt::format("local({}): this process has {} device{}", device, here, here == 1 ? "" : "s"));
  const auto d = static_cast<size_t>(device);
  return {n->buffer.data() + n->kind->offsets[d], n->kind->type.dtype, n->kind->rects[d].shape()};
}

Eager::Eager(Context* context) : context_(context) { context_->retain(); }

Eager::Eager(const Mesh& mesh, EagerOptions options) : Eager(new Context(mesh, std::move(options))) {
  context_->owned = lockstep_communicators(static_cast<int>(mesh.size()));
  for (const auto& c : context_->owned) context_->devices.push_back(c.get());
  for (const Communicator* c : context_->devices) context_->ranks.push_back(c->rank());
}

Eager::Eager(const Mesh& mesh, std::span<Communicator* const> devices, EagerOptions options) : Eager(new Context(mesh, std::move(options))) {
  const int64_t ranks = devices.empty() ? 0 : devices[0]->size();
  if (ranks != mesh.size()) {
    throw UserError(fmt::format("the mesh {} has {} devices, but {} ranks are running; start {} ranks or change the mesh", mesh.str(), mesh.size(),
                                ranks, mesh.size()));
  }
  context_->devices.assign(devices.begin(), devices.end());
  for (const Communicator* c : context_->devices) context_->ranks.push_back(c->rank());
}

Eager::Eager(const Eager& other) : context_(other.context_) { context_->retain(); }
Eager& Eager::operator=(Eager other) noexcept {
  std::swap(context_, other.context_);
  return *this;
}
Eager::~Eager() { context_->release(); }

const Mesh& Eager::mesh() const { return context_->mesh; }
int Eager::local_devices() const { return static_cast<int>(context_->devices.size()); }

EagerStats Eager::stats() const {
  EagerStats s = context_->stats;
  s.used_bytes = context_->pool.used();
  s.idle_bytes = context_->pool.idle();
  return s;
}

DTensor Eager::blocks(std::string_view type, std::string_view layout, const std::function<void(const Rect&, const View&)>& fill, Where where) const {
  Context& c = *context_;
  const Kind* kind = c.kind_in(c.kind_of(type, where), layout, where);
  DTensor out = c.make(kind);
  for (int d = 0; d < local_devices(); ++d) fill(kind->rects[static_cast<size_t>(d)], out.local(d));
  return out;
}

DTensor Eager::tensor(const View& global, std::string_view layout, int64_t below, Where where) const {
  Context& c = *context_;
  const Place place = place_of(where);
  const Kind* kind = c.kind_in(c.kind({global.dtype, global.shape}, Layout(global.shape.rank()), below), layout, where);
  if (kind->layout.is_pending()) {
    throw UserError(place, fmt::format("tensor: {} is pending, but the elements given are whole; blocks() takes each device's part of a sum", layout));
  }
  check_bounds(global, below, place);
  DTensor out = c.make(kind);
  const Rect all = whole(global.shape);
  for (int d = 0; d < local_devices(); ++d) {
    const Rect& mine = kind->rects[static_cast<size_t>(d)];
    copy_rect(global.data, all, out.local(d).data, mine, mine, size_bytes(global.dtype));
  }
  return out;
}

DTensor Eager::tensor(std::string_view type, std::span<const double> values, std::string_view layout, int64_t below, Where where) const {
  const Type& t = context_->kind_of(type, where)->type;
  if (static_cast<int64_t>(values.size()) != t.shape.elements()) {
    throw UserError(place_of(where), fmt::format("tensor {} has {} element{}; {} were given", t.str(), t.shape.elements(),
                                                 t.shape.elements() == 1 ? "" : "s", values.size()));
  }
  for (size_t i = 0; i < values.size() && t.dtype == Dtype::i32; ++i) {
    if (values[i] == std::floor(values[i]) && std::abs(values[i]) <= 2147483647.0) continue;
    throw UserError(place_of(where), fmt::format("tensor {}: element {} is {}", t.str(), element_text(t.shape, static_cast<int64_t>(i)), values[i]));
  }
  Buffer buffer(t.bytes());
  const View view{buffer.data(), t.dtype, t.shape};
  write_doubles(values.data(), view);
  return tensor(view, layout, below, where);
}

DTensor Eager::apply(std::string_view op, std::initializer_list<DTensor> operands, const Attributes& attributes, const std::vector<Type>& results,
                     Where where) const {
  return apply(op_named(op, where), {operands.begin(), operands.size()}, attributes, results.empty() ? nullptr : &results[0], where);
}

std::vector<DTensor> Eager::apply_all(std::string_view op, std::span<const DTensor> operands, const Attributes& attributes,
                                      const std::vector<Type>& results, Where where) const {
  std::vector<DTensor> out;
  context_->run({&op_named(op, where), &attributes, operands, nullptr, results.empty() ? nullptr : &results[0]}, &out, nullptr, where);
  return out;
}

DTensor Eager::apply(const OpDef& op, std::span<const DTensor> operands, const Attributes& attributes, const Type* result, Where where) const {
  DTensor out;
  context_->run({&op, &attributes, operands, nullptr, result}, nullptr, &out, where);
  return out;
}

DTensor Eager::make(const OpDef& op, std::string_view type, std::string_view layout, const Attributes& attributes, Where where) const {
  Context& c = *context_;
  const Kind* kind = c.kind_in(c.kind_of(type, where), layout, where);
  DTensor out;
  c.run({&op, &attributes, {}, kind}, nullptr, &out, where);
  return out;
}

DTensor Eager::make(std::string_view op, std::string_view type, std::string_view layout, const Attributes& attributes, Where where) const {
  return make(op_named(op, where), type, layout, attributes, where);
}

std::string Eager::program(std::string_view op, std::span<const DTensor> operands, const Attributes& attributes, Where where) const {
  const eager::Request request{&op_named(op, where), &attributes, operands};
  context_->check(op, operands, where);
  for (const DTensor& t : operands) numbers_of(t, "program()");
  return print(context_->find(request, where).bound->compiled.local);
}

}  // namespace meshard
