#include "meshard/layout/cost.h"

#include <algorithm>

namespace meshard {

const Link& CostModel::link(const Mesh& mesh, AtomSet over) const {
  if (ranks_per_host <= 0 || ranks_per_host >= mesh.size()) return host;
  // Ranks that differ along one atom lie in one run of stride * size ranks, and such runs tile the mesh. A host's ranks
  // are whole runs, or the edge of a host cuts a run between two ranks that differ along this atom alone.
  for (AtomId atom : over.list())
    if (ranks_per_host % (mesh.stride(atom) * mesh.atom_size(atom)) != 0) return network;
  return host;
}

int64_t CostModel::nanoseconds(const Link& link, int64_t messages, int64_t bytes) {
  const __int128 rate = std::max<int64_t>(link.bytes_per_us, 1);
  const __int128 ns = static_cast<__int128>(messages) * link.message_ns +
                      (static_cast<__int128>(bytes) * 1000 + rate - 1) / rate;
  return static_cast<int64_t>(std::min<__int128>(ns, int64_t{1} << 62));
}

int64_t CostModel::nanoseconds(const Mesh& mesh, Collective kind, AtomSet over, int64_t messages, int64_t bytes) const {
  const Link& only = link(mesh, over);
  // Atoms are prime: the edges of hosts leave the ranks along one together, part each of them from each, or cut somewhere
  // between. Only the first two give as many ranks on each host.
  int64_t hosts = 1, here = 1;  // h and k
  bool even = true;
  for (const AtomId atom : over.list()) {
    if (&only == &host || ranks_per_host % (mesh.stride(atom) * mesh.atom_size(atom)) == 0) {
      here *= mesh.atom_size(atom);
    } else {
      hosts *= mesh.atom_size(atom);
      even = even && mesh.stride(atom) % ranks_per_host == 0;
    }
  }
  if (hosts == 1 || here == 1 || !even) return nanoseconds(only, messages, bytes);
  const int64_t others = hosts * here - 1;
  const auto share = [&](int64_t of, int64_t blocks) {
    return static_cast<int64_t>((static_cast<__int128>(of) * blocks + others - 1) / others);
  };
  constexpr int64_t kMost = int64_t{1} << 62;
  if (kind == Collective::all_to_all) {
    const int64_t crossing = share(bytes, others - (here - 1)), sent = share(messages, others - (here - 1));
    return std::max(nanoseconds(network, sent, crossing), nanoseconds(host, messages - sent, bytes - crossing));
  }
  if (kind != Collective::all_gather && kind != Collective::reduce_scatter && kind != Collective::all_reduce) {
    return nanoseconds(only, messages, bytes);
  }
  const int64_t crossing = share(bytes, hosts - 1), sent = share(messages, hosts - 1);
  // An all_reduce is put together within hosts whole, not once for each host.
  const int64_t within = kind == Collective::all_reduce ? share(messages, here - 1) : messages - sent;
  return std::min(nanoseconds(network, sent, crossing) + nanoseconds(host, within, bytes - crossing), kMost);
}

int64_t step_messages(const Mesh& mesh, const Shape& shape, const ReshardStep& step) {
  const int64_t ranks = mesh.parts(step.over);
  switch (step.kind) {
    case Collective::all_gather:
    case Collective::reduce_scatter:
    case Collective::all_to_all:
      return ranks - 1;
    case Collective::all_reduce:
      return 2 * (ranks - 1);
    case Collective::permute:
      return 1;
    case Collective::exchange:
      return most_pieces(mesh, shape, step);
    case Collective::slice:
    case Collective::broadcast:
    case Collective::barrier:
      return 0;
  }
  return 0;
}

int64_t step_nanoseconds(const CostModel& model, const Mesh& mesh, const Shape& shape, const ReshardStep& step,
                         int64_t element_bytes) {
  if (step.kind == Collective::slice) return 0;
  return model.nanoseconds(mesh, step.kind, step.over, step_messages(mesh, shape, step),
                           busiest_received_elements(mesh, shape, step) * element_bytes);
}

int64_t steps_nanoseconds(const CostModel& model, const Mesh& mesh, const Shape& shape,
                          const std::vector<ReshardStep>& steps, int64_t element_bytes) {
  int64_t sum = 0;
  for (const ReshardStep& step : steps) sum += step_nanoseconds(model, mesh, shape, step, element_bytes);
  return std::min(sum, int64_t{1} << 62);
}

}  // namespace meshard
