// Attention forward and backward over long sequences, causal, one sequence, f32:
//
//   attention_bench [--heads 8] [--e 64] [--t 4096] [--batch 1] [--threads 2] [--repeat 3] [--clock wall|cpu]
//
// Prints one JSON line: the best seconds of each, GFLOP/s (4 and 10 b h t^2 e, halved as half of the scores are masked),
// the workspace in MiB and the process's peak. bench/peers/torch_attention.py is the peer.
#include <fmt/format.h>
#include <sys/resource.h>
#include <time.h>

#include <cstdlib>
#include <map>
#include <random>
#include <string_view>

#include "meshard/base/buffer.h"
#include "meshard/kernels/cpu/cpu.h"

using namespace meshard;

namespace {

double now(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string_view, int64_t> n = {{"--heads", 8}, {"--e", 64},      {"--t", 4096},
                                           {"--batch", 1}, {"--threads", 2}, {"--repeat", 3}};
  clockid_t clock = CLOCK_MONOTONIC;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    if (flag == "--clock") {
      clock = std::string_view(argv[i + 1]) == "cpu" ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    } else if (const auto it = n.find(flag); it != n.end()) {
      it->second = std::atoll(argv[i + 1]);
    } else {
      fmt::print(stderr, "attention_bench: unknown flag {}\n", flag);
      return 2;
    }
  }
  const int64_t b = n["--batch"], h = n["--heads"], t = n["--t"], e = n["--e"];
  const Attributes attributes{{"causal", true}};
  KernelSpec spec;
  spec.attributes = &attributes;
  spec.factors = {{"b", b, b}, {"h", h, h}, {"t", t, t}, {"s", t, t}, {"e", e, e}};
  const KernelOperand queries{{Dtype::f32, {b, h, t, e}}, {{0}, {1}, {2}, {4}}}, keys{{Dtype::f32, {b, h, t, e}}, {{0}, {1}, {3}, {4}}};
  const KernelOperand lse{{Dtype::f32, {b, h, t}}, {{0}, {1}, {2}}};
  spec.threads = static_cast<int>(n["--threads"]);
  spec.operands = {queries, keys, keys};
  spec.results = {queries, lse};
  const Prepared forward = cpu::attention(spec);
  spec.operands = {queries, keys, keys, queries, lse, queries};
  spec.results = {queries, keys, keys};
  const Prepared backward = cpu::attention_vjp(spec);
  std::vector<Buffer> x;  // q, k, v, o, do, dq, dk, dv, lse
  for (int i = 0; i < 8; ++i) x.emplace_back(queries.type.bytes());
  x.emplace_back(lse.type.bytes());
  std::mt19937 random(1);
  for (int i : {0, 1, 2, 4}) {
    auto* values = reinterpret_cast<float*>(x[static_cast<size_t>(i)].data());
    for (int64_t j = 0; j < b * h * t * e; ++j) values[j] = static_cast<float>(random() % 2001) / 1000 - 1;
  }
  Buffer scratch(std::max(forward.workspace_bytes, backward.workspace_bytes));
  void* const in[] = {x[0].data(), x[1].data(), x[2].data(), x[3].data(), x[8].data(), x[4].data()};
  void* const out[] = {x[3].data(), x[8].data()};
  void* const gradients[] = {x[5].data(), x[6].data(), x[7].data()};
  double best[2] = {1e30, 1e30};
  for (int64_t i = 0; i <= n["--repeat"]; ++i) {
    const double begin = now(clock);
    forward.run({std::span(in).first(3), out, scratch.data()});
    const double middle = now(clock);
    backward.run({in, gradients, scratch.data()});
    const double end = now(clock);
    if (i == 0) continue;
    best[0] = std::min(best[0], middle - begin);
    best[1] = std::min(best[1], end - middle);
  }
  const double products = static_cast<double>(b * h * t * t * e) / 2;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fmt::print("{{\"heads\": {}, \"t\": {}, \"threads\": {}, \"forward_s\": {:.5f}, \"backward_s\": {:.5f}, \"total_s\": {:.5f}, "
             "\"forward_gflops\": {:.1f}, \"backward_gflops\": {:.1f}, \"workspace_mib\": {:.1f}, \"peak_rss_mib\": {}}}\n",
             h, t, n["--threads"], best[0], best[1], best[0] + best[1], 4 * products / best[0] / 1e9, 10 * products / best[1] / 1e9,
             static_cast<double>(scratch.bytes()) / 1048576, usage.ru_maxrss / 1024);
}
