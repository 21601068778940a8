// The choice of layouts against brute force: on random programs small enough, no assignment of labels moves fewer bytes, and the bill of
// what partition makes of the choice is what the search said.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <map>

#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/sharding/bill.h"
#include "meshard/sharding/choice_model.h"
#include "meshard/sharding/choose.h"
#include "meshard/sharding/partition.h"
#include "meshard/sharding/propagate.h"
#include "random_program.h"

namespace meshard {
namespace {

// Bytes of a value's copies, by code of its own: the least over all ways to make each needed layout from the value or from
// another needed one.
class BruteForce {
 public:
  explicit BruteForce(const Program& program) : program_(program), mesh_(*program.mesh), model_(program) {}

  enum class Answer { beaten, least, undecided };

  // Whether some assignment of labels moves less than `bytes`; undecided after `most` assignments.
  Answer beats(int64_t bytes, int64_t most) {
    limit_ = bytes;
    most_ = most;
    const size_t n = model_.sites().size();
    for (size_t s = 0; s < n; ++s) {
      lists_.push_back(model_.list(model_.all_labels(s, 100000)));
      REQUIRE(!lists_.back().empty());
    }
    touched_.assign(n, {});
    paid_.assign(model_.values().size(), 0);
    std::vector<SplitId> labels(n, -1);
    int64_t fixed = 0;
    for (size_t i = 0; i < model_.values().size(); ++i) {
      const ValueNode& v = model_.values()[i];
      std::vector<int> sites = {v.maker};
      for (const Reader& r : v.readers) sites.push_back(r.site);
      std::sort(sites.begin(), sites.end());
      sites.erase(std::unique(sites.begin(), sites.end()), sites.end());
      for (int s : sites) {
        if (s >= 0) touched_[static_cast<size_t>(s)].push_back(i);
      }
      fixed += paid_[i] = so_far(v, labels);
    }
    const bool found = search(0, labels, fixed);
    return found ? Answer::beaten : steps > most_ ? Answer::undecided : Answer::least;
  }

  int64_t steps = 0;

 private:
  bool search(size_t site, std::vector<SplitId>& labels, int64_t bytes) {
    if (bytes >= limit_ || steps > most_) return false;
    if (site == lists_.size()) return true;
    std::vector<int64_t> before;
    for (size_t v : touched_[site]) before.push_back(paid_[v]);
    bool found = false;
    for (SplitId id : lists_[site]) {
      ++steps;
      labels[site] = id;
      int64_t sum = bytes;
      for (size_t i = 0; i < touched_[site].size() && sum < limit_; ++i) {
        const size_t v = touched_[site][i];
        const int64_t now = so_far(model_.values()[v], labels);
        if (now < 0) {
          sum = limit_;
        } else {
          sum += now - before[i];
          paid_[v] = now;
        }
      }
      found = search(site + 1, labels, sum);
      if (found) break;
      for (size_t i = 0; i < before.size(); ++i) paid_[touched_[site][i]] = before[i];
    }
    labels[site] = -1;
    return found;
  }

  // What a value costs at least, whatever the sites that have no label yet (-1) will be: exactly, when all have one; else the most that
  // one of its readers costs alone. -1: impossible.
  int64_t so_far(const ValueNode& v, const std::vector<SplitId>& labels) {
    const auto open = [&](int site) { return site >= 0 && labels[static_cast<size_t>(site)] < 0; };
    if (open(v.maker)) return 0;
    bool complete = true;
    int64_t most = 0;
    const LayoutId made = model_.made(v, labels);
    for (const Reader& r : v.readers) {
      if (open(r.site)) {
        complete = false;
        continue;
      }
      const LayoutId need = model_.effective(v, r, r.site < 0 ? nullptr : &model_.split(labels[static_cast<size_t>(r.site)]), made);
      const int64_t m = move(v, made, need);
      if (m < 0) return -1;
      most = std::max(most, m);
    }
    return complete ? cost(v, labels) : most * v.size * v.weight;
  }

  int64_t move(const ValueNode& v, LayoutId from, LayoutId to) {
    if (from == to) return 0;
    const auto [it, fresh] = moves_.try_emplace({v.shape, from, to}, -1);
    if (!fresh) return it->second;
    const Layout &a = model_.costs().layout(from), &b = model_.costs().layout(to);
    if (!reshard_obstacle(mesh_, a, b).empty()) return -1;
    const Shape& shape = program_.functions[static_cast<size_t>(v.function)].value(v.value).type.shape;
    return it->second = all_received_elements(mesh_, shape, plan_reshard(mesh_, shape, a, b));
  }

  // -1: impossible.
  int64_t cost(const ValueNode& v, const std::vector<SplitId>& labels) {
    const LayoutId made = model_.made(v, labels);
    std::vector<LayoutId> open;
    for (LayoutId n : model_.needs(v, labels, made)) {
      if (n != made && std::find(open.begin(), open.end(), n) == open.end()) open.push_back(n);
    }
    std::vector<LayoutId> have = {made};
    const int64_t elements = grow(v, have, open);
    return elements < 0 ? -1 : elements * v.size * v.weight;
  }

  // The least for making all of `open`, one after the other in every order, each from anything there is.
  int64_t grow(const ValueNode& v, std::vector<LayoutId>& have, std::vector<LayoutId>& open) {
    if (open.empty()) return 0;
    int64_t best = -1;
    for (size_t i = 0; i < open.size(); ++i) {
      const LayoutId next = open[i];
      int64_t least = -1;
      for (LayoutId h : have) {
        const int64_t m = move(v, h, next);
        if (m >= 0 && (least < 0 || m < least)) least = m;
      }
      if (least < 0) continue;
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(i));
      have.push_back(next);
      const int64_t rest = grow(v, have, open);
      have.pop_back();
      open.insert(open.begin() + static_cast<std::ptrdiff_t>(i), next);
      if (rest >= 0 && (best < 0 || least + rest < best)) best = least + rest;
    }
    return best;
  }

  const Program& program_;
  const Mesh mesh_;
  ChoiceModel model_;
  int64_t limit_ = 0, most_ = 0;
  std::vector<std::vector<SplitId>> lists_;
  std::vector<std::vector<size_t>> touched_;  // values of each site
  std::vector<int64_t> paid_;
  std::map<std::tuple<int, LayoutId, LayoutId>, int64_t> moves_;
};

struct Row {
  RandomProgram shape;
  int programs = 0;
  int64_t most_steps = 300'000;  // of brute force, for one program
};

// With MESHARD_CHOOSE_TABLE the whole table of 1,000 and more programs is run and printed; else a part of it.
TEST_CASE("the least bytes of random programs, against brute force") {
  const bool table = std::getenv("MESHARD_CHOOSE_TABLE") != nullptr;
  const std::vector<Row> rows = {
      {{12, {{"x", 2}}}, 200},          {{12, {{"x", 3}}}, 200},          {{12, {{"x", 4}}}, 100},
      {{12, {{"x", 5}}, true}, 100},    {{10, {{"x", 8}}}, 50},           {{6, {{"x", 4}, {"y", 2}}}, 150},
      {{6, {{"x", 3}, {"y", 2}}}, 150}, {{5, {{"x", 2}, {"y", 4}}, true}, 100}, {{4, {{"x", 2}, {"y", 2}, {"z", 2}}}, 50},
  };
  if (table) fmt::print("{:>4} {:>10} {:>9} {:>6} {:>7} {:>13} {:>12} {:>10}\n", "ops", "mesh", "programs", "least", "proved", "propagated", "mean steps", "undecided");
  for (const Row& row : rows) {
    int least = 0, proved = 0, done = 0, undecided = 0;
    double ratio = 0;
    int64_t steps = 0;
    const int programs = table ? row.programs : std::max(row.programs / 40, 2);
    for (int seed = 0; done < programs; ++seed) {
      const std::string text = random_program(row.shape, static_cast<uint64_t>(seed) * 7919 + static_cast<uint64_t>(row.shape.ops));
      INFO("seed " << seed << "\n" << text);
      const Program program = propagate(parse_program(text, "random", op_table()));
      const Choices choices = choose(program);
      CHECK(choices.bound <= choices.bytes);
      CHECK(choices.bytes <= choices.propagated);
      CHECK(make_bill(partition(program)).bytes_all_devices == choices.bytes);
      BruteForce all(program);
      const BruteForce::Answer answer = all.beats(choices.bytes, row.most_steps);
      CHECK(answer != BruteForce::Answer::beaten);
      if (answer == BruteForce::Answer::undecided) {
        ++undecided;
        continue;
      }
      least += answer == BruteForce::Answer::least;
      proved += choices.proved();
      ratio += static_cast<double>(choices.propagated + 1) / static_cast<double>(choices.bytes + 1);
      steps += all.steps;
      ++done;
    }
    std::string mesh;
    for (const auto& [axis, n] : row.shape.axes) mesh += fmt::format("{}{}", mesh.empty() ? "" : "x", n);
    if (table) fmt::print("{:4} {:>10} {:9} {:6} {:7} {:12.2f}x {:12} {:10}\n", row.shape.ops, mesh, done, least, proved, ratio / done, steps / done, undecided);
  }
}

}  // namespace
}  // namespace meshard
