#include <algorithm>

#include "meshard/collectives/communicator.h"

namespace meshard {

int64_t CallLog::begin(const CollectiveCall& call) {
  int64_t number = next_++;
  CallRecord& record = ring_[static_cast<size_t>(number) % ring_.size()];
  record.number = number;
  record.kind = call.kind;
  record.over = call.group->over();
  record.bytes = received_bytes(call);
  record.done = false;
  size_t length = std::min(call.label.size(), sizeof(record.label) - 1);
  std::copy_n(call.label.data(), length, record.label);
  record.label[length] = '\0';
  bytes_ += record.bytes;
  return number;
}

void CallLog::end(int64_t number) {
  CallRecord& record = ring_[static_cast<size_t>(number) % ring_.size()];
  if (record.number == number) record.done = true;
}

const CallRecord* CallLog::find(int64_t number) const {
  if (number < 0 || number >= next_) return nullptr;
  const CallRecord& record = ring_[static_cast<size_t>(number) % ring_.size()];
  return record.number == number ? &record : nullptr;
}

std::vector<CallRecord> CallLog::last(size_t n) const {
  n = std::min({n, ring_.size(), static_cast<size_t>(next_)});
  std::vector<CallRecord> records;
  records.reserve(n);
  for (size_t i = n; i > 0; --i) records.push_back(ring_[(static_cast<size_t>(next_) - i) % ring_.size()]);
  return records;
}

}  // namespace meshard
