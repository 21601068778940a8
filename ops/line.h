// What ops along one dimension, given by the attribute "dimension", have in common.
#pragma once

#include <span>
#include <string>

#include "meshard/ir/trace.h"

namespace meshard {

// The attribute as an index of a dimension of the first operand; UserError "NAME: operand f32[2,3] has no dimension 2".
int line_dimension(std::string_view op, const Attributes& attributes, std::span<const Type> operands);

// "a0 a1 T b0": a tensor of `rank` dimensions, of which `dimension` is called `t`.
std::string line_term(int rank, int dimension, std::string_view t);

// Blocks as a layout makes them: where block p of `parts` over n begins, and in which block element i lies.
int64_t part_begin(int64_t n, int64_t parts, int64_t p);
int64_t part_of(int64_t n, int64_t parts, int64_t i);

// In how many parts the dimension of an operand of an op that is being lowered is split; 1 where nothing says so.
int64_t parts_of(const Value& operand, int dimension);

}  // namespace meshard
