#include "meshard/sharding/expect_bill.h"

#include <fmt/format.h>

#include <algorithm>

namespace meshard {
namespace {

constexpr size_t kShown = 5;  // collectives in a message

std::string line_text(const Mesh& mesh, const BillLine& line) {
  return fmt::format("{} over {} of {}: {} bytes, {} {}", name(line.kind), mesh.atoms_text(line.over), line.value, line.bytes, line.count,
                     line.count == 1 ? "run" : "runs");
}

}  // namespace

BillCheck expect_bill(const Bill& bill) { return BillCheck(bill); }

void BillCheck::limit(std::string_view what, int64_t seen, int64_t most) {
  if (seen > most) over_.push_back(fmt::format("{}: {}, at most {} allowed", what, seen, most));
}

BillCheck& BillCheck::at_most_bytes(int64_t bytes) {
  limit("bytes that the busiest device receives", bill_->bytes, bytes);
  return *this;
}

BillCheck& BillCheck::at_most_bytes_all_devices(int64_t bytes) {
  limit("bytes that all devices receive", bill_->bytes_all_devices, bytes);
  return *this;
}

BillCheck& BillCheck::at_most_collectives(int64_t count) {
  limit("collectives in a step", bill_->collectives(), count);
  return *this;
}

BillCheck& BillCheck::at_most_peak_bytes(int64_t bytes) {
  limit("bytes of memory on a device", bill_->peak_bytes, bytes);
  return *this;
}

BillCheck& BillCheck::none(Collective kind) {
  for (const BillLine& line : bill_->lines) {
    if (line.kind == kind) over_.push_back(fmt::format("no {} allowed: {}", name(kind), line_text(bill_->mesh, line)));
  }
  return *this;
}

BillCheck& BillCheck::none_over(std::string_view axis) {
  const AtomSet atoms = AtomSet::of(bill_->mesh.axis(axis, {}).atoms);
  for (const BillLine& line : bill_->lines) {
    if (!(line.over & atoms).empty()) over_.push_back(fmt::format("nothing over {} allowed: {}", axis, line_text(bill_->mesh, line)));
  }
  return *this;
}

std::string BillCheck::message() const {
  if (good()) return "";
  std::string out = "the bill is over its limits";
  for (const std::string& over : over_) out += "\n  " + over;
  std::vector<const BillLine*> largest;
  for (const BillLine& line : bill_->lines) largest.push_back(&line);
  std::stable_sort(largest.begin(), largest.end(), [](const BillLine* a, const BillLine* b) { return a->bytes > b->bytes; });
  if (largest.size() > kShown) largest.resize(kShown);
  if (!largest.empty()) out += "\nmost of it:";
  for (const BillLine* line : largest) out += "\n  " + line_text(bill_->mesh, *line);
  return out;
}

void BillCheck::or_throw() const {
  if (!good()) throw UserError(message());
}

std::ostream& operator<<(std::ostream& out, const BillCheck& check) {
  return out << (check.good() ? "the bill is within its limits" : check.message());
}

}  // namespace meshard
