// Reshards on real data: the steps of every pair of layouts are carried out for all ranks and compared with the shards
// of the whole value; what moved is counted and compared with the formulas.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <random>

#include "meshard/layout/search_reshard.h"

namespace meshard {
namespace {

using Values = std::vector<int64_t>;
constexpr std::array kKinds = {Reduction::sum, Reduction::max, Reduction::min};

Rect whole(const Shape& shape) {
  Rect rect;
  for (int64_t n : shape.dims) rect.dims.push_back({0, n});
  return rect;
}

Values cut(const Values& source, const Rect& from, const Rect& part) {
  Values out(static_cast<size_t>(part.elements()));
  copy_rect(source.data(), from, out.data(), part, part, sizeof(int64_t));
  return out;
}

int64_t combine(Reduction kind, int64_t a, int64_t b) {
  if (kind == Reduction::sum) return a + b;
  return kind == Reduction::max ? std::max(a, b) : std::min(a, b);
}

// What all ranks hold: `values[r]` is the block `rects[r]`.
struct Devices {
  std::vector<Rect> rects;
  std::vector<Values> values;
};

class Simulator {
 public:
  Simulator(const Mesh& mesh, const Shape& shape) : mesh_(mesh), shape_(shape), random_(7) {}

  // The value before it is split: for each rank the whole array of its part, equal where ranks agree along pending
  // atoms.
  std::vector<Values> parts(const Layout& layout) {
    std::vector<Values> out;
    const Atoms pending = layout.pending_atoms().list();
    std::vector<Values> by_position(static_cast<size_t>(mesh_.parts(pending)));
    for (Values& v : by_position)
      for (int64_t i = 0; i < shape_.elements(); ++i) v.push_back(static_cast<int64_t>(random_() % 2001) - 1000);
    for (int64_t r = 0; r < mesh_.size(); ++r)
      out.push_back(by_position[static_cast<size_t>(mesh_.position(rank(r), pending))]);
    return out;
  }

  // The same value after what `to` leaves of the pending reductions.
  std::vector<Values> reduced(std::vector<Values> parts, const Layout& from, const Layout& to) const {
    for (Reduction kind : kKinds) {
      const AtomSet done = from.pending_of(kind) - to.pending_of(kind);
      if (done.empty()) continue;
      std::vector<Values> next = parts;
      for (int64_t r = 0; r < mesh_.size(); ++r) {
        const Group group(mesh_, done, rank(r));
        for (size_t i = 0; i < next[static_cast<size_t>(r)].size(); ++i) {
          int64_t value = parts[static_cast<size_t>(index(group[0]))][i];
          for (int m = 1; m < group.size(); ++m)
            value = combine(kind, value, parts[static_cast<size_t>(index(group[m]))][i]);
          next[static_cast<size_t>(r)][i] = value;
        }
      }
      parts = std::move(next);
    }
    return parts;
  }

  Devices shards(const std::vector<Values>& parts, const Layout& layout) const {
    Devices out;
    for (int64_t r = 0; r < mesh_.size(); ++r) {
      out.rects.push_back(local_rect(mesh_, shape_, layout, rank(r)));
      out.values.push_back(cut(parts[static_cast<size_t>(r)], whole(shape_), out.rects.back()));
    }
    return out;
  }

  // Carries out a step for all ranks; adds what each receives to `received`. "" or what is wrong.
  std::string run(const ReshardStep& step, Devices& at, Values& received) const {
    if (!step_fits(mesh_, step)) return "the step does not fit";
    Devices next;
    Values moved(static_cast<size_t>(mesh_.size()), 0);
    std::vector<Transfer> transfers;
    const bool reduces = step.kind == Collective::all_reduce || step.kind == Collective::reduce_scatter;
    for (int64_t r = 0; r < mesh_.size() && !reduces; ++r) transfers.push_back(transfer(mesh_, shape_, step, rank(r)));
    for (int64_t r = 0; r < mesh_.size(); ++r) {
      const size_t me = static_cast<size_t>(r);
      next.rects.push_back(local_rect(mesh_, shape_, step.to, rank(r)));
      const Rect& mine = next.rects.back();
      Values values(static_cast<size_t>(mine.elements()), 123456789);
      if (reduces) {
        const Group group(mesh_, step.over, rank(r));
        for (int m = 0; m < group.size(); ++m) {
          const size_t peer = static_cast<size_t>(index(group[m]));
          if (intersect(mine, at.rects[peer]).elements() != mine.elements())
            return "a member lacks the block to reduce";
          if (mine.elements() == 0) continue;
          const Values theirs = cut(at.values[peer], at.rects[peer], mine);
          for (size_t i = 0; i < values.size(); ++i)
            values[i] = m == 0 ? theirs[i] : combine(step.reduction, values[i], theirs[i]);
        }
        moved[me] = reduction_elements(step, group, mine.elements());
      } else {
        for (const Rect& kept : transfers[me].keeps)
          copy_rect(at.values[me].data(), at.rects[me], values.data(), mine, kept, 8);
        int64_t covered = 0;
        for (const Rect& kept : transfers[me].keeps) covered += kept.elements();
        for (const Piece& piece : transfers[me].receives) {
          const size_t peer = static_cast<size_t>(index(piece.peer));
          const Values sent = cut(at.values[peer], at.rects[peer], piece.part);
          copy_rect(sent.data(), piece.part, values.data(), mine, piece.part, 8);
          moved[me] += piece.part.elements();
        }
        if (covered + moved[me] != mine.elements()) return "pieces overlap or leave a gap";
        if (std::string wrong = mirrored(step, transfers, r); !wrong.empty()) return wrong;
        int64_t sent = 0;
        for (const Piece& piece : transfers[me].sends) sent += piece.part.elements();
        const Exchanged counted = exchanged_elements(mesh_, shape_, step, rank(r));
        if (counted.sends != sent || counted.receives != moved[me])
          return fmt::format("rank {} sends {} and receives {}, counted as {} and {}", r, sent, moved[me], counted.sends, counted.receives);
      }
      next.values.push_back(std::move(values));
    }
    for (int64_t r = 0; r < mesh_.size(); ++r) {
      const int64_t billed = received_elements(mesh_, shape_, step, rank(r));
      if (billed != moved[static_cast<size_t>(r)])
        return fmt::format("rank {} is billed {}, received {}", r, billed, moved);
      received[static_cast<size_t>(r)] += billed;
    }
    int64_t sum = 0;
    for (int64_t n : moved) sum += n;
    if (const int64_t all = all_received_elements(mesh_, shape_, step); all != sum)
      return fmt::format("all {} of {}", all, moved);
    const int64_t busiest = busiest_received_elements(mesh_, shape_, step);
    if (busiest != *std::max_element(moved.begin(), moved.end()))
      return fmt::format("busiest {} of {}", busiest, moved);
    at = std::move(next);
    return "";
  }

  // Plans from -> to, runs it, and compares. "" or what is wrong.
  std::string check(const std::vector<Values>& parts, const Layout& from, const Layout& to, bool exchange) const {
    const std::vector<ReshardStep> steps = plan_reshard(mesh_, shape_, from, to, {.exchange = exchange});
    Devices at = shards(parts, from);
    Values received(static_cast<size_t>(mesh_.size()), 0);
    for (size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].from != (i == 0 ? from : steps[i - 1].to)) return "the steps do not join";
      if (std::string wrong = run(steps[i], at, received); !wrong.empty())
        return fmt::format("step {}, {}: {}", i, name(steps[i].kind), wrong);
      if (steps[i].kind == Collective::exchange && !exchange) return "an exchange";
    }
    if ((steps.empty() ? from : steps.back().to) != to) return "does not end where it should";
    if (at.values != shards(from.pending == to.pending ? parts : reduced(parts, from, to), to).values)
      return "wrong values";
    if (from.pending != to.pending || !exchange) return "";
    int64_t most = 0;
    for (int64_t r = 0; r < mesh_.size(); ++r) {
      const Rect need = local_rect(mesh_, shape_, to, rank(r));
      const int64_t lacks = need.elements() - intersect(need, local_rect(mesh_, shape_, from, rank(r))).elements();
      if (received[static_cast<size_t>(r)] != lacks)
        return fmt::format("rank {} lacks {}, received {}", r, lacks, received);
      most = std::max(most, lacks);
    }
    return lower_bound_elements(mesh_, shape_, from, to) == most ? "" : "wrong lower bound";
  }

 private:
  static Rank rank(int64_t r) { return Rank{static_cast<int32_t>(r)}; }

  // A reduce_scatter brings a rank its block from each other rank; an all_reduce is one of the flat value, and its
  // all_gather.
  static int64_t reduction_elements(const ReshardStep& step, const Group& group, int64_t n) {
    if (step.kind == Collective::reduce_scatter) return (group.size() - 1) * n;
    int64_t received = 0;
    const int64_t own = block(n, group.size(), group.self()).size;
    for (int m = 0; m < group.size(); ++m)
      if (m != group.self()) received += own + block(n, group.size(), m).size;
    return received;
  }

  // Whether the receives of rank r are the sends of its peers, in the order of the group, and r receives from nobody
  // else.
  std::string mirrored(const ReshardStep& step, const std::vector<Transfer>& transfers, int64_t r) const {
    const Atoms over = step.over.list();
    const Transfer& mine = transfers[static_cast<size_t>(r)];
    for (const std::vector<Piece>* pieces : {&mine.sends, &mine.receives}) {
      for (size_t i = 0; i < pieces->size(); ++i) {
        if (index((*pieces)[i].peer) == r) return "sends to itself";
        if (i > 0 && mesh_.position((*pieces)[i - 1].peer, over) >= mesh_.position((*pieces)[i].peer, over))
          return "not in order";
      }
    }
    const auto find = [](const std::vector<Piece>& pieces, int64_t peer, const Rect& part) {
      return std::any_of(pieces.begin(), pieces.end(),
                         [&](const Piece& p) { return index(p.peer) == peer && p.part == part; });
    };
    for (const Piece& p : mine.receives)
      if (!find(transfers[static_cast<size_t>(index(p.peer))].sends, r, p.part)) return "a receive without its send";
    for (const Piece& p : mine.sends)
      if (!find(transfers[static_cast<size_t>(index(p.peer))].receives, r, p.part)) return "a send without its receive";
    if (step.kind == Collective::permute && (mine.sends.size() > 1 || mine.receives.size() > 1))
      return "not one to one";
    return "";
  }

  const Mesh& mesh_;
  const Shape& shape_;
  std::mt19937_64 random_;
};

// Checks each pair of layouts that is possible, or one in `sample` of them. Returns how many it checked.
int64_t check_pairs(const char* mesh_text, const Shape& shape, const std::vector<Reduction>& pending,
                    uint64_t sample = 1) {
  const Mesh mesh = Mesh::parse(mesh_text);
  Simulator simulator(mesh, shape);
  std::mt19937_64 random(11);
  const std::vector<Layout> layouts = all_layouts(mesh, shape.rank(), pending);
  int64_t checked = 0;
  for (const Layout& from : layouts) {
    const std::vector<Values> parts = simulator.parts(from);
    for (const Layout& to : layouts) {
      if (random() % sample != 0) continue;
      if (const std::string why = reshard_obstacle(mesh, from, to); !why.empty()) {
        if (!to.is_pending()) FAIL("a value can always be completed, but " << why);
        continue;
      }
      ++checked;
      for (bool exchange : {true, false}) {
        if (!exchange && checked % 3 != 0) continue;
        const std::string wrong = simulator.check(parts, from, to, exchange);
        if (!wrong.empty())
          FAIL(mesh.str() << "; " << shape.str() << " " << from.str(mesh) << " -> " << to.str(mesh)
                          << (exchange ? ": " : " without an exchange: ") << wrong);
      }
    }
  }
  return checked;
}

const std::vector<Reduction> kSum = {Reduction::sum}, kAll(kKinds.begin(), kKinds.end());

}  // namespace

TEST_CASE("every reshard of a value of one dimension", "[reshard]") {
  int64_t checked = 0;
  for (const char* mesh : {"", "x=2", "x=3", "x=4", "x=2, y=2", "x=2, y=3", "x=6", "x=2, y=2, z=2"})
    for (int64_t n : {0, 1, 3, 5, 24}) checked += check_pairs(mesh, {n}, kAll);
  CHECK(checked == 20305);
}

TEST_CASE("every reshard of a matrix", "[reshard]") {
  int64_t checked = 0;
  for (const char* mesh : {"x=2", "x=3", "x=4", "x=2, y=2", "x=2, y=3", "x=6"})
    for (const Shape& shape : {Shape{12, 6}, Shape{5, 3}, Shape{3, 1}, Shape{1, 5}, Shape{0, 3}})
      checked += check_pairs(mesh, shape, kAll);
  CHECK(checked == 10550);
}

TEST_CASE("every reshard of a matrix on eight and twelve devices", "[reshard]") {
  // Three atoms split a matrix in 49 ways, two in 11, one in 3; pairs whose pending atoms are a subset of those before:
  // 49 49 + 3 11 (49 + 11) + 3 3 (49 + 2 11 + 3) + 92.
  CHECK(check_pairs("x=2, y=2, z=2", {8, 8}, kSum) == 5139);
  CHECK(check_pairs("x=2, y=2, z=2", {5, 3}, kSum) == 5139);
  CHECK(check_pairs("x=8", {7, 1}, kSum) == 5139);
  CHECK(check_pairs("x=2, y=3, z=2", {7, 5}, kSum) == 5139);
  CHECK(check_pairs("x=2, y=2, z=2", {5, 3}, kAll, 4) > 2000);
}

TEST_CASE("reshards of a value of three dimensions", "[reshard]") {
  CHECK(check_pairs("x=2, y=3", {5, 3, 2}, kSum) == 573);
  CHECK(check_pairs("x=2, y=2, z=2", {4, 4, 4}, kSum, 4) > 2000);
  CHECK(check_pairs("x=2, y=2, z=2", {3, 5, 1}, {Reduction::min}, 4) > 2000);
}

TEST_CASE("every reshard of a scalar", "[reshard]") { CHECK(check_pairs("x=2, y=3", Shape{}, kAll) == 43); }

// Every mesh of up to 16 devices, as bench/reshard_table.cc has them: minutes.
TEST_CASE("every reshard on up to sixteen devices", "[.slow]") {
  for (const char* mesh : {"x=2", "x=3", "x=4", "x=5", "x=6", "x=3, y=2", "x=7", "x=8", "x=9", "x=10", "x=5, y=2", "x=11",
                           "x=12", "x=2, y=3, z=2", "x=3, y=4", "x=13", "x=14", "x=7, y=2", "x=15", "x=5, y=3", "x=16"}) {
    for (const Shape& shape : {Shape{48}, Shape{19}, Shape{16, 24}, Shape{7, 5}, Shape{6, 4, 16}, Shape{5, 3, 2}})
      check_pairs(mesh, shape, kSum);
  }
}

}  // namespace meshard
