// Trace: C++ expressions become a Program. A Value knows the function it is being traced into, so there is no global context.
//
//   Trace trace(op_table());
//   Scope s = trace.scope();
//   Value x = s.input("x", Dtype::f32, {32, 1024});
//   Value w = s.param("w", {1024, 4096}, Init{Init::normal, 0.02});
//   Value y = apply("gelu", {einsum("b i, i j -> b j", x, w)});        // see ops/functions.h for what models call
//   trace.result(y.named("y"));
//   Program p = trace.program();
#pragma once

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
  const Type& type() const;
  const Shape& shape() const { return type().shape; }
  const std::string& name() const;
  // Names the value, as plans and printed programs call it. A name taken already in the function gets ".1", ".2" appended.
  Value named(std::string_view name) const;

 private:
  Builder* builder_ = nullptr;
  ValueId id_ = ValueId::none;
};

// Appends ops to one function, inferring types. Names are unique in the function.
class Builder {
 public:
  Builder(Program& program, int function) : program_(&program), function_(function) {}

  Program& program() const { return *program_; }
  Function& function() const { return program_->functions[static_cast<size_t>(function_)]; }
  int function_index() const { return function_; }

  Value param(std::string_view name, Type type, ParamInfo info = {}, int64_t below = 0);
  // `results`: types of ops with explicit_type. Attributes that are missing get their defaults only where used: the list is
  // kept as given. Errors as of bind_rule. Values of dtype differing from what the op takes: UserError naming both.
  std::vector<Value> apply(const OpDef& def, std::vector<Value> operands, Attributes attributes = {},
                           std::vector<Type> results = {}, std::string_view name = "", Place source = {});
  // Result j of the callee is called prefix.name.
  std::vector<Value> call(int callee, std::string_view prefix, std::vector<Value> arguments, Place source = {});
  std::vector<Value> repeat(int callee, std::string_view prefix, int64_t count, std::vector<Value> arguments, int index_operand, Place source = {});
  void result(Value value, Value in_place = {});

  std::string fresh_name(std::string_view wanted) const;
  // Used as the place of ops that give none: the pass or vjp that is at work sets the primal's place.
  void set_source(Place place) { source_ = std::move(place); }
  const Place& source() const { return source_; }

 private:
  friend class Value;
  Program* program_;
  int function_;
  Place source_;
};

// apply("gelu", {x}): by name, for ops/functions.h and tests. The table is the program's.
Value apply(std::string_view op, std::vector<Value> operands, Attributes attributes = {}, std::vector<Type> results = {},
            std::source_location where = std::source_location::current());
std::vector<Value> apply_all(std::string_view op, std::vector<Value> operands, Attributes attributes = {}, std::vector<Type> results = {},
                             std::source_location where = std::source_location::current());

// Where a model declares parameters: main, or the body of a function called under a prefix. In a body, a parameter becomes
// a parameter of the function, and each call declares it in main as prefix.name.
class Scope {
 public:
  Trace& trace() const { return *trace_; }
  Value input(std::string_view name, Dtype dtype, Shape shape, int64_t below = 0) const;  // main only
  Value param(std::string_view name, Shape shape, Init init) const;  // dtype: the trace's
  // Calls `body` as function `function` under `prefix`: traced at the first call, reused after; the arguments must have the
  // types they had then. Arguments are called by the given names inside.
  struct Argument { std::string_view name; Value value; };
  std::vector<Value> call(std::string_view function, std::string_view prefix, std::vector<Argument> arguments,
                          const std::function<std::vector<Value>(Scope&, const std::vector<Value>&)>& body) const;

 private:
  friend class Trace;
  Scope(Trace* trace, int function) : trace_(trace), function_(function) {}
  Trace* trace_;
  int function_;
};

class Trace {
 public:
  explicit Trace(const OpTable& table, Dtype dtype = Dtype::f32);
  Trace(const Trace&) = delete;

  Scope scope();             // of main
  Builder& main();
  Builder& builder(int function);
  Dtype dtype() const { return dtype_; }
  Value state(std::string_view name, Value param, Shape shape, Init init);  // optimizer state in main, linked to its parameter
  void result(Value value, Value in_place = {});
  // The params of main in order of declaration, and which call (op index in main) first used it, -1: main itself.
  std::vector<Value> params();
  // The program so far, functions in order of use, main last. Verified.
  Program program() const;
  // Direct access for autodiff: functions are added behind `main`'s builder index; main stays function 0 until program().
  Program& building() { return program_; }
  int add_function(std::string_view name);  // a fresh name if taken

 private:
  friend class Scope;
  Program program_;  // main is functions[0] here
  Dtype dtype_;
  std::deque<Builder> builders_;
  struct Traced;
  std::vector<std::shared_ptr<Traced>> traced_;
};

// What an op's vjp sees. It appends ops through functions on Values and sets the operands' cotangents.
class Vjp {
 public:
  Vjp(Builder& builder, const Attributes& attributes, std::vector<Value> operands, std::vector<Value> results,
      std::vector<Value> cotangents)
      : builder_(&builder), attributes_(&attributes), operands_(std::move(operands)), results_(std::move(results)),
        cotangents_(std::move(cotangents)), out_(operands_.size()), needed_(operands_.size(), true) {}

  Builder& builder() const { return *builder_; }
  const Attributes& attributes() const { return *attributes_; }
  Value operand(int i = 0) const { read_operand_.push_back(i); return operands_[static_cast<size_t>(i)]; }
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
  mutable std::vector<int> read_operand_;
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
