// Kernel calls from text, for tests: a rule, the sizes of its factors and operands filled with numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "meshard/base/buffer.h"
#include "meshard/kernels/kernel.h"

namespace meshard {

struct Part {
  int64_t size, global, begin;
};

// One kernel call: "b t d, d (h e) -> b t h e"; an empty term is a scalar.
class Case {
 public:
  Case(std::string_view rule, std::map<std::string, Part> sizes, Attributes attributes = {}, Dtype dtype = Dtype::f32)
      : attributes_(std::move(attributes)), names_(sizes.size()) {
    size_t i = 0;
    for (const auto& [name, part] : sizes) {
      names_[i] = name;
      spec_.factors.push_back({names_[i++], part.size, part.global, part.begin});
    }
    const size_t arrow = rule.find("->");
    read(rule.substr(0, arrow), dtype, spec_.operands);
    read(rule.substr(arrow + 2), dtype, spec_.results);
    spec_.attributes = &attributes_;
    for (const KernelOperand& operand : spec_.operands) inputs_.push_back(std::vector<double>(count(operand), 0));
    uint32_t state = 12345;
    for (std::vector<double>& values : inputs_) {
      for (double& x : values) {
        state = state * 1664525 + 1013904223;
        x = static_cast<double>(state >> 8) / (1 << 23) - 1;  // in [-1, 1)
      }
    }
  }
  Case(const Case&) = delete;
  Case& operator=(const Case&) = delete;

  // The whole tensor here: sizes only.
  static std::map<std::string, Part> whole(const std::map<std::string, int64_t>& sizes) {
    std::map<std::string, Part> parts;
    for (const auto& [name, size] : sizes) parts[name] = {size, size, 0};
    return parts;
  }

  KernelSpec& spec() { return spec_; }
  std::vector<double>& input(size_t i) { return inputs_[i]; }
  void integers(size_t i, int64_t below) {  // operand i becomes i32 with these bounds
    spec_.operands[i].type.dtype = Dtype::i32;
    for (double& x : inputs_[i]) x = std::floor((x + 1) / 2 * static_cast<double>(below));
  }
  void all(Dtype dtype) {
    for (KernelOperand& o : spec_.operands)
      if (o.type.dtype != Dtype::i32) o.type.dtype = dtype;
    for (KernelOperand& o : spec_.results) o.type.dtype = dtype;
  }

  bool taken(PrepareFn kernel) const { return static_cast<bool>(kernel(spec_).run); }

  // All results, one after the other. Twice: the second run must give the same bits. Guard bytes around results must
  // stay.
  std::vector<std::vector<double>> run(PrepareFn kernel) {
    const Prepared prepared = kernel(spec_);
    REQUIRE(prepared.run);
    std::vector<Buffer> operands, results;
    for (size_t i = 0; i < spec_.operands.size(); ++i) {
      operands.emplace_back(spec_.operands[i].type.bytes() + kGuard);
      for (size_t j = 0; j < inputs_[i].size(); ++j)
        put(operands.back().data(), spec_.operands[i].type.dtype, j, inputs_[i][j]);
    }
    for (const KernelOperand& result : spec_.results) results.emplace_back(result.type.bytes() + 2 * kGuard);
    Buffer workspace(prepared.workspace_bytes + kGuard);
    std::memset(workspace.data(), 0x7f, static_cast<size_t>(workspace.bytes()));
    std::vector<void*> in, out;
    for (Buffer& b : operands) in.push_back(b.data());
    for (Buffer& b : results) {
      std::memset(b.data(), 0x5a, static_cast<size_t>(b.bytes()));
      out.push_back(b.data() + kGuard);
    }
    prepared.run({in, out, workspace.data()});
    std::vector<std::vector<double>> values;
    for (size_t i = 0; i < results.size(); ++i) {
      values.emplace_back();
      const int64_t bytes = spec_.results[i].type.bytes();
      for (int64_t j = 0; j < kGuard; ++j) {
        REQUIRE(results[i].data()[j] == std::byte{0x5a});
        REQUIRE(results[i].data()[kGuard + bytes + j] == std::byte{0x5a});
      }
      for (size_t j = 0; j < count(spec_.results[i]); ++j)
        values[i].push_back(get(out[i], spec_.results[i].type.dtype, j));
    }
    for (int64_t j = 0; j < kGuard; ++j) REQUIRE(workspace.data()[prepared.workspace_bytes + j] == std::byte{0x7f});
    std::vector<std::byte> before(results[0].data(), results[0].data() + results[0].bytes());
    prepared.run({in, out, workspace.data()});
    REQUIRE(std::memcmp(before.data(), results[0].data(), before.size()) == 0);
    return values;
  }

 private:
  static constexpr int64_t kGuard = 64;

  static size_t count(const KernelOperand& o) { return static_cast<size_t>(o.type.shape.elements()); }

  static void put(void* data, Dtype dtype, size_t i, double x) {
    if (dtype == Dtype::f64) static_cast<double*>(data)[i] = x;
    if (dtype == Dtype::f32) static_cast<float*>(data)[i] = static_cast<float>(x);
    if (dtype == Dtype::bf16) static_cast<bfloat16*>(data)[i] = bfloat16(static_cast<float>(x));
    if (dtype == Dtype::f16) static_cast<float16*>(data)[i] = float16(static_cast<float>(x));
    if (dtype == Dtype::i32) static_cast<int32_t*>(data)[i] = static_cast<int32_t>(x);
  }
  static double get(const void* data, Dtype dtype, size_t i) {
    if (dtype == Dtype::f64) return static_cast<const double*>(data)[i];
    if (dtype == Dtype::f32) return static_cast<const float*>(data)[i];
    if (dtype == Dtype::bf16) return static_cast<float>(static_cast<const bfloat16*>(data)[i]);
    if (dtype == Dtype::f16) return static_cast<float>(static_cast<const float16*>(data)[i]);
    return static_cast<const int32_t*>(data)[i];
  }

  void read(std::string_view side, Dtype dtype, std::vector<KernelOperand>& out) {
    std::string text(side), term;
    for (std::istringstream terms(text + ","); std::getline(terms, term, ',');) {
      KernelOperand block{{dtype, {}}, {}};
      bool inside = false;
      std::string spaced;
      for (char c : term) spaced += c == '(' || c == ')' ? std::string(" ") + c + " " : std::string(1, c);
      std::istringstream words(spaced);
      for (std::string word; words >> word;) {
        if (word == "(") {
          block.dims.emplace_back();
          inside = true;
        } else if (word == ")") {
          inside = false;
        } else {
          if (!inside) block.dims.emplace_back();
          if (word == "1") continue;
          const auto at = std::find(names_.begin(), names_.end(), word);
          REQUIRE(at != names_.end());
          block.dims.back().push_back(static_cast<int>(at - names_.begin()));
        }
      }
      for (const std::vector<int>& dim : block.dims) {
        int64_t size = 1;
        for (int f : dim) size *= spec_.factors[static_cast<size_t>(f)].size;
        block.type.shape.dims.push_back(size);
      }
      out.push_back(std::move(block));
    }
  }

  Attributes attributes_;
  std::vector<std::string> names_;
  KernelSpec spec_;
  std::vector<std::vector<double>> inputs_;
};

// The largest difference, relative to the largest magnitude.
inline double distance(const std::vector<double>& got, const std::vector<double>& wanted) {
  REQUIRE(got.size() == wanted.size());
  double most = 0, scale = 1e-30;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == wanted[i] || (std::isnan(got[i]) && std::isnan(wanted[i]))) {
      if (std::isfinite(wanted[i])) scale = std::max(scale, std::abs(wanted[i]));
      continue;  // infinities and what is left of 0 / 0 too
    }
    if (!(std::abs(got[i] - wanted[i]) <= most)) most = std::abs(got[i] - wanted[i]);
    if (std::isnan(most)) return most;
    scale = std::max(scale, std::abs(wanted[i]));
  }
  return most / scale;
}

// The tuned kernel takes the case and agrees with the reference, with one thread and with three.
inline void check_cpu(Case& c, PrepareFn cpu, PrepareFn reference, double tolerance = 2e-6) {
  const auto wanted = c.run(reference);
  for (int threads : {1, 3}) {
    c.spec().threads = threads;
    const auto got = c.run(cpu);
    for (size_t r = 0; r < got.size(); ++r) {
      INFO("result " << r << ", " << threads << " threads");
      CHECK(distance(got[r], wanted[r]) < tolerance);
    }
  }
  c.spec().threads = 1;
}

}  // namespace meshard
