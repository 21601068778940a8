// Trace: C++ expressions become a Program. A Value knows the function it is being traced into, so there is no global
// context.
//
//   Trace trace(op_table());
//   Scope s = trace.scope();
//   Value x = s.input("x", Dtype::f32, {32, 1024});
//   Value w = s.param("w", {1024, 4096}, Init{Init::normal, 0.02});
//   Value y = apply("gelu", {einsum("b i, i j -> b j", x, w)});        // see ops/functions.h for what models call
//   trace.result(y.named("y"));
//   Program p = trace.program();
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

class Builder;
class Trace;

// A value of a function that is being built. Cheap to copy. Default constructed it is "none".
class Value {
 public:
  Value() = default;
  Value(Builder* builder, ValueId id) : builder_(builder), id_(id) {}

  explicit operator bool() const { return builder_ != nullptr; }
  ValueId id() const { return id_; }
  Builder& builder() const { return *builder_; }
  // Copies: what a function keeps moves when it gets further values.
  Type type() const;
  Shape shape() const { return type().shape; }
  std::string name() const;
  // Names the value, as plans and printed programs call it. A name taken already in the function gets ".1", ".2"
  // appended. The first result of an op hands its name on to the further ones (X.rstd). Parameters and results of calls
  // have the name that the function's header and the callee give them: UserError.
  Value named(std::string_view name) const;

 private:
  Builder* builder_ = nullptr;
  ValueId id_ = ValueId::none;
};

// Appends ops to one function, inferring types. Names are unique in the function.
class Builder {
 public:
  Builder(Program& program, int function);

  Program& program() const { return *program_; }
  Function& function() const { return program_->functions[static_cast<size_t>(function_)]; }
  int function_index() const { return function_; }

  // Appends a parameter. A name that the function has already is a UserError.
  Value param(std::string_view name, Type type, ParamInfo info = {}, int64_t below = 0);
  // `results`: types of ops with explicit_type. Attributes that are missing get their defaults only where used: the
  // list is kept as given. Errors as of check_attributes and infer_types (ir/op.h), and for a value of another
  // function, which must be passed as an argument. Result 0 is called `name` (or as the op), further ones name.rstd
  // (OpDef::result_names), name.1.
  std::vector<Value> apply(const OpDef& def, std::vector<Value> operands, Attributes attributes = {},
                           std::vector<Type> results = {}, std::string_view name = "", Place source = {});
  // What the callee returns as y (or y@1) is called prefix.y here: the text of a call has no result list. Errors:
  // another number of arguments or other types than the callee's parameters; a prefix under which a name is taken
  // already.
  std::vector<Value> call(int callee, std::string_view prefix, std::vector<Value> arguments, Place source = {});
  // Calls it `count` times in a row: a parameter that the callee returns in place of has, in the next round, the value
  // returned; the results are those of the last round. Parameter `index_operand` (-1: none; i32[]) gets the round's
  // number: pass no Value.
  std::vector<Value> repeat(int callee, std::string_view prefix, int64_t count, std::vector<Value> arguments,
                            int index_operand, Place source = {});
  // Returns the value; with `in_place`, a parameter of equal type, in that one's memory.
  void result(Value value, Value in_place = {});

  // As Function::find, in constant time.
  ValueId find(std::string_view name) const;
  // `wanted`, or wanted.1, wanted.2 ..., the first that no value has.
  std::string fresh_name(std::string_view wanted) const;
  // Gives a value another name, unchecked. Who renames or takes out values of the function otherwise says names_changed().
  void rename(ValueId value, std::string name);
  void names_changed();
  // Throws UserError unless `value`, called `what` in the message, is one of this function.
  void check_owned(const Value& value, std::string_view what, const Place& place) const;
  // Used as the place of ops that give none: the pass or vjp that is at work sets the primal's place.
  void set_source(Place place) { source_ = std::move(place); }
  const Place& source() const { return source_; }

 private:
  ValueId add_value(std::string name, Type type, int op, const Place& source);
  std::vector<Value> emit_call(Op op, const std::vector<Value>& arguments);

  struct Names;
  Program* program_;
  int function_;
  Place source_;
  std::shared_ptr<Names> names_;  // an index of what the function has; copies of a builder share it
};

// "model.cc:12", of the file without its folder, so that programs do not depend on where they were built.
Place place_of(const std::source_location& where);
// Throws UserError unless `name` is words of letters, digits and _ with dots between them, as users name values ("@" is
// ours).
void check_name(std::string_view name, const Place& place);

// apply("gelu", {x}): by name, for ops/functions.h and tests. The table is the program's.
Value apply(std::string_view op, std::vector<Value> operands, Attributes attributes = {},
            std::vector<Type> results = {}, std::source_location where = std::source_location::current());
std::vector<Value> apply_all(std::string_view op, std::vector<Value> operands, Attributes attributes = {},
                             std::vector<Type> results = {},
                             std::source_location where = std::source_location::current());

// Where a model declares parameters: main, or the body of a function called under a prefix. In a body, a parameter
// becomes a parameter of the function, and each call declares it in main as prefix.name.
class Scope {
 public:
  Trace& trace() const { return *trace_; }
  using Where = std::source_location;
  Value input(std::string_view name, Dtype dtype, Shape shape, int64_t below = 0,
              Where where = Where::current()) const;  // main only
  // The parameter as ops read it: its `use`, called name.use. Its dtype is the trace's. The same name again, in one
  // function, is the same parameter (tied weights), read through another use; its shape must be equal then.
  Value param(std::string_view name, Shape shape, Init init, Where where = Where::current()) const;
  // From here on the parameter `name`, declared in this scope, has this value: a cache, a running mean. Main returns it in
  // place of the parameter; a function does so at each of its calls. UserError: no such parameter, another type, a second
  // value.
  void update(std::string_view name, Value value, Where where = Where::current()) const;
  // Calls `body` as function `function` under `prefix`: traced at the first call, reused after; the arguments must have
  // the names and types they had then. Arguments are called by the given names inside.
  struct Argument {
    std::string_view name;
    Value value;
  };
  using Body = std::function<std::vector<Value>(Scope&, const std::vector<Value>&)>;
  std::vector<Value> call(std::string_view function, std::string_view prefix, std::vector<Argument> arguments,
                          const Body& body, Where where = Where::current()) const;

 private:
  friend class Trace;
  Scope(Trace* trace, int function) : trace_(trace), function_(function) {}
  Builder& builder() const;
  Value declare(std::string_view name, const Type& type, Init init, const Place& place) const;  // the parameter itself
  Trace* trace_;
  int function_;
};

class Trace {
 public:
  explicit Trace(const OpTable& table, Dtype dtype = Dtype::f32);
  Trace(const Trace&) = delete;

  Scope scope();  // of main
  Builder& main();
  Builder& builder(int function);
  Dtype dtype() const { return dtype_; }
  Value state(std::string_view name, Value param, Shape shape,
              Init init);  // optimizer state in main, linked to its parameter
  // State of the run itself, of no parameter: whole on every device.
  Value state(std::string_view name, Type type, Init init);
  void result(Value value, Value in_place = {});
  std::vector<Value> params();  // of main, in order of declaration: the parameters themselves, not their uses
  // The program so far, callees before callers, main last, without functions that nobody calls. Verified.
  Program program() const;
  // Direct access for autodiff: functions are added behind `main`'s builder index; main stays function 0 until
  // program().
  Program& building() { return program_; }
  int add_function(std::string_view name);  // a fresh name if taken

 private:
  friend class Scope;
  struct Traced {
    std::string name;
    int function = 0;
    std::vector<std::string> arguments;  // its first parameters; the others are parameters of the model
    std::vector<std::pair<std::string, Value>> updates;  // returned in place of parameters, behind its results
    bool done = false;                   // its body has run
  };
  // Makes the function and runs its body; gives the index in traced_.
  std::ptrdiff_t trace_function(std::string_view function, const std::vector<Scope::Argument>& arguments,
                                const Scope::Body& body, const Place& place);

  Program program_;  // main is functions[0] here
  Dtype dtype_;
  std::deque<Builder> builders_;
  std::deque<Traced> traced_;
};

// What an op's vjp sees. It appends ops through functions on Values and sets the operands' cotangents.
class Vjp {
 public:
  Vjp(Builder& builder, const Attributes& attributes, std::vector<Value> operands, std::vector<Value> results,
      std::vector<Value> cotangents)
      : builder_(&builder),
        attributes_(&attributes),
        operands_(std::move(operands)),
        results_(std::move(results)),
        cotangents_(std::move(cotangents)),
        out_(operands_.size()),
        needed_(operands_.size(), true) {}

  Builder& builder() const { return *builder_; }
  const Attributes& attributes() const { return *attributes_; }
  Value operand(int i = 0) const { return operands_[static_cast<size_t>(i)]; }
  int operand_count() const { return static_cast<int>(operands_.size()); }
  Value result(int i = 0) const { return results_[static_cast<size_t>(i)]; }
  Value cotangent(int i = 0) const { return cotangents_[static_cast<size_t>(i)]; }  // none: result i is not used
  bool needs(int i) const { return needed_[static_cast<size_t>(i)]; }               // operand i's cotangent is wanted
  void set_needed(std::vector<bool> needed) { needed_ = std::move(needed); }
  void set(int i, Value cotangent) { out_[static_cast<size_t>(i)] = cotangent; }
  const std::vector<Value>& out() const { return out_; }

 private:
  Builder* builder_;
  const Attributes* attributes_;
  std::vector<Value> operands_, results_, cotangents_, out_;
  std::vector<bool> needed_;
};

// What an op's lowering sees: operands, attributes; it sets as many results as the op has.
class Lowering {
 public:
  Lowering(Builder& builder, const Attributes& attributes, std::vector<Value> operands, std::string name)
      : builder_(&builder), attributes_(&attributes), operands_(std::move(operands)), name_(std::move(name)) {}
  Builder& builder() const { return *builder_; }
  const Attributes& attributes() const { return *attributes_; }
  Value operand(int i) const { return operands_[static_cast<size_t>(i)]; }
  const std::string& name() const { return name_; }  // of the op's first result, to name parts after: nll.max
  void set(std::vector<Value> results) { results_ = std::move(results); }
  const std::vector<Value>& results() const { return results_; }

 private:
  Builder* builder_;
  const Attributes* attributes_;
  std::vector<Value> operands_, results_;
  std::string name_;
};

}  // namespace meshard
