// Parts of a dimension that follow the device: what a product needs that is made block by block while blocks travel
// round a ring of devices. The rule is the caller's. Letter "ring" counts the devices of the ring, "block" the parts of
// a dimension that every device has in whole; in the other tensor the dimension has one part.
//
//   %x.part = ring_part %x {block = 4, offset = 3, ring = 4, rule = "b (block t) (ring h) -> b t (ring h)"}
//   %y2 = ring_place %y1, %u {block = 4, offset = 3, ring = 4, rule = "(block t) (ring h), t (ring h) -> (block t)
//   (ring h)"}
#include <fmt/format.h>

#include <algorithm>

#include "meshard/base/error.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

int count(const Rule::Term& term, std::string_view letter) {
  int n = 0;
  for (const auto& dim : term.dims) n += static_cast<int>(std::count(dim.begin(), dim.end(), letter));
  return n;
}

// The letters of the wide tensor but "block" are those of the narrow one.
std::string ring_obstacle(const Attributes& attributes, bool out_of) {
  const std::string text(attributes.text("rule"));
  const Rule rule = Rule::parse(text);
  const auto wrong = [&](std::string_view why) { return fmt::format("\"{}\" {}", text, why); };
  if (rule.operands.size() != (out_of ? 1u : 2u) || rule.results.size() != 1)
    return wrong(out_of ? "is not of one operand and one result" : "is not of two operands and one result");
  const Rule::Term &wide = rule.operands[0], &narrow = out_of ? rule.results[0] : rule.operands[1];
  if (!out_of && rule.results[0].dims != wide.dims) return wrong("gives another tensor than operand 0");
  for (const Rule::Term* term : {&wide, &narrow}) {
    if (count(*term, "ring") != 1) return wrong("has \"ring\" not once in each tensor");
    if (count(*term, "block") != (term == &wide ? 1 : 0)) return wrong("has \"block\" not once and only in operand 0");
    const Rule::Term& other = term == &wide ? narrow : wide;
    for (const auto& dim : term->dims) {
      for (const std::string& letter : dim) {
        if (letter != "block" && (count(*term, letter) != 1 || count(other, letter) != 1))
          return wrong(fmt::format("has {} not once on both sides", letter));
      }
    }
  }
  if (attributes.integer("ring") == attributes.integer("block")) return "";
  return fmt::format("{} devices in the ring and {} blocks", attributes.integer("ring"), attributes.integer("block"));
}

std::string part_obstacle(std::span<const Type>, std::span<const Type>, const Attributes& attributes) {
  return ring_obstacle(attributes, true);
}
std::string place_obstacle(std::span<const Type>, std::span<const Type>, const Attributes& attributes) {
  return ring_obstacle(attributes, false);
}

std::vector<AttributeSpec> ring_attributes() {
  return {
      {"rule", std::string(), true}, {"ring", int64_t{1}, true}, {"block", int64_t{1}, true}, {"offset", int64_t{0}}};
}

}  // namespace

const OpDef& ring_part_op() {
  static const OpDef def = {
      .name = "ring_part",
      .purpose = "for each index of \"ring\", block ring + offset (modulo their number) of x",
      .attributes = ring_attributes(),
      .integers = true,
      .check = part_obstacle,
      .linear = {{0}},
      .flops_per_point = 0,
      .reference = reference::ring_part,
      .cpu = cpu::ring_part,
      .cases = {{"f32[3,4,8]", "{block = 2, offset = 1, ring = 2, rule = \"a (block t) (ring h) -> a t (ring h)\"}",
                 "f32[3,2,8]"},
                {"f32[18,3]", "{block = 3, offset = -1, ring = 3, rule = \"(ring block t) c -> (ring t) c\"}",
                 "f32[6,3]"},
                {"i32[4,4]", "{block = 4, ring = 4, rule = \"ring block -> ring 1\"}", "i32[4,1]"},
                {"f32[8,4]", "{block = 4, offset = 6, ring = 4, rule = \"(block c) ring -> ring c\"}", "f32[4,2]"},
                {"f32[2,6,66]", "{block = 2, offset = 3, ring = 2, rule = \"ring (block t) c -> t ring c\"}",
                 "f32[3,2,66]"}},
  };
  return def;
}

const OpDef& ring_place_op() {
  static const OpDef def = {
      .name = "ring_place",
      .purpose = "x with u as block ring + offset (modulo their number), for each index of \"ring\"",
      .attributes = ring_attributes(),
      .integers = true,
      .check = place_obstacle,
      .linear = {{0, 1}},
      .in_place = {{0, 0}},
      .flops_per_point = 0,
      .reference = reference::ring_place,
      .cpu = cpu::ring_place,
      .cases =
          {{"f32[3,4,8], f32[3,2,8]",
            "{block = 2, offset = 1, ring = 2, rule = \"a (block t) (ring h), a t (ring h) -> a (block t) (ring h)\"}",
            "f32[3,4,8]"},
           {"f32[18,3], f32[6,3]",
            "{block = 3, offset = -1, ring = 3, rule = \"(ring block t) c, (ring t) c -> (ring block t) c\"}",
            "f32[18,3]"},
           {"i32[4,4], i32[4,1]", "{block = 4, ring = 4, rule = \"ring block, ring 1 -> ring block\"}", "i32[4,4]"},
           {"f32[2,6,66], f32[3,2,66]",
            "{block = 2, offset = 3, ring = 2, rule = \"ring (block t) c, t ring c -> ring (block t) c\"}",
            "f32[2,6,66]"}},
  };
  return def;
}

}  // namespace meshard
