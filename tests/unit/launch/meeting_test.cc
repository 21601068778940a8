#include "meshard/launch/meeting.h"

#include <catch2/catch.hpp>
#include <map>

#include "meshard/base/error.h"

namespace meshard {
namespace {

using Variables = std::map<std::string, std::string>;

std::string meeting(const Variables& variables, bool mpi = false) {
  try {
    const auto found = meeting_place(
        [&](const char* name) -> const char* {
          const auto it = variables.find(name);
          return it == variables.end() ? nullptr : it->second.c_str();
        },
        mpi);
    if (!found) return "none";
    return found->place + " " + std::to_string(found->rank) + " of " + std::to_string(found->size) + ", " +
           std::to_string(static_cast<int>(found->timeout_seconds)) + " s";
  } catch (const UserError& e) {
    return e.what();
  }
}

TEST_CASE("where ranks meet, as the environment says") {
  CHECK(meeting({}) == "none");
  const Variables own = {{"MESHARD_RENDEZVOUS", "node0:2000"}, {"MESHARD_RANK", "1"}, {"MESHARD_SIZE", "4"}};
  CHECK(meeting(own) == "node0:2000 1 of 4, 60 s");
  CHECK(meeting(own, true) == "node0:2000 1 of 4, 60 s");
  Variables more = own;
  more["SLURM_PROCID"] = "3";
  more["RANK"] = "2";
  more["MESHARD_MEET_SECONDS"] = "300";
  CHECK(meeting(more) == "node0:2000 1 of 4, 300 s");
  CHECK(meeting({{"MESHARD_RENDEZVOUS", "/shared/meet"}, {"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "8"}}) == "/shared/meet 3 of 8, 60 s");
  CHECK(meeting({{"MESHARD_RENDEZVOUS", "/shared/meet"}, {"RANK", "0"}, {"WORLD_SIZE", "2"}}) == "/shared/meet 0 of 2, 60 s");
  const Variables torch = {{"MASTER_ADDR", "a"}, {"MASTER_PORT", "29500"}, {"RANK", "1"}, {"WORLD_SIZE", "2"}};
  CHECK(meeting(torch) == "a:29500 1 of 2, 60 s");
  Variables alone = torch;
  alone["WORLD_SIZE"] = "1";
  alone["RANK"] = "0";
  CHECK(meeting(alone) == "none");
}

TEST_CASE("a step of Slurm's meets on its first node where there is no MPI") {
  const Variables step = {{"SLURM_STEP_NODELIST", "gpu[07-09]"}, {"SLURM_STEP_NUM_TASKS", "6"}, {"SLURM_PROCID", "5"}, {"SLURM_JOB_ID", "1234567"}, {"SLURM_STEP_ID", "2"}};
  CHECK(meeting(step) == "gpu07:25672 5 of 6, 60 s");
  CHECK(meeting(step, true) == "none");
  // A batch script is one process.
  CHECK(meeting({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "6"}, {"SLURM_PROCID", "0"}}) == "none");
  CHECK(first_host("node1") == "node1");
  CHECK(first_host("node1,node2") == "node1");
  CHECK(first_host("gpu[03-07,11],login") == "gpu03");
  CHECK(first_host("gpu[3,5]") == "gpu3");
  CHECK(first_host("gpu[12]") == "gpu12");
  CHECK(first_host("login,gpu[03-07]") == "login");
}

TEST_CASE("numbers that are missing or none") {
  CHECK(meeting({{"MESHARD_RENDEZVOUS", "a:1"}, {"MESHARD_SIZE", "4"}}) ==
        "ranks shall meet at a:1, but MESHARD_RANK is not set; give each process its rank and their number, as meshard launch does");
  CHECK(meeting({{"MESHARD_RENDEZVOUS", "a:1"}, {"MESHARD_RANK", "4"}, {"MESHARD_SIZE", "4"}}) ==
        "rank 4 of 4: a rank is below the number of ranks, counted from 0");
  CHECK(meeting({{"MESHARD_RENDEZVOUS", "a:1"}, {"MESHARD_RANK", "0"}, {"MESHARD_SIZE", "many"}}) == "MESHARD_SIZE=\"many\": a whole number from 1 on is wanted");
  CHECK(meeting({{"MESHARD_RENDEZVOUS", "a:1"}, {"MESHARD_RANK", ""}, {"MESHARD_SIZE", "2"}}) == "MESHARD_RANK=\"\": a whole number from 0 on is wanted");
}

TEST_CASE("the running program is told by what its file holds") {
  const std::string text = running_program();
  CHECK(text == running_program());
  CHECK(text.starts_with("program of "));
}

}  // namespace
}  // namespace meshard
