// NCCL between processes of one host, over rings in a shared file: see stream.h. Values are put together in rank order.
#include <fcntl.h>
#include <nccl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "meshard/collectives/reduce.h"
#include "meshard/tests/cuda/fake/stream.h"

namespace {

using namespace meshard;

constexpr int kMost = 16;  // ranks
constexpr int kSplits = 64;
constexpr size_t kRing = 256 << 10;

struct Ring {
  std::atomic<uint64_t> put, got;
  char data[kRing];
};
struct Split {
  std::atomic<int> here;
  int color[kMost], key[kMost];
};
struct Shared {
  std::atomic<int> here;
  Split splits[kSplits];
  Ring rings[kMost][kMost];  // from, to
};

// A part of a call: what one rank has for another, behind a header that says what it is.
struct Message {
  uint64_t header[2];  // the call, bytes
  char* data;
  size_t moved = 0;  // of header and data
};

struct Exchange {
  ncclComm_t comm;
  std::map<int, std::vector<Message>> sends, receives;  // by peer, in order
  std::vector<std::function<void()>> finish;            // when all has come

  void begin() {
    for (auto* all : {&sends, &receives}) {
      for (auto& [peer, messages] : *all) {
        for (Message& m : messages) m.moved = 0;
      }
    }
  }
  bool go();
};

}  // namespace

struct ncclComm {
  int rank = 0, size = 0;
  std::string path;
  Shared* shared = nullptr;
  // Of calls that do not block: how often it is to be asked before they are done, and what for.
  int asked = 0;
  int splits = 0;
  ncclComm* parent = nullptr;  // until this one is split off it
  int split = 0, color = 0, key = 0;
  bool aborted = false;
  ncclResult_t failure = ncclSuccess;
  std::string text;
};

namespace {

thread_local int group_depth = 0;
thread_local std::map<ncclComm_t, std::pair<cudaStream_t, std::shared_ptr<Exchange>>> grouped;
std::string last_text;

void fail(ncclComm_t comm, ncclResult_t status, const std::string& text) {
  comm->failure = status;
  comm->text = last_text = text;
}

Shared* attach(const std::string& path) {
  const int file = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) return nullptr;
  void* at = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (at == MAP_FAILED) return nullptr;
  ++static_cast<Shared*>(at)->here;
  return static_cast<Shared*>(at);
}

// Moves what the ring takes, or has, of the message; true: all of it.
bool move(Message& m, Ring& ring, bool out, Exchange& exchange) {
  constexpr size_t kHeader = sizeof m.header;
  const size_t all = kHeader + m.header[1];
  uint64_t got_header[2];
  while (m.moved < all) {
    const uint64_t put = ring.put.load(std::memory_order_acquire), got = ring.got.load(std::memory_order_acquire);
    const size_t able = out ? kRing - (put - got) : put - got;
    const bool header = m.moved < kHeader;
    if (able < (header ? kHeader : 1)) return false;
    const uint64_t at = out ? put : got;
    const size_t bytes = header ? kHeader : std::min({able, all - m.moved, kRing - at % kRing});
    for (size_t done = 0; done < bytes;) {
      const size_t from = (at + done) % kRing, some = std::min(bytes - done, kRing - from);
      char* mine = header ? reinterpret_cast<char*>(out ? m.header : got_header) + done : m.data + (m.moved - kHeader) + done;
      out ? std::memcpy(ring.data + from, mine, some) : std::memcpy(mine, ring.data + from, some);
      done += some;
    }
    (out ? ring.put : ring.got).fetch_add(bytes, std::memory_order_release);
    m.moved += bytes;
    if (header && !out && std::memcmp(got_header, m.header, kHeader) != 0) {
      fail(exchange.comm, ncclInvalidUsage, "ranks called different collectives, or with different counts");
      return false;
    }
  }
  return true;
}

bool Exchange::go() {
  if (comm->aborted) return true;
  if (comm->failure != ncclSuccess) return false;
  bool all = true;
  for (auto& [peer, messages] : sends) {
    for (Message& m : messages) {
      if (move(m, comm->shared->rings[comm->rank][peer], true, *this)) continue;
      all = false;
      break;  // the next one's bytes stand behind this one's
    }
  }
  for (auto& [peer, messages] : receives) {
    for (Message& m : messages) {
      if (move(m, comm->shared->rings[peer][comm->rank], false, *this)) continue;
      all = false;
      break;
    }
  }
  if (!all) return false;
  for (const auto& f : finish) f();
  return true;
}

ncclResult_t put(cudaStream_t stream, const std::shared_ptr<Exchange>& exchange) {
  exchange->comm->asked = 2;
  const cudaError_t status = fake::put(stream, {[exchange] { exchange->begin(); }, [exchange] { return exchange->go(); }});
  return status == cudaSuccess ? ncclInProgress : ncclUnhandledCudaError;
}

size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclFloat64: return 8;
    case ncclFloat32:
    case ncclInt32: return 4;
    default: return 2;
  }
}
Dtype dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclFloat64: return Dtype::f64;
    case ncclFloat32: return Dtype::f32;
    case ncclInt32: return Dtype::i32;
    case ncclFloat16: return Dtype::f16;
    default: return Dtype::bf16;
  }
}
Reduction reduction_of(ncclRedOp_t op) {
  return op == ncclMax ? Reduction::max : op == ncclMin ? Reduction::min : Reduction::sum;
}

// A call on a communicator, made of what this rank sends and receives.
class Call {
 public:
  Call(ncclComm_t comm, cudaStream_t stream, uint64_t kind, ncclDataType_t type, int extra = 0)
      : comm_(comm), stream_(stream), tag_(kind << 32 | static_cast<uint64_t>(type) << 16 | static_cast<uint64_t>(extra)), size_(bytes_of(type)) {
    usable_ = !comm->aborted && comm->failure == ncclSuccess && comm->asked == 0 && comm->shared != nullptr;
    if (!usable_) fail(comm, ncclInvalidUsage, "a call on a communicator that is not ready for one");
    if (group_depth == 0) exchange_ = std::make_shared<Exchange>();
    if (group_depth > 0) {
      auto& [on, exchange] = grouped[comm];
      if (exchange == nullptr) exchange = std::make_shared<Exchange>();
      on = stream;
      exchange_ = exchange;
    }
    exchange_->comm = comm;
  }
  void send(int peer, const void* from, size_t elements) {
    exchange_->sends[peer].push_back({{tag_, elements * size_}, static_cast<char*>(const_cast<void*>(from))});
  }
  void receive(int peer, void* to, size_t elements) { exchange_->receives[peer].push_back({{tag_, elements * size_}, static_cast<char*>(to)}); }
  // All ranks' blocks, put together into `to`.
  void reduce_into(void* to, size_t elements, ncclDataType_t type, ncclRedOp_t op) {
    auto blocks = std::make_shared<std::vector<std::vector<char>>>();
    for (int r = 0; r < comm_->size; ++r) {
      blocks->emplace_back(elements * size_ + 64);
      receive(r, blocks->back().data(), elements);
    }
    exchange_->finish.push_back([=] {
      std::vector<const void*> in;
      for (const auto& b : *blocks) in.push_back(b.data());
      reduce_blocks(reduction_of(op), dtype_of(type), to, in, static_cast<int64_t>(elements));
    });
  }
  ncclResult_t end() {
    if (!usable_) return ncclInvalidUsage;
    return group_depth > 0 ? ncclSuccess : put(stream_, exchange_);
  }

 private:
  ncclComm_t comm_;
  cudaStream_t stream_;
  uint64_t tag_;
  size_t size_;
  bool usable_;
  std::shared_ptr<Exchange> exchange_;
};

enum Kind : uint64_t { kAllReduce = 1, kBroadcast, kAllGather, kReduceScatter, kReduce, kPoint };

const char* at(const void* base, size_t elements, ncclDataType_t type) { return static_cast<const char*>(base) + elements * bytes_of(type); }

// Goes on with what was asked for without blocking; true: it is done.
bool settle(ncclComm_t comm) {
  if (comm->parent != nullptr) {
    ncclComm_t parent = comm->parent;
    const Split& split = parent->shared->splits[comm->split];
    if (split.here.load(std::memory_order_acquire) < parent->size) return false;
    std::vector<std::pair<int, int>> members;  // key, rank in the parent
    for (int r = 0; r < parent->size; ++r) {
      if (split.color[r] == comm->color) members.emplace_back(split.key[r], r);
    }
    std::sort(members.begin(), members.end());
    comm->size = static_cast<int>(members.size());
    for (int i = 0; i < comm->size; ++i) {
      if (members[static_cast<size_t>(i)].second == parent->rank) comm->rank = i;
    }
    comm->path = parent->path + "-" + std::to_string(comm->split) + "-" + std::to_string(comm->color);
    comm->parent = nullptr;
    comm->shared = attach(comm->path);
  }
  if (comm->shared == nullptr || comm->shared->here.load(std::memory_order_acquire) < comm->size) return false;
  if (comm->asked > 0) --comm->asked;
  if (comm->asked > 0) return false;
  if (!comm->path.empty()) unlink(comm->path.c_str());
  return true;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const char* folder = std::getenv("TMPDIR");
  *id = {};
  static int count = 0;
  const std::string path = std::string(folder == nullptr ? "/tmp" : folder) + "/meshard-fake-nccl-" + std::to_string(getpid()) + "-" + std::to_string(count++);
  if (path.size() >= sizeof id->internal) return ncclSystemError;
  std::copy(path.begin(), path.end(), id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* made, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (size > kMost || config->blocking != 0) return ncclInvalidArgument;
  auto* comm = new ncclComm;
  comm->rank = rank;
  comm->size = size;
  comm->path = id.internal;
  comm->shared = attach(comm->path);
  comm->asked = 2;
  *made = comm;
  return comm->shared == nullptr ? ncclSystemError : ncclInProgress;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* made, ncclConfig_t* config) {
  if (config->blocking != 0 || color < 0 || comm->splits == kSplits) return ncclInvalidArgument;
  if (comm->asked > 0) return ncclInvalidUsage;
  Split& split = comm->shared->splits[comm->splits];
  split.color[comm->rank] = color;
  split.key[comm->rank] = key;
  ++split.here;
  auto* part = new ncclComm;
  part->parent = comm;
  part->split = comm->splits++;
  part->color = color;
  part->asked = comm->asked = 2;
  *made = part;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = comm->failure != ncclSuccess ? comm->failure : settle(comm) ? ncclSuccess : ncclInProgress;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t status) { return status == ncclInvalidUsage ? "invalid usage" : "an error of NCCL"; }
const char* ncclGetLastError(ncclComm_t comm) { return comm == nullptr ? last_text.c_str() : comm->text.c_str(); }

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (comm->asked > 0) return ncclInvalidUsage;
  comm->asked = 2;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm->shared != nullptr) munmap(comm->shared, sizeof(Shared));
  delete comm;
  return ncclSuccess;
}
// What is on its stream gives up when its turn comes.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->aborted = true;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group_depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--group_depth > 0) return ncclSuccess;
  ncclResult_t all = ncclSuccess;
  for (const auto& [comm, call] : grouped) {
    const ncclResult_t status = put(call.first, call.second);
    if (status != ncclSuccess) all = status;
  }
  grouped.clear();
  return all;
}

ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  Call call(comm, stream, kAllReduce, type, op);
  for (int r = 0; r < comm->size; ++r) call.send(r, from, count);
  call.reduce_into(to, count, type, op);
  return call.end();
}
ncclResult_t ncclReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream) {
  Call call(comm, stream, kReduce, type, root);
  call.send(root, from, count);
  if (comm->rank == root) call.reduce_into(to, count, type, op);
  return call.end();
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream) {
  Call call(comm, stream, kBroadcast, type, root);
  if (comm->rank == root) {
    for (int r = 0; r < comm->size; ++r) call.send(r, from, count);
  }
  call.receive(root, to, count);
  return call.end();
}
ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
  Call call(comm, stream, kAllGather, type);
  for (int r = 0; r < comm->size; ++r) {
    call.send(r, from, count);
    call.receive(r, const_cast<char*>(at(to, static_cast<size_t>(r) * count, type)), count);
  }
  return call.end();
}
ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  Call call(comm, stream, kReduceScatter, type, op);
  for (int r = 0; r < comm->size; ++r) call.send(r, at(from, static_cast<size_t>(r) * count, type), count);
  call.reduce_into(to, count, type, op);
  return call.end();
}
ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  Call call(comm, stream, kPoint, type);
  call.send(peer, from, count);
  return call.end();
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  Call call(comm, stream, kPoint, type);
  call.receive(peer, to, count);
  return call.end();
}
}
