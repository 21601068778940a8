// Network: messages between pairs of ranks, the least that collectives across hosts need. Messages of a pair arrive in
// the order in which they were sent, and both sides know their sizes.
//
//   network.receive(other, in, n);
//   network.send(other, out, n);
//   int64_t arrived = network.finish(watchdog);   // 2 ranks that do this exchange n bytes
#pragma once

#include <cstddef>
#include <cstdint>

#include "meshard/collectives/watchdog.h"

namespace meshard {

class Network {
 public:
  virtual ~Network() = default;

  // Both only begin; the memory is theirs until finish(). Messages of 0 bytes travel too.
  virtual void receive(Rank from, std::byte* data, int64_t bytes) = 0;
  virtual void send(Rank to, const std::byte* data, int64_t bytes) = 0;
  // Waits for all that was begun. Returns the bytes that arrived, as they were counted on arrival.
  virtual int64_t finish(const Watchdog& watchdog) = 0;
};

}  // namespace meshard
