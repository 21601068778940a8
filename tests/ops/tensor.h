// Tensor: a value of a test, between guard bytes, poisoned until written.
#pragma once

#include <random>
#include <string>

#include "meshard/base/buffer.h"
#include "meshard/base/shape.h"

namespace meshard::test {

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Type type);  // every byte 0xff: NaN in each float dtype, -1 as an integer

  const Type& type() const { return type_; }
  const Shape& shape() const { return type_.shape; }
  int64_t elements() const { return type_.shape.elements(); }
  void* data() const { return store_.data() + kGuard; }
  double get(int64_t i) const;
  void set(int64_t i, double value);
  void fill(double value);
  Tensor clone() const;
  Tensor as(Dtype dtype) const;  // converted; integers stay what they are
  bool guards_intact() const;

 private:
  static constexpr int64_t kGuard =
      1024;  // bytes before and after; also what a kernel that reads beyond its block finds
  Type type_;
  Buffer store_;
};

using Random = std::mt19937_64;

// Floats of magnitude 0.3 to 1.5, so that nothing divides by almost nothing, of either sign unless `positive`; integers
// 0 <= x < below.
Tensor draw(const Type& type, int64_t below, bool positive, Random& random);

// "" if all elements agree within `tolerance` of the largest magnitude of `b` (at least 1), else the first that does
// not. NaN agrees with NaN, an infinity with itself.
std::string difference(const Tensor& a, const Tensor& b, double tolerance);
bool same_bytes(const Tensor& a, const Tensor& b);
bool all_finite(const Tensor& t);

}  // namespace meshard::test
