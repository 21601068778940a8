#include "meshard/base/shape.h"

#include <array>

#include "fmt/format.h"
#include "meshard/base/error.h"
#include "meshard/base/text.h"

namespace meshard {
namespace {

struct DtypeInfo {
  std::string_view name;
  int64_t bytes;
  bool is_float;
};
constexpr std::array<DtypeInfo, 5> kDtypes = {
    {{"f64", 8, true}, {"f32", 4, true}, {"bf16", 2, true}, {"f16", 2, true}, {"i32", 4, false}}};

const DtypeInfo& info(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

}  // namespace

std::string_view name(Dtype dtype) { return info(dtype).name; }
int64_t size_bytes(Dtype dtype) { return info(dtype).bytes; }
bool is_float(Dtype dtype) { return info(dtype).is_float; }

bool parse_dtype(std::string_view text, Dtype& dtype) {
  for (size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].name != text) continue;
    dtype = static_cast<Dtype>(i);
    return true;
  }
  return false;
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (int64_t n : dims) product *= n;
  return product;
}

std::string Shape::str() const { return fmt::format("[{}]", fmt::join(dims, ",")); }

std::string Type::str() const { return fmt::format("{}{}", name(dtype), shape.str()); }

Type Type::parse(std::string_view text) {
  Scanner in(text, "type");
  Type type = parse(in);
  if (!in.at_end()) in.fail("the type ends here, but text follows");
  return type;
}

Type Type::parse(Scanner& in) {
  constexpr int kMostDims = 64;
  const Place begin = in.place();
  const std::string word = in.word("a type such as f32[8,4]");
  Type type;
  if (!parse_dtype(word, type.dtype)) {
    in.fail(begin, fmt::format("no dtype {}; there are f64, f32, bf16, f16 and i32", quote(word)));
  }
  in.expect("[");
  // The sizes other than 0 are multiplied, so that strides stay in range when one size is 0.
  __int128 bytes = size_bytes(type.dtype);
  while (!in.looking_at("]")) {
    if (type.shape.rank() > 0) in.expect(",");
    const Place place = in.place();
    if (type.shape.rank() == kMostDims) in.fail(place, fmt::format("a tensor has at most {} dimensions", kMostDims));
    const int64_t size = in.integer("the size of a dimension");
    if (size < 0) in.fail(place, fmt::format("dimension {} has size {}; sizes are 0 or more", type.shape.rank(), size));
    type.shape.dims.push_back(size);
    if (size > 0) bytes *= size;
    if (bytes > (__int128{1} << 62)) {
      in.fail(begin,
              fmt::format("{} has more than 2^62 bytes up to its dimension {}", type.str(), type.shape.rank() - 1));
    }
  }
  in.expect("]");
  return type;
}

}  // namespace meshard
