// What devices receive, by classes of coordinates, against a visit to every device.
#include "meshard/sharding/device_sum.h"

#include <catch2/catch.hpp>

namespace meshard {
namespace {

// Every layout of a vector or matrix that uses each axis at most once, whole axes and parts of them.
std::vector<Layout> layouts(const Mesh& mesh, int rank) {
  std::vector<Layout> out{Layout(rank)};
  for (AtomId atom = 0; atom < mesh.atom_count(); ++atom) {
    for (size_t i = 0, n = out.size(); i < n; ++i) {
      for (int d = 0; d < rank; ++d) {
        out.push_back(out[i]);
        out.back().dims[static_cast<size_t>(d)].atoms.push_back(atom);
      }
    }
  }
  return out;
}

TEST_CASE("steps are billed by classes as device by device") {
  int64_t steps = 0, classes = 0;
  for (const char* text : {"a=2, b=3", "a=4, b=2", "a=6", "a=3, b=2, c=2"}) {
    const Mesh mesh = Mesh::parse(text);
    DeviceSum sum(mesh);
    ReceivedCache cache(mesh);
    std::vector<int64_t> slow(static_cast<size_t>(mesh.size()), 0);
    for (const Shape& shape : {Shape{5}, Shape{12}, Shape{1}, Shape{0}, Shape{4, 6}, Shape{5, 3}, Shape{12, 7}}) {
      const std::vector<Layout> all = layouts(mesh, shape.rank());
      for (const Layout& from : all) {
        for (const Layout& to : all) {
          std::vector<ReshardStep> plan = plan_reshard(mesh, shape, from, to);
          Layout pending = from;
          pending.pending_of(Reduction::sum) = mesh.all() - from.used();
          if (pending.is_pending()) {
            for (ReshardStep& step : plan_reshard(mesh, shape, pending, to)) plan.push_back(std::move(step));
          }
          for (const ReshardStep& step : plan) {
            const Received& received = cache.get({&shape, 1}, {&step, 1}, {});
            ++steps;
            classes += static_cast<int64_t>(received.elements.size());
            sum.add(received.along, received.elements, 3);
            int64_t busiest = 0;
            for (int32_t r = 0; r < mesh.size(); ++r) {
              const int64_t elements = received_elements(mesh, shape, step, Rank{r});
              slow[static_cast<size_t>(r)] += 3 * elements;
              busiest = std::max(busiest, elements);
              const auto at = static_cast<size_t>(mesh.position(Rank{r}, received.along.list()));
              if (received.elements[at] != elements) {
                FAIL(name(step.kind) << " of " << shape.str() << " from " << step.from.str(mesh) << " to "
                                     << step.to.str(mesh) << " on " << text << ", rank " << r);
              }
            }
            if (received.busiest != busiest) FAIL("busiest of " << step.from.str(mesh) << " to " << step.to.str(mesh));
          }
        }
      }
    }
    for (size_t r = 0; r < slow.size(); ++r) CHECK(sum[r] == slow[r]);
    const auto most = std::max_element(slow.begin(), slow.end());
    CHECK(sum.largest().value == *most);
    CHECK(sum.largest().rank == most - slow.begin());
  }
  CHECK(steps > 10000);
  CHECK(classes < 6 * steps);  // of 6 to 12 devices
}

TEST_CASE("even steps cost the same on any mesh") {
  const Mesh mesh = Mesh::parse("data=256, model=256");
  ReceivedCache cache(mesh);
  const Shape shape{1024, 2048};
  const auto classes = [&](const char* from, const char* to) {
    const auto plan = plan_reshard(mesh, shape, Layout::parse(from, mesh, 2), Layout::parse(to, mesh, 2));
    REQUIRE(plan.size() == 1);
    return cache.get({&shape, 1}, plan, {}).elements.size();
  };
  CHECK(classes("[data, model]", "[data, -]") == 1);
  CHECK(classes("[data, -] + sum(model)", "[data, -]") == 1);
  CHECK(classes("[data, -] + sum(model)", "[data, model]") == 1);
  CHECK(classes("[data, -]", "[-, data]") == 1);
}

TEST_CASE("sums of sums along different axes") {
  const Mesh mesh = Mesh::parse("a=2, b=3, c=2");
  const auto axis = [&](const char* name) { return AtomSet::of(mesh.find(name)->atoms); };
  DeviceSum sum(mesh);
  CHECK(sum.largest().value == 0);
  sum.add({}, std::vector<int64_t>{10}, 2);
  CHECK(sum.largest().rank == 0);
  sum.add(axis("a"), std::vector<int64_t>{5, 7}, 1);
  sum.add(axis("b") | axis("c"), std::vector<int64_t>{0, 0, 0, 4, 0, 0}, 10);
  CHECK(sum.largest().value == 67);
  CHECK(sum.largest().rank == 6 + 3);
  CHECK(sum[9] == 67);
  CHECK(sum[3] == 65);
  CHECK(sum[0] == 25);
}

TEST_CASE("an all_reduce of several values is one of a row") {
  const Mesh mesh = Mesh::parse("data=2, model=3");
  ReceivedCache cache(mesh);
  const Layout from = Layout::parse("[data] + sum(model)", mesh), to = Layout::parse("[data]", mesh);
  const AtomSet model = AtomSet::of(mesh.find("model")->atoms);
  const std::vector<Shape> shapes{Shape{5}, Shape{4}};
  const std::vector<ReshardStep> steps(2, step_of(Collective::all_reduce, model, from, to));
  // Along data 5 and 4 of the 9 elements; of 5 the ranks reduce 2, 2 and 1, of 4 they reduce 2, 1 and 1.
  CHECK(cache.get(shapes, steps, {}).elements == std::vector<int64_t>{7, 7, 6, 6, 5, 5});
  const std::vector<Shape> even{Shape{4}, Shape{2}};
  CHECK(cache.get(even, steps, {}).elements == std::vector<int64_t>{4});
}

TEST_CASE("devices that a guard leaves out receive nothing") {
  const Mesh mesh = Mesh::parse("pipe=2, model=2");
  ReceivedCache cache(mesh);
  const Shape shape{8};
  const auto plan = plan_reshard(mesh, shape, Layout::parse("[model]", mesh), Layout::parse("[-]", mesh));
  const std::vector<std::pair<int, int64_t>> guard{{0, 1}};
  CHECK(cache.get({&shape, 1}, plan, guard).elements == std::vector<int64_t>{0, 4});
  CHECK(cache.get({&shape, 1}, plan, {}).elements == std::vector<int64_t>{4});
}

}  // namespace
}  // namespace meshard
