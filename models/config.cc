#include <fmt/format.h>

#include <array>
#include <cmath>

#include "meshard/base/error.h"
#include "meshard/base/text.h"
#include "meshard/models/model.h"

namespace meshard {
namespace {

// name, family, layers, d, heads, kv_heads, d_head, f, vocab, context, tied, eps, theta. The small ones read bytes: 256
// and an end of text.
std::vector<ModelConfig> presets() {
  using enum ModelConfig::Family;
  return {
      {"gpt-tiny", gpt, 2, 64, 4, 4, 16, 256, 257, 128, true, 1e-5, 1e4},
      {"gpt-mini", gpt, 4, 128, 4, 4, 32, 512, 257, 256, true, 1e-5, 1e4},
      {"gpt-124m", gpt, 12, 768, 12, 12, 64, 3072, 50304, 1024, true, 1e-5, 1e4},
      {"gpt-350m", gpt, 24, 1024, 16, 16, 64, 4096, 50304, 1024, true, 1e-5, 1e4},
      {"gpt-774m", gpt, 36, 1280, 20, 20, 64, 5120, 50304, 1024, true, 1e-5, 1e4},
      {"gpt-1.5b", gpt, 48, 1600, 25, 25, 64, 6400, 50304, 1024, true, 1e-5, 1e4},
      {"llama-tiny", llama, 2, 64, 4, 2, 16, 192, 257, 128, false, 1e-5, 1e4},
      {"llama-mini", llama, 4, 128, 4, 2, 32, 384, 257, 256, false, 1e-5, 1e4},
      {"llama-1b", llama, 16, 2048, 32, 8, 64, 8192, 128256, 8192, true, 1e-5, 5e5},
      {"llama-8b", llama, 32, 4096, 32, 8, 128, 14336, 128256, 8192, false, 1e-5, 5e5},
      {"llama-70b", llama, 80, 8192, 64, 8, 128, 28672, 128256, 8192, false, 1e-5, 5e5},
  };
}

struct Size {
  std::string_view name;
  int64_t ModelConfig::*member;
};
constexpr std::array<Size, 8> kSizes{{{"layers", &ModelConfig::layers},
                                      {"d", &ModelConfig::d},
                                      {"heads", &ModelConfig::heads},
                                      {"kv_heads", &ModelConfig::kv_heads},
                                      {"d_head", &ModelConfig::d_head},
                                      {"f", &ModelConfig::f},
                                      {"vocab", &ModelConfig::vocab},
                                      {"context", &ModelConfig::context}}};

class ConfigReader {
 public:
  explicit ConfigReader(std::string_view text) : in_(text, "model") {}

  ModelConfig read() {
    const Place place = in_.place();
    const std::string name = in_.word_of("-.", "the name of a model");
    bool found = false;
    for (const ModelConfig& preset : presets()) {
      if (preset.name != name) continue;
      config_ = preset;
      found = true;
    }
    if (!found) {
      const std::vector<std::string> names = model_names();
      const std::string near = did_you_mean(name, names);
      in_.fail(place, fmt::format("no model \"{}\"{}", name,
                                  near.empty() ? fmt::format("; there are {}", fmt::join(names, ", ")) : near));
    }
    const double ratio = static_cast<double>(config_.f) / static_cast<double>(config_.d);
    if (in_.accept(":")) {
      do {
        override();
      } while (in_.accept(","));
    }
    if (!in_.at_end()) in_.fail("expected \",\" and another override, as in gpt-124m:layers=2,d=256");
    if (given("d") && !given("f")) config_.f = std::llround(ratio * static_cast<double>(config_.d));
    if (given("heads") && !given("kv_heads") && config_.family == ModelConfig::gpt) config_.kv_heads = config_.heads;
    check();
    return config_;
  }

 private:
  bool given(std::string_view name) const {
    for (const std::string& g : given_) {
      if (g == name) return true;
    }
    return false;
  }

  void override() {
    const Place place = in_.place();
    const std::string name = in_.word("an override, as in layers=2");
    std::vector<std::string> known{"tied", "eps", "theta"};
    for (const Size& size : kSizes) known.emplace_back(size.name);
    if (given(name)) in_.fail(place, fmt::format("{} is given twice", name));
    in_.expect("=");
    given_.push_back(name);
    const Place value = in_.place();
    for (const Size& size : kSizes) {
      if (size.name != name) continue;
      config_.*size.member = in_.integer(name);
      if (config_.*size.member < 1)
        in_.fail(value, fmt::format("{} is {}; it must be 1 or more", name, config_.*size.member));
      return;
    }
    if (name == "tied") {
      const std::string word = in_.word("true or false");
      if (word != "true" && word != "false")
        in_.fail(value, fmt::format("tied is \"{}\"; it must be true or false", word));
      config_.tied = word == "true";
    } else if (name == "eps" || name == "theta") {
      double& number = name == "eps" ? config_.eps : config_.theta;
      number = in_.number(name);
      if (!(number > 0)) in_.fail(value, fmt::format("{} is {}; it must be above 0", name, number_text(number)));
    } else {
      in_.fail(place, fmt::format("a model has no \"{}\"{}", name, did_you_mean(name, known)));
    }
  }

  void check() {
    ModelConfig& c = config_;
    if (!given("d_head") && (given("d") || given("heads"))) {
      if (c.d % c.heads != 0) {
        throw UserError(
            fmt::format("{}: heads={} does not divide d={}; give heads that do, or d_head", c.name, c.heads, c.d));
      }
      c.d_head = c.d / c.heads;
    }
    if (c.family == ModelConfig::gpt) {
      if (c.kv_heads != c.heads)
        throw UserError(fmt::format("{}: kv_heads={} but heads={}; only Llama models group their heads", c.name,
                                    c.kv_heads, c.heads));
    } else {
      if (c.heads % c.kv_heads != 0)
        throw UserError(fmt::format("{}: kv_heads={} does not divide heads={}", c.name, c.kv_heads, c.heads));
      if (c.d_head % 2 != 0)
        throw UserError(fmt::format("{}: d_head={} is odd; rotary positions turn pairs", c.name, c.d_head));
    }
  }

  Scanner in_;
  ModelConfig config_;
  std::vector<std::string> given_;
};

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const ModelConfig& preset : presets()) names.push_back(preset.name);
  return names;
}

ModelConfig model_config(std::string_view text) { return ConfigReader(text).read(); }

int64_t param_count(const ModelConfig& c) {
  const int64_t q = c.heads * c.d_head, kv = c.kv_heads * c.d_head;
  const int64_t head = c.tied ? 0 : c.vocab * c.d;
  if (c.family == ModelConfig::gpt) {
    const int64_t attention = c.d * 3 * q + 3 * q + q * c.d + c.d;
    const int64_t mlp = 2 * c.d * c.f + c.f + c.d;
    return c.vocab * c.d + c.context * c.d + c.layers * (4 * c.d + attention + mlp) + 2 * c.d + head;
  }
  const int64_t attention = 2 * c.d * q + 2 * c.d * kv;
  return c.vocab * c.d + c.layers * (2 * c.d + attention + 3 * c.d * c.f) + c.d + head;
}

}  // namespace meshard
