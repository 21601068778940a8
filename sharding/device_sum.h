// DeviceSum: a number for each device of a mesh, added up over many collectives without visiting the devices. What a
// device receives in a collective depends on its coordinates along few atoms, and on none where all blocks are even: a
// mesh of 65,536 devices costs no more than one of 8.
//
//   DeviceSum bytes(mesh);
//   bytes.add({}, {4096}, 12);        // 12 times 4096 on each device
//   bytes.add(data, {0, 512}, 1);     // 512 more where data=1
//   bytes[7], bytes.largest().value
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "meshard/layout/reshard.h"

namespace meshard {

class DeviceSum {
 public:
  DeviceSum() = default;  // of one device
  explicit DeviceSum(const Mesh& mesh) : mesh_(mesh) {}

  // Adds times * values[i] on the devices whose digits along the atoms, the first one major, count to i.
  void add(AtomSet along, std::span<const int64_t> values, int64_t times);
  int64_t operator[](size_t rank) const;

  struct Largest {
    int64_t value = 0;
    int64_t rank = 0;  // the lowest that has it
  };
  Largest largest() const;

 private:
  struct Part {
    Atoms atoms;                  // ascending
    std::vector<int64_t> values;  // one for each position along them
  };
  Mesh mesh_;
  int64_t everywhere_ = 0;
  std::vector<Part> parts_;  // each with atoms of its own
};

// What the devices receive in a collective: elements[i] where the digits along `along` count to i. Programs repeat theirs, so it is worked out once for each that is new.
struct Received {
  AtomSet along;
  std::vector<int64_t> elements;
  int64_t busiest = 0;      // the largest of them
  int64_t lower_bound = 0;  // for a reduction the busiest; else lower_bound_elements (layout/reshard.h)
};
class ReceivedCache {
 public:
  explicit ReceivedCache(const Mesh& mesh);
  ~ReceivedCache();
  // Of a collective that moves values of these shapes by these steps, alike in kind and group. It is run by the devices
  // whose coordinates on some axes (index in mesh, coordinate) are those of `guard`; the others receive nothing.
  const Received& get(std::span<const Shape> shapes, std::span<const ReshardStep> steps,
                      std::span<const std::pair<int, int64_t>> guard);

 private:
  struct Table;
  std::unique_ptr<Table> table_;
};

// The ranks that have every position along the atoms, the first one major, and digit 0 along all others; ascending.
std::vector<Rank> ranks_along(const Mesh& mesh, AtomSet along);

// The atoms on which the size of a rank's block depends: those of dimensions that do not split evenly.
AtomSet blocks_differ_by(const Mesh& mesh, const Shape& shape, const Layout& layout);

// The atoms on which received_elements() depends: ranks that agree along them receive equally much.
AtomSet receives_by(const Mesh& mesh, const Shape& shape, const ReshardStep& step);

}  // namespace meshard
