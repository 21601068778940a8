#include "meshard/collectives/pieces.h"

#include <fmt/format.h>

namespace meshard {
namespace {

int64_t total(std::span<const int64_t> counts) {
  int64_t sum = 0;
  for (int64_t count : counts) sum += count;
  return sum;
}

void check_counts(const CollectiveCall& call, std::span<const int64_t> counts, std::string_view name) {
  MESHARD_CHECK(static_cast<int>(counts.size()) == call.group->size(),
                fmt::format("{}: {} {} for a group of {}", call_text(call), counts.size(), name, call.group->size()));
  for (int64_t count : counts) {
    MESHARD_CHECK(count >= 0, fmt::format("{}: {} has {}", call_text(call), name, count));
  }
}

}  // namespace

std::string call_text(const CollectiveCall& call) {
  std::string text{name(call.kind)};
  if (call.kind == Collective::all_reduce || call.kind == Collective::reduce_scatter) {
    text += fmt::format(" {}", name(call.reduction));
  }
  if (call.kind != Collective::barrier) text += fmt::format(" {}", name(call.dtype));
  if (!call.label.empty()) text += fmt::format(" ({})", call.label);
  return text;
}

bool sends_one_block(Collective kind) { return kind == Collective::all_gather || kind == Collective::broadcast; }

void check_call(const CollectiveCall& call) {
  MESHARD_CHECK(call.group != nullptr && call.group->size() > 0, "a collective call without a group");
  MESHARD_CHECK(call.send_elements >= 0, fmt::format("{}: {} elements", call_text(call), call.send_elements));
  int self = call.group->self();
  int64_t out = 0, in = 0;  // elements behind send and receive
  switch (call.kind) {
    case Collective::all_reduce:
      out = in = call.send_elements;
      break;
    case Collective::all_gather:
      check_counts(call, call.counts, "counts");
      out = call.counts[self];
      in = total(call.counts);
      break;
    case Collective::reduce_scatter:
      check_counts(call, call.counts, "counts");
      out = total(call.counts);
      in = call.counts[self];
      break;
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange:
      check_counts(call, call.counts, "counts");
      check_counts(call, call.send_counts, "send_counts");
      out = total(call.send_counts);
      in = total(call.counts);
      break;
    case Collective::broadcast:
      (self == 0 ? out : in) = call.send_elements;
      break;
    case Collective::barrier:
      break;
    case Collective::slice:
      MESHARD_CHECK(false, "slice moves nothing: it is no call of a communicator");
  }
  MESHARD_CHECK(out == 0 || call.send != nullptr,
                fmt::format("{}: {} elements to send from nowhere", call_text(call), out));
  MESHARD_CHECK(in == 0 || call.receive != nullptr,
                fmt::format("{}: {} elements to receive and no place for them", call_text(call), in));
}

void find_pieces(const CollectiveCall& call, std::vector<Piece>& pieces) {
  int p = call.group->size(), self = call.group->self();
  int64_t size = size_bytes(call.dtype);
  const std::byte* send = static_cast<const std::byte*>(call.send);
  std::byte* receive = static_cast<std::byte*>(call.receive);
  pieces.assign(static_cast<size_t>(p), Piece{});
  switch (call.kind) {
    case Collective::all_gather:
      for (int i = 0; i < p; ++i) {
        pieces[i] = {send, call.counts[self] * size, receive, call.counts[i] * size};
        receive += pieces[i].receive_bytes;
      }
      break;
    case Collective::reduce_scatter:
      for (int i = 0; i < p; ++i) {
        pieces[i] = {send, call.counts[i] * size, receive, call.counts[self] * size};
        send += pieces[i].send_bytes;
      }
      break;
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange:
      for (int i = 0; i < p; ++i) {
        pieces[i] = {send, call.send_counts[i] * size, receive, call.counts[i] * size};
        send += pieces[i].send_bytes;
        receive += pieces[i].receive_bytes;
      }
      break;
    case Collective::broadcast:
      if (self != 0) {
        pieces[0] = {nullptr, 0, receive, call.send_elements * size};
      } else {
        for (int i = 1; i < p; ++i) pieces[i] = {send, call.send_elements * size, nullptr, 0};
      }
      break;
    case Collective::barrier:
      break;
    case Collective::all_reduce:
    case Collective::slice:
      MESHARD_CHECK(false, fmt::format("{} has no pieces", name(call.kind)));
  }
}

void find_blocks_to_reduce(int p, int self, const void* send, void* receive, int64_t elements, int64_t element_bytes,
                           std::vector<Piece>& pieces) {
  auto begin = [&](int m) { return block_begin(elements, p, m) * element_bytes; };
  pieces.resize(static_cast<size_t>(p));
  for (int m = 0; m < p; ++m) {
    pieces[m] = {static_cast<const std::byte*>(send) + begin(m), begin(m + 1) - begin(m),
                 static_cast<std::byte*>(receive) + begin(self), begin(self + 1) - begin(self)};
  }
}

void find_blocks_to_gather(int p, int self, void* receive, int64_t elements, int64_t element_bytes,
                           std::vector<Piece>& pieces) {
  auto* data = static_cast<std::byte*>(receive);
  auto begin = [&](int m) { return block_begin(elements, p, m) * element_bytes; };
  pieces.resize(static_cast<size_t>(p));
  for (int m = 0; m < p; ++m) {
    pieces[m] = {data + begin(self), begin(self + 1) - begin(self), data + begin(m), begin(m + 1) - begin(m)};
  }
}

void find_blocks_to_reduce(const CollectiveCall& call, std::vector<Piece>& pieces) {
  find_blocks_to_reduce(call.group->size(), call.group->self(), call.send, call.receive, call.send_elements,
                        size_bytes(call.dtype), pieces);
}

void find_blocks_to_gather(const CollectiveCall& call, std::vector<Piece>& pieces) {
  find_blocks_to_gather(call.group->size(), call.group->self(), call.receive, call.send_elements, size_bytes(call.dtype),
                        pieces);
}

}  // namespace meshard
