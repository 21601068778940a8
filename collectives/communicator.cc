#include "meshard/collectives/communicator.h"

#include <fmt/format.h>

#include "meshard/base/error.h"
#include "meshard/base/text.h"
#include "meshard/collectives/pieces.h"

namespace meshard {
namespace {

// FNV-1a, 64 bits.
uint64_t digest(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Line `number` (from 1) of a text; false where the text has ended.
bool line_of(std::string_view text, int number, std::string_view& line) {
  while (true) {
    if (text.empty()) return false;
    size_t end = text.find('\n');
    line = text.substr(0, end);
    if (--number == 0) return true;
    if (end == std::string_view::npos) return false;
    text.remove_prefix(end + 1);
  }
}

std::string side_text(Rank rank, bool has, std::string_view line) {
  if (!has) return fmt::format("rank {} ends before it", index(rank));
  return fmt::format("rank {} has {}", index(rank), quote(line));
}

}  // namespace

void Communicator::count_replay(int64_t) {
  throw InternalError(fmt::format("calls over {} cannot be replayed", kind()));
}

void Communicator::abort(int status) { std::_Exit(status); }

int64_t block_begin(int64_t elements, int parts, int i) {
  // elements * i could overflow where the quotient does not: split off the whole part.
  int64_t whole = elements / parts, rest = elements % parts;
  return whole * i + (rest * i + parts - 1) / parts;
}

int64_t received_bytes(const CollectiveCall& call) {
  int p = call.group->size(), self = call.group->self();
  int64_t elements = 0;
  switch (call.kind) {
    case Collective::all_reduce: {
      int64_t own = block_begin(call.send_elements, p, self + 1) - block_begin(call.send_elements, p, self);
      elements = (p - 1) * own + call.send_elements - own;
      if (p == 1) elements = 0;
      break;
    }
    case Collective::reduce_scatter:
      elements = (p - 1) * call.counts[self];
      break;
    case Collective::all_gather:
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange:
      for (int i = 0; i < p; ++i) elements += i == self ? 0 : call.counts[i];
      break;
    case Collective::broadcast:
      elements = self == 0 ? 0 : call.send_elements;
      break;
    case Collective::barrier:
    case Collective::slice:
      break;
  }
  return elements * size_bytes(call.dtype);
}

std::string ranks_text(std::span<const Rank> ranks) {
  constexpr size_t kShown = 8;
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  size_t shown = ranks.size() <= kShown ? ranks.size() : kShown;
  for (size_t i = 0; i < shown; ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += fmt::format("{}", index(ranks[i]));
  }
  if (shown < ranks.size()) text += fmt::format(" and {} more", ranks.size() - shown);
  return text;
}

void agree(Communicator& comm, std::string_view error) {
  std::vector<std::string> errors = comm.gather_text(error);
  // Each different error once, in the order of the first rank that has it.
  std::vector<std::pair<std::string_view, std::vector<Rank>>> found;
  for (size_t r = 0; r < errors.size(); ++r) {
    if (errors[r].empty()) continue;
    auto it = found.begin();
    while (it != found.end() && it->first != errors[r]) ++it;
    if (it == found.end()) it = found.insert(it, {errors[r], {}});
    it->second.push_back(static_cast<Rank>(r));
  }
  if (found.empty()) return;
  // An error that all ranks share is not one of particular ranks.
  if (found[0].second.size() == errors.size()) throw UserError(std::string(found[0].first));
  std::vector<std::string> notes;
  for (size_t i = 1; i < found.size(); ++i)
    notes.push_back(ranks_text(found[i].second) + ": " + std::string(found[i].first));
  throw UserError(ranks_text(found[0].second) + ": " + std::string(found[0].first), std::move(notes));
}

void agree_on_text(Communicator& comm, std::string_view what, std::string_view text) {
  std::vector<std::string> digests = comm.gather_text(fmt::format("{:016x}", digest(text)));
  bool same = true;
  for (const std::string& other : digests) same = same && other == digests[0];
  if (same) return;

  std::vector<std::string> texts = comm.gather_text(text);
  // Rank 0's text against that of the first rank that has another one.
  size_t second = 1;
  while (second < texts.size() && texts[second] == texts[0]) ++second;
  MESHARD_CHECK(second < texts.size(), fmt::format("the digests of {} differ and the texts do not", what));
  std::vector<Rank> first_ranks, second_ranks, others;
  for (size_t r = 0; r < texts.size(); ++r) {
    (texts[r] == texts[0]        ? first_ranks
     : texts[r] == texts[second] ? second_ranks
                                 : others)
        .push_back(static_cast<Rank>(r));
  }
  int number = 0;
  bool first_has = true, second_has = true;
  std::string_view first_line, second_line;
  do {
    ++number;
    first_has = line_of(texts[0], number, first_line);
    second_has = line_of(texts[second], number, second_line);
  } while (first_has && second_has && first_line == second_line);

  std::vector<std::string> notes;
  if (!others.empty()) {
    notes.push_back(fmt::format("{} {} yet another {}", ranks_text(others), others.size() == 1 ? "has" : "have", what));
  }
  std::string difference = "only one of them ends with a newline";
  if (first_has || second_has) {
    difference =
        fmt::format("first difference at line {}: {}, {}", number, side_text(first_ranks[0], first_has, first_line),
                    side_text(second_ranks[0], second_has, second_line));
  }
  throw UserError(fmt::format("{} {} another {} than {}: {}", ranks_text(first_ranks),
                              first_ranks.size() == 1 ? "has" : "have", what, ranks_text(second_ranks), difference),
                  std::move(notes));
}

}  // namespace meshard
