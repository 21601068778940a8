#include "meshard/collectives/rendezvous.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <random>
#include <thread>

#include "meshard/base/error.h"
#include "meshard/collectives/socket.h"
#include "meshard/collectives/tcp_network.h"

namespace meshard {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 40;  // of texts: more is no message of ours
// Lengths that are none.
constexpr uint64_t kLeaves = ~uint64_t{0};  // the rank is done and goes
constexpr uint64_t kAborts = kLeaves - 1;   // all end
constexpr double kGreetingSeconds = 2;
constexpr double kVerdictSeconds = 10;  // that others wait longer than rank 0, which knows who is missing

struct Greeting {
  std::array<char, 8> magic = {'m', 'e', 's', 'h', 'a', 'r', 'd', 1};
  uint64_t token = 0;  // that the file says; 0 by host and port
  int64_t rank = 0, size = 0;
};

bool send_text(const Socket& socket, std::string_view text, const Deadline& deadline) {
  const uint64_t length = text.size();
  return send_exactly(socket, &length, sizeof length, deadline) && send_exactly(socket, text.data(), text.size(), deadline);
}

bool receive_text(const Socket& socket, std::string& text, const Deadline& deadline) {
  uint64_t length = 0;
  if (!receive_exactly(socket, &length, sizeof length, deadline) || length > kMostBytes) return false;
  text.resize(length);
  return receive_exactly(socket, text.data(), length, deadline);
}

// Where rank 0 listens.
struct Place {
  std::string path;  // empty: by host and port
  std::string host;
  int port = 0;
};

Place parse_place(const std::string& text) {
  Place place;
  if (text.find('/') != text.npos) {
    place.path = text;
    return place;
  }
  const size_t colon = text.rfind(':');
  if (colon != text.npos && colon > 0) {
    const std::string digits = text.substr(colon + 1);
    const bool number = !digits.empty() && digits.size() <= 5 && digits.find_first_not_of("0123456789") == digits.npos;
    place.host = text.substr(0, colon);
    place.port = number ? std::stoi(digits) : 0;
  }
  if (place.port < 1 || place.port > 65535) {
    throw UserError(fmt::format("\"{}\" is no place where ranks can meet: write HOST:PORT, as node0:29500, or a path with a slash, as ./meet", text));
  }
  return place;
}

// Reads what rank 0 wrote: a token, a port, its addresses.
bool read_place(const std::string& path, uint64_t& token, int& port, std::string& addresses) {
  std::ifstream in(path);
  std::string word;
  return in >> word >> token >> port >> std::ws && word == "meshard-rendezvous" && std::getline(in, addresses) && !addresses.empty();
}

class TcpBootstrap : public Bootstrap {
 public:
  explicit TcpBootstrap(const RendezvousOptions& options)
      : options_(options), place_(parse_place(options.place)), deadline_(options.timeout_seconds), peers_(static_cast<size_t>(options.size)), left_(peers_.size()) {
    if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
      throw UserError(fmt::format("rank {} of {}: a rank is from 0 on and below the number of ranks", options.rank, options.size));
    }
    if (options.size == 1) return;
    if (options.rank == 0) {
      open_place();
      const std::string error = accept_all();
      if (!place_.path.empty()) unlink(place_.path.c_str());
      listener_ = Socket();
      for (const Socket& peer : peers_) {
        if (peer.open()) send_text(peer, error, Deadline(kGreetingSeconds));
      }
      if (!error.empty()) throw UserError(error);
    } else {
      come();
    }
  }

  ~TcpBootstrap() override {
    if (std::uncaught_exceptions() > 0) return;  // the others shall see that this one is gone
    tell_all(kLeaves);
  }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  std::string_view kind() const override { return "tcp"; }

  std::vector<std::string> all_gather(std::string_view bytes, const Watchdog& watchdog) override {
    std::vector<std::string> all(peers_.size());
    std::string blob;  // length and text of each
    const auto append = [&blob](const std::string& text) {
      const uint64_t length = text.size();
      blob.append(reinterpret_cast<const char*>(&length), sizeof length);
      blob += text;
    };
    if (options_.rank != 0) {
      send_message(0, bytes, watchdog);
      blob = receive_message(0, watchdog);
      size_t at = 0;
      for (std::string& text : all) {
        uint64_t length = 0;
        MESHARD_CHECK(at + sizeof length <= blob.size(), "rank 0 sent fewer texts than there are ranks");
        std::memcpy(&length, blob.data() + at, sizeof length);
        at += sizeof length;
        MESHARD_CHECK(length <= blob.size() - at, "rank 0 sent a text that is cut off");
        text = blob.substr(at, length);
        at += length;
      }
      return all;
    }
    all[0] = std::string(bytes);
    for (size_t r = 1; r < all.size(); ++r) all[r] = receive_message(r, watchdog);
    for (const std::string& text : all) append(text);
    for (size_t r = 1; r < all.size(); ++r) send_message(r, blob, watchdog);
    return all;
  }

  // Rank 0 sees all others, they see rank 0, which tells them when one is gone.
  std::string look() override {
    for (size_t r = 0; r < peers_.size(); ++r) {
      const Socket& peer = peers_[r];
      if (!peer.open() || left_[r]) continue;
      pollfd entry = {peer.fd(), POLLIN | POLLRDHUP, 0};
      if (poll(&entry, 1, 0) <= 0 || entry.revents == 0) continue;
      uint64_t head = 0;
      const ssize_t n = recv(peer.fd(), &head, sizeof head, MSG_PEEK | MSG_DONTWAIT);
      if (n == sizeof head && head == kAborts) follow();
      if (n == sizeof head && head == kLeaves) {
        left_[r] = true;
        continue;
      }
      if (n == 0 || (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) return fmt::format("rank {} is gone", r);
    }
    return {};
  }

  [[noreturn]] void abort(int status) override {
    tell_all(kAborts);
    std::_Exit(status);
  }

 private:
  // Another rank has said why and ends the job.
  [[noreturn]] void follow() {
    tell_all(kAborts);
    std::_Exit(3);
  }

  void tell_all(uint64_t head) {
    for (const Socket& peer : peers_) {
      if (peer.open()) [[maybe_unused]] const ssize_t sent = send(peer.fd(), &head, sizeof head, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
  }

  void open_place() {
    if (place_.path.empty()) {
      listener_ = listen_on(place_.port);
      if (!listener_.open()) {
        throw UserError(fmt::format("rank 0 cannot listen on port {}: {}; choose another port, or see whether a second process was started as rank 0",
                                    place_.port, std::strerror(errno)));
      }
      return;
    }
    listener_ = listen_on(0);
    MESHARD_CHECK(listener_.open(), "no port left to listen on");
    std::random_device random;
    token_ = ((static_cast<uint64_t>(random()) << 32) | random()) >> 1 | 1;
    // A file that is there is an old one, unless somebody answers where it points.
    uint64_t old_token = 0;
    int old_port = 0;
    std::string addresses;
    if (read_place(place_.path, old_token, old_port, addresses)) {
      if (connect_to_any(addresses, old_port, Deadline(kGreetingSeconds)).open()) {
        throw UserError(fmt::format("{} belongs to another rank 0 that waits there; give each job a place of its own, each process a rank of its own", place_.path));
      }
    }
    // Others see all of it or nothing.
    const std::string draft = fmt::format("{}.{}", place_.path, getpid());
    std::ofstream out(draft, std::ios::trunc);
    out << fmt::format("meshard-rendezvous {} {} {}\n", token_, port_of(listener_), own_addresses()) << std::flush;
    if (!out || std::rename(draft.c_str(), place_.path.c_str()) != 0) {
      throw UserError(fmt::format("rank 0 cannot write {}; check the folder and its permissions", place_.path));
    }
  }

  // What is wrong, for all that have come; empty: all have, and all is well.
  std::string accept_all() {
    for (int here = 1; here < options_.size;) {
      if (!wait_for_socket(listener_, POLLIN, deadline_)) return missing_text();
      Socket peer = accept_from(listener_);
      Greeting greeting;
      const Greeting ours;
      if (!peer.open() || !receive_exactly(peer, &greeting, sizeof greeting, Deadline(kGreetingSeconds)) || greeting.magic != ours.magic || greeting.token != token_) continue;
      std::string error;
      const auto r = static_cast<size_t>(greeting.rank);
      if (greeting.size != options_.size) {
        error = fmt::format("rank {} was started as one of {} ranks, rank 0 as one of {}; start all with the same number", greeting.rank, greeting.size, options_.size);
      } else if (greeting.rank < 1 || r >= peers_.size()) {
        error = fmt::format("a second process came as rank {} of {}; give each a rank of its own", greeting.rank, options_.size);
      } else if (peers_[r].open()) {
        error = fmt::format("two processes came as rank {} of {}; give each a rank of its own", greeting.rank, options_.size);
      }
      if (!error.empty()) {
        send_text(peer, error, Deadline(kGreetingSeconds));
        return error;
      }
      peers_[r] = std::move(peer);
      ++here;
    }
    return {};
  }

  std::string missing_text() const {
    std::vector<Rank> missing;
    for (size_t r = 1; r < peers_.size(); ++r) {
      if (!peers_[r].open()) missing.push_back(static_cast<Rank>(r));
    }
    return fmt::format("rank 0 waited {:.3g} s at {} for {}; start {} processes, each with a rank of its own", options_.timeout_seconds, options_.place,
                       ranks_text(missing), options_.size);
  }

  void come() {
    Greeting greeting;
    greeting.rank = options_.rank;
    greeting.size = options_.size;
    while (!deadline_.passed()) {
      Socket socket;
      if (place_.path.empty()) {
        socket = connect_to(place_.host, place_.port, deadline_);
      } else {
        int port = 0;
        std::string addresses;
        if (read_place(place_.path, greeting.token, port, addresses)) socket = connect_to_any(addresses, port, deadline_);
      }
      std::string verdict;
      const Deadline answer(options_.timeout_seconds > 0 ? deadline_.left() + kVerdictSeconds : 0);
      // No answer: it was the rank 0 of another job, which is over.
      if (socket.open() && send_exactly(socket, &greeting, sizeof greeting, deadline_) && receive_text(socket, verdict, answer)) {
        if (!verdict.empty()) throw UserError(verdict);
        peers_[0] = std::move(socket);
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    throw UserError(fmt::format("rank {} waited {:.3g} s for rank 0 at {}; see whether rank 0 was started, with the same place", options_.rank,
                                options_.timeout_seconds, options_.place));
  }

  // Waits until `step` says that it has done all there is; -1 from a system call: nothing now, 0: the other side is gone.
  template <class Call>
  void transfer(size_t r, size_t bytes, short event, const Watchdog& watchdog, const Call& call) {
    size_t done = 0;
    watchdog.until([&] {
      while (done < bytes) {
        const ssize_t n = call(done);
        if (n > 0) {
          done += static_cast<size_t>(n);
          continue;
        }
        // Where the other side is gone, the watchdog's look finds it.
        pollfd entry = {peers_[r].fd(), event, 0};
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
          poll(&entry, 1, 1);
        } else {
          poll(nullptr, 0, 1);
        }
        return false;
      }
      return true;
    });
  }
  void send_bytes(size_t r, const void* data, size_t bytes, const Watchdog& watchdog) {
    transfer(r, bytes, POLLOUT, watchdog, [&](size_t done) {
      return send(peers_[r].fd(), static_cast<const char*>(data) + done, bytes - done, MSG_DONTWAIT | MSG_NOSIGNAL);
    });
  }
  void receive_bytes(size_t r, void* data, size_t bytes, const Watchdog& watchdog) {
    transfer(r, bytes, POLLIN, watchdog, [&](size_t done) { return recv(peers_[r].fd(), static_cast<char*>(data) + done, bytes - done, MSG_DONTWAIT); });
  }
  void send_message(size_t r, std::string_view text, const Watchdog& watchdog) {
    const uint64_t length = text.size();
    send_bytes(r, &length, sizeof length, watchdog);
    send_bytes(r, text.data(), text.size(), watchdog);
  }
  std::string receive_message(size_t r, const Watchdog& watchdog) {
    uint64_t length = 0;
    receive_bytes(r, &length, sizeof length, watchdog);
    if (length == kAborts) follow();
    if (length == kLeaves) throw InternalError(fmt::format("rank {} has ended, while rank {} still waits for its words", r, options_.rank));
    MESHARD_CHECK(length <= kMostBytes, fmt::format("rank {} sends what is no message", r));
    std::string text(length, '\0');
    receive_bytes(r, text.data(), length, watchdog);
    return text;
  }

  RendezvousOptions options_;
  Place place_;
  Deadline deadline_;
  uint64_t token_ = 0;
  Socket listener_;
  std::vector<Socket> peers_;  // rank 0: all others; else rank 0
  std::vector<bool> left_;
};

}  // namespace

std::unique_ptr<Bootstrap> rendezvous(const RendezvousOptions& options) { return std::make_unique<TcpBootstrap>(options); }

std::unique_ptr<Communicator> rendezvous_communicator(const RendezvousOptions& options, const RankOptions& ranks) {
  std::unique_ptr<Bootstrap> bootstrap = rendezvous(options);
  const int rank = bootstrap->rank();
  const Watchdog watchdog(ranks.timeout_seconds, 4, [rank](double waited) {
    throw InternalError(fmt::format("rank {} waited {:.3g} s for the others' ports", rank, waited));
  });
  std::unique_ptr<Network> network = tcp_network(*bootstrap, watchdog);
  return rank_communicator(std::move(bootstrap), std::move(network), ranks);
}

}  // namespace meshard
