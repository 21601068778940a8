// Sockets of TCP (IPv4) between the processes of a job: what rendezvous.h and tcp_network.h share.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace meshard {

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();
  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// A moment after which waiting is over. 0 seconds or less: never.
class Deadline {
 public:
  explicit Deadline(double seconds);
  double left() const;  // in seconds, 0 when it has passed
  bool passed() const { return left() <= 0; }

 private:
  std::chrono::steady_clock::time_point begin_;
  double seconds_;
};

// Waits for `events` of poll(2); false: the deadline has passed.
bool wait_for_socket(const Socket& socket, short events, const Deadline& deadline);

// Listens on all addresses of this host; port 0: a free one. Not open, and errno, where it cannot.
Socket listen_on(int port);
int port_of(const Socket& listener);
Socket accept_from(const Socket& listener);
// Tries each address of the name once. Not open where nobody answers within some seconds.
Socket connect_to(const std::string& host, int port, const Deadline& deadline);

// All of the bytes, or false: the other side is gone, or the deadline has passed.
bool send_exactly(const Socket& socket, const void* data, size_t bytes, const Deadline& deadline);
bool receive_exactly(const Socket& socket, void* data, size_t bytes, const Deadline& deadline);

// Where this host can be reached: "node1 10.0.0.7 192.168.1.3", its name first. And a name or address that reaches such a
// host from here, tried in turn.
std::string own_addresses();
Socket connect_to_any(const std::string& addresses, int port, const Deadline& deadline);

}  // namespace meshard
