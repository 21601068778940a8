#include "meshard/models/optimizer.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "meshard/base/error.h"
#include "meshard/models/groups.h"
#include "meshard/ops/functions.h"

namespace meshard {
namespace {

AdamwOptions options(const AdamWConfig& c, const Value& param) {
  const Function& f = param.builder().function();
  const Init& init = f.param_info[static_cast<size_t>(f.param_index(param.id()))].init;
  const bool drawn = init.kind == Init::normal || init.kind == Init::uniform;
  return {c.beta1, c.beta2, c.eps, drawn && param.shape().rank() >= 2 ? c.weight_decay : 0};
}

class AdamW {
 public:
  AdamW(Trace& trace, const std::vector<Value>& params, const std::vector<Value>& gradients, const AdamWConfig& config,
        Value loss_scale)
      : trace_(trace),
        main_(trace.main()),
        params_(params),
        gradients_(gradients),
        config_(config),
        loss_scale_(loss_scale),
        groups_(group_params(trace.building(), trace.main().function(), params)) {}

  Value update(Value rate, Value step) {
    Value norm = sqrt(gather());  // []
    Value inverse;                // what makes gradients those of the loss itself
    if (loss_scale_) {
      inverse = reciprocal(loss_scale_).named("loss_scale.inverse");
      norm = norm * inverse;
    }
    norm = norm.named("grad_norm");
    Value clip = fill(main_, 1, norm.type());        // []: what gradients are multiplied by
    if (config_.clip_norm > 0) clip = minimum(clip, fill(main_, config_.clip_norm, norm.type()) / (norm + 1e-6));
    // Not a number unless the norm is finite: then adamw leaves everything as it is, and the step can be looked at, or
    // taken again with another scale of the loss.
    Value nothing = 0 * norm;
    clip = clip + nothing;
    if (loss_scale_) {
      clip = clip * inverse;
      step = next_scale(nothing, step);
    }
    clip = clip.named("clip");
    for (const Value& p : params_) {
      trace_.state(p.name() + ".m", p, p.shape(), {});
      trace_.state(p.name() + ".v", p, p.shape(), {});
    }
    GroupFunctions functions(trace_, "update");
    for (const ParamGroup& group : groups_) {
      if (group.callee < 0) {
        for (size_t i : group.members) {
          const std::string& name = params_[i].name();
          step_one(main_, params_[i], find(name + ".m"), find(name + ".v"), find(name + ".total"), rate, clip, step,
                   options(config_, params_[i]));
        }
        continue;
      }
      const int function = functions.get(group, [&](Builder& b) { make_update(b, group, rate.type()); });
      const std::vector<Value> made = call_group(main_, function, group, {rate, clip, step});
      size_t next = 0;
      for (size_t i : group.members) {
        for (const Value& old : {params_[i], find(params_[i].name() + ".m"), find(params_[i].name() + ".v")})
          trace_.result(made[next++], old);
      }
    }
    return norm;
  }

 private:
  // The next scale and counts, in place; gives the number of the optimizer's step. `nothing` is 0 where all gradients are
  // finite, else not a number: the same on every device, whatever the plan.
  Value next_scale(Value nothing, Value step) {
    constexpr double kMost = 0x1p40;
    // Copies: new values move the old ones.
    const Type type = loss_scale_.type();
    const std::string name = loss_scale_.name();
    const auto number = [&](double x) { return fill(main_, x, type); };
    const auto put = [&](Value made, Value old) { trace_.result(made.named(old.name() + ".new"), old); };
    Value good = trace_.state(name + ".good", type, {}), skipped = trace_.state(name + ".skipped", type, {});
    Value taken = (step - skipped).named("taken");
    Value finite = equal_to(nothing, number(0)).named(name + ".finite");
    Value longer = good + number(1);
    Value full = less_equal(number(static_cast<double>(config_.loss_scale->double_after)), longer);
    Value grown = select(full, minimum(scale(loss_scale_, 2), number(kMost)), loss_scale_);
    put(select(finite, grown, scale(loss_scale_, 0.5)), loss_scale_);
    put(select(finite, select(full, number(0), longer), number(0)), good);
    put(select(finite, skipped, skipped + number(1)), skipped);
    return taken;
  }

  Value find(const std::string& name) {
    const ValueId v = main_.find(name);
    MESHARD_CHECK(v != ValueId::none, "no value %" + name);
    return {&main_, v};
  }

  // X.total of each gradient, so that a pending one is reduced once; the sum of all squares.
  Value gather() {
    Value squares;
    for (size_t i : groups_[0].members) {
      Value total = meshard::total(gradients_[i]).named(params_[i].name() + ".total");
      squares = squares ? squares + sum_squares(total) : sum_squares(total);
    }
    if (!squares) squares = fill(main_, 0, Type{trace_.dtype(), {}});
    squares = squares.named("squares");
    GroupFunctions functions(trace_, "gather_norm");
    for (const ParamGroup& group : groups_) {
      if (group.callee < 0) continue;
      const int function = functions.get(group, [&](Builder& b) { make_gather(b, group); });
      std::vector<Value> arguments{squares};
      for (size_t i : group.members) arguments.push_back(gradients_[i]);
      squares = call_group(main_, function, group, std::move(arguments))[0];
    }
    return squares;
  }

  void make_gather(Builder& b, const ParamGroup& group) {
    Value squares = b.param("squares", Type{trace_.dtype(), {}});
    std::vector<Value> gradients, totals;
    for (size_t k = 0; k < group.members.size(); ++k) {
      const Value& gradient = gradients_[group.members[k]];
      const std::string name = name_under(group.prefix, gradient.name());
      // A gradient that several parameters share has one name.
      gradients.push_back(
          b.param(b.find(name) == ValueId::none ? name : group.names[k] + ".grad", gradient.type()));
    }
    for (size_t k = 0; k < group.members.size(); ++k) {
      totals.push_back(meshard::total(gradients[k]).named(group.names[k] + ".total"));
      squares = squares + sum_squares(totals.back());
    }
    b.result(squares.named("squares.new"));
    for (const Value& total : totals) b.result(total);
  }

  void make_update(Builder& b, const ParamGroup& group, const Type& scalar) {
    Value rate = b.param("rate", scalar), clip = b.param("clip", scalar), step = b.param("step", scalar);
    std::vector<std::array<Value, 4>> all;
    for (size_t k = 0; k < group.members.size(); ++k) {
      const Type& type = params_[group.members[k]].type();
      const std::string& name = group.names[k];
      Value w = b.param(name, type), m = b.param(name + ".m", type), v = b.param(name + ".v", type);
      all.push_back({w, m, v, b.param(name + ".total", type)});
    }
    for (size_t k = 0; k < group.members.size(); ++k) {
      const auto& [w, m, v, total] = all[k];
      step_one(b, w, m, v, total, rate, clip, step, options(config_, params_[group.members[k]]));
    }
  }

  void step_one(Builder& b, Value w, Value m, Value v, Value total, Value rate, Value clip, Value step,
                const AdamwOptions& options) {
    const std::array<Value, 3> made = adamw(w, m, v, total, rate, clip, step, options);
    const std::array<Value, 3> old{w, m, v};
    for (size_t i = 0; i < 3; ++i) made[i].named(old[i].name() + ".new");
    for (size_t i = 0; i < 3; ++i) b.result(made[i], old[i]);
  }

  Trace& trace_;
  Builder& main_;
  const std::vector<Value>& params_;
  const std::vector<Value>& gradients_;
  const AdamWConfig& config_;
  Value loss_scale_;  // or none
  std::vector<ParamGroup> groups_;
};

}  // namespace

double learning_rate(int64_t step, const ScheduleConfig& c) {
  if (step < c.warmup_steps) return c.rate * static_cast<double>(step + 1) / static_cast<double>(c.warmup_steps);
  if (step >= c.steps || c.steps <= c.warmup_steps) return step < c.steps ? c.rate : c.floor;
  const double done = static_cast<double>(step - c.warmup_steps) / static_cast<double>(c.steps - c.warmup_steps);
  return c.floor + (c.rate - c.floor) * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

Value loss_scale_state(Trace& trace, const LossScaleConfig& config) {
  if (!(config.first > 0) || !std::isfinite(config.first) || config.double_after < 1) {
    throw UserError(fmt::format("a loss scale of {} that doubles after {} steps; both must be positive", config.first, config.double_after));
  }
  return trace.state("loss_scale", Type{trace.dtype(), {}}, {Init::constant, config.first});
}

Value adamw_update(Trace& trace, const std::vector<Value>& params, const std::vector<Value>& gradients, Value rate,
                   Value step, const AdamWConfig& config, Value loss_scale) {
  if (params.size() != gradients.size()) {
    throw UserError(fmt::format("adamw_update: {} parameters but {} gradients", params.size(), gradients.size()));
  }
  MESHARD_CHECK(!loss_scale || config.loss_scale, "a loss scale without its settings");
  return AdamW(trace, params, gradients, config, loss_scale).update(rate, step);
}

}  // namespace meshard
