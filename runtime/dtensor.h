// DTensor: a tensor that lies on the devices of a mesh, and ops on it that run when they are called. Each op is a program of
// one op, compiled once by the passes that compile models and kept: the key is the op, its attributes, and the types and
// layouts of its operands. For a training step that is run many times compile(), or a model and a Session, is faster still.
//
//   Eager eager(Mesh::parse("data=2, model=2"));                       // all devices in this process, in lockstep
//   DTensor x = eager.tensor("f32[6,8]", values, "[data, -]");         // host data, split over axis data
//   DTensor w = normal(eager, "f32[8,4]", "[-, model]", 7, "w", 0.1);  // runtime/dtensor_functions.h
//   Tape tape(eager);
//   DTensor y = gelu(einsum("b i, i j -> b j", x, w));                 // [data, model]: nothing was moved
//   DTensor loss = mean(square(y));                                    // [] + sum(data,model): still to be added up
//   DTensor dw = tape.gradients(loss, {w})[0];                         // laid out as w
//   w = w - 0.1 * dw;
//   double now = loss.item();                                          // adds up
//
// Layouts change cost, never values. A result is left as the op makes it: split as its operands are, a sum pending where a
// split dimension was summed over. What reads a pending value reduces it: item(), values(), an op through which the sum may
// not pass, redistribute(). Where operands have to be moved for an op, the cheapest way is taken, counted in
// stats().unasked_bytes and told to EagerOptions::report; with Mode::explicit_only it is an error that says what would be
// moved, and redistribute() is how it is asked for. Nothing else moves.
//
// Under MPI every rank makes the same calls in the same order, and each gives its communicator:
//
//   auto comm = mpi_communicator(nullptr);
//   std::vector<Communicator*> devices{comm.get()};                    // must outlive what is made on it
//   Eager eager(Mesh::parse("data=4"), devices);
//
// One thread at a time per Eager. Errors are UserErrors with the caller's line: shapes that do not fit, an unknown op, axis or
// attribute, operands of two Eagers, counts of elements.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <source_location>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "meshard/base/buffer.h"
#include "meshard/collectives/communicator.h"
#include "meshard/ir/op.h"
#include "meshard/layout/block.h"
#include "meshard/sharding/partition.h"

namespace meshard {

class Eager;
namespace eager {
struct Context;
struct Node;
}  // namespace eager

// A handle of a value; a copy is another handle of the same value. A value never changes. Default constructed it is none.
class DTensor {
 public:
  DTensor() = default;
  DTensor(const DTensor& other) : node_(other.node_) { retain(); }
  DTensor(DTensor&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  DTensor& operator=(DTensor other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~DTensor() {
    if (node_ != nullptr) release();
  }

  explicit operator bool() const { return node_ != nullptr; }
  const Type& type() const;  // global
  const Shape& shape() const { return type().shape; }
  const Layout& layout() const;
  std::string layout_text() const;  // "[data, -] + sum(model)"
  Eager eager() const;

  // The same value in another layout: "[-, model]". The handle itself where it has that layout.
  DTensor redistribute(std::string_view layout, std::source_location where = std::source_location::current()) const;
  DTensor redistribute(const Layout& layout, std::source_location where = std::source_location::current()) const;

  // All elements, row-major, sums done: a gather to every device, which every rank has to call.
  std::vector<double> values() const;
  double item() const;  // of a value with one element
  // The block of the i-th device of this process, of a pending value its part of the sum. Valid while a handle is held.
  View local(int device = 0) const;

 private:
  friend struct eager::Context;
  explicit DTensor(eager::Node* node) : node_(node) {}  // takes over one reference
  void retain() const;
  void release();
  eager::Node* node_ = nullptr;
};

struct EagerOptions {
  int threads = 1;             // of each kernel
  PartitionOptions partition;  // of each op: auto, explicit, or a budget in bytes
  // Called once for each collective that an op needs and nobody asked for, when the op is compiled: "model.cc:12: einsum:
  // all_gather over model of %x0, 4096 bytes on the busiest device: ...".
  std::function<void(std::string_view)> report;
  int64_t idle_bytes = int64_t{1} << 30;  // memory of values that are gone, kept for new ones, at most
};

struct EagerStats {
  int64_t hits = 0, misses = 0;  // ops run as they were known, and compiled
  int64_t unasked_bytes = 0;     // received by the busiest device for operands and results that had to be moved
  int64_t used_bytes = 0;        // held by values, of all devices here
  int64_t idle_bytes = 0;        // kept for new ones
};

// A C++ function of DTensors as one program for each combination of operand types and layouts: traced when it first meets one,
// with DTensors that stand for values and have no numbers, planned as a whole, and run. Gives the numbers that the function
// itself gives; layouts of results are the planner's unless they are written with redistribute().
class CompiledFunction {
 public:
  using Function = std::function<std::vector<DTensor>(const std::vector<DTensor>&)>;
  std::vector<DTensor> operator()(const std::vector<DTensor>& operands) const;
  // What every rank runs for such operands, and what it moves.
  std::string program(const std::vector<DTensor>& operands) const;
  std::string bill(const std::vector<DTensor>& operands) const;

 private:
  friend class Eager;
  struct State;
  std::shared_ptr<State> state_;
};

// Where DTensors live: a mesh, its devices, compiled ops, and memory. A handle too: DTensors keep what they need alive.
class Eager {
 public:
  using Where = std::source_location;

  // All devices of the mesh in this process.
  explicit Eager(const Mesh& mesh, EagerOptions options = {});
  // On devices of the caller, which outlive all DTensors: under MPI each rank passes one.
  Eager(const Mesh& mesh, std::span<Communicator* const> devices, EagerOptions options = {});
  Eager(const Eager& other);
  Eager& operator=(Eager other) noexcept;
  ~Eager();

  const Mesh& mesh() const;
  int local_devices() const;

  // From all elements, which every rank passes, row-major: no communication. `below`: integers are 0 <= x < below, checked.
  DTensor tensor(std::string_view type, std::span<const double> values, std::string_view layout, int64_t below = 0,
                 Where where = Where::current()) const;
  DTensor tensor(const View& global, std::string_view layout, int64_t below = 0, Where where = Where::current()) const;
  // Block by block: `fill` gets the part of the whole that a device holds, and where to write it. May be pending: then each
  // device writes its own part of the sum.
  DTensor blocks(std::string_view type, std::string_view layout, const std::function<void(const Rect&, const View&)>& fill,
                 Where where = Where::current()) const;

  // Any op of the table by name: eager.apply("einsum", {a, b}, {{"rule", "b i, i j -> b j"}}). Short names for those that
  // models use: runtime/dtensor_functions.h. `results`: types of ops that do not infer them.
  DTensor apply(std::string_view op, std::initializer_list<DTensor> operands, const Attributes& attributes = {},
                const std::vector<Type>& results = {}, Where where = Where::current()) const;
  // The same with all results of the op.
  std::vector<DTensor> apply_all(std::string_view op, std::span<const DTensor> operands, const Attributes& attributes = {},
                                 const std::vector<Type>& results = {}, Where where = Where::current()) const;
  // Result 0 of a known op: what the short names call.
  DTensor apply(const OpDef& op, std::span<const DTensor> operands, const Attributes& attributes = {},
                const Type* result = nullptr, Where where = Where::current()) const;
  // Ops without operands: constants and random numbers, which are the same on any mesh.
  DTensor make(std::string_view op, std::string_view type, std::string_view layout, const Attributes& attributes = {},
               Where where = Where::current()) const;
  DTensor make(const OpDef& op, std::string_view type, std::string_view layout, const Attributes& attributes = {},
               Where where = Where::current()) const;

  CompiledFunction compile(CompiledFunction::Function function) const;

  // What every rank runs for an op, as text: its collectives are lines of it.
  std::string program(std::string_view op, std::span<const DTensor> operands, const Attributes& attributes = {},
                      Where where = Where::current()) const;
  EagerStats stats() const;

 private:
  friend class DTensor;
  friend class Tape;
  friend class CompiledFunction;
  explicit Eager(eager::Context* context);
  eager::Context* context_ = nullptr;
};

// Records the ops that run while it is there, and differentiates through them by the ops' own gradients. The reverse pass is one
// program, compiled for the first such sequence of ops and kept. What a tape has recorded stays in memory until it goes.
class Tape {
 public:
  explicit Tape(const Eager& eager);
  ~Tape();
  Tape(const Tape&) = delete;

  // Of `loss`, one float, by each of `wrt`: in the type and layout of that value, sums done. Zeros where there is no path. The
  // reverse pass itself is not recorded. In a function that is being compiled it becomes a part of it. UserError: a loss that
  // was not made while the tape was there, an op without a gradient.
  std::vector<DTensor> gradients(const DTensor& loss, const std::vector<DTensor>& wrt,
                                 std::source_location where = std::source_location::current()) const;
  int64_t ops() const;  // recorded

 private:
  friend struct eager::Context;
  struct Record;
  std::unique_ptr<Record> record_;
  Eager eager_;
};

}  // namespace meshard
