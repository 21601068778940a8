#include "meshard/runtime/simulate.h"

#include <fmt/format.h>

#include <cmath>

#include "meshard/collectives/lockstep.h"
#include "meshard/kernels/random.h"
#include "meshard/layout/block.h"
#include "meshard/runtime/executor.h"

namespace meshard {
namespace {

// One compiled program on all its devices, with random inputs that depend on names and global indices alone.
class World {
 public:
  World(const Compiled& program, const CheckOptions& options, Backend* backend = nullptr)
      : program_(program.local),
        mesh_(*program.local.mesh),
        comms_(lockstep_communicators(static_cast<int>(mesh_.size()), backend)) {
    for (auto& c : comms_) {
      devices_.push_back(c.get());
      ranks_.push_back(c->rank());
    }
    state_ = std::make_unique<State>(program.local, ranks_, backend);
    fill_state(options);
    executor_ = std::make_unique<Executor>(program, state_.get(), devices_, ExecutorOptions{.threads = options.threads, .backend = backend});
    fill_inputs(options);
    executor_->run();
  }

  Executor& executor() { return *executor_; }
  State& state() { return *state_; }
  const Mesh& mesh() const { return mesh_; }
  int64_t received(size_t d) const { return devices_[d]->received_bytes(); }

  Results results() {
    Results out;
    const Function& main = program_.main();
    for (const Return& r : main.returns) {
      if (r.in_place != ValueId::none) continue;
      const std::string name(base_name(main.value(r.value).name));
      out.emplace_back(name, executor_->whole(name));
    }
    for (const StateEntry& e : state_->entries()) out.emplace_back(e.name, state_->gather(e.name));
    return out;
  }

 private:
  void fill_state(const CheckOptions& options) {
    for (const StateEntry& e : state_->entries()) {
      Buffer buffer(e.type.bytes());
      const View whole{buffer.data(), e.type.dtype, e.type.shape};
      draw_value(ValueInfo{.name = e.name, .type = e.type}, e.kind, options, whole);
      Rect all;
      for (int64_t n : e.type.shape.dims) all.dims.push_back({0, n});
      for (size_t d = 0; d < ranks_.size(); ++d) {
        const Rect mine = local_rect(mesh_, e.type.shape, e.layout, ranks_[d]);
        const Buffer block(state_->view(e.name, static_cast<int>(d)).bytes());
        copy_rect(whole.data, all, block.data(), mine, mine, size_bytes(e.type.dtype));
        state_->write(e.name, static_cast<int>(d), block.data());
      }
    }
  }

  void fill_inputs(const CheckOptions& options) {
    const Function& main = program_.main();
    for (size_t p = 0; p < main.params.size(); ++p) {
      if (main.param_info[p].kind != ParamInfo::input) continue;
      const ValueInfo& v = main.value(main.params[p]);
      Buffer buffer(v.type.bytes());
      const View whole{buffer.data(), v.type.dtype, v.type.shape};
      draw_value(v, ParamInfo::input, options, whole);
      executor_->set_input(v.name, whole);
    }
  }

  const Program& program_;
  Mesh mesh_;
  std::vector<std::unique_ptr<Communicator>> comms_;
  std::vector<Communicator*> devices_;
  std::vector<Rank> ranks_;
  std::unique_ptr<State> state_;
  std::unique_ptr<Executor> executor_;
};

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 1e-6, difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isfinite(a[i])) largest = std::max(largest, std::abs(a[i]));
    // Not-a-number on one side alone is a difference; on both sides, or the same infinity, is not.
    const bool same = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]));
    if (!same) difference = std::isfinite(a[i] - b[i]) ? std::max(difference, std::abs(a[i] - b[i])) : INFINITY;
  }
  return difference / largest;
}

// Devices that hold the same block of a replicated value have to agree.
bool same_on_replicas(World& world, const Layout& layout, const std::function<View(int)>& view) {
  const Mesh& mesh = world.mesh();
  const AtomSet distinct = layout.used();
  for (int64_t r = 0; r < mesh.size(); ++r) {
    int64_t first = r;
    for (AtomId a : (mesh.all() - distinct).list()) first -= mesh.digit(Rank{static_cast<int32_t>(r)}, a) * mesh.stride(a);
    if (first == r) continue;
    const View x = view(static_cast<int>(r));
    std::vector<double> a(static_cast<size_t>(x.elements())), b(a.size());
    read_doubles(x, a.data());
    read_doubles(view(static_cast<int>(first)), b.data());
    for (size_t i = 0; i < a.size(); ++i) {
      if (std::abs(a[i] - b[i]) > 1e-5 * std::max(1.0, std::abs(b[i]))) return false;
    }
  }
  return true;
}

}  // namespace

Program without_layouts(const Program& program) {
  Program p = program;
  p.mesh = Mesh();
  for (Function& f : p.functions) {
    for (ValueInfo& v : f.values) {
      v.layout = std::nullopt;
      v.pinned = false;
    }
    for (Op& op : f.ops) op.guard.clear();
  }
  return p;
}

void draw_value(const ValueInfo& value, ParamInfo::Kind kind, const CheckOptions& options, const View& out) {
  const Shape& shape = value.type.shape;
  const auto seed = static_cast<int64_t>(options.seed);
  const std::vector<int64_t> zero(shape.dims.size(), 0);
  const auto n = static_cast<size_t>(shape.elements());
  const auto uniform = [&](const std::string& name, double half) {
    std::vector<double> numbers(n);
    if (n > 0) fill_uniform(View{numbers.data(), Dtype::f64, shape}, shape, zero, seed, name, half);
    return numbers;
  };
  std::vector<double> numbers;
  if (!is_float(value.type.dtype)) {
    const auto below = static_cast<double>(value.below > 0 ? value.below : 2);
    numbers = uniform(value.name, 0.5);
    for (double& x : numbers) x = std::min(below - 1, std::floor((x + 0.5) * below));
  } else if (options.whole_numbers) {
    numbers = uniform(value.name, 0.5);
    for (double& x : numbers) x = std::min(4.0, std::floor((x + 0.5) * 5)) - 2;
  } else if (kind != ParamInfo::input) {
    numbers = uniform(value.name, 1);
  } else if (shape.rank() == 0) {
    numbers = {0.5};
  } else {
    numbers.resize(n);
    if (n > 0) fill_normal(View{numbers.data(), Dtype::f64, shape}, shape, zero, seed, value.name, 1);
  }
  // Second moments and counts of optimizers are not negative.
  if (kind == ParamInfo::state) {
    for (double& x : numbers) x = std::abs(x);
  }
  if (options.jitter != 0 && is_float(value.type.dtype)) {
    const std::vector<double> shift = uniform(value.name + ".jitter", options.jitter);
    for (size_t i = 0; i < n; ++i) numbers[i] += shift[i] * std::max(1e-3, std::abs(numbers[i]));
  }
  write_doubles(numbers.data(), out);
}

Results simulate(const Compiled& program, const CheckOptions& options) { return World(program, options).results(); }

double largest_difference(const Results& a, const Results& b, std::string* where) {
  MESHARD_CHECK(a.size() == b.size(), "two runs of one program have as many results");
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    MESHARD_CHECK(a[i].first == b[i].first, "two runs of one program have the same results");
    const double error = difference(a[i].second, b[i].second);
    if (where != nullptr && (error > largest || where->empty())) *where = a[i].first;
    largest = std::max(largest, error);
  }
  return largest;
}

CheckResult check_partition(const Program& global, const Compiled& local, uint64_t seed, int threads, Backend* backend) {
  return check_partition(global, local, CheckOptions{.seed = seed, .threads = threads, .backend = backend});
}

CheckResult check_partition(const Program& global, const Compiled& local, const CheckOptions& options) {
  const Compiled one = compile(without_layouts(global), {.optimize = {.on = false}});
  World whole(one, options), split(local, options, options.backend);
  CheckResult out;
  out.largest_error = largest_difference(whole.results(), split.results(), &out.where);
  if (!out.where.empty()) out.where = "%" + out.where;
  const Function& main = global.main();
  for (const Return& r : main.returns) {
    if (r.in_place != ValueId::none) continue;
    const std::string& name = main.value(r.value).name;
    out.replicas_agree &= same_on_replicas(split, split.executor().result_layout(name),
                                           [&](int d) { return split.executor().result(name, d); });
  }
  Buffer copy;
  for (const StateEntry& e : split.state().entries()) {
    out.replicas_agree &= same_on_replicas(split, e.layout, [&](int d) { return split.state().read(e.name, d, copy); });
  }
  for (int64_t d = 0; d < split.mesh().size(); ++d) {
    const auto device = static_cast<int>(d);
    out.bytes_agree &= split.received(static_cast<size_t>(d)) == local.bill.device_bytes[static_cast<size_t>(d)];
    out.memory_agrees &= split.executor().allocated_bytes(device) == split.executor().memory(device).peak_bytes();
  }
  return out;
}

std::string CheckResult::text() const {
  return fmt::format("largest relative difference {:.2e} (in {}); replicas {}; bytes received {} the bill; memory {} the plan", largest_error,
                     where.empty() ? "nothing" : where, replicas_agree ? "agree" : "DIFFER", bytes_agree ? "equal" : "DIFFER from",
                     memory_agrees ? "equals" : "DIFFERS from");
}

}  // namespace meshard
