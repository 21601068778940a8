#include "meshard/launch/text_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "meshard/base/error.h"
#include "meshard/launch/draw.h"

namespace meshard {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = 4096;  // bytes; of ten blocks the last is held out

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw UserError(fmt::format("cannot read the text {}; check that the file is there and readable", path.string()));
  std::ostringstream out;
  out << in.rdbuf();
  return std::move(out).str();
}

void collect(const fs::path& folder, std::vector<fs::path>& files) {
  if (fs::exists(folder / "CMakeCache.txt")) return;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(".") || entry.is_symlink()) continue;
    if (entry.is_directory()) collect(entry.path(), files);
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
}

}  // namespace

TextData TextData::read(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) throw UserError(fmt::format("--text {}: there is no such file or folder", path));
  std::string bytes;
  if (fs::is_directory(status)) {
    std::vector<fs::path> files;
    try {
      collect(path, files);
    } catch (const fs::filesystem_error& e) {
      throw UserError(fmt::format("--text {}: {}", path, e.code().message()));
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) bytes += read_file(file);
  } else {
    bytes = read_file(path);
  }
  if (bytes.empty()) throw UserError(fmt::format("--text {} is empty; give a file or folder with some text", path));
  return from_bytes(bytes);
}

TextData TextData::from_bytes(std::string_view bytes) {
  TextData data;
  // A text too short for ten blocks is cut into smaller ones, so that something is held out of every text.
  const size_t block = std::max<size_t>(1, std::min(kBlock, bytes.size() / 10));
  for (size_t at = 0, i = 0; at < bytes.size(); at += block, ++i) {
    (i % 10 == 9 ? data.held_out_ : data.train_).append(bytes.substr(at, block));
  }
  return data;
}

uint64_t TextData::digest() const {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::string* part : {&train_, &held_out_}) {
    for (const char c : *part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

void TextData::check(int64_t batch, int64_t seq) const {
  if (train_bytes() > seq && held_out_bytes() > seq) return;
  throw UserError(fmt::format(
      "the text has {} bytes to train on and {} held out, but one sequence takes {} (--seq {} and the byte after it); a batch takes {} of them: give a longer text or a smaller --seq",
      train_bytes(), held_out_bytes(), seq + 1, seq, batch));
}

Batch TextData::windows(const std::string& text, const std::vector<int64_t>& begins, int64_t seq) const {
  Batch b;
  for (int64_t begin : begins) {
    for (int64_t t = 0; t < seq; ++t) {
      b.tokens.push_back(static_cast<unsigned char>(text[static_cast<size_t>(begin + t)]));
      b.targets.push_back(static_cast<unsigned char>(text[static_cast<size_t>(begin + t + 1)]));
    }
  }
  return b;
}

Batch TextData::train_batch(uint64_t seed, int64_t step, int64_t batch, int64_t seq) const {
  std::vector<int64_t> begins;
  const auto places = static_cast<uint64_t>(train_bytes() - seq);
  for (int64_t row = 0; row < batch; ++row) begins.push_back(static_cast<int64_t>(random_bits(seed, Stream::batches, static_cast<uint64_t>(step * batch + row)) % places));
  return windows(train_, begins, seq);
}

Batch TextData::held_out_batch(int64_t index, int64_t batches, int64_t batch, int64_t seq) const {
  std::vector<int64_t> begins;
  const int64_t rows = batches * batch, places = held_out_bytes() - seq;
  for (int64_t row = 0; row < batch; ++row) begins.push_back((index * batch + row) * (places - 1) / std::max<int64_t>(1, rows - 1));
  return windows(held_out_, begins, seq);
}

double TextData::held_out_bigram_entropy() const {
  std::vector<int64_t> pairs(256 * 256), firsts(256);
  for (size_t i = 0; i + 1 < held_out_.size(); ++i) {
    const auto a = static_cast<unsigned char>(held_out_[i]), b = static_cast<unsigned char>(held_out_[i + 1]);
    ++pairs[a * size_t{256} + b];
    ++firsts[a];
  }
  const auto n = static_cast<double>(held_out_.size() - 1);
  double entropy = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i] > 0) entropy -= static_cast<double>(pairs[i]) / n * std::log(static_cast<double>(pairs[i]) / static_cast<double>(firsts[i / 256]));
  }
  return entropy;
}

}  // namespace meshard
