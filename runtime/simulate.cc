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
  World(const Compiled& program, uint64_t seed, int threads, Backend* backend = nullptr)
      : mesh_(*program.local.mesh), comms_(lockstep_communicators(static_cast<int>(mesh_.size()), backend)) {
    for (auto& c : comms_) {
      devices_.push_back(c.get());
      ranks_.push_back(c->rank());
    }
    state_ = std::make_unique<State>(program.local, ranks_, backend);
    fill_state(seed);
    executor_ = std::make_unique<Executor>(program, state_.get(), devices_, ExecutorOptions{.threads = threads, .backend = backend});
    fill_inputs(program.local.main(), seed);
    executor_->run();
  }

  Executor& executor() { return *executor_; }
  State& state() { return *state_; }
  const Mesh& mesh() const { return mesh_; }
  int64_t received(size_t d) const { return devices_[d]->received_bytes(); }

 private:
  void fill_state(uint64_t seed) {
    for (size_t d = 0; d < ranks_.size(); ++d) {
      for (const StateEntry& e : state_->entries()) {
        std::vector<int64_t> begin;
        for (const Block& b : local_rect(mesh_, e.type.shape, e.layout, ranks_[d]).dims) begin.push_back(b.begin);
        View view = state_->view(e.name, static_cast<int>(d));
        const Buffer block(view.bytes());
        view.data = block.data();
        fill_uniform(view, e.type.shape, begin, static_cast<int64_t>(seed), e.name, 1.0);
        if (e.kind == ParamInfo::state) {
          // Second moments and counts of optimizers are not negative.
          std::vector<double> values(static_cast<size_t>(view.elements()));
          read_doubles(view, values.data());
          for (double& x : values) x = std::abs(x);
          write_doubles(values.data(), view);
        }
        state_->write(e.name, static_cast<int>(d), view.data);
      }
    }
  }

  void fill_inputs(const Function& main, uint64_t seed) {
    for (size_t p = 0; p < main.params.size(); ++p) {
      if (main.param_info[p].kind != ParamInfo::input) continue;
      const ValueInfo& v = main.value(main.params[p]);
      Buffer buffer(v.type.bytes());
      const View view{buffer.data(), v.type.dtype, v.type.shape};
      const std::vector<int64_t> zero(v.type.shape.dims.size(), 0);
      if (v.type.dtype == Dtype::i32) {
        Buffer reals(v.type.shape.elements() * 8);
        const View uniform{reals.data(), Dtype::f64, v.type.shape};
        fill_uniform(uniform, v.type.shape, zero, static_cast<int64_t>(seed), v.name, 0.5);
        const auto below = static_cast<double>(v.below > 0 ? v.below : 2);
        for (int64_t i = 0; i < view.elements(); ++i) {
          view.as<int32_t>()[i] = static_cast<int32_t>(std::min(below - 1, std::floor((uniform.as<double>()[i] + 0.5) * below)));
        }
      } else if (v.type.shape.rank() == 0) {
        const double half = 0.5;
        write_doubles(&half, view);
      } else {
        fill_normal(view, v.type.shape, zero, static_cast<int64_t>(seed), v.name, 1.0);
      }
      executor_->set_input(v.name, view);
    }
  }

  Mesh mesh_;
  std::vector<std::unique_ptr<Communicator>> comms_;
  std::vector<Communicator*> devices_;
  std::vector<Rank> ranks_;
  std::unique_ptr<State> state_;
  std::unique_ptr<Executor> executor_;
};

void compare(const std::vector<double>& a, const std::vector<double>& b, const std::string& name, CheckResult& out) {
  double largest = 1e-30, difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(a[i]));
    // Not-a-number on one side alone is a difference; on both sides, or the same infinity, is not.
    const bool same = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]));
    if (!same) difference = std::isfinite(a[i] - b[i]) ? std::max(difference, std::abs(a[i] - b[i])) : INFINITY;
  }
  const double error = difference / std::max(largest, 1e-6);
  if (error > out.largest_error || out.where.empty()) {
    out.largest_error = std::max(out.largest_error, error);
    out.where = name;
  }
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

CheckResult check_partition(const Program& global, const Compiled& local, uint64_t seed, int threads, Backend* backend) {
  World whole(compile(without_layouts(global), {.optimize = {.on = false}}), seed, threads), split(local, seed, threads, backend);
  CheckResult out;
  const Function& main = global.main();
  for (const Return& r : main.returns) {
    if (r.in_place != ValueId::none) continue;
    const std::string& name = main.value(r.value).name;
    compare(whole.executor().whole(name), split.executor().whole(name), "%" + name, out);
    out.replicas_agree &= same_on_replicas(split, split.executor().result_layout(name), [&](int d) { return split.executor().result(name, d); });
  }
  Buffer copy;
  for (const StateEntry& e : split.state().entries()) {
    compare(whole.state().gather(e.name), split.state().gather(e.name), "%" + e.name, out);
    out.replicas_agree &= same_on_replicas(split, e.layout, [&](int d) { return split.state().read(e.name, d, copy); });
  }
  for (int64_t d = 0; d < split.mesh().size(); ++d) {
    out.bytes_agree &= split.received(static_cast<size_t>(d)) == local.bill.device_bytes[static_cast<size_t>(d)];
    out.memory_agrees &= split.executor().allocated_bytes(static_cast<int>(d)) == split.executor().memory(static_cast<int>(d)).peak_bytes();
  }
  return out;
}

std::string CheckResult::text() const {
  return fmt::format("largest relative difference {:.2e} (in {}); replicas {}; bytes received {} the bill; memory {} the plan", largest_error,
                     where.empty() ? "nothing" : where, replicas_agree ? "agree" : "DIFFER", bytes_agree ? "equal" : "DIFFER from",
                     memory_agrees ? "equals" : "DIFFERS from");
}

}  // namespace meshard
