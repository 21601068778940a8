// The MPI communicator on real ranks: both ways of moving bytes, against plain results. Runs with 1 to 4 ranks.
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <utility>

#include "meshard/collectives/lockstep.h"
#include "meshard/collectives/mpi.h"
#include "meshard/tests/unit/collectives/calls.h"

namespace meshard {
namespace {

using testing::TestCall;

struct World {
  int size = 0, rank = 0;
  World() {
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  }
  Rank self() const { return static_cast<Rank>(rank); }
  std::vector<Mesh> meshes() const {
    std::vector<Mesh> meshes = {Mesh::parse("a=" + std::to_string(size))};
    if (size == 4) meshes.push_back(Mesh::parse("a=2, b=2"));
    if (size == 8) meshes.push_back(Mesh::parse("a=2, b=4"));
    if (size == 6) meshes.push_back(Mesh::parse("a=2, b=3"));
    return meshes;
  }
};

// The ways a call may travel: blocks read from the other process, mapped or copied by the system, through shared memory,
// and as messages; and where ranks are of different hosts, in phases where the groups allow that, and without.
std::vector<RankOptions> ways(const World& world) {
  std::vector<RankOptions> out = {{.timeout_seconds = 30},
                                  {.share_buffers = false, .timeout_seconds = 30},
                                  {.read_processes = false, .timeout_seconds = 30},
                                  {.shared_memory = false, .timeout_seconds = 30}};
  const int r = world.rank, p = world.size;
  if (p < 2) return out;
  if (p > 4) out.resize(1);  // the others are told by fewer ranks, in less time
  const auto add = [&](int host, bool phases, bool read) {
    out.push_back({.read_processes = read, .phases = phases, .timeout_seconds = 30, .host = std::to_string(host)});
  };
  add(r * 2 / p, true, true);  // the first half on one host: equal halves where p is even
  if (p < 3) return out;
  add(r % 2, true, false);              // one after the other
  add(r == p - 1 ? 1 : 0, true, true);  // one rank alone on its host
  if (p == 8) add(r / 2, true, true);   // four hosts
  return out;
}

void run_and_check(Communicator& comm, const Mesh& mesh, AtomSet over, Collective kind, Reduction reduction,
                   Dtype dtype, int64_t n, bool lopsided, bool in_place) {
  INFO(mesh.str() << ", " << over.size() << " atoms, " << name(kind) << " " << name(reduction) << " " << name(dtype)
                  << ", " << n << " elements" << (lopsided ? ", lopsided" : "") << (in_place ? ", in place" : ""));
  auto t = testing::make_call(mesh, over, comm.rank(), kind, reduction, dtype, n, lopsided, in_place);
  int64_t before = comm.received_bytes();
  comm.run(t->call);
  CHECK(testing::check_result(*t) == "");
  CHECK(comm.received_bytes() - before == testing::expected_bytes(*t));
}

TEST_CASE("every kind, dtype and group gives the plain result and moves the billed bytes") {
  World world;
  for (const RankOptions& way : ways(world)) {
    auto comm = mpi_communicator(nullptr, way);
    REQUIRE(comm->size() == world.size);
    REQUIRE(comm->rank() == world.self());
    CHECK(comm->kind() == "mpi");
    for (const Mesh& mesh : world.meshes()) {
      for (AtomSet over : testing::axis_sets(mesh)) {
        for (Collective kind : testing::kCallKinds) {
          for (Dtype dtype : testing::kDtypes) {
            for (int64_t n : {0, 1, 5, 29, 1000}) {
              for (bool lopsided : {false, true}) {
                run_and_check(*comm, mesh, over, kind, Reduction::sum, dtype, n, lopsided, false);
              }
            }
          }
        }
      }
    }
    CHECK(comm->log().bytes() == comm->received_bytes());
  }
}

TEST_CASE("payloads of many slots") {
  World world;
  for (const RankOptions& way : ways(world)) {
    auto comm = mpi_communicator(nullptr, way);
    for (const Mesh& mesh : world.meshes()) {
      for (AtomSet over : testing::axis_sets(mesh)) {
        for (Collective kind : testing::kCallKinds) {
          // Around a block that is posted by its address, a slot, and far beyond all slots.
          for (int64_t n : {8191, 8193, 32768, 98305, 131072, 1234567}) {
            run_and_check(*comm, mesh, over, kind, Reduction::sum, Dtype::f32, n, n % 2 == 0, false);
          }
          run_and_check(*comm, mesh, over, kind, Reduction::sum, Dtype::bf16, 777777, true, false);
        }
        run_and_check(*comm, mesh, over, Collective::all_reduce, Reduction::max, Dtype::f64, 333333, false, true);
        run_and_check(*comm, mesh, over, Collective::all_reduce, Reduction::min, Dtype::bf16, 444443, false, true);
      }
    }
  }
}

TEST_CASE("max and min, and all_reduce in place") {
  World world;
  for (const RankOptions& way : ways(world)) {
    auto comm = mpi_communicator(nullptr, way);
    for (const Mesh& mesh : world.meshes()) {
      for (Dtype dtype : testing::kDtypes) {
        for (Reduction reduction : testing::kReductionKinds) {
          run_and_check(*comm, mesh, mesh.all(), Collective::reduce_scatter, reduction, dtype, 17, false, false);
          run_and_check(*comm, mesh, mesh.all(), Collective::all_reduce, reduction, dtype, 17, false, false);
          run_and_check(*comm, mesh, mesh.all(), Collective::all_reduce, reduction, dtype, 17, false, true);
        }
      }
    }
  }
}

TEST_CASE("several calls at once, waited for in another order, over groups that overlap") {
  World world;
  for (const RankOptions& way : ways(world)) {
    auto comm = mpi_communicator(nullptr, way);
    for (const Mesh& mesh : world.meshes()) {
      std::vector<AtomSet> sets = testing::axis_sets(mesh);
      std::mt19937 random(7);  // the same program on every rank
      for (int round = 0; round < 40; ++round) {
        std::vector<std::unique_ptr<TestCall>> calls;
        std::vector<Ticket> tickets;
        for (int i = 0; i < 10; ++i) {
          int64_t n = random() % 8 == 0 ? 100000 : static_cast<int64_t>(random() % 50);
          AtomSet over = sets[random() % sets.size()];
          Collective kind = testing::kCallKinds[random() % 8];
          calls.push_back(testing::make_call(mesh, over, world.self(), kind, Reduction::sum, Dtype::f32, n));
          tickets.push_back(comm->start(calls.back()->call));
        }
        // Ranks wait in different orders, and so carry out different numbers of calls at a time.
        for (size_t i = 0; i < calls.size(); ++i) {
          size_t k = (i * 3 + static_cast<size_t>(world.rank) * 7) % calls.size();
          comm->wait(tickets[k]);
          CHECK(testing::check_result(*calls[k]) == "");
          CHECK(comm->log().find(tickets[k])->done);
        }
      }
    }
  }
}

// Where ranks are of two hosts, as many on each, and sums are made within them first.
std::vector<float> sums_in_phases(const std::vector<std::vector<float>>& in, const std::vector<int>& host) {
  std::vector<float> out(in[0].size());
  for (size_t e = 0; e < out.size(); ++e) {
    float sums[2] = {};
    bool begun[2] = {};
    for (size_t r = 0; r < in.size(); ++r) {
      float& sum = sums[host[r]];
      sum = std::exchange(begun[host[r]], true) ? sum + in[r][e] : in[r][e];
    }
    out[e] = sums[0] + sums[1];
  }
  return out;
}

TEST_CASE("all ways and lockstep give the same bits, and phases those of their own order") {
  World world;
  Mesh mesh = world.meshes().back();
  // In slots; by address, the second past the caches where it is not in place.
  int64_t n = GENERATE(5001, 140001, 1400001);
  std::vector<std::vector<float>> in;  // all ranks' values, on every rank
  for (int r = 0; r < world.size; ++r) {
    std::mt19937 random(static_cast<unsigned>(r));
    std::normal_distribution<float> normal;
    in.emplace_back();
    for (int64_t e = 0; e < n; ++e) in.back().push_back(normal(random));
  }
  auto lockstep = lockstep_communicators(world.size);
  std::vector<std::vector<float>> expected(in.size(), std::vector<float>(static_cast<size_t>(n)));
  std::vector<Group> groups;
  for (int r = 0; r < world.size; ++r) groups.emplace_back(mesh, mesh.all(), static_cast<Rank>(r));
  for (int r = 0; r < world.size; ++r) {
    lockstep[r]->start({.kind = Collective::all_reduce,
                        .group = &groups[r],
                        .send = in[r].data(),
                        .receive = expected[r].data(),
                        .send_elements = n});
  }
  const size_t bytes = static_cast<size_t>(n) * 4;
  for (const RankOptions& way : ways(world)) {
    auto comm = mpi_communicator(nullptr, way);
    std::vector<int> host;  // by rank
    for (const std::string& name : comm->gather_text(way.host)) host.push_back(name.empty() ? 0 : name[0] - '0');
    const auto on = [&](int h) { return std::count(host.begin(), host.end(), h); };
    if (comm->host_traffic().hosts > 2) continue;
    const bool phases = way.phases && on(0) == on(1) && on(0) > 1;
    const std::vector<float> sums = phases ? sums_in_phases(in, host) : expected[static_cast<size_t>(world.rank)];
    testing::Bytes send(bytes, std::byte{0}), receive(bytes, std::byte{0});
    for (std::byte* to : {send.data(), receive.data()}) {
      std::memcpy(send.data(), in[world.rank].data(), bytes);
      comm->run({.kind = Collective::all_reduce,
                 .group = &groups[world.rank],
                 .send = send.data(),
                 .receive = to,
                 .send_elements = n});
      CHECK(std::memcmp(to, sums.data(), bytes) == 0);
    }
  }
}

TEST_CASE("phases take less across hosts than messages between all pairs") {
  World world;
  if (world.size < 4 || world.size % 2 != 0) return;
  const Mesh mesh = Mesh::parse("a=" + std::to_string(world.size));
  const Group group(mesh, mesh.all(), world.self());
  const int p = world.size, k = p / 2;
  const int64_t block = 1000, n = block * p;
  const std::vector<int64_t> counts(static_cast<size_t>(p), block);
  const std::string host = std::to_string(world.rank / k);
  auto phased = mpi_communicator(nullptr, {.timeout_seconds = 30, .host = host});
  auto flat = mpi_communicator(nullptr, {.phases = false, .timeout_seconds = 30, .host = host});
  CHECK(phased->host_traffic().hosts == 2);
  const auto crosses = [&](Communicator& comm, Collective kind) {
    testing::Bytes send(static_cast<size_t>(n) * 4, std::byte{0}), receive(static_cast<size_t>(n) * 4, std::byte{0});
    const int64_t before = comm.host_traffic().received;
    comm.run({.kind = kind,
              .group = &group,
              .send = send.data(),
              .receive = receive.data(),
              .send_elements = n,
              .counts = counts,
              .send_counts = counts});
    return (comm.host_traffic().received - before) / 4;
  };
  // Elements that one rank receives from the other host: of k * block, what its peer has summed or holds of them.
  CHECK(crosses(*phased, Collective::all_reduce) == 2 * block);
  CHECK(crosses(*flat, Collective::all_reduce) == 2 * k * block);
  CHECK(crosses(*phased, Collective::reduce_scatter) == block);
  CHECK(crosses(*flat, Collective::reduce_scatter) == k * block);
  CHECK(crosses(*phased, Collective::all_gather) == block);
  CHECK(crosses(*flat, Collective::all_gather) == k * block);
  // What changes place has one reader, and crosses once either way.
  CHECK(crosses(*phased, Collective::all_to_all) == k * block);
  CHECK(crosses(*flat, Collective::all_to_all) == k * block);
  const bool far = world.rank >= k;
  CHECK(crosses(*phased, Collective::broadcast) == (far ? n / k : 0));
  CHECK(crosses(*flat, Collective::broadcast) == (far ? n : 0));
  CHECK(phased->received_bytes() == flat->received_bytes());
}

// Bytes of shared memory that the system counts as this process's now.
int64_t shared_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssShmem:", 0) == 0) return std::stoll(line.substr(9)) * 1024;
  }
  return 0;
}

TEST_CASE("what ranks map of each other's memory does not add up") {
  World world;
  auto comm = mpi_communicator(nullptr, {});
  Mesh mesh = world.meshes()[0];
  Group group(mesh, mesh.all(), world.self());
  const int64_t bytes = 128 << 20;
  testing::Bytes value(static_cast<size_t>(bytes), std::byte{0});
  const int64_t before = shared_bytes();
  std::vector<int64_t> counts(static_cast<size_t>(world.size), bytes / 4 / world.size);
  const std::byte* mine = value.data() + world.rank * counts[0] * 4;
  comm->run({.kind = Collective::all_reduce, .group = &group, .send = value.data(), .receive = value.data(), .send_elements = bytes / 4});
  comm->run({.kind = Collective::all_gather, .group = &group, .send = mine, .receive = value.data(), .counts = counts});
  // Of each other rank 16 MiB, on large pages that may begin before and end behind it; and MPI's own pages.
  CHECK(shared_bytes() - before <= (int64_t{16 + 2 * 2} << 20) * (world.size - 1) + (1 << 20));
}

TEST_CASE("texts travel to all ranks, and disagreement is one error on all of them") {
  World world;
  auto comm = mpi_communicator(nullptr, {});
  auto message = [&](auto action) -> std::string {
    try {
      action();
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  std::vector<std::string> texts = comm->gather_text(std::string(static_cast<size_t>(world.rank), 'x'));
  REQUIRE(static_cast<int>(texts.size()) == world.size);
  for (int r = 0; r < world.size; ++r) CHECK(texts[r] == std::string(static_cast<size_t>(r), 'x'));
  comm->barrier();
  agree(*comm, "");
  agree_on_text(*comm, "plan", "mesh a=2\n");
  if (world.size == 1) return;
  int last = world.size - 1;
  std::string error = message([&] { agree(*comm, world.rank == last ? "cannot open tokens.bin" : ""); });
  CHECK(error == "rank " + std::to_string(last) + ": cannot open tokens.bin");
  std::string plan =
      message([&] { agree_on_text(*comm, "plan", world.rank == 1 ? "mesh a=2\nx [-]\n" : "mesh a=2\nx [a]\n"); });
  std::string who = world.size == 2 ? "rank 0 has" : world.size == 3 ? "ranks 0 and 2 have" : "ranks 0, 2 and 3 have";
  if (world.size <= 4) {
    CHECK(plan ==
          who + " another plan than rank 1: first difference at line 2: rank 0 has \"x [a]\", rank 1 has \"x [-]\"");
  }
}

TEST_CASE("the caller's communicator may be a part of the world, in another order") {
  World world;
  MPI_Comm part;
  MPI_Comm_split(MPI_COMM_WORLD, world.rank % 2, -world.rank, &part);
  {
    auto comm = mpi_communicator(&part, {.timeout_seconds = 30});
    Mesh mesh = Mesh::parse("a=" + std::to_string(comm->size()));
    for (Collective kind : testing::kCallKinds) {
      run_and_check(*comm, mesh, mesh.all(), kind, Reduction::sum, Dtype::f32, 100, false, false);
    }
  }
  MPI_Comm_free(&part);
}

TEST_CASE("a call with the group of another rank is refused before anything is sent") {
  World world;
  auto comm = mpi_communicator(nullptr, {});
  Mesh mesh = world.meshes()[0];
  Group group(mesh, mesh.all(), static_cast<Rank>((world.rank + 1) % world.size));
  if (world.size > 1) CHECK_THROWS_AS(comm->start({.kind = Collective::barrier, .group = &group}), InternalError);
  CHECK_THROWS_AS(comm->wait(0), InternalError);
}

}  // namespace
}  // namespace meshard
