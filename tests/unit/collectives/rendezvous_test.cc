#include "meshard/collectives/rendezvous.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "meshard/base/error.h"
#include "meshard/tests/unit/collectives/calls.h"

namespace meshard {
namespace {

int some_port(int offset) { return 20000 + (getpid() + offset * 977) % 20000; }
std::string at_port(int offset) { return "127.0.0.1:" + std::to_string(some_port(offset)); }
std::string some_path() { return (std::filesystem::temp_directory_path() / ("meshard-meet-" + std::to_string(getpid()))).string(); }

// Runs a function for each rank in a thread of its own; what each threw.
std::vector<std::string> on_ranks(int ranks, const std::function<void(int)>& work) {
  std::vector<std::string> errors(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = ranks; r-- > 0;) {
    threads.emplace_back([&, r] {
      try {
        work(r);
      } catch (const std::exception& e) {
        errors[static_cast<size_t>(r)] = e.what();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  return errors;
}

std::string error_of(const RendezvousOptions& options) {
  return on_ranks(1, [&](int) { rendezvous(options); })[0];
}

}  // namespace

TEST_CASE("ranks meet at a port or by a file and gather texts") {
  constexpr int kRanks = 3;
  const std::string place = GENERATE(at_port(0), some_path());
  // What another job left behind points nowhere.
  if (place[0] == '/') std::ofstream(place) << "meshard-rendezvous 1 1 nowhere 127.0.0.1\n";
  std::vector<std::vector<std::string>> seen(kRanks);
  const auto errors = on_ranks(kRanks, [&](int r) {
    const auto comm = rendezvous_communicator({.place = place, .rank = r, .size = kRanks, .timeout_seconds = 20}, {.timeout_seconds = 20});
    if (comm->kind() != "tcp") throw InternalError("of another kind");
    // Larger than what the system holds on the way, and empty ones.
    for (const size_t size : {size_t{0}, size_t{3}, size_t{3} << 20}) {
      for (std::string& t : comm->gather_text(std::string(size, static_cast<char>('a' + r)))) {
        seen[static_cast<size_t>(r)].push_back(t.empty() ? "" : t.substr(0, 1) + std::to_string(t.size()));
      }
    }
    comm->barrier();
    agree(*comm, r == 1 ? "its file is missing" : "");
  });
  for (int r = 0; r < kRanks; ++r) {
    CHECK(seen[static_cast<size_t>(r)] == std::vector<std::string>{"", "", "", "a3", "b3", "c3", "a3145728", "b3145728", "c3145728"});
    CHECK(errors[static_cast<size_t>(r)] == "rank 1: its file is missing");
  }
  if (place[0] == '/') CHECK(!std::filesystem::exists(place));
}

// Threads stand for ranks: what one process can map of another is not tried here.
TEST_CASE("collectives between ranks that met by TCP, on one host and on two") {
  const int ranks = GENERATE(2, 4);
  const int hosts = GENERATE(1, 2);
  const Mesh mesh = Mesh::parse(ranks == 4 ? "a=2, b=2" : "a=2");
  const auto errors = on_ranks(ranks, [&](int r) {
    const auto comm = rendezvous_communicator({.place = at_port(1), .rank = r, .size = ranks, .timeout_seconds = 20},
                                              {.read_processes = false, .timeout_seconds = 20, .host = std::to_string(r * hosts / ranks)});
    std::string wrong;
    if (comm->host_traffic().hosts != hosts) wrong = "hosts";
    for (const AtomSet over : testing::axis_sets(mesh)) {
      for (const Collective kind : testing::kCallKinds) {
        for (const Dtype dtype : testing::kDtypes) {
          for (const int64_t n : {0, 1, 29, 100000}) {
            const auto t = testing::make_call(mesh, over, comm->rank(), kind, Reduction::sum, dtype, n, n % 2 == 1, false);
            const int64_t before = comm->received_bytes();
            comm->run(t->call);
            if (wrong.empty()) wrong = testing::check_result(*t);
            if (comm->received_bytes() - before != testing::expected_bytes(*t)) wrong += " bytes";
          }
        }
      }
    }
    comm->barrier();
    if (!wrong.empty()) throw InternalError(wrong);
  });
  CHECK(errors == std::vector<std::string>(static_cast<size_t>(ranks)));
}

TEST_CASE("ranks that do not come are named, to all that came") {
  const std::string place = at_port(2);
  const std::string who = "rank 0 waited 0.3 s at " + place + " for rank 1; start 3 processes, each with a rank of its own";
  const auto errors = on_ranks(3, [&](int r) {
    if (r != 1) rendezvous({.place = place, .rank = r, .size = 3, .timeout_seconds = 0.3});
  });
  CHECK(errors == std::vector<std::string>{who, "", who});
  CHECK(error_of({.place = place, .rank = 0, .size = 3, .timeout_seconds = 0.1}) ==
        "rank 0 waited 0.1 s at " + place + " for ranks 1 and 2; start 3 processes, each with a rank of its own");
  CHECK(error_of({.place = place, .rank = 2, .size = 3, .timeout_seconds = 0.1}) ==
        "rank 2 waited 0.1 s for rank 0 at " + place + "; see whether rank 0 was started, with the same place");
}

TEST_CASE("two of one rank, sizes that differ, a port that is taken") {
  const std::string place = at_port(3);
  const std::string twice = "two processes came as rank 1 of 3; give each a rank of its own";
  CHECK(on_ranks(3, [&](int r) { rendezvous({.place = place, .rank = r == 0 ? 0 : 1, .size = 3, .timeout_seconds = 5}); }) ==
        std::vector<std::string>{twice, twice, twice});
  const std::string sizes = "rank 1 was started as one of 4 ranks, rank 0 as one of 2; start all with the same number";
  CHECK(on_ranks(2, [&](int r) { rendezvous({.place = place, .rank = r, .size = r == 0 ? 2 : 4, .timeout_seconds = 5}); }) ==
        std::vector<std::string>{sizes, sizes});
  const auto taken = on_ranks(2, [&](int r) {
    if (r == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
    rendezvous({.place = place, .rank = 0, .size = 2, .timeout_seconds = 0.6});
  });
  CHECK(taken[1] == "rank 0 cannot listen on port " + std::to_string(some_port(3)) +
                        ": Address already in use; choose another port, or see whether a second process was started as rank 0");
  const std::string path = some_path();
  const auto file = on_ranks(2, [&](int r) {
    if (r == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
    rendezvous({.place = path, .rank = 0, .size = 2, .timeout_seconds = 0.6});
  });
  CHECK(file[1] == path + " belongs to another rank 0 that waits there; give each job a place of its own, each process a rank of its own");
}

TEST_CASE("places and ranks that make no sense") {
  CHECK(error_of({.place = "node0", .rank = 0, .size = 2}) ==
        "\"node0\" is no place where ranks can meet: write HOST:PORT, as node0:29500, or a path with a slash, as ./meet");
  CHECK(error_of({.place = "node0:70000", .rank = 0, .size = 2}) ==
        "\"node0:70000\" is no place where ranks can meet: write HOST:PORT, as node0:29500, or a path with a slash, as ./meet");
  CHECK(error_of({.place = "node0:2000", .rank = 2, .size = 2}) == "rank 2 of 2: a rank is from 0 on and below the number of ranks");
  CHECK(error_of({.place = "/nowhere/at/all", .rank = 0, .size = 2}) == "rank 0 cannot write /nowhere/at/all; check the folder and its permissions");
}

}  // namespace meshard
