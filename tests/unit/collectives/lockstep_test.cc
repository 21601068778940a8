#include "meshard/collectives/lockstep.h"

#include <algorithm>

#include "meshard/tests/unit/collectives/calls.h"

namespace meshard {
namespace {

using testing::TestCall;

// Runs one call on all devices, started in the order of the ranks or in the opposite one.
void run_everywhere(const Mesh& mesh, AtomSet over, Collective kind, Reduction reduction, Dtype dtype, int64_t n,
                    bool lopsided, bool in_place, bool backwards) {
  int size = static_cast<int>(mesh.size());
  auto comms = lockstep_communicators(size);
  std::vector<std::unique_ptr<TestCall>> calls;
  for (int r = 0; r < size; ++r) {
    calls.push_back(
        testing::make_call(mesh, over, static_cast<Rank>(r), kind, reduction, dtype, n, lopsided, in_place));
  }
  std::vector<Ticket> tickets(static_cast<size_t>(size));
  for (int i = 0; i < size; ++i) {
    int r = backwards ? size - 1 - i : i;
    tickets[r] = comms[r]->start(calls[r]->call);
  }
  for (int r = 0; r < size; ++r) {
    comms[r]->wait(tickets[r]);
    CHECK(testing::check_result(*calls[r]) == "");
    CHECK(received_bytes(calls[r]->call) == testing::expected_bytes(*calls[r]));
    CHECK(comms[r]->received_bytes() == testing::expected_bytes(*calls[r]));
    CHECK(comms[r]->log().bytes() == comms[r]->received_bytes());
  }
}

TEST_CASE("lockstep: every kind, dtype and group gives the plain result and moves the billed bytes") {
  for (const char* text : {"", "a=2", "a=4", "a=3", "a=2, b=2", "a=2, b=3", "a=2, b=2, c=2", "a=5"}) {
    Mesh mesh = Mesh::parse(text);
    for (AtomSet over : testing::axis_sets(mesh)) {
      for (Collective kind : testing::kCallKinds) {
        for (Dtype dtype : testing::kDtypes) {
          for (int64_t n : {0, 1, 5, 29}) {
            for (bool lopsided : {false, true}) {
              INFO(text << ", " << over.size() << " atoms, " << name(kind) << " " << name(dtype) << ", " << n
                        << " elements" << (lopsided ? ", lopsided" : ""));
              run_everywhere(mesh, over, kind, Reduction::sum, dtype, n, lopsided, false, lopsided);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("lockstep: max and min, and all_reduce in place") {
  Mesh mesh = Mesh::parse("a=2, b=3");
  for (AtomSet over : testing::axis_sets(mesh)) {
    for (Dtype dtype : testing::kDtypes) {
      for (Reduction reduction : testing::kReductionKinds) {
        run_everywhere(mesh, over, Collective::reduce_scatter, reduction, dtype, 17, false, false, false);
        run_everywhere(mesh, over, Collective::all_reduce, reduction, dtype, 17, false, false, false);
        run_everywhere(mesh, over, Collective::all_reduce, reduction, dtype, 17, false, true, true);
      }
    }
  }
}

TEST_CASE("lockstep: several calls at once, waited for in any order, over groups that overlap") {
  Mesh mesh = Mesh::parse("a=2, b=2");
  std::vector<AtomSet> sets = testing::axis_sets(mesh);
  auto comms = lockstep_communicators(4);
  std::vector<std::vector<std::unique_ptr<TestCall>>> calls(4);
  std::vector<std::vector<Ticket>> tickets(4);
  // Each device starts all of its calls before the next device starts its first.
  for (int r = 0; r < 4; ++r) {
    for (size_t i = 0; i < 12; ++i) {
      calls[r].push_back(testing::make_call(mesh, sets[1 + i % 3], static_cast<Rank>(r), testing::kCallKinds[i % 8],
                                            Reduction::sum, Dtype::f32, static_cast<int64_t>(i)));
      tickets[r].push_back(comms[r]->start(calls[r].back()->call));
    }
  }
  for (int r = 3; r >= 0; --r) {
    int64_t bytes = 0;
    for (size_t i = 12; i-- > 0;) {
      comms[r]->wait(tickets[r][i]);
      comms[r]->wait(tickets[r][i]);  // harmless
      CHECK(testing::check_result(*calls[r][i]) == "");
      CHECK(comms[r]->log().find(tickets[r][i])->done);
      bytes += testing::expected_bytes(*calls[r][i]);
    }
    CHECK(comms[r]->received_bytes() == bytes);
  }
}

// The message of the InternalError that `action` throws.
template <class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST_CASE("lockstep: waiting for a call that others have not started names them") {
  Mesh mesh = Mesh::parse("model=4");
  auto comms = lockstep_communicators(4);
  std::vector<std::unique_ptr<TestCall>> calls;
  for (int r = 0; r < 4; ++r) {
    calls.push_back(testing::make_call(mesh, mesh.all(), static_cast<Rank>(r), Collective::all_gather, Reduction::sum,
                                       Dtype::f32, 8));
  }
  Ticket ticket = comms[2]->start(calls[2]->call);
  comms[0]->start(calls[0]->call);
  CHECK(message_of([&] { comms[2]->wait(ticket); }) ==
        "rank 2 waits for all_gather f32 (all_gather.value), call 0 over ranks 0, 1, 2 and 3, which ranks 1 and 3 have "
        "not started");
  comms[3]->start(calls[3]->call);
  CHECK(message_of([&] { comms[2]->wait(ticket); }) ==
        "rank 2 waits for all_gather f32 (all_gather.value), call 0 over ranks 0, 1, 2 and 3, which rank 1 has not "
        "started");
  comms[1]->start(calls[1]->call);
  comms[2]->wait(ticket);
  CHECK(testing::check_result(*calls[2]) == "");
  CHECK_THAT(message_of([&] { comms[2]->wait(1); }), Catch::Contains("rank 2 has no call 1"));
}

TEST_CASE("lockstep: calls that do not match are named") {
  Mesh mesh = Mesh::parse("a=2");
  auto mismatch = [&](Collective kind_a, Dtype dtype_a, int64_t n_a, Collective kind_b, Dtype dtype_b, int64_t n_b) {
    auto comms = lockstep_communicators(2);
    auto a = testing::make_call(mesh, mesh.all(), Rank{0}, kind_a, Reduction::sum, dtype_a, n_a);
    auto b = testing::make_call(mesh, mesh.all(), Rank{1}, kind_b, Reduction::sum, dtype_b, n_b);
    return message_of([&] {
      comms[0]->start(a->call);
      comms[1]->start(b->call);
    });
  };
  using enum Collective;
  CHECK(mismatch(all_gather, Dtype::f32, 4, all_reduce, Dtype::f32, 4) ==
        "calls of ranks 0 and 1 do not match: rank 0 starts all_gather f32 (all_gather.value) where rank 1 starts "
        "all_reduce sum f32 (all_reduce.value)");
  CHECK(mismatch(all_gather, Dtype::f32, 4, all_gather, Dtype::bf16, 4) ==
        "calls of ranks 0 and 1 do not match: rank 0 starts all_gather f32 (all_gather.value) where rank 1 starts "
        "all_gather bf16 (all_gather.value)");
  CHECK(mismatch(all_reduce, Dtype::f32, 4, all_reduce, Dtype::f32, 5) ==
        "calls of ranks 0 and 1 do not match: rank 0 starts all_reduce sum f32 (all_reduce.value) where rank 1 starts "
        "all_reduce sum f32 (all_reduce.value), with 4 and 5 elements");
  CHECK(mismatch(all_gather, Dtype::f32, 4, all_gather, Dtype::f32, 6) ==
        "calls of ranks 0 and 1 do not match: rank 0 starts all_gather f32 (all_gather.value) where rank 1 starts "
        "all_gather f32 (all_gather.value), with 2 and 3 elements for member 0");
  CHECK(mismatch(permute, Dtype::f32, 4, permute, Dtype::f32, 6) ==
        "calls of ranks 0 and 1 do not match: rank 1 starts permute f32 (permute.value) where rank 0 starts "
        "permute f32 (permute.value), which expects 16 bytes from it and gets 24");
}

TEST_CASE("a call that is not complete is refused") {
  Mesh mesh = Mesh::parse("a=2");
  auto comms = lockstep_communicators(2);
  Group group(mesh, mesh.all(), Rank{0});
  float data[4] = {};
  std::vector<int64_t> one = {2}, two = {2, 2}, negative = {3, -1};
  CHECK_THAT(message_of([&] { comms[0]->start({.kind = Collective::barrier}); }),
             Catch::Contains("a collective call without a group"));
  CHECK_THAT(message_of([&] {
               comms[0]->start({.kind = Collective::all_gather, .group = &group, .counts = one, .label = "x"});
             }),
             Catch::Contains("all_gather f32 (x): 1 counts for a group of 2"));
  CHECK_THAT(message_of([&] {
               comms[0]->start({.kind = Collective::all_gather, .group = &group, .counts = negative, .label = "x"});
             }),
             Catch::Contains("all_gather f32 (x): counts has -1"));
  CHECK_THAT(message_of([&] {
               comms[0]->start({.kind = Collective::all_gather, .group = &group, .send = data, .counts = two});
             }),
             Catch::Contains("all_gather f32: 4 elements to receive and no place for them"));
  CHECK_THAT(message_of([&] { comms[0]->start({.kind = Collective::slice, .group = &group}); }),
             Catch::Contains("slice moves nothing"));
  CHECK_THAT(message_of([&] { comms[1]->start({.kind = Collective::barrier, .group = &group}); }),
             Catch::Contains("rank 1 starts barrier with the group of rank 0"));
}

}  // namespace
}  // namespace meshard
