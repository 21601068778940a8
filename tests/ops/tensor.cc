#include "tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace meshard::test {
namespace {
constexpr int kGuardByte = 0xa5;
}

Tensor::Tensor(Type type) : type_(std::move(type)), store_(type_.bytes() + 2 * kGuard) {
  std::memset(store_.data(), kGuardByte, static_cast<size_t>(store_.bytes()));
  std::memset(data(), 0xff, static_cast<size_t>(type_.bytes()));
}

double Tensor::get(int64_t i) const {
  switch (type_.dtype) {
    case Dtype::f64:
      return static_cast<const double*>(data())[i];
    case Dtype::f32:
      return static_cast<double>(static_cast<const float*>(data())[i]);
    case Dtype::bf16:
      return static_cast<double>(static_cast<float>(static_cast<const bfloat16*>(data())[i]));
    case Dtype::f16:
      return static_cast<double>(static_cast<float>(static_cast<const float16*>(data())[i]));
    case Dtype::i32:
      return static_cast<double>(static_cast<const int32_t*>(data())[i]);
  }
  return 0;
}

void Tensor::set(int64_t i, double value) {
  switch (type_.dtype) {
    case Dtype::f64:
      static_cast<double*>(data())[i] = value;
      return;
    case Dtype::f32:
      static_cast<float*>(data())[i] = static_cast<float>(value);
      return;
    case Dtype::bf16:
      static_cast<bfloat16*>(data())[i] = bfloat16(static_cast<float>(value));
      return;
    case Dtype::f16:
      static_cast<float16*>(data())[i] = float16(static_cast<float>(value));
      return;
    case Dtype::i32:
      static_cast<int32_t*>(data())[i] = static_cast<int32_t>(value);
      return;
  }
}

void Tensor::fill(double value) {
  for (int64_t i = 0; i < elements(); ++i) set(i, value);
}

Tensor Tensor::clone() const {
  Tensor t(type_);
  std::memcpy(t.data(), data(), static_cast<size_t>(type_.bytes()));
  return t;
}

Tensor Tensor::as(Dtype dtype) const {
  if (!is_float(type_.dtype) || dtype == type_.dtype) return clone();
  Tensor t(Type{dtype, type_.shape});
  for (int64_t i = 0; i < elements(); ++i) t.set(i, get(i));
  return t;
}

bool Tensor::guards_intact() const {
  const auto intact = [](std::byte b) { return b == std::byte{kGuardByte}; };
  const std::byte* end = store_.data() + store_.bytes();
  return std::all_of(store_.data(), store_.data() + kGuard, intact) && std::all_of(end - kGuard, end, intact);
}

Tensor draw(const Type& type, int64_t below, bool positive, Random& random) {
  Tensor t(type);
  // No std distribution: their numbers differ between standard libraries.
  for (int64_t i = 0; i < t.elements(); ++i) {
    const uint64_t bits = random();
    if (!is_float(type.dtype)) {
      t.set(i, static_cast<double>(bits % static_cast<uint64_t>(std::max<int64_t>(below, 1))));
      continue;
    }
    const double magnitude = 0.3 + 1.2 * static_cast<double>(bits >> 11) * 0x1p-53;
    t.set(i, positive || bits & 1 ? magnitude : -magnitude);
  }
  return t;
}

std::string difference(const Tensor& a, const Tensor& b, double tolerance) {
  if (a.type() != b.type()) return fmt::format("types {} and {}", a.type().str(), b.type().str());
  double largest = 1;
  for (int64_t i = 0; i < b.elements(); ++i)
    if (std::isfinite(b.get(i))) largest = std::max(largest, std::abs(b.get(i)));
  for (int64_t i = 0; i < a.elements(); ++i) {
    const double x = a.get(i), y = b.get(i);
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    if (!(std::abs(x - y) <= tolerance * largest))
      return fmt::format("element {} of {}: {} where {} is right, tolerance {}", i, a.type().str(), x, y,
                         tolerance * largest);
  }
  return "";
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.type() == b.type() && std::memcmp(a.data(), b.data(), static_cast<size_t>(a.type().bytes())) == 0;
}

bool all_finite(const Tensor& t) {
  for (int64_t i = 0; i < t.elements(); ++i)
    if (!std::isfinite(t.get(i))) return false;
  return true;
}

}  // namespace meshard::test
