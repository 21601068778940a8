// Gradients of what a tape recorded, and functions compiled as a whole.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "meshard/autodiff/differentiate.h"
#include "meshard/base/error.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/eager_context.h"

namespace meshard {

using eager::Bound;
using eager::Context;
using eager::Kind;
using eager::Node;
using eager::Recorded;

struct Tape::Record {
  std::vector<Recorded> ops;
};

namespace {

// What of a tape lies between some values and a loss, in numbers: the key of its reverse program, and what builds it.
struct Path {
  std::vector<const Recorded*> ops;
  std::vector<DTensor> values;  // by number, in order of first appearance
  std::vector<int64_t> key;
  std::unordered_map<const Node*, int> number;

  int add(const DTensor& t) {
    const auto [at, fresh] = number.try_emplace(Context::node(t), static_cast<int>(values.size()));
    if (fresh) values.push_back(t);
    return at->second;
  }
};

Path find_path(const std::vector<Recorded>& tape, const DTensor& loss, const std::vector<DTensor>& wrt) {
  std::unordered_map<const Node*, bool> depends, needed;
  for (const DTensor& t : wrt) depends[Context::node(t)] = true;
  std::vector<bool> on(tape.size());
  for (size_t i = 0; i < tape.size(); ++i) {
    for (const DTensor& t : tape[i].operands) on[i] = on[i] || depends.contains(Context::node(t));
    for (const DTensor& t : tape[i].results) {
      if (on[i]) depends[Context::node(t)] = true;
    }
  }
  needed[Context::node(loss)] = true;
  for (size_t i = tape.size(); i-- > 0;) {
    bool read = false;
    for (const DTensor& t : tape[i].results) read = read || needed.contains(Context::node(t));
    on[i] = on[i] && read;
    for (const DTensor& t : tape[i].operands) {
      if (on[i]) needed[Context::node(t)] = true;
    }
  }
  Path path;
  for (size_t i = 0; i < tape.size(); ++i) {
    if (!on[i]) continue;
    path.ops.push_back(&tape[i]);
    path.key.push_back(tape[i].entry->id);
    for (const DTensor& t : tape[i].operands) path.key.push_back(path.add(t));
    for (const DTensor& t : tape[i].results) path.key.push_back(path.add(t));
  }
  path.key.push_back(path.add(loss));
  for (const DTensor& t : wrt) path.key.push_back(path.add(t));
  // Values that no op made, whose kinds no op's id says.
  for (const DTensor& t : path.values) path.key.push_back(Context::node(t)->kind->id);
  return path;
}

void pin(Value value, const Layout& layout) {
  ValueInfo& info = value.builder().function().value(value.id());
  info.layout = layout;
  info.pinned = true;
}

// The ops of `f` from `first` on as a program of its own; what they read of before are its inputs. `inputs` gets these.
Program tail(const Program& program, const Mesh& mesh, size_t first, const std::vector<Value>& results, std::vector<ValueId>* inputs) {
  const Function& f = program.main();
  Program out;
  out.table = program.table;
  out.mesh = mesh;
  Function& g = out.functions.emplace_back();
  g.name = f.name;
  std::vector<ValueId> map(f.values.size(), ValueId::none);
  const auto copy = [&](ValueId v, int op) {
    ValueInfo info = f.value(v);
    info.op = op;
    g.values.push_back(std::move(info));
    return map[index(v)] = static_cast<ValueId>(g.values.size() - 1);
  };
  const auto read = [&](ValueId v) {
    if (map[index(v)] != ValueId::none) return;
    inputs->push_back(v);
    g.params.push_back(copy(v, -1));
    g.param_info.emplace_back();
  };
  for (size_t i = first; i < f.ops.size(); ++i) {
    for (ValueId v : f.ops[i].operands) {
      if (f.value(v).op < static_cast<int>(first)) read(v);
    }
  }
  for (size_t i = first; i < f.ops.size(); ++i) {
    Op op = f.ops[i];
    MESHARD_CHECK(op.kind == Op::apply, "a tape records ops only");
    for (ValueId& v : op.operands) v = map[index(v)];
    for (ValueId& v : op.results) v = copy(v, static_cast<int>(i - first));
    g.ops.push_back(std::move(op));
  }
  for (const Value& v : results) g.returns.push_back({map[index(v.id())], ValueId::none});
  return out;
}

// The reverse pass over a path. `inputs` gets the numbers of the values that it reads.
Program reverse_program(const Context& context, const Path& path, const DTensor& loss, const std::vector<DTensor>& wrt, std::vector<int>* inputs,
                        const Place& place) {
  Trace trace(op_table());
  Builder& main = trace.main();
  std::vector<Value> values(path.values.size());
  const auto input = [&](int v) {
    Value& value = values[static_cast<size_t>(v)];
    const Kind& kind = *Context::node(path.values[static_cast<size_t>(v)])->kind;
    if (!value) value = main.param(fmt::format("v{}", v), kind.type, {}, kind.below);
    return value;
  };
  for (const Recorded* op : path.ops) {
    std::vector<Value> operands;
    std::vector<Type> types;
    for (const DTensor& t : op->operands) operands.push_back(input(path.number.at(Context::node(t))));
    if (op->entry->type != nullptr) types = {*op->entry->type};
    std::vector<Value> results = main.apply(*op->entry->def, operands, op->entry->attributes, types, "", place);
    for (size_t r = 0; r < results.size(); ++r) values[static_cast<size_t>(path.number.at(Context::node(op->results[r])))] = results[r];
  }
  std::vector<Value> of;
  for (const DTensor& t : wrt) of.push_back(input(path.number.at(Context::node(t))));
  const Value end = input(path.number.at(Context::node(loss)));
  const Function& f = main.function();
  const size_t first = f.ops.size();
  main.set_source(place);
  std::vector<Value> gradient = gradients(trace, end, of);
  for (size_t i = 0; i < wrt.size(); ++i) {
    gradient[i] = reshard(gradient[i]);
    pin(gradient[i], wrt[i].layout().without_pending());
  }
  std::vector<ValueId> read;
  for (size_t v = 0; v < values.size(); ++v) {
    if (values[v]) pin(values[v], path.values[v].layout());
  }
  Program program = tail(trace.building(), context.mesh, first, gradient, &read);
  for (ValueId id : read) {
    for (size_t v = 0; v < values.size(); ++v) {
      if (values[v] && values[v].id() == id) {
        inputs->push_back(static_cast<int>(v));
        break;
      }
    }
  }
  MESHARD_CHECK(inputs->size() == read.size(), "a reverse pass reads recorded values only");
  return program;
}

}  // namespace

Tape::Tape(const Eager& eager) : record_(std::make_unique<Record>()), eager_(eager) { eager_.context_->tapes.push_back(&record_->ops); }
Tape::~Tape() { std::erase(eager_.context_->tapes, &record_->ops); }
int64_t Tape::ops() const { return static_cast<int64_t>(record_->ops.size()); }

std::vector<DTensor> Tape::gradients(const DTensor& loss, const std::vector<DTensor>& wrt, std::source_location where) const {
  Context& context = *eager_.context_;
  const Place place = place_of(where);
  std::vector<DTensor> all{loss};
  all.insert(all.end(), wrt.begin(), wrt.end());
  bool symbolic = context.tracing.trace != nullptr;
  context.check("gradients", all, where);
  for (const DTensor& t : all) symbolic = symbolic || Context::node(t)->trace != 0;
  if (symbolic) {
    std::vector<Value> of;
    for (const DTensor& t : wrt) of.push_back(context.value(t, "gradients", where));
    std::vector<Value> found = meshard::gradients(*context.tracing.trace, context.value(loss, "gradients", where), of);
    std::vector<DTensor> out;
    for (const Value& v : found) out.push_back(context.symbol(v));
    return out;
  }
  if (loss.shape().rank() != 0 || !is_float(loss.type().dtype)) {
    throw UserError(place, fmt::format("gradients: the loss is {}; it must be one float: take a mean or a sum", loss.type().str()));
  }
  bool made = std::any_of(wrt.begin(), wrt.end(), [&](const DTensor& t) { return Context::node(t) == Context::node(loss); });
  for (const Recorded& op : record_->ops) {
    for (const DTensor& t : op.results) made = made || Context::node(t) == Context::node(loss);
  }
  if (!made) throw UserError(place, "gradients: the loss was not made while the tape was there; make the Tape before the ops");
  const Path path = find_path(record_->ops, loss, wrt);
  std::unique_ptr<Bound>& bound = context.reverses[path.key];
  if (bound == nullptr) {
    std::vector<int> inputs;
    const Program program = reverse_program(context, path, loss, wrt, &inputs, place);
    CompileOptions options{.partition = context.options.partition, .threads = context.options.threads, .account = false};
    bound = context.bind(compile(program, options), fmt::format("{}: gradients", place.str()));
    bound->inputs = std::move(inputs);
  }
  std::vector<DTensor> inputs, out;
  for (int v : bound->inputs) inputs.push_back(path.values[static_cast<size_t>(v)]);
  context.execute(*bound, inputs, &out, nullptr);
  return out;
}

struct CompiledFunction::State {
  Eager eager;
  Function function;
  std::map<std::vector<int>, std::unique_ptr<Bound>> programs;

  Context& context() const { return *eager.context_; }

  Bound& find(const std::vector<DTensor>& operands) {
    std::vector<int> key;
    for (size_t i = 0; i < operands.size(); ++i) {
      const Node* n = Context::node(operands[i]);
      if (n == nullptr || n->trace != 0 || n->context != &context()) {
        throw UserError(fmt::format("compiled function: argument {} is no value of its Eager", i));
      }
      key.push_back(n->kind->id);
    }
    std::unique_ptr<Bound>& bound = programs[key];
    if (bound == nullptr) bound = make(operands);
    return *bound;
  }

  std::unique_ptr<Bound> make(const std::vector<DTensor>& operands) {
    Context& c = context();
    if (c.tracing.trace != nullptr) throw UserError("a compiled function calls another while it is traced; call the plain function there");
    Trace trace(op_table());
    struct Guard {
      Context& c;
      ~Guard() { c.tracing = {}; }
    } guard{c};
    c.tracing = {++c.tracings, &trace};
    trace.building().mesh = c.mesh;
    std::vector<DTensor> arguments;
    for (size_t i = 0; i < operands.size(); ++i) {
      const Kind& kind = *Context::node(operands[i])->kind;
      const Value v = trace.main().param(fmt::format("x{}", i), kind.type, {}, kind.below);
      pin(v, kind.layout);
      arguments.push_back(c.symbol(v));
    }
    const std::vector<DTensor> results = function(arguments);
    if (results.empty()) throw UserError("a compiled function returns nothing; it must return at least one value");
    for (size_t r = 0; r < results.size(); ++r) {
      const Node* n = Context::node(results[r]);
      if (n == nullptr || n->trace != c.tracing.number) {
        throw UserError(fmt::format("compiled function: result {} was not made from its arguments; pass what it uses as arguments", r));
      }
      trace.result(n->value);
    }
    const Program program = trace.program();
    CompileOptions options{.partition = c.options.partition, .threads = c.options.threads, .account = false};
    return c.bind(meshard::compile(program, options), "compiled function");
  }
};

CompiledFunction Eager::compile(CompiledFunction::Function function) const {
  CompiledFunction out;
  out.state_ = std::make_shared<CompiledFunction::State>(CompiledFunction::State{*this, std::move(function), {}});
  return out;
}

std::vector<DTensor> CompiledFunction::operator()(const std::vector<DTensor>& operands) const {
  std::vector<DTensor> out;
  state_->context().execute(state_->find(operands), operands, &out, nullptr);
  return out;
}

std::string CompiledFunction::program(const std::vector<DTensor>& operands) const { return print(state_->find(operands).compiled.local); }
std::string CompiledFunction::bill(const std::vector<DTensor>& operands) const { return state_->find(operands).compiled.bill.table(true); }

}  // namespace meshard
