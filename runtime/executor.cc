#include "meshard/runtime/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "meshard/runtime/device.h"
#include "meshard/runtime/joined.h"
#include "meshard/runtime/profile.h"

namespace meshard {
namespace {

void run_copy(const RectCopy& c, const void* from, void* to, int64_t element_bytes) {
  copy_rect(static_cast<const std::byte*>(from) + c.from_offset * element_bytes, c.from,
            static_cast<std::byte*>(to) + c.to_offset * element_bytes, c.to, c.part, element_bytes);
}

// The same between two places of a backend.
BoxCopy box_of(const RectCopy& c, int64_t element_bytes) {
  BoxCopy box;
  box.bytes = element_bytes;
  const size_t rank = c.part.dims.size();
  for (size_t d = 0; d < rank; ++d) {
    int64_t from = 1, to = 1;
    for (size_t i = d + 1; i < rank; ++i) {
      from *= c.from.dims[i].size;
      to *= c.to.dims[i].size;
    }
    box.push(c.part.dims[d].size, from, to);
  }
  return box;
}

// Of the first element of c.part in the block `in`.
int64_t first_of(const RectCopy& c, const Rect& in) {
  int64_t at = 0;
  for (size_t d = 0; d < in.dims.size(); ++d) at = at * in.dims[d].size + c.part.dims[d].begin - in.dims[d].begin;
  return at;
}

Rect whole_rect(const Shape& shape) {
  Rect r;
  for (int64_t d : shape.dims) r.dims.push_back({0, d});
  return r;
}

}  // namespace

struct Executor::Device {
  PlannedDevice plan;
  Communicator* comm = nullptr;
  State* state = nullptr;
  int state_device = 0;
  Backend* backend = nullptr;
  Memory input, arena;
  std::byte* pinned = nullptr;  // the inputs on their way to a backend
  std::vector<bool> feeding;    // of each value: copies from `pinned` may not be done yet
  mutable std::map<int, Buffer> copies;  // of values of a backend that were asked for
  std::vector<std::byte*> values;   // of each flat value
  std::vector<std::byte*> scratch;  // of each step
  struct Pointers {
    std::vector<void*> operands, results;
  };
  std::vector<Pointers> pointers;   // of each step
  JoinedSteps joined;
  std::vector<int64_t> rounds;      // of each loop_begin
  // Borrowed memory: where the pointers into each part stand (inputs, results, arena), and how far into it they point.
  struct Patch {
    void* pointer;  // to the pointer
    int64_t offset;
  };
  std::vector<std::vector<Patch>> patches;

  ~Device() {
    if (pinned != nullptr) backend->release_pinned(pinned);
  }

  void bind() {
    const Flat& flat = plan.flat;
    input = Memory(backend, plan.memory.input_bytes);
    arena = Memory(backend, plan.memory.arena_bytes);
    if (backend != nullptr) pinned = backend->allocate_pinned(plan.memory.input_bytes);
    std::vector<std::byte*> at(flat.values.size());
    for (size_t v = 0; v < flat.values.size(); ++v) {
      const Slot& slot = plan.memory.values[v];
      std::byte* base = slot.base == Slot::input ? input.data() : arena.data();
      at[v] = base + slot.offset;
      if (slot.base == Slot::state) {
        MESHARD_CHECK(state != nullptr, "a program with parameters needs a State");
        at[v] = static_cast<std::byte*>(state->view(flat.values[static_cast<size_t>(root(static_cast<int>(v)))].name, state_device).data) +
                flat.values[v].within;
      }
    }
    bind(std::move(at), arena.data());
  }

  // `at`: where each value is.
  void bind(std::vector<std::byte*> at, std::byte* arena_data) {
    const Flat& flat = plan.flat;
    values = std::move(at);
    rounds.resize(flat.steps.size());
    pointers.resize(flat.steps.size());
    for (size_t i = 0; i < flat.steps.size(); ++i) {
      const FlatStep& step = flat.steps[i];
      scratch.push_back(arena_data + plan.memory.scratch[i].offset);
      for (int v : step.operands) pointers[i].operands.push_back(values[static_cast<size_t>(v)]);
      for (int v : step.results) pointers[i].results.push_back(values[static_cast<size_t>(v)]);
      if (plan.collectives[i] != nullptr) bind_collective(i);
    }
  }

  int root(int v) const {
    while (plan.flat.values[static_cast<size_t>(v)].alias >= 0) v = plan.flat.values[static_cast<size_t>(v)].alias;
    return v;
  }

  // -1: a result with a place of its own; i: input i; inputs + r: result r.
  int shares(size_t result) const {
    const Flat& flat = plan.flat;
    const int mine = root(flat.results[result]);
    for (size_t p = 0; p < flat.params.size(); ++p) {
      if (flat.params[p] == mine) return static_cast<int>(p);
    }
    for (size_t r = 0; r < result; ++r) {
      if (root(flat.results[r]) == mine) return static_cast<int>(flat.params.size() + r);
    }
    return -1;
  }

  // Binds to addresses that only say which part of the borrowed memory is meant and where in it; place() puts the real ones.
  void bind_borrowed() {
    constexpr int kPartBits = 44;  // longer than any offset in a part
    const Flat& flat = plan.flat;
    const size_t inputs = flat.params.size(), parts = inputs + flat.results.size() + 1;
    const auto address = [](size_t part, int64_t offset) {
      return reinterpret_cast<std::byte*>(static_cast<uintptr_t>(part + 1) << kPartBits | static_cast<uintptr_t>(offset));
    };
    MESHARD_CHECK(parts < (size_t{1} << (63 - kPartBits)), "too many inputs and results to borrow");
    std::vector<std::byte*> at(flat.values.size());
    for (size_t v = 0; v < flat.values.size(); ++v) {
      const Slot& slot = plan.memory.values[v];
      MESHARD_CHECK(slot.base != Slot::state, "a program on borrowed memory has inputs only");
      at[v] = address(parts - 1, slot.offset);
      for (size_t p = 0; p < inputs; ++p) {
        if (flat.params[p] == root(static_cast<int>(v))) at[v] = address(p, 0);
      }
      // What a result is written over stands where the result is to be; so may what has the result's place in the arena at another
      // time and is no longer.
      for (size_t r = 0; r < flat.results.size() && slot.base == Slot::arena; ++r) {
        if (shares(r) >= 0) continue;
        const Slot& result = plan.memory.values[static_cast<size_t>(flat.results[r])];
        if (result.base == Slot::arena && result.offset == slot.offset && slot.bytes <= result.bytes && result.bytes > 0) at[v] = address(inputs + r, 0);
      }
    }
    for (size_t r = flat.results.size(); r-- > 0;) {
      if (shares(r) < 0) at[static_cast<size_t>(root(flat.results[r]))] = at[static_cast<size_t>(flat.results[r])] = address(inputs + r, 0);
    }
    bind(std::move(at), address(parts - 1, 0));
    patches.resize(parts);
    const auto note = [&](void* pointer) {
      uintptr_t where = 0;
      std::memcpy(&where, pointer, sizeof where);
      patches[(where >> kPartBits) - 1].push_back({pointer, static_cast<int64_t>(where & ((uintptr_t{1} << kPartBits) - 1))});
    };
    for (std::byte*& p : values) note(&p);
    for (std::byte*& p : scratch) note(&p);
    for (Pointers& p : pointers) {
      for (void*& q : p.operands) note(&q);
      for (void*& q : p.results) note(&q);
    }
    for (auto& c : plan.collectives) {
      if (c == nullptr) continue;
      note(&c->call.send);
      note(&c->call.receive);
    }
  }

  void bind_collective(size_t i) {
    CollectiveStep& c = *plan.collectives[i];
    std::byte* send = scratch[i];
    std::byte* receive = scratch[i] + (c.stage_send ? (c.send_elements * c.element_bytes + kAlignment - 1) / kAlignment * kAlignment : 0);
    c.call.group = &c.group;
    c.call.send = c.stage_send ? static_cast<void*>(send) : pointers[i].operands[0];
    c.call.receive = c.stage_receive ? static_cast<void*>(receive) : pointers[i].results[0];
    // Of several values, a reduction on all devices takes place in the area that is sent.
    if (c.stage_send && c.call.kind == Collective::all_reduce) c.call.receive = send;
    c.call.counts = c.counts;
    c.call.send_counts = c.send_counts;
    c.call.label = plan.flat.values[static_cast<size_t>(plan.flat.steps[i].results[0])].name;
  }

  void move(const RectCopy& c, const void* from, void* to, int64_t element_bytes) {
    if (backend == nullptr) return run_copy(c, from, to, element_bytes);
    if (c.part.elements() == 0) return;
    backend->copy_box(box_of(c, element_bytes), static_cast<const std::byte*>(from) + (c.from_offset + first_of(c, c.from)) * element_bytes,
                      static_cast<std::byte*>(to) + (c.to_offset + first_of(c, c.to)) * element_bytes, Backend::compute);
  }

  void work(size_t i) {
    const KernelCall call{pointers[i].operands, pointers[i].results, scratch[i]};
    if (backend != nullptr) return backend->run(*plan.kernels[i], call, Backend::compute);
    plan.kernels[i]->run(call);
  }

  void count(int value, int64_t round) {
    std::byte* counter = values[static_cast<size_t>(value)];
    if (backend != nullptr) return backend->store(static_cast<int32_t>(round), counter, Backend::compute);
    *reinterpret_cast<int32_t*>(counter) = static_cast<int32_t>(round);
  }

  // Waits for all steps that are on their way, of which any may have failed.
  void settle() const {
    try {
      backend->synchronize(Backend::compute);
    } catch (const InternalError& e) {
      throw InternalError(fmt::format("{}; a run without graphs (--no-graph) waits for each op and names it", e.what()));
    }
  }

  // Where the host writes and reads a value: a backend's through copies.
  std::byte* staging(int v) {
    if (backend == nullptr) return values[static_cast<size_t>(v)];
    feeding.resize(plan.flat.values.size());
    if (feeding[static_cast<size_t>(v)]) {
      settle();
      feeding.assign(feeding.size(), false);
    }
    return pinned + plan.memory.values[static_cast<size_t>(v)].offset;
  }
  void feed(int v) {
    if (backend == nullptr) return;
    const Slot& slot = plan.memory.values[static_cast<size_t>(v)];
    MESHARD_CHECK(slot.base == Slot::input, "an input that is no input");
    backend->copy(values[static_cast<size_t>(v)], pinned + slot.offset, slot.bytes, Backend::compute);
    feeding[static_cast<size_t>(v)] = true;
  }
  View fetch(int v) const {
    const FlatValue& value = plan.flat.values[static_cast<size_t>(v)];
    View view{values[static_cast<size_t>(v)], value.type.dtype, value.local};
    if (backend == nullptr) return view;
    Buffer& copy = copies.try_emplace(v, view.bytes()).first->second;
    // A copy to pageable memory waits for the stream where nobody watches: what may never come must be waited for before.
    settle();
    backend->copy(copy.data(), view.data, view.bytes(), Backend::compute);
    settle();
    view.data = copy.data();
    return view;
  }

  void start(size_t i) {
    CollectiveStep& c = *plan.collectives[i];
    const auto& [from, to] = pointers[i];
    for (const RectCopy& copy : c.pack) move(copy, from[copy.value], scratch[i], c.element_bytes);
    for (const RectCopy& copy : c.keep) move(copy, from[copy.value], to[copy.value], c.element_bytes);
    if (c.zero && backend != nullptr) {
      backend->zero(to[0], c.receive_elements * c.element_bytes, Backend::compute);
    } else if (c.zero) {
      std::fill_n(static_cast<std::byte*>(to[0]), c.receive_elements * c.element_bytes, std::byte{0});
    }
    if (c.call.kind != Collective::slice) c.ticket = comm->start(c.call);
  }

  void finish(size_t i) {
    CollectiveStep& c = *plan.collectives[i];
    if (c.call.kind != Collective::slice) comm->wait(c.ticket);
    for (const RectCopy& copy : c.unpack) move(copy, c.call.receive, pointers[i].results[copy.value], c.element_bytes);
  }

  void copy(size_t i) {
    const FlatValue& v = plan.flat.values[static_cast<size_t>(plan.flat.steps[i].results[0])];
    const auto bytes = static_cast<size_t>(v.local.elements() * size_bytes(v.type.dtype));
    if (backend != nullptr) return backend->copy(pointers[i].results[0], pointers[i].operands[0], static_cast<int64_t>(bytes), Backend::compute);
    if (bytes > 0) std::copy_n(static_cast<const std::byte*>(pointers[i].operands[0]), bytes, static_cast<std::byte*>(pointers[i].results[0]));
  }

  int find_param(std::string_view name) const {
    for (int v : plan.flat.params) {
      if (plan.flat.values[static_cast<size_t>(v)].name == name) return v;
    }
    return -1;
  }
  int find_result(std::string_view name) const {
    for (int v : plan.flat.results) {
      const std::string& have = plan.flat.values[static_cast<size_t>(v)].name;
      if (have == name || base_name(have) == name) return v;
    }
    std::vector<std::string> known;
    for (int v : plan.flat.results) known.emplace_back(base_name(plan.flat.values[static_cast<size_t>(v)].name));
    throw UserError(fmt::format("the program returns no \"{}\"{}", name, did_you_mean(name, known)));
  }
};

Executor::Executor(const Compiled& program, State* state, std::span<Communicator* const> devices, const ExecutorOptions& options) {
  program_ = std::make_unique<Program>(program.local);
  backend_ = options.backend;
  graph_ = options.graph && backend_ != nullptr;
  MESHARD_CHECK(backend_ == nullptr || !options.borrow, "borrowed memory is the host's");
  for (const Communicator* c : devices) graph_ = graph_ && c->on_stream();
  const Mesh& mesh = *program_->mesh;
  if (devices.empty() || (devices[0]->size() != mesh.size())) {
    throw UserError(fmt::format("the mesh {} has {} devices, but {} ranks are running; start {} ranks or change --mesh", mesh.str(), mesh.size(),
                                devices.empty() ? 0 : devices[0]->size(), mesh.size()));
  }
  // What talks to nobody needs no agreement.
  if (!options.borrow || !program.bill.lines.empty()) agree_on_text(*devices[0], "program", program.digest_text);
  for (size_t i = 0; i < devices.size(); ++i) {
    auto device = std::make_unique<Device>();
    device->plan = plan_device(*program_, devices[i]->rank(), options);
    device->comm = devices[i];
    device->backend = options.backend;
    device->state = state;
    device->state_device = static_cast<int>(i);
    devices_.push_back(std::move(device));
  }
  for (auto& device : devices_) options.borrow ? device->bind_borrowed() : device->bind();
  if (backend_ == nullptr) return;
  for (auto& device : devices_) {
    device->joined = join_steps(device->plan, device->values, [&](size_t i) { return KernelCall{device->pointers[i].operands, device->pointers[i].results}; });
  }
  announce_groups();
}

// Every set of axes that the program talks over, in its order, which is the same on all ranks.
void Executor::announce_groups() {
  std::vector<AtomSet> sets;
  const auto add = [&](AtomSet over) {
    if (std::find(sets.begin(), sets.end(), over) == sets.end()) sets.push_back(over);
  };
  for (const Function& f : program_->functions) {
    for (const Op& op : f.ops) {
      if (op.kind == Op::apply && op.def->collective && *op.def->collective != Collective::slice) add(op.over);
    }
  }
  for (const FlatStep& step : devices_.front()->plan.flat.steps) {
    if (step.fetch != nullptr) add(step.fetch->over);
  }
  for (const auto& d : devices_) {
    for (const AtomSet over : sets) d->comm->prepare(Group(*program_->mesh, over, d->plan.rank));
  }
}

Executor::~Executor() {
  if (backend_ == nullptr) return;
  // What is still on the streams reads what goes away here. An error was reported, or comes out at the next wait.
  for (const Backend::Stream stream : {Backend::compute, Backend::communication}) {
    try {
      backend_->synchronize(stream);
    } catch (const InternalError&) {
    }
  }
}

void Executor::place(Part part, int index, int device, void* at) {
  Device& d = *devices_[static_cast<size_t>(device)];
  size_t number = static_cast<size_t>(index);
  if (part == Part::result) number += d.plan.flat.params.size();
  if (part == Part::arena) number = d.patches.size() - 1;
  for (const Device::Patch& p : d.patches[number]) {
    void* target = static_cast<std::byte*>(at) + p.offset;
    std::memcpy(p.pointer, &target, sizeof target);
  }
}

int Executor::shares(int result) const { return devices_.front()->shares(static_cast<size_t>(result)); }
int Executor::inputs() const { return static_cast<int>(devices_.front()->plan.flat.params.size()); }
int Executor::devices() const { return static_cast<int>(devices_.size()); }
Rank Executor::rank(int device) const { return devices_[static_cast<size_t>(device)]->plan.rank; }
int Executor::results() const { return static_cast<int>(devices_.front()->plan.flat.results.size()); }
const Flat& Executor::flat(int device) const { return devices_[static_cast<size_t>(device)]->plan.flat; }

void Executor::set_input(std::string_view name, const View& global) {
  for (auto& device : devices_) {
    const int v = device->find_param(name);
    if (v < 0 || device->plan.flat.values[static_cast<size_t>(v)].kind != ParamInfo::input) {
      std::vector<std::string> known;
      for (int p : device->plan.flat.params) {
        if (device->plan.flat.values[static_cast<size_t>(p)].kind == ParamInfo::input) known.push_back(device->plan.flat.values[static_cast<size_t>(p)].name);
      }
      throw UserError(fmt::format("the program has no input \"{}\"{}", name, did_you_mean(name, known)));
    }
    const FlatValue& value = device->plan.flat.values[static_cast<size_t>(v)];
    const Type given{global.dtype, global.shape};
    if (given != value.type) throw UserError(fmt::format("input {} is {}, the program takes {}", name, given.str(), value.type.str()));
    if (device == devices_.front()) check_bounds(name, global);
    const Rect mine = local_rect(*program_->mesh, value.type.shape, value.layout, device->plan.rank);
    copy_rect(global.data, whole_rect(value.type.shape), device->staging(v), mine, mine, size_bytes(value.type.dtype));
    device->feed(v);
  }
}

void Executor::check_bounds(std::string_view name, const View& global) const {
  const Function& main = program_->main();
  const int64_t below = main.value(main.find(name)).below;
  if (below == 0 || global.dtype != Dtype::i32) return;
  for (int64_t i = 0; i < global.elements(); ++i) {
    const int32_t x = global.as<int32_t>()[i];
    if (x >= 0 && x < below) continue;
    std::string where;
    int64_t rest = i;
    for (int d = global.shape.rank(); d-- > 0;) {
      where = fmt::format("{}{}{}", rest % global.shape[d], where.empty() ? "" : ",", where);
      rest /= global.shape[d];
    }
    throw UserError(fmt::format("{}[{}] is {}, not in 0 .. {}", name, where, x, below - 1));
  }
}

void Executor::set_scalar(std::string_view name, double value) {
  const Function& main = program_->main();
  const ValueId v = main.find(name);
  const Dtype dtype = v == ValueId::none ? Dtype::f32 : main.value(v).type.dtype;
  alignas(8) std::byte storage[8];
  const View view{storage, dtype, Shape{}};
  write_doubles(&value, view);
  set_input(name, view);
}

void Executor::run() {
  // The first run is made step by step: libraries make things of their own when they are first called.
  const bool whole = graph_ && !observer_ && profile_ == nullptr && runs_++ > 0;
  if (whole) return run_captured();
  if (profile_ == nullptr) return run_steps<false>();
  profile_->begin_run();
  run_steps<true>();
  profile_->end_run();
}

void Executor::run_captured() {
  if (captured_ != nullptr) {
    for (size_t d = 0; d < devices_.size(); ++d) devices_[d]->comm->count_replay(captured_bytes_[d]);
  } else {
    for (const auto& d : devices_) captured_bytes_.push_back(-d->comm->received_bytes());
    backend_->begin_capture();
    run_steps<false>();
    captured_ = backend_->end_capture();
    for (size_t d = 0; d < devices_.size(); ++d) captured_bytes_[d] += devices_[d]->comm->received_bytes();
  }
  backend_->replay(*captured_);
}

// Waits for step i, so that what fails on the device fails here, with its name.
void Executor::check_step(size_t i) const {
  try {
    backend_->synchronize(Backend::compute);
  } catch (const InternalError& e) {
    const Flat& flat = devices_.front()->plan.flat;
    const FlatStep& step = flat.steps[i];
    std::string text = step.op == nullptr ? "a copy" : std::string(step.op->def->name);
    for (int v : step.operands) {
      const FlatValue& value = flat.values[static_cast<size_t>(v)];
      text += fmt::format(" %{}: {} {}", value.name, value.type.str(), value.layout.str(*program_->mesh));
    }
    throw InternalError(fmt::format("{}: {}: {}", step.place, text, e.what()));
  }
}

template <bool profiled>
void Executor::run_steps() {
  const auto timed = [this](size_t device, size_t step, Profile::Phase phase, const auto& work) {
    if constexpr (!profiled) return work();
    const int64_t begin = Profile::now();
    work();
    if (backend_ != nullptr) check_step(step);
    profile_->add(static_cast<int>(device), static_cast<int>(step), phase, begin, Profile::now());
  };
  const std::vector<FlatStep>& steps = devices_.front()->plan.flat.steps;
  // Where each step is looked at, each is made by itself.
  const bool together = backend_ != nullptr && graph_ && !profiled && !observer_;
  for (size_t i = 0; i < steps.size(); ++i) {
    size_t next = i;
    switch (steps[i].kind) {
      case FlatStep::loop_begin:
        for (auto& d : devices_) {
          d->rounds[i] = 0;
          if (steps[i].counter >= 0) d->count(steps[i].counter, 0);
        }
        if (steps[i].count == 0) next = static_cast<size_t>(steps[i].partner);
        break;
      case FlatStep::loop_end: {
        const auto begin = static_cast<size_t>(steps[i].partner);
        for (auto& d : devices_) {
          ++d->rounds[begin];
          if (steps[i].counter >= 0) d->count(steps[i].counter, d->rounds[begin]);
        }
        if (devices_.front()->rounds[begin] < steps[i].count) next = begin;
        break;
      }
      default:
        for (size_t n = 0; n < devices_.size(); ++n) {
          Device* const d = devices_[n].get();
          switch (d->plan.flat.steps[i].kind) {
            case FlatStep::kernel:
              if (together && d->joined.later[i]) break;
              if (together && !d->joined.calls[i].empty()) {
                backend_->run_many(d->joined.calls[i], Backend::compute);
                break;
              }
              timed(n, i, Profile::work, [&] { d->work(i); });
              break;
            case FlatStep::copy: timed(n, i, Profile::work, [&] { d->copy(i); }); break;
            case FlatStep::collective: timed(n, i, Profile::start, [&] { d->start(i); }); break;
            default: break;
          }
        }
        for (size_t n = 0; n < devices_.size(); ++n) {
          Device* const d = devices_[n].get();
          const FlatStep& step = d->plan.flat.steps[i];
          if (step.kind == FlatStep::collective && !step.start) timed(n, i, Profile::wait, [&] { d->finish(i); });
          if (step.kind == FlatStep::wait) timed(n, i, Profile::wait, [&] { d->finish(static_cast<size_t>(step.partner)); });
        }
    }
    if (backend_ != nullptr && !graph_) check_step(i);
    if (observer_) {
      for (size_t d = 0; d < devices_.size(); ++d) observer_(static_cast<int>(d), devices_[d]->plan.flat, static_cast<int>(i));
    }
    i = next;
  }
}

double Executor::scalar(std::string_view name) const {
  const View v = result(name, 0);
  if (v.elements() != 1) throw UserError(fmt::format("result {} has shape {}, it is no scalar", name, v.shape.str()));
  double value = 0;
  read_doubles(v, &value);
  return value;
}

View Executor::result(std::string_view name, int device) const {
  const Device& d = *devices_[static_cast<size_t>(device)];
  return d.fetch(d.find_result(name));
}

View Executor::value(int device, int v) const { return devices_[static_cast<size_t>(device)]->fetch(v); }

const Layout& Executor::result_layout(std::string_view name) const {
  const Device& d = *devices_.front();
  return d.plan.flat.values[static_cast<size_t>(d.find_result(name))].layout;
}

std::vector<double> Executor::whole(std::string_view name) const {
  std::vector<Rank> ranks;
  std::vector<View> blocks;
  for (size_t d = 0; d < devices_.size(); ++d) {
    ranks.push_back(devices_[d]->plan.rank);
    blocks.push_back(result(name, static_cast<int>(d)));
  }
  const Device& d = *devices_.front();
  const FlatValue& v = d.plan.flat.values[static_cast<size_t>(d.find_result(name))];
  return put_together(*program_->mesh, v.type.shape, v.layout, ranks, blocks);
}

int64_t Executor::allocated_bytes(int device) const {
  const Device& d = *devices_[static_cast<size_t>(device)];
  return d.input.bytes() + d.arena.bytes() + (d.state != nullptr ? d.state->bytes(device) : 0);
}

const MemoryPlan& Executor::memory(int device) const { return devices_[static_cast<size_t>(device)]->plan.memory; }

int Executor::joined_steps(int device) const {
  const std::vector<bool>& later = devices_[static_cast<size_t>(device)]->joined.later;
  return static_cast<int>(std::count(later.begin(), later.end(), true));
}

void Executor::set_profile(Profile* profile) { profile_ = profile; }

StepInfo Executor::step_info(int device, int step) const {
  const PlannedDevice& plan = devices_[static_cast<size_t>(device)]->plan;
  const auto i = static_cast<size_t>(step);
  const FlatStep& s = plan.flat.steps[i];
  StepInfo info;
  info.place = s.place;
  if (s.kind == FlatStep::copy) info.name = "copy";
  if (s.kind == FlatStep::kernel || s.kind == FlatStep::collective) info.name = s.fetch != nullptr ? name(Collective::exchange) : s.op->def->name;
  if (!s.results.empty()) {
    const FlatValue& v = plan.flat.values[static_cast<size_t>(s.results[0])];
    info.result = fmt::format("%{}: {} {}", v.name, v.type.str(), v.layout.str(*program_->mesh));
  }
  if (plan.collectives[i] != nullptr) {
    info.collective = true;
    info.bytes = plan.collectives[i]->call.kind == Collective::slice ? 0 : received_bytes(plan.collectives[i]->call);
  } else if (s.kind == FlatStep::kernel) {
    info.flops = step_flops(*program_, plan.flat, s, plan.rank);
  }
  return info;
}

void Executor::set_observer(std::function<void(int, const Flat&, int)> observer) { observer_ = std::move(observer); }

}  // namespace meshard
