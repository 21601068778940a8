#include "meshard/launch/device.h"

#include <fmt/format.h>

#include <cstdlib>

#include "meshard/base/error.h"
#include "meshard/launch/report.h"
#include "meshard/layout/block.h"

namespace meshard {
namespace {

// Ranks of this host: how many there are, and this one's number among them.
struct OnHost {
  int ranks = 0, mine = 0;
};
OnHost on_host(Job& job) {
  OnHost out;
  const std::vector<std::string> hosts = job.gather(Job::host());
  for (size_t r = 0; r < hosts.size(); ++r) {
    if (hosts[r] != Job::host()) continue;
    if (static_cast<int>(r) == job.rank()) out.mine = out.ranks;
    ++out.ranks;
  }
  return out;
}

// NCCL takes ranks that share a GPU only if it believes them on different hosts.
void pretend_own_host(int rank) {
  setenv("NCCL_HOSTID", fmt::format("{}-{}", Job::host(), rank).c_str(), 0);
}

}  // namespace

std::unique_ptr<Backend> open_device(Job& job, const std::string& kind, bool share) {
  if (kind == "cpu") {
    if (share) throw UserError("--share-gpu goes with --device cuda");
    return nullptr;
  }
  if (kind == "emulated") return emulated_backend();
  const OnHost host = on_host(job);
  std::unique_ptr<Backend> backend;
  std::string error;
  try {
    const int gpus = cuda_device_count();
    if (host.ranks > gpus && !share) {
      throw UserError(fmt::format("host {} runs {} ranks, but has {} GPU{}; start at most {} there, take --lockstep for all devices in one process, "
                                  "or add --share-gpu to put several ranks on one",
                                  Job::host(), host.ranks, gpus, gpus == 1 ? "" : "s", gpus));
    }
    if (host.ranks > gpus) pretend_own_host(job.rank());
    backend = cuda_backend(host.mine % gpus);
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  return backend;
}

void check_device_memory(Job& job, const Backend& backend, const Compiled& step, int64_t devices) {
  const int64_t needed = step.bill.peak_bytes * devices, free = backend.free_bytes();
  std::string error;
  if (needed > free) {
    int64_t parameters = 0, states = 0;
    const Function& main = step.local.main();
    for (size_t p = 0; p < main.params.size(); ++p) {
      const ValueInfo& v = main.value(main.params[p]);
      const int64_t bytes = largest_local_elements(*step.local.mesh, v.type.shape, *v.layout) * size_bytes(v.type.dtype);
      if (main.param_info[p].kind == ParamInfo::param) parameters += bytes;
      if (main.param_info[p].kind == ParamInfo::state) states += bytes;
    }
    error = fmt::format("the run needs {} on {}, of which {} are free; take a smaller --batch, --seq or model, more --accumulate, or a mesh and plan that split more\n"
                        "  parameters                          {:>12}\n"
                        "  the optimizer's states              {:>12}\n"
                        "  activations, workspaces and inputs  {:>12}\n"
                        "  devices of the mesh on this GPU     {:>12}",
                        bytes_text(needed), backend.text(), bytes_text(free), bytes_text(parameters), bytes_text(states),
                        bytes_text(step.bill.peak_bytes - parameters - states), devices);
  }
  job.agree(error);
}

}  // namespace meshard
