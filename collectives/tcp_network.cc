#include "meshard/collectives/tcp_network.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <random>
#include <sstream>

#include "meshard/base/error.h"
#include "meshard/collectives/socket.h"

namespace meshard {
namespace {

struct Greeting {
  uint64_t token = 0;
  int64_t rank = 0;
};

// A message on its way: first its length, then its bytes.
struct Transfer {
  std::byte* data = nullptr;
  int64_t bytes = 0;
  int64_t length = 0;  // as it is sent, or as it came
  int64_t done = 0;    // of both together

  static constexpr int64_t kHead = sizeof(int64_t);
  bool complete() const { return done == kHead + bytes; }
};

class TcpNetwork : public Network {
 public:
  TcpNetwork(Bootstrap& bootstrap, const Watchdog& watchdog)
      : rank_(bootstrap.rank()), listener_(listen_on(0)), peers_(static_cast<size_t>(bootstrap.size())) {
    std::random_device random;
    token_ = (static_cast<uint64_t>(random()) << 32) | random();
    const std::string mine = listener_.open() ? fmt::format("{} {} {}", token_, port_of(listener_), own_addresses()) : "";
    const std::vector<std::string> all = bootstrap.all_gather(mine, watchdog);
    for (size_t r = 0; r < all.size(); ++r) {
      if (all[r].empty()) throw UserError(fmt::format("rank {} has no port left to listen on", r));
      std::istringstream words(all[r]);
      words >> peers_[r].token >> peers_[r].port;
      std::getline(words >> std::ws, peers_[r].addresses);
    }
  }

  void receive(Rank from, std::byte* data, int64_t bytes) override {
    peer(from).receives.push_back({data, bytes, 0, 0});
    open_ += 1;
  }
  void send(Rank to, const std::byte* data, int64_t bytes) override {
    peer(to).sends.push_back({const_cast<std::byte*>(data), bytes, bytes, 0});
    open_ += 1;
  }

  int64_t finish(const Watchdog& watchdog) override {
    arrived_ = 0;
    for (size_t r = 0; r < peers_.size(); ++r) {
      Peer& p = peers_[r];
      // Of a pair, the lower rank calls the higher one.
      if (!p.socket.open() && !(p.sends.empty() && p.receives.empty()) && static_cast<int>(r) > rank_) call(r);
    }
    watchdog.until([this] {
      if (open_ > 0 && !progress()) wait_a_little();
      return open_ == 0;
    });
    return arrived_;
  }

 private:
  struct Peer {
    uint64_t token = 0;
    int port = 0;
    std::string addresses;
    Socket socket;
    std::deque<Transfer> sends, receives;
  };

  Peer& peer(Rank rank) { return peers_[static_cast<size_t>(index(rank))]; }

  void call(size_t r) {
    const Deadline deadline(20);
    Peer& p = peers_[r];
    const Greeting greeting{p.token, rank_};
    p.socket = connect_to_any(p.addresses, p.port, deadline);
    if (!p.socket.open() || !send_exactly(p.socket, &greeting, sizeof greeting, deadline)) {
      throw InternalError(fmt::format("rank {} cannot reach rank {} at port {} of {}", rank_, r, p.port, p.addresses));
    }
  }

  void take_calls() {
    while (true) {
      Socket socket = accept_from(listener_);
      if (!socket.open()) return;
      Greeting greeting;
      if (!receive_exactly(socket, &greeting, sizeof greeting, Deadline(2)) || greeting.token != token_) continue;
      if (greeting.rank < 0 || greeting.rank >= rank_) continue;
      peers_[static_cast<size_t>(greeting.rank)].socket = std::move(socket);
    }
  }

  // Moves what can be moved at once; whether that was anything.
  bool progress() {
    bool moved = false, missing = false;
    for (size_t r = 0; r < peers_.size(); ++r) {
      Peer& p = peers_[r];
      if (p.sends.empty() && p.receives.empty()) continue;
      if (!p.socket.open()) {
        missing = true;
        continue;
      }
      moved = carry(r, true) || moved;
      moved = carry(r, false) || moved;
    }
    if (missing) take_calls();
    return moved;
  }

  // One system call for what is left of the head or of the bytes. 0: nothing now.
  int64_t step(size_t r, Transfer& t, bool out) {
    std::byte* at;
    int64_t bytes;
    if (t.done < Transfer::kHead) {
      at = reinterpret_cast<std::byte*>(&t.length) + t.done;
      bytes = Transfer::kHead - t.done;
    } else {
      at = t.data + (t.done - Transfer::kHead);
      bytes = t.bytes - (t.done - Transfer::kHead);
    }
    const int fd = peers_[r].socket.fd();
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    const ssize_t n = out ? ::send(fd, at, static_cast<size_t>(bytes), flags) : ::recv(fd, at, static_cast<size_t>(bytes), flags);
    if (n > 0) return n;
    // A rank that is gone for good is found by the bootstrap, whose message names it.
    return 0;
  }

  // Moves what can be moved at once of the messages to or from rank r, in order; whether that was anything.
  bool carry(size_t r, bool out) {
    std::deque<Transfer>& transfers = out ? peers_[r].sends : peers_[r].receives;
    bool moved = false;
    while (!transfers.empty()) {
      Transfer& t = transfers.front();
      while (!t.complete()) {
        const int64_t n = step(r, t, out);
        if (n == 0) return moved;
        t.done += n;
        moved = true;
        if (!out && t.done == Transfer::kHead && t.length != t.bytes) {
          throw InternalError(fmt::format("rank {} sends rank {} a message of {} bytes where {} are expected: the ranks make different calls", r,
                                          rank_, t.length, t.bytes));
        }
      }
      if (!out) arrived_ += t.bytes;
      transfers.pop_front();
      open_ -= 1;
    }
    return moved;
  }

  void wait_a_little() {
    entries_.assign(1, {listener_.fd(), POLLIN, 0});
    for (const Peer& p : peers_) {
      if (!p.socket.open()) continue;
      const short events = static_cast<short>((p.sends.empty() ? 0 : POLLOUT) | (p.receives.empty() ? 0 : POLLIN));
      if (events != 0) entries_.push_back({p.socket.fd(), events, 0});
    }
    poll(entries_.data(), entries_.size(), 1);
  }

  int rank_;
  Socket listener_;
  uint64_t token_ = 0;
  std::vector<Peer> peers_;
  int64_t open_ = 0, arrived_ = 0;
  std::vector<pollfd> entries_;
};

}  // namespace

std::unique_ptr<Network> tcp_network(Bootstrap& bootstrap, const Watchdog& watchdog) {
  return std::make_unique<TcpNetwork>(bootstrap, watchdog);
}

}  // namespace meshard
