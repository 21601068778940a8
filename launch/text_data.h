// Text as training data: any bytes of a file, or of all files of a folder, byte by byte (tokens 0 .. 255). Of every ten
// blocks of 4,096 bytes the last is held out for validation.
//
//   TextData data = TextData::read("book.txt");
//   Batch batch = data.train_batch(/*seed=*/7, /*step=*/3, /*batch=*/8, /*seq=*/128);  // the same on every rank and mesh
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/shape.h"

namespace meshard {

struct Batch {
  std::vector<int32_t> tokens, targets;  // [batch, seq], row-major; targets are the next bytes
};

class TextData {
 public:
  // Files of a folder are read in the order of their names, hidden ones and build folders (with a CMakeCache.txt) left out.
  // Errors: not there, not readable, empty.
  static TextData read(const std::string& path);
  static TextData from_bytes(std::string_view bytes);

  int64_t train_bytes() const { return static_cast<int64_t>(train_.size()); }
  int64_t held_out_bytes() const { return static_cast<int64_t>(held_out_.size()); }
  uint64_t digest() const;  // of all bytes, FNV-1a
  // Throws if a sequence of seq + 1 bytes fits in neither part: `the text has 17 bytes, a batch of 8 x 128 needs ...`.
  void check(int64_t batch, int64_t seq) const;

  // Windows at random places, a function of (seed, step, row).
  Batch train_batch(uint64_t seed, int64_t step, int64_t batch, int64_t seq) const;
  // Windows spread evenly over the held-out text.
  Batch held_out_batch(int64_t index, int64_t batches, int64_t batch, int64_t seq) const;

  // Entropy of a held-out byte given the one before it, in nats, by the held-out text's own counts of pairs:
  // H = -sum p(a, b) ln p(b | a). No model that looks back one byte only can do better on this text.
  double held_out_bigram_entropy() const;

 private:
  Batch windows(const std::string& text, const std::vector<int64_t>& begins, int64_t seq) const;
  std::string train_, held_out_;
};

}  // namespace meshard
