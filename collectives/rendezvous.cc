#include "meshard/collectives/rendezvous.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "meshard/base/error.h"

namespace meshard {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kMostBytes = uint64_t{1} << 31;  // of a text: more is no text of ours

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

class Rendezvous : public Communicator {
 public:
  explicit Rendezvous(const RendezvousOptions& options) : options_(options), peers_(static_cast<size_t>(options.size)) {
    if (options.rank == 0) {
      accept_all();
    } else {
      come();
    }
  }

  int size() const override { return options_.size; }
  Rank rank() const override { return static_cast<Rank>(options_.rank); }
  std::string_view kind() const override { return "rendezvous"; }
  Ticket start(const CollectiveCall&) override { throw InternalError("a rendezvous carries no collectives"); }
  void wait(Ticket) override { throw InternalError("a rendezvous carries no collectives"); }
  int64_t received_bytes() const override { return 0; }
  const CallLog& log() const override { return log_; }
  void barrier() override { gather_text(""); }

  std::vector<std::string> gather_text(std::string_view text) override {
    std::vector<std::string> all(peers_.size());
    if (options_.rank != 0) {
      send_text(0, text);
      for (std::string& t : all) t = receive_text(0);
      return all;
    }
    all[0] = std::string(text);
    for (size_t r = 1; r < all.size(); ++r) all[r] = receive_text(r);
    for (size_t r = 1; r < all.size(); ++r) {
      for (const std::string& t : all) send_text(r, t);
    }
    return all;
  }

 private:
  void accept_all() {
    const Socket listener(socket(AF_INET, SOCK_STREAM, 0));
    const int yes = 1;
    setsockopt(listener.fd(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    address.sin_port = htons(static_cast<uint16_t>(options_.port));
    if (bind(listener.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener.fd(), options_.size) != 0) {
      throw UserError(fmt::format("rank 0 cannot listen on port {}: {}; set MASTER_PORT to a free one", options_.port, std::strerror(errno)));
    }
    const auto begin = Clock::now();
    for (int here = 1; here < options_.size;) {
      if (!ready(listener.fd(), POLLIN, begin)) fail_missing();
      Socket peer(accept(listener.fd(), nullptr, nullptr));
      uint32_t number = 0;
      if (!peer.open() || recv(peer.fd(), &number, sizeof number, MSG_WAITALL) != sizeof number) continue;
      const uint32_t r = ntohl(number);
      if (r == 0 || r >= peers_.size() || peers_[r].open()) {
        throw UserError(fmt::format("a process came to rank 0 as rank {} of {}; each needs a RANK of its own", r, options_.size));
      }
      tune(peer);
      peers_[r] = std::move(peer);
      ++here;
    }
  }

  void come() {
    const auto begin = Clock::now();
    while (!peers_[0].open()) {
      addrinfo hints = {}, *found = nullptr;
      hints.ai_family = AF_INET;
      hints.ai_socktype = SOCK_STREAM;
      if (getaddrinfo(options_.host.c_str(), std::to_string(options_.port).c_str(), &hints, &found) == 0) {
        Socket peer(socket(AF_INET, SOCK_STREAM, 0));
        if (connect(peer.fd(), found->ai_addr, found->ai_addrlen) == 0) {
          const uint32_t number = htonl(static_cast<uint32_t>(options_.rank));
          if (send(peer.fd(), &number, sizeof number, MSG_NOSIGNAL) == sizeof number) {
            tune(peer);
            peers_[0] = std::move(peer);
          }
        }
        freeaddrinfo(found);
      }
      if (peers_[0].open()) return;
      if (seconds_since(begin) > options_.timeout_seconds) {
        throw UserError(fmt::format("rank {} waited {:.3g} s for rank 0 at {}:{}; check MASTER_ADDR and MASTER_PORT", options_.rank,
                                    options_.timeout_seconds, options_.host, options_.port));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  static void tune(const Socket& peer) {
    const int yes = 1;
    setsockopt(peer.fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  }

  static double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

  bool ready(int fd, short what, Clock::time_point begin) const {
    pollfd entry = {fd, what, 0};
    const double left = options_.timeout_seconds - seconds_since(begin);
    return left > 0 && poll(&entry, 1, static_cast<int>(left * 1000) + 1) > 0;
  }

  [[noreturn]] void fail_missing() const {
    std::vector<Rank> missing;
    for (size_t r = 1; r < peers_.size(); ++r) {
      if (!peers_[r].open()) missing.push_back(static_cast<Rank>(r));
    }
    throw UserError(fmt::format("rank 0 waited {:.3g} s at port {} for {}; start {} processes, each with its RANK", options_.timeout_seconds,
                                options_.port, ranks_text(missing), options_.size));
  }

  [[noreturn]] void fail_gone(size_t peer, const char* how) const {
    throw InternalError(fmt::format("rank {}: rank {} {}", options_.rank, peer, how));
  }

  void send_all(size_t peer, const void* data, size_t bytes) {
    const auto begin = Clock::now();
    for (const char* at = static_cast<const char*>(data); bytes > 0;) {
      if (!ready(peers_[peer].fd(), POLLOUT, begin)) fail_gone(peer, "takes no message within the time-out");
      const ssize_t n = send(peers_[peer].fd(), at, bytes, MSG_NOSIGNAL);
      if (n <= 0) fail_gone(peer, "is gone");
      at += n;
      bytes -= static_cast<size_t>(n);
    }
  }
  void receive_all(size_t peer, void* data, size_t bytes) {
    const auto begin = Clock::now();
    for (char* at = static_cast<char*>(data); bytes > 0;) {
      if (!ready(peers_[peer].fd(), POLLIN, begin)) fail_gone(peer, "sends no message within the time-out");
      const ssize_t n = recv(peers_[peer].fd(), at, bytes, 0);
      if (n <= 0) fail_gone(peer, "is gone");
      at += n;
      bytes -= static_cast<size_t>(n);
    }
  }
  void send_text(size_t peer, std::string_view text) {
    const uint64_t length = text.size();
    send_all(peer, &length, sizeof length);
    send_all(peer, text.data(), text.size());
  }
  std::string receive_text(size_t peer) {
    uint64_t length = 0;
    receive_all(peer, &length, sizeof length);
    if (length > kMostBytes) fail_gone(peer, "sends what is no message");
    std::string text(length, '\0');
    receive_all(peer, text.data(), text.size());
    return text;
  }

  RendezvousOptions options_;
  std::vector<Socket> peers_;  // rank 0: all others; else rank 0
  CallLog log_{1};
};

}  // namespace

std::unique_ptr<Communicator> rendezvous_communicator(const RendezvousOptions& options) {
  return std::make_unique<Rendezvous>(options);
}

}  // namespace meshard
