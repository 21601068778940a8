// Shape, Dtype and Type: "f32[8,4]". A scalar is "f32[]". Sizes are elements; a size of 0 is legal.
//
//   Type t = Type::parse("f32[8,4]");   t.shape.elements() == 32, bytes(t) == 128
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/inline_vector.h"

namespace meshard {

class Scanner;

enum class Dtype : uint8_t { f64, f32, bf16, f16, i32 };

std::string_view name(Dtype dtype);      // "f32"
bool parse_dtype(std::string_view text, Dtype& dtype);
int64_t size_bytes(Dtype dtype);         // 8, 4, 2, 2, 4
bool is_float(Dtype dtype);
// bf16 or f16: what is kept in half the bytes of f32 and computed in f32.
constexpr bool is_narrow(Dtype dtype) { return dtype == Dtype::bf16 || dtype == Dtype::f16; }

struct Shape {
  InlineVector<int64_t, 5> dims;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : dims(sizes) {}
  explicit Shape(std::span<const int64_t> sizes) : dims(sizes.begin(), sizes.end()) {}

  int rank() const { return static_cast<int>(dims.size()); }
  int64_t operator[](int d) const { return dims[static_cast<size_t>(d)]; }
  int64_t& operator[](int d) { return dims[static_cast<size_t>(d)]; }
  int64_t elements() const;  // product of the sizes; 1 for a scalar
  std::string str() const;   // "[8,4]"
  bool operator==(const Shape&) const = default;
};

struct Type {
  Dtype dtype = Dtype::f32;
  Shape shape;

  static Type parse(std::string_view text);
  static Type parse(Scanner& in);  // throws at the place; more than 2^62 bytes or 64 dimensions are an error
  std::string str() const;         // "f32[8,4]"
  int64_t bytes() const { return shape.elements() * size_bytes(dtype); }
  bool operator==(const Type&) const = default;
};

}  // namespace meshard
