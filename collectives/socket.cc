#include "meshard/collectives/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

namespace meshard {
namespace {

constexpr double kConnectSeconds = 3;  // for one address: hosts behind a wall answer nothing at all

void tune(const Socket& socket) {
  const int yes = 1;
  setsockopt(socket.fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

std::string own_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

Socket connect_address(const sockaddr* address, socklen_t length, const Deadline& deadline) {
  Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return {};
  if (connect(socket.fd(), address, length) != 0) {
    const double least = std::min(kConnectSeconds, deadline.left());
    if (errno != EINPROGRESS || least <= 0 || !wait_for_socket(socket, POLLOUT, Deadline(least))) return {};
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return {};
  }
  tune(socket);
  return socket;
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

Deadline::Deadline(double seconds) : begin_(std::chrono::steady_clock::now()), seconds_(seconds) {}

double Deadline::left() const {
  if (seconds_ <= 0) return std::numeric_limits<double>::infinity();
  const double gone = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  return std::max(0.0, seconds_ - gone);
}

bool wait_for_socket(const Socket& socket, short events, const Deadline& deadline) {
  while (!deadline.passed()) {
    pollfd entry = {socket.fd(), events, 0};
    const double left = std::min(deadline.left(), 1.0);
    if (poll(&entry, 1, static_cast<int>(left * 1000) + 1) > 0) return true;
  }
  return false;
}

Socket listen_on(int port) {
  Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.open()) return {};
  // A port that a job has just left can be taken again at once.
  const int yes = 1;
  setsockopt(listener.fd(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (bind(listener.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener.fd(), SOMAXCONN) != 0) return {};
  return listener;
}

int port_of(const Socket& listener) {
  sockaddr_in address = {};
  socklen_t length = sizeof address;
  getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

Socket accept_from(const Socket& listener) {
  Socket socket(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.open()) tune(socket);
  return socket;
}

Socket connect_to(const std::string& host, int port, const Deadline& deadline) {
  addrinfo hints = {}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  Socket socket;
  for (const addrinfo* at = found; at != nullptr && !socket.open(); at = at->ai_next) {
    socket = connect_address(at->ai_addr, at->ai_addrlen, deadline);
  }
  freeaddrinfo(found);
  return socket;
}

bool send_exactly(const Socket& socket, const void* data, size_t bytes, const Deadline& deadline) {
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = send(socket.fd(), at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      at += n;
      bytes -= static_cast<size_t>(n);
    } else if ((errno != EAGAIN && errno != EINTR) || !wait_for_socket(socket, POLLOUT, deadline)) {
      return false;
    }
  }
  return true;
}

bool receive_exactly(const Socket& socket, void* data, size_t bytes, const Deadline& deadline) {
  for (char* at = static_cast<char*>(data); bytes > 0;) {
    const ssize_t n = recv(socket.fd(), at, bytes, MSG_DONTWAIT);
    if (n > 0) {
      at += n;
      bytes -= static_cast<size_t>(n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR) || !wait_for_socket(socket, POLLIN, deadline)) {
      return false;
    }
  }
  return true;
}

std::string own_addresses() {
  std::string out = own_name();
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return out;
  for (const ifaddrs* at = all; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET) continue;
    if ((at->ifa_flags & IFF_UP) == 0 || (at->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN] = {};
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr, text, sizeof text);
    out += std::string(" ") + text;
  }
  freeifaddrs(all);
  return out;
}

Socket connect_to_any(const std::string& addresses, int port, const Deadline& deadline) {
  std::istringstream words(addresses);
  std::string name, address;
  words >> name;
  Socket socket;
  if (name == own_name()) socket = connect_to("127.0.0.1", port, deadline);
  while (!socket.open() && words >> address) socket = connect_to(address, port, deadline);
  if (!socket.open()) socket = connect_to(name, port, deadline);
  return socket;
}

}  // namespace meshard
