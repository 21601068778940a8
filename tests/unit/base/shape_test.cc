#include "meshard/base/shape.h"

#include <catch2/catch.hpp>

#include "meshard/base/error.h"

namespace meshard {
namespace {

std::string error_of(const char* text) {
  try {
    Type::parse(text);
  } catch (const UserError& error) {
    return error.diagnostic().place.str() + ": " + error.diagnostic().text;
  }
  return "no error";
}

}  // namespace

TEST_CASE("types as text") {
  for (const char* text : {"f32[8,4]", "bf16[]", "f16[2,3]", "i32[0]", "f64[5,0,3]", "f32[1]"})
    CHECK(Type::parse(text).str() == text);
  const Type type = Type::parse(" bf16 [ 5, 3 ] ");
  CHECK(type.dtype == Dtype::bf16);
  CHECK(type.shape == Shape{5, 3});
  CHECK(type.shape.elements() == 15);
  CHECK(type.bytes() == 30);
  CHECK(Type::parse("f32[]").shape.elements() == 1);
  CHECK(Type::parse("f32[7,0]").bytes() == 0);
}

TEST_CASE("dtypes") {
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i32}) {
    Dtype back{};
    CHECK(parse_dtype(name(dtype), back));
    CHECK(back == dtype);
    CHECK(is_float(dtype) == (dtype != Dtype::i32));
  }
  CHECK(size_bytes(Dtype::f64) == 8);
  CHECK(size_bytes(Dtype::i32) == 4);
  Dtype back{};
  CHECK(!parse_dtype("f8", back));
}

TEST_CASE("wrong types") {
  CHECK(error_of("f8[2]") == "type:1:1: no dtype \"f8\"; there are f64, f32, bf16, f16 and i32");
  CHECK(error_of("f32") == "type:1:4: expected \"[\" but found the end of the text");
  CHECK(error_of("f32[2") == "type:1:6: expected \",\" but found the end of the text");
  CHECK(error_of("f32[2,]") == "type:1:7: expected the size of a dimension but found \"]\"");
  CHECK(error_of("f32[2,-1]") == "type:1:7: dimension 1 has size -1; sizes are 0 or more");
  CHECK(error_of("f32[2]]") == "type:1:7: the type ends here, but text follows");
  CHECK(error_of("f32[1048576,1048576,4194304]") ==
        "type:1:1: f32[1048576,1048576,4194304] has more than 2^62 bytes up to its dimension 2");
  // Strides would overflow although the tensor is empty.
  CHECK(error_of("f32[0,4611686018427387904]") ==
        "type:1:1: f32[0,4611686018427387904] has more than 2^62 bytes up to its dimension 1");
  CHECK(error_of("f64[576460752303423488]") == "no error");  // 2^62 bytes
}

}  // namespace meshard
