#include "meshard/sharding/reshard_costs.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <deque>
#include <string>
#include <tuple>

namespace meshard {
namespace {

// A layout as a key, without spelling axes.
std::string layout_key(const Layout& layout) {
  std::string key;
  for (const DimLayout& d : layout.dims) {
    for (AtomId a : d.atoms) key.push_back(static_cast<char>('A' + a));
    key.push_back(',');
  }
  for (const AtomSet& p : layout.pending) {
    key.push_back('/');
    if (!p.empty()) key.append(reinterpret_cast<const char*>(&p.bits), sizeof(p.bits));
  }
  return key;
}

}  // namespace

struct ReshardCosts::State {
  Mesh mesh;
  std::deque<Shape> shapes;
  std::deque<Layout> layouts;
  absl::flat_hash_map<std::string, int> shape_ids, layout_ids;
  absl::flat_hash_map<std::tuple<int, LayoutId, LayoutId>, Entry> entries;
  absl::flat_hash_map<std::pair<int, LayoutId>, int64_t> blocks;
  absl::flat_hash_map<std::pair<LayoutId, LayoutId>, LayoutId> parts;
  absl::flat_hash_map<std::string, std::unique_ptr<Copies>> copies;
};

ReshardCosts::ReshardCosts(const Mesh& mesh) : state_(std::make_unique<State>()) { state_->mesh = mesh; }
ReshardCosts::~ReshardCosts() = default;
ReshardCosts::ReshardCosts(ReshardCosts&&) noexcept = default;

const Mesh& ReshardCosts::mesh() const { return state_->mesh; }

int ReshardCosts::shape(const Shape& shape) {
  const std::string key(reinterpret_cast<const char*>(shape.dims.data()), shape.dims.size() * sizeof(int64_t));
  const auto [it, fresh] = state_->shape_ids.try_emplace(key, static_cast<int>(state_->shapes.size()));
  if (fresh) state_->shapes.push_back(shape);
  return it->second;
}

LayoutId ReshardCosts::layout(const Layout& layout) {
  const auto [it, fresh] = state_->layout_ids.try_emplace(layout_key(layout), static_cast<int>(state_->layouts.size()));
  if (fresh) state_->layouts.push_back(layout.closed());
  return it->second;
}

const Layout& ReshardCosts::layout(LayoutId id) const { return state_->layouts[static_cast<size_t>(id)]; }

ReshardCosts::Entry ReshardCosts::get(int shape, LayoutId from, LayoutId to) {
  if (from == to) return {};
  const auto [it, fresh] = state_->entries.try_emplace(std::tuple(shape, from, to));
  Entry& e = it->second;
  if (!fresh) return e;
  const Layout &a = layout(from), &b = layout(to);
  const Shape& s = state_->shapes[static_cast<size_t>(shape)];
  e.possible = reshard_obstacle(state_->mesh, a, b).empty();
  if (!e.possible) return e;
  const std::vector<ReshardStep> steps = plan_reshard(state_->mesh, s, a, b);
  e.elements = all_received_elements(state_->mesh, s, steps);
  for (const ReshardStep& step : steps) e.messages += step.kind != Collective::slice;
  return e;
}

std::vector<ReshardStep> ReshardCosts::steps(int shape, LayoutId from, LayoutId to) {
  if (from == to) return {};
  return plan_reshard(state_->mesh, state_->shapes[static_cast<size_t>(shape)], layout(from), layout(to));
}

int64_t ReshardCosts::block_elements(int shape, LayoutId id) {
  const auto [it, fresh] = state_->blocks.try_emplace({shape, id}, 1);
  if (fresh) {
    const Shape& s = state_->shapes[static_cast<size_t>(shape)];
    for (int d = 0; d < s.rank(); ++d) it->second *= block(s[d], state_->mesh.parts(layout(id).atoms(d)), 0).size;
  }
  return it->second;
}

LayoutId ReshardCosts::before_part(LayoutId have, LayoutId needed) {
  const auto [it, fresh] = state_->parts.try_emplace({have, needed}, needed);
  if (!fresh) return it->second;
  Layout whole = layout(needed);
  AtomSet& sums = whole.pending_of(Reduction::sum);
  sums = sums - (sums - layout(have).used() - whole.split());
  const LayoutId id = layout(whole);
  return state_->parts[{have, needed}] = id;
}

const ReshardCosts::Copies& ReshardCosts::copies(int shape, LayoutId made, std::span<const LayoutId> needed) {
  std::string key(reinterpret_cast<const char*>(needed.data()), needed.size_bytes());
  key.append(reinterpret_cast<const char*>(&shape), sizeof(shape)).append(reinterpret_cast<const char*>(&made), sizeof(made));
  std::unique_ptr<Copies>& slot = state_->copies[key];
  if (slot != nullptr) return *slot;
  slot = std::make_unique<Copies>();
  Copies& best = *slot;
  const auto n = static_cast<int>(needed.size());
  best.parents.assign(needed.size(), -1);
  // cost[i][p]: of making copy i from p; column n is the value itself.
  std::vector<Entry> cost(static_cast<size_t>(n * (n + 1)));
  const auto edge = [&](int i, int p) -> Entry& { return cost[static_cast<size_t>(i * (n + 1) + (p < 0 ? n : p))]; };
  for (int i = 0; i < n; ++i) {
    for (int p = -1; p < n; ++p) {
      if (p != i) edge(i, p) = get(shape, p < 0 ? made : needed[static_cast<size_t>(p)], needed[static_cast<size_t>(i)]);
      if (p < 0) best.possible &= edge(i, p).possible;
    }
  }
  if (!best.possible) return best;
  const auto total = [&](const std::vector<int>& parents) {
    std::pair<int64_t, int64_t> sum;
    for (int i = 0; i < n; ++i) {
      const Entry& e = edge(i, parents[static_cast<size_t>(i)]);
      sum.first += e.elements;
      sum.second += e.messages;
    }
    return sum;
  };
  const auto rooted = [&](const std::vector<int>& parents) {
    for (int i = 0; i < n; ++i) {
      int at = i;
      for (int hops = 0; at >= 0; at = parents[static_cast<size_t>(at)]) {
        if (++hops > n) return false;
      }
    }
    return true;
  };
  std::pair<int64_t, int64_t> least = total(best.parents);
  const auto try_parents = [&](const std::vector<int>& parents) {
    const auto sum = total(parents);
    if (sum >= least || !rooted(parents)) return false;
    least = sum;
    best.parents = parents;
    return true;
  };
  if (n <= 5) {
    std::vector<int> parents(best.parents);
    for (bool more = n > 0; more;) {
      bool legal = true;
      for (int i = 0; i < n && legal; ++i) legal = parents[static_cast<size_t>(i)] != i && edge(i, parents[static_cast<size_t>(i)]).possible;
      if (legal) try_parents(parents);
      more = false;
      for (int i = n; i-- > 0 && !more;) {
        if (++parents[static_cast<size_t>(i)] < n) more = true;
        else parents[static_cast<size_t>(i)] = -1;
      }
    }
  } else {  // one parent changed at a time, until that does not help
    for (bool better = true; better;) {
      better = false;
      for (int i = 0; i < n; ++i) {
        for (int p = 0; p < n; ++p) {
          if (p == i || !edge(i, p).possible) continue;
          std::vector<int> parents = best.parents;
          parents[static_cast<size_t>(i)] = p;
          better |= try_parents(parents);
        }
      }
    }
  }
  best.elements = least.first;
  best.messages = least.second;
  return best;
}

}  // namespace meshard
