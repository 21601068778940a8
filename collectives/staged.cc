#include "meshard/collectives/staged.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <vector>

#include "meshard/collectives/pieces.h"

namespace meshard {
namespace {

int64_t sum(std::span<const int64_t> counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

// Elements that a call reads and writes here.
struct Elements {
  int64_t send = 0, receive = 0;
};
Elements elements_of(const CollectiveCall& call) {
  const auto self = static_cast<size_t>(call.group->self());
  switch (call.kind) {
    case Collective::all_reduce: return {call.send_elements, call.send_elements};
    case Collective::broadcast: return {self == 0 ? call.send_elements : 0, self == 0 ? 0 : call.send_elements};
    case Collective::all_gather: return {call.counts[self], sum(call.counts)};
    case Collective::reduce_scatter: return {sum(call.counts), call.counts[self]};
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange: return {sum(call.send_counts), sum(call.counts)};
    case Collective::barrier:
    case Collective::slice: break;
  }
  return {};
}

class Staged : public Communicator {
 public:
  Staged(Communicator& host, Backend& backend) : host_(host), backend_(backend) {}
  ~Staged() override {
    for (const Piece& piece : pieces_) backend_.release_pinned(piece.data);
  }

  int size() const override { return host_.size(); }
  Rank rank() const override { return host_.rank(); }
  std::string_view kind() const override { return "staged"; }

  Ticket start(const CollectiveCall& call) override {
    check_call(call);
    const int64_t size = size_bytes(call.dtype);
    const Elements elements = elements_of(call);
    Open open{take(elements.send * size), take(elements.receive * size), call.receive, elements.receive * size};
    if (elements.send > 0) {
      backend_.copy(data(open.send), call.send, elements.send * size, Backend::compute);
      backend_.synchronize(Backend::compute);
    }
    CollectiveCall mine = call;
    mine.send = data(open.send);
    mine.receive = data(open.receive);
    const Ticket ticket = host_.start(mine);
    open_.emplace(ticket, open);
    return ticket;
  }

  void wait(Ticket ticket) override {
    host_.wait(ticket);
    const auto it = open_.find(ticket);
    if (it == open_.end()) return;
    const Open open = it->second;
    open_.erase(it);
    if (open.bytes > 0) {
      backend_.copy(open.to, data(open.receive), open.bytes, Backend::compute);
      backend_.synchronize(Backend::compute);
    }
    pieces_[open.send].taken = pieces_[open.receive].taken = false;
  }

  int64_t received_bytes() const override { return host_.received_bytes(); }
  HostTraffic host_traffic() const override { return host_.host_traffic(); }
  const CallLog& log() const override { return host_.log(); }
  std::vector<std::string> gather_text(std::string_view text) override { return host_.gather_text(text); }
  void barrier() override { host_.barrier(); }
  [[noreturn]] void abort(int status) override {
    host_.abort(status);
    std::_Exit(status);
  }

 private:
  struct Piece {
    std::byte* data;
    int64_t bytes;
    bool taken;
  };
  struct Open {
    size_t send, receive;  // pieces
    void* to;
    int64_t bytes;
  };

  std::byte* data(size_t piece) const { return pieces_[piece].data; }

  // The smallest free piece that is large enough; after a step there is one for each call of the next.
  size_t take(int64_t bytes) {
    size_t best = pieces_.size();
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i].taken || pieces_[i].bytes < bytes) continue;
      if (best == pieces_.size() || pieces_[i].bytes < pieces_[best].bytes) best = i;
    }
    if (best == pieces_.size()) pieces_.push_back({backend_.allocate_pinned(bytes), bytes, false});
    pieces_[best].taken = true;
    return best;
  }

  Communicator& host_;
  Backend& backend_;
  std::vector<Piece> pieces_;
  std::map<Ticket, Open> open_;
};

}  // namespace

std::unique_ptr<Communicator> staged_communicator(Communicator& host, Backend& backend) {
  return std::make_unique<Staged>(host, backend);
}

}  // namespace meshard
