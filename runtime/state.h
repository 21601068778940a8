// State: the parameters and optimizer states of a model on this process's devices: name -> global type, role, layout, bytes.
// Several programs (training step, validation, sampling) run over one State.
//
//   State state(step.local, {rank});
//   state.init(/*seed=*/7);          // a function of (seed, name, global index): the same values on any mesh
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "meshard/backend/backend.h"
#include "meshard/base/buffer.h"
#include "meshard/ir/program.h"

namespace meshard {

struct StateEntry {
  std::string name;
  Type type;        // global
  Layout layout;
  ParamInfo::Kind kind = ParamInfo::param;
  Init init;
};

class State {
 public:
  // Allocates the blocks of main's params and states for each of `devices`, in the memory of `backend` if there is one.
  State(const Program& local, std::vector<Rank> devices, Backend* backend = nullptr);

  // Allocates what another program over the same parameters has besides: caches of inference. InternalError: an entry of
  // another type or layout, or another mesh.
  void add(const Program& local);

  const Mesh& mesh() const { return mesh_; }
  std::span<const Rank> devices() const { return devices_; }
  std::span<const StateEntry> entries() const { return entries_; }
  const StateEntry* find(std::string_view name) const;
  // The block that the i-th device of this process holds; the host can only read it where there is no backend.
  View view(std::string_view name, int device) const;
  // The same block in the host's memory: as it is where there is no backend, else a copy in `copy`.
  View read(std::string_view name, int device, Buffer& copy) const;
  void write(std::string_view name, int device, const void* from);
  int64_t bytes(int device) const;

  void init(uint64_t seed, int threads = 1);

  // The whole tensor, where this process holds every device (lockstep) or the layout is replicated; used by tests and
  // comparisons. InternalError where blocks are missing here.
  std::vector<double> gather(std::string_view name) const;

 private:
  Mesh mesh_;
  std::vector<Rank> devices_;
  std::vector<StateEntry> entries_;
  std::map<std::string, int, std::less<>> by_name_;
  Backend* backend_;
  std::vector<std::vector<Memory>> buffers_;  // [device][entry]
};

// The whole tensor from the blocks of `devices`, pending reductions done. Needs all devices unless the layout is replicated.
std::vector<double> put_together(const Mesh& mesh, const Shape& shape, const Layout& layout, std::span<const Rank> devices,
                                 std::span<const View> blocks);
// Conversions between a view of any dtype and doubles, element by element.
void read_doubles(const View& view, double* out);
void write_doubles(const double* in, const View& view);
void fill_constant(const View& view, double value);

}  // namespace meshard
