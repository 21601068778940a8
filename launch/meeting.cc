#include "meshard/launch/meeting.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <vector>

#include "meshard/base/error.h"

namespace meshard {
namespace {

// The first of the variables that is set, as a number from `least` on.
std::optional<int> number_of(const Environment& environment, std::initializer_list<const char*> names, int least) {
  for (const char* name : names) {
    const char* text = environment(name);
    if (text == nullptr) continue;
    const std::string digits = text;
    const bool number = !digits.empty() && digits.size() <= 9 && digits.find_first_not_of("0123456789") == digits.npos;
    if (!number || std::stoi(digits) < least) throw UserError(fmt::format("{}=\"{}\": a whole number from {} on is wanted", name, digits, least));
    return std::stoi(digits);
  }
  return {};
}

std::optional<RendezvousOptions> meeting_at(const Environment& environment, const std::string& place,
                                            std::initializer_list<const char*> ranks, std::initializer_list<const char*> sizes) {
  const auto rank = number_of(environment, ranks, 0), size = number_of(environment, sizes, 1);
  if (!rank || !size) {
    throw UserError(fmt::format("ranks shall meet at {}, but {} is not set; give each process its rank and their number, as meshard launch does", place,
                                !rank ? *ranks.begin() : *sizes.begin()));
  }
  if (*rank >= *size) throw UserError(fmt::format("rank {} of {}: a rank is below the number of ranks, counted from 0", *rank, *size));
  if (*size == 1) return {};
  const int seconds = number_of(environment, {"MESHARD_MEET_SECONDS"}, 1).value_or(60);
  return RendezvousOptions{.place = place, .rank = *rank, .size = *size, .timeout_seconds = static_cast<double>(seconds)};
}

}  // namespace

std::string first_host(const std::string& list) {
  const size_t bracket = list.find('['), comma = list.find(',');
  if (bracket == list.npos || comma < bracket) return list.substr(0, comma);
  return list.substr(0, bracket) + list.substr(bracket + 1, list.find_first_of(",-]", bracket) - bracket - 1);
}

std::optional<RendezvousOptions> meeting_place(const Environment& environment, bool mpi) {
  if (const char* place = environment("MESHARD_RENDEZVOUS")) {
    return meeting_at(environment, place, {"MESHARD_RANK", "SLURM_PROCID", "RANK"}, {"MESHARD_SIZE", "SLURM_NTASKS", "WORLD_SIZE"});
  }
  const char *host = environment("MASTER_ADDR"), *port = environment("MASTER_PORT");
  if (host != nullptr && port != nullptr && environment("RANK") != nullptr && environment("WORLD_SIZE") != nullptr) {
    return meeting_at(environment, fmt::format("{}:{}", host, port), {"RANK"}, {"WORLD_SIZE"});
  }
  // Of Slurm's variables only those of a step count: the others are set in a batch script too, which is one process.
  const char* nodes = environment("SLURM_STEP_NODELIST");
  if (mpi || nodes == nullptr || number_of(environment, {"SLURM_STEP_NUM_TASKS"}, 1).value_or(1) == 1) return {};
  const int job = number_of(environment, {"SLURM_JOB_ID"}, 0).value_or(0), step = number_of(environment, {"SLURM_STEP_ID"}, 0).value_or(0);
  const int port_number = 20000 + (job % 2000 * 10 + step % 10) % 20000;
  return meeting_at(environment, fmt::format("{}:{}", first_host(nodes), port_number), {"SLURM_PROCID"}, {"SLURM_STEP_NUM_TASKS"});
}

std::string running_program() {
  std::ifstream in("/proc/self/exe", std::ios::binary);
  std::vector<char> block(1 << 20);
  uint64_t hash = 0xcbf29ce484222325u;
  int64_t bytes = 0;
  while (in) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    const std::streamsize n = in.gcount();
    std::memset(block.data() + n, 0, block.size() - static_cast<size_t>(n));
    for (std::streamsize at = 0; at < n; at += 8) {
      uint64_t word;
      std::memcpy(&word, block.data() + at, sizeof word);
      hash = (hash ^ word) * 0x100000001b3u;
      hash ^= hash >> 29;
    }
    bytes += n;
  }
  return fmt::format("program of {} bytes, digest {:016x}", bytes, hash);
}

}  // namespace meshard
