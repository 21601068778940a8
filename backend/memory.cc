#include <utility>

#include "meshard/backend/backend.h"

namespace meshard {

Memory::Memory(Backend* backend, int64_t bytes) : backend_(backend), bytes_(bytes) {
  if (backend == nullptr) {
    host_ = Buffer(bytes);
    data_ = host_.data();
  } else {
    data_ = backend->allocate(bytes);
  }
}

Memory::Memory(Memory&& other) noexcept
    : backend_(other.backend_),
      host_(std::move(other.host_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(host_, other.host_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Memory::~Memory() {
  if (backend_ != nullptr && data_ != nullptr) backend_->release(data_);
}

}  // namespace meshard
