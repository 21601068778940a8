#include "meshard/models/accumulate.h"

#include "meshard/autodiff/differentiate.h"
#include "meshard/autodiff/prune.h"
#include "meshard/base/error.h"
#include "meshard/models/groups.h"
#include "meshard/ops/functions.h"

namespace meshard {
namespace {

// Micro-batch i of a tensor of them: [k, b, t] -> [b, t], integers still below their bound.
Value micro_batch(Value all, Value i, std::string_view name) {
  Value one = take(all, i).named(name);
  Function& f = one.builder().function();
  f.value(one.id()).below = f.value(all.id()).below;
  return one;
}

// The parameters of a function being traced that it declared itself.
std::vector<Value> declared(Builder& b) {
  std::vector<Value> out;
  const Function& f = b.function();
  for (size_t p = 0; p < f.params.size(); ++p) {
    if (f.param_info[p].kind == ParamInfo::param) out.emplace_back(&b, f.params[p]);
  }
  return out;
}

class Accumulation {
 public:
  Accumulation(Trace& trace, const ModelConfig& config, Value tokens, Value targets, Value loss_scale)
      : trace_(trace),
        config_(config),
        tokens_(tokens),
        targets_(targets),
        loss_scale_(loss_scale),
        rounds_(tokens.shape()[0]),
        scalar_{trace.dtype(), {}} {}

  Accumulated trace() {
    // Which parameters there are is known only once the model has been traced, but a loop's sums are arguments: trace
    // it aside first.
    Trace aside(*trace_.building().table, trace_.dtype());
    const Function& main = trace_.main().function();
    const Shape batch{tokens_.shape()[1], tokens_.shape()[2]};
    Value tokens = aside.scope().input("tokens", Dtype::i32, batch, main.value(tokens_.id()).below);
    model_loss(aside.scope(), config_, tokens,
               aside.scope().input("targets", Dtype::i32, batch, main.value(targets_.id()).below));
    params_ = aside.params();
    groups_ = group_params(aside.building(), aside.main().function(), params_);
    return loop();
  }

 private:
  static std::string sum_name(const Value& param) { return param.name() + ".sum"; }

  // Zeros where the sums begin, prefix.X.sum in main.
  void make_zeros() {
    GroupFunctions functions(trace_, "zeros");
    for (const ParamGroup& group : groups_) {
      const auto zeros = [&](Builder& b) {
        for (size_t k = 0; k < group.members.size(); ++k) {
          Value zero = fill(b, 0, params_[group.members[k]].type()).named(group.names[k] + ".sum");
          if (group.callee >= 0) b.result(zero);
        }
      };
      if (group.callee < 0)
        zeros(trace_.main());
      else
        call_group(trace_.main(), functions.get(group, zeros), group, {});
    }
  }

  // Adds the gradients to the sums, in place.
  void add_up(Builder& micro, const std::vector<Value>& gradients) {
    const auto add_one = [](Value sum, Value gradient) { return (sum + gradient).named(sum.name() + ".new"); };
    const auto value = [&](const std::string& name) { return Value(&micro, micro.function().find(name)); };
    GroupFunctions functions(trace_, "accumulate");
    for (const ParamGroup& group : groups_) {
      if (group.callee < 0) {
        for (size_t i : group.members) add_one(value(sum_name(params_[i])), gradients[i]);
        continue;
      }
      const int function = functions.get(group, [&](Builder& b) {
        std::vector<Value> sums, parts;
        for (size_t k = 0; k < group.members.size(); ++k) {
          const Type& type = params_[group.members[k]].type();
          parts.push_back(b.param(name_under(group.prefix, gradients[group.members[k]].name()), type));
          sums.push_back(b.param(group.names[k] + ".sum", type));
        }
        for (size_t k = 0; k < sums.size(); ++k) b.result(add_one(sums[k], parts[k]), sums[k]);
      });
      call_group(micro, function, group, {});
    }
    for (const Value& p : params_) micro.result(value(sum_name(p) + ".new"), value(sum_name(p)));
  }

  std::vector<Value> body(const Scope& s, const std::vector<Value>& arguments) {
    Builder& micro = arguments[0].builder();
    const double share = 1 / static_cast<double>(rounds_);
    Value tokens = micro_batch(arguments[0], arguments[2], "micro.tokens");
    Value loss =
        model_loss(s, config_, tokens, micro_batch(arguments[1], arguments[2], "micro.targets")).named("micro.loss");
    const std::vector<Value> params = declared(micro);
    MESHARD_CHECK(params.size() == params_.size(), "the model has other parameters than a moment ago");
    Value scaled = loss_scale_ ? (loss * arguments.back()).named("micro.scaled") : loss;
    const std::vector<Value> gradients = meshard::gradients(trace_, scaled, params, share);
    Value sum = arguments[3];
    micro.result((sum + scale(loss, share)).named("loss"), sum);
    add_up(micro, gradients);
    return {};
  }

  Accumulated loop() {
    Builder& main = trace_.main();
    std::vector<std::string> names;  // that the arguments point to
    for (const Value& p : params_) names.push_back(sum_name(p));
    make_zeros();
    Value loss_sum = fill(main, 0, scalar_).named("loss.sum");
    // Stands for the round's number until the call is a loop.
    const size_t first = main.function().ops.size();
    Value number = fill(main, 0, Type{Dtype::i32, {}}).named("i");
    std::vector<Scope::Argument> arguments{
        {"tokens", tokens_}, {"targets", targets_}, {"i", number}, {"loss.sum", loss_sum}};
    for (const std::string& name : names) arguments.push_back({name, Value(&main, main.function().find(name))});
    if (loss_scale_) arguments.push_back({"loss_scale", loss_scale_});
    const Scope::Body round = [&](Scope& s, const std::vector<Value>& a) { return body(s, a); };
    trace_.scope().call("micro", "", arguments, round);

    Function& f = main.function();
    Op& op = f.ops.back();
    op.kind = Op::repeat;
    op.count = rounds_;
    op.index_operand = 2;
    op.operands[2] = ValueId::none;
    const Function& micro = trace_.building().functions[static_cast<size_t>(op.callee)];
    const std::vector<ValueId> results = op.results;
    prune(f, results, {.first = first});
    main.names_changed();

    Accumulated out;
    const auto find = [&](const std::string& name) { return Value(&main, main.find(name)); };
    MESHARD_CHECK(micro.returns.size() == 1 + params_.size(), "a loop returns its sums");
    out.loss = find("loss");
    for (const Value& p : params_) {
      out.params.push_back(find(p.name()));
      out.gradients.push_back(find(sum_name(p) + ".new"));
    }
    return out;
  }

  Trace& trace_;
  const ModelConfig& config_;
  Value tokens_, targets_, loss_scale_;
  int64_t rounds_;
  Type scalar_;
  std::vector<Value> params_;  // of the trace aside; names and types only
  std::vector<ParamGroup> groups_;
};

}  // namespace

Accumulated accumulate_gradients(Trace& trace, const ModelConfig& config, Value tokens, Value targets, Value loss_scale) {
  return Accumulation(trace, config, tokens, targets, loss_scale).trace();
}

}  // namespace meshard
