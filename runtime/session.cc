#include "meshard/runtime/session.h"

#include <fmt/format.h>

#include <cmath>

#include "meshard/base/error.h"
#include "meshard/collectives/lockstep.h"

namespace meshard {
namespace {

std::vector<Communicator*> borrow(const std::vector<std::unique_ptr<Communicator>>& owned) {
  std::vector<Communicator*> all;
  for (const auto& c : owned) all.push_back(c.get());
  return all;
}

std::vector<Rank> ranks_of(std::span<Communicator* const> devices) {
  std::vector<Rank> ranks;
  for (const Communicator* c : devices) ranks.push_back(c->rank());
  return ranks;
}

bool fits_i32(double x) { return x == std::floor(x) && std::abs(x) <= 2147483647.0; }

}  // namespace

Session::Session(const Compiled& program, const SessionOptions& options)
    : Session(program, lockstep_communicators(static_cast<int>(program.local.mesh->size()), options.backend), {}, options) {}

Session::Session(const Compiled& program, std::span<Communicator* const> devices, const SessionOptions& options)
    : Session(program, {}, {devices.begin(), devices.end()}, options) {}

Session::Session(const Compiled& program, std::vector<std::unique_ptr<Communicator>> owned,
                 std::vector<Communicator*> devices, const SessionOptions& options)
    : owned_(std::move(owned)),
      devices_(owned_.empty() ? std::move(devices) : borrow(owned_)),
      state_(program.local, ranks_of(devices_), options.backend),
      executor_(std::make_unique<Executor>(program, &state_, devices_, ExecutorOptions{.threads = options.threads, .backend = options.backend, .graph = options.graph})) {
  state_.init(options.seed);
  const Function& main = program.local.main();
  for (size_t p = 0; p < main.params.size(); ++p) {
    const ValueInfo& v = main.value(main.params[p]);
    if (main.param_info[p].kind == ParamInfo::input) inputs_.emplace(v.name, v.type);
  }
}

void Session::set(std::string_view input, std::span<const double> values) {
  const auto found = inputs_.find(input);
  if (found == inputs_.end()) return executor_->set_input(input, View{});  // the error with its suggestion
  const Type& type = found->second;
  if (static_cast<int64_t>(values.size()) != type.shape.elements()) {
    throw UserError(fmt::format("input {} is {} with {} element{}; {} were given", input, type.str(), type.shape.elements(),
                                type.shape.elements() == 1 ? "" : "s", values.size()));
  }
  for (size_t i = 0; i < values.size() && type.dtype == Dtype::i32; ++i) {
    if (!fits_i32(values[i])) throw UserError(fmt::format("input {} is {}, element {} is {}", input, type.str(), i, values[i]));
  }
  Buffer buffer(type.bytes());
  const View view{buffer.data(), type.dtype, type.shape};
  write_doubles(values.data(), view);
  executor_->set_input(input, view);
}

}  // namespace meshard
