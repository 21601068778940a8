#include "meshard/collectives/rendezvous.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

#include "meshard/base/error.h"

namespace meshard {
namespace {

int some_port(int offset) { return 20000 + (getpid() + offset * 977) % 20000; }

std::string error_of(const RendezvousOptions& options) {
  try {
    rendezvous_communicator(options);
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("ranks meet over TCP and gather texts") {
  constexpr int kRanks = 3;
  const int port = some_port(0);
  std::vector<std::vector<std::string>> seen(kRanks);
  std::vector<std::string> errors(kRanks);
  std::vector<std::thread> threads;
  for (int r = kRanks; r-- > 0;) {
    threads.emplace_back([&, r] {
      try {
        const auto comm = rendezvous_communicator({.host = "127.0.0.1", .port = port, .rank = r, .size = kRanks, .timeout_seconds = 20});
        // Larger than what the system holds on the way, and empty ones.
        for (const size_t size : {size_t{0}, size_t{3}, size_t{3} << 20}) {
          for (std::string& t : comm->gather_text(std::string(size, static_cast<char>('a' + r)))) {
            seen[static_cast<size_t>(r)].push_back(t.empty() ? "" : t.substr(0, 1) + std::to_string(t.size()));
          }
        }
        comm->barrier();
        agree(*comm, r == 1 ? "its file is missing" : "");
      } catch (const std::exception& e) {
        errors[static_cast<size_t>(r)] = e.what();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (int r = 0; r < kRanks; ++r) {
    CHECK(seen[static_cast<size_t>(r)] == std::vector<std::string>{"", "", "", "a3", "b3", "c3", "a3145728", "b3145728", "c3145728"});
    CHECK(errors[static_cast<size_t>(r)] == "rank 1: its file is missing");
  }
}

TEST_CASE("ranks that do not come are named") {
  const int port = some_port(1);
  CHECK(error_of({.host = "127.0.0.1", .port = port, .rank = 0, .size = 3, .timeout_seconds = 0.1}) ==
        "rank 0 waited 0.1 s at port " + std::to_string(port) + " for ranks 1 and 2; start 3 processes, each with its RANK");
  CHECK(error_of({.host = "127.0.0.1", .port = port, .rank = 2, .size = 3, .timeout_seconds = 0.1}) ==
        "rank 2 waited 0.1 s for rank 0 at 127.0.0.1:" + std::to_string(port) + "; check MASTER_ADDR and MASTER_PORT");
}

}  // namespace meshard
