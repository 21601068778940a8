// How the reshard planner compares with an exhaustive search, for all ordered pairs of layouts of 1- to 3-D tensors on
// every mesh of up to 16 devices:
//   reshard_table [--devices N] [--rank R] [--list]
// A mesh stands for all that have the same prime factors in the same order: x=2, y=2, z=2 for x=4, y=2 and x=8 too.
// `steps` is the planner without an exchange, held against the search without one; `all` is the planner with all steps,
// held against the search with all of them, which without a reduction is the point-to-point lower bound. `mean` and
// `worst` compare the optimum without an exchange to that with one. `busiest` counts the pairs in which the cheapest
// steps for all devices are not the cheapest for the busiest one. Exit status 1: some pair is not equal. --list shows
// those pairs. The last two columns are microseconds of processor time a plan.
#include <fmt/format.h>

#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "meshard/layout/search_reshard.h"

using namespace meshard;

namespace {

struct Table {
  int64_t pairs = 0, sequence_equal = 0, all_equal = 0, bounded = 0, at_bound = 0, nonzero = 0, busiest = 0;
  double ratio_sum = 0, ratio_worst = 1, sequence_seconds = 0, all_seconds = 0;
};

// Of the processor, so that other work on the machine does not show.
double seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

int64_t busiest_of(const Mesh& mesh, const Shape& shape, const std::vector<ReshardStep>& steps) {
  int64_t sum = 0;
  for (const ReshardStep& s : steps) sum += busiest_received_elements(mesh, shape, s);
  return sum;
}

Table compare(const Mesh& mesh, const Shape& shape, bool list) {
  Table table;
  const ReshardSearch without(mesh, shape, {Reduction::sum}, {.exchange = false});
  const ReshardSearch with(mesh, shape, {Reduction::sum}, {.exchange = true});
  const ReshardSearch least_busiest(mesh, shape, {Reduction::sum}, {.exchange = true, .busiest = true});
  const std::vector<Layout>& layouts = with.layouts();
  for (size_t i = 0; i < layouts.size(); ++i) {
    const auto best_without = without.costs(static_cast<int>(i)), best = with.costs(static_cast<int>(i));
    const auto best_busiest = least_busiest.costs(static_cast<int>(i));
    for (size_t j = 0; j < layouts.size(); ++j) {
      if (i == j || best[j] < 0) continue;
      const Layout &from = layouts[i], &to = layouts[j];
      ++table.pairs;
      double begin = seconds();
      const auto all = plan_reshard(mesh, shape, from, to);
      double middle = seconds();
      const auto sequence = plan_reshard(mesh, shape, from, to, {.exchange = false});
      table.all_seconds += middle - begin;
      table.sequence_seconds += seconds() - middle;
      const int64_t all_cost = all_received_elements(mesh, shape, all);
      const int64_t sequence_cost = all_received_elements(mesh, shape, sequence);
      table.all_equal += all_cost == best[j];
      table.sequence_equal += sequence_cost == best_without[j];
      table.busiest += busiest_of(mesh, shape, all) > best_busiest[j];
      if (from.pending == to.pending) {
        ++table.bounded;
        table.at_bound += all_cost == all_local_elements(mesh, shape, to) - kept_elements(mesh, shape, from, to);
      }
      if (best[j] > 0) {
        const double ratio = static_cast<double>(best_without[j]) / static_cast<double>(best[j]);
        ++table.nonzero;
        table.ratio_sum += ratio;
        table.ratio_worst = std::max(table.ratio_worst, ratio);
      }
      if (list && (all_cost != best[j] || sequence_cost != best_without[j])) {
        fmt::print("  {} {}: {} -> {}: all {} of {}, steps {} of {}\n", mesh.str(), shape.str(), from.str(mesh),
                   to.str(mesh), all_cost, best[j], sequence_cost, best_without[j]);
        const auto show = [&](const char* what, const std::vector<ReshardStep>& steps) {
          for (const ReshardStep& s : steps)
            fmt::print("    {} {} {} -> {} {}\n", what, name(s.kind), s.from.str(mesh), s.to.str(mesh),
                       all_received_elements(mesh, shape, s));
        };
        if (all_cost != best[j]) show("best", with.steps(static_cast<int>(i), static_cast<int>(j)));
        if (all_cost != best[j]) show("plan", all);
        if (sequence_cost != best_without[j]) show("best", without.steps(static_cast<int>(i), static_cast<int>(j)));
        if (sequence_cost != best_without[j]) show("plan", sequence);
      }
    }
  }
  return table;
}

// The orders of the prime factors of n, each as a mesh of one axis a factor.
std::vector<std::string> meshes_of(int64_t n, char axis = 'w') {
  if (n == 1) return {""};
  std::vector<std::string> result;
  for (int64_t p = 2; p <= n; ++p) {
    bool prime = n % p == 0;
    for (int64_t q = 2; q * q <= p; ++q) prime = prime && p % q != 0;
    if (!prime) continue;
    for (const std::string& rest : meshes_of(n / p, static_cast<char>(axis + 1)))
      result.push_back(fmt::format("{}={}{}{}", axis, p, rest.empty() ? "" : ", ", rest));
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  int64_t most = 16, only = 0;
  bool list = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--devices") == 0 && i + 1 < argc) most = std::stoll(argv[++i]);
    if (std::strcmp(argv[i], "--rank") == 0 && i + 1 < argc) only = std::stoll(argv[++i]);
    if (std::strcmp(argv[i], "--list") == 0) list = true;
  }
  fmt::print("{:<22} {:>12} {:>8} {:>10} {:>10} {:>10} {:>7} {:>6} {:>8} {:>9} {:>9}\n", "mesh", "shape", "pairs",
             "steps = opt", "all = opt", "at bound", "mean", "worst", "busiest", "steps us", "all us");
  bool equal = true;
  for (int64_t n = 2; n <= most; ++n) {
    for (const std::string& text : meshes_of(n)) {
      const Mesh mesh = Mesh::parse(text);
      for (int rank = 1; rank <= 3; ++rank) {
        if (only != 0 && rank != only) continue;
        // Even: divisible by every number of parts that occurs. Uneven: by none.
        Shape even, uneven;
        for (int d = 0; d < rank; ++d) {
          even.dims.push_back(n * (d + 1));
          uneven.dims.push_back(std::vector<int64_t>{19, 23, 5}[static_cast<size_t>(d)]);
        }
        for (const Shape& shape : {even, uneven}) {
          const Table t = compare(mesh, shape, list);
          equal = equal && t.all_equal == t.pairs && t.sequence_equal == t.pairs && t.at_bound == t.bounded;
          const double pairs = static_cast<double>(t.pairs);
          fmt::print("{:<22} {:>12} {:>8} {:>10} {:>10} {:>10} {:>7.3f} {:>6.2f} {:>8} {:>9.2f} {:>9.2f}\n", mesh.str(),
                     shape.str(), t.pairs, t.sequence_equal, t.all_equal, fmt::format("{}/{}", t.at_bound, t.bounded),
                     t.ratio_sum / static_cast<double>(std::max<int64_t>(t.nonzero, 1)), t.ratio_worst, t.busiest,
                     t.sequence_seconds / pairs * 1e6, t.all_seconds / pairs * 1e6);
          std::fflush(stdout);
        }
      }
    }
  }
  return equal ? 0 : 1;
}
