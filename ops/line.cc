#include "meshard/ops/line.h"

#include <fmt/format.h>

#include "meshard/base/error.h"

namespace meshard {

int line_dimension(std::string_view op, const Attributes& attributes, std::span<const Type> operands) {
  if (operands.empty()) throw UserError(fmt::format("{}: no operand", op));
  const Type& operand = operands[0];
  const int64_t d = attributes.integer("dimension");
  if (d < 0 || d >= operand.shape.rank())
    throw UserError(fmt::format("{}: operand {} has no dimension {}", op, operand.str(), d));
  return static_cast<int>(d);
}

std::string line_term(int rank, int dimension, std::string_view t) {
  std::string out;
  for (int d = 0; d < rank; ++d) {
    if (d > 0) out += " ";
    out += d == dimension ? std::string(t) : fmt::format("{}{}", d < dimension ? "a" : "b", d);
  }
  return out;
}

int64_t part_begin(int64_t n, int64_t parts, int64_t p) { return (p * n + parts - 1) / parts; }
int64_t part_of(int64_t n, int64_t parts, int64_t i) { return n == 0 ? 0 : i * parts / n; }

int64_t parts_of(const Value& operand, int dimension) {
  const ValueInfo& info = operand.builder().function().value(operand.id());
  const auto& mesh = operand.builder().program().mesh;
  if (!info.layout || !mesh) return 1;
  return mesh->parts(info.layout->atoms(dimension));
}

}  // namespace meshard
