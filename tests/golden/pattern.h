// Patterns: program texts with a formula for the bytes that the busiest device must receive, instantiated for several meshes.
//
//   // row: 7                                      of the table of patterns; one row may have several files
//   // Why the file is there.
//   // where: Va = 4*M*K; Vb = 4*K*N               names for parts of formulas
//   // bytes: min(q*Va, q*Vb)                      received by the busiest device; q = (p - 1) / p
//   // less: factors(Va/r - Va/p + q*Vb/s)         what is reached below that
//   // least: EXPRESSION                           in its place: the bill lies between this and `bytes`
//   // more: EXPRESSION                            in its place: what is reached above `bytes`, a known shortfall
//   // because: part of the axis splits one dimension, the rest another
//   // mean: why                                   the mean over the devices is held against the formula, not the busiest
//   // either: | [x, -] | [-, x]                   texts for $either; the cheapest counts
//   // sizes: M=48, K=24, N=24                     even on every mesh; the bill equals the formula
//   // uneven: M=47, K=25, N=23                    the bill is at most `bytes` for sizes rounded up
//   // meshes: m=2, n=4; m=3, n=2                  otherwise p=2; p=3; p=4; p=8
//   mesh x=$(p)
//   func main(%a: f32[$(M),$(K)] [x, -]) { ... }
#pragma once

#include <map>
#include <string>
#include <vector>

namespace meshard {

using Sizes = std::map<std::string, double>;

struct Pattern {
  std::string file;
  int row = 0;
  std::map<std::string, std::string> where;
  std::string bytes, less, least, more, because, mean, text;
  std::vector<std::string> either;    // at least one
  std::vector<Sizes> sizes, uneven, meshes;
};

// One size on one mesh.
struct PatternCase {
  Sizes sizes;                  // with the mesh, p and q
  bool even = true;
  std::string label;            // "M=48, K=24 on p=4"
  double table = 0;             // `bytes`, for the sizes rounded up
  double low = 0, high = 0;     // where the bill must be
  std::vector<std::string> texts;  // one for each of `either`
};

Pattern read_pattern(const std::string& path);
std::vector<Pattern> read_patterns(const std::string& folder);  // by name
std::vector<PatternCase> cases(const Pattern& pattern);

// An expression of numbers, sizes, the names of `where`, + - * / ( ), min, max, ceil, log2, factors and factors3: the least of the
// argument over all r s = p, or r s t = p. Throws std::runtime_error.
double evaluate(const std::string& expression, const std::map<std::string, std::string>& where, const Sizes& sizes);

}  // namespace meshard
