// Products round rings: random products next to gathers and scatters, on rings of 2 to 8 devices, within one axis or
// beside another one, run in lockstep and whole.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/simulate.h"

namespace meshard {
namespace {

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {}

  std::string text() {
    const char* meshes[] = {"a=2", "a=3", "a=4", "a=8", "a=2, b=2", "a=4, b=2", "a=2, b=3", "b=2, a=3"};
    const std::string mesh = meshes[below(8)];
    has_b_ = mesh.find('b') != std::string::npos;
    const int kind = below(4);
    return fmt::format("mesh {}\nfunc main({}", mesh, kind == 3 ? scatter() : gather(kind));
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }

  // A tensor of some letters, in any order; layouts by letter.
  struct Tensor {
    std::string letters;
    std::string layout(const std::string& a, const std::string& ba, const std::string& b) const {
      std::string out = "[";
      for (char c : letters) {
        const bool in_a = a.find(c) != a.npos, in_ba = ba.find(c) != ba.npos, in_b = b.find(c) != b.npos;
        out += fmt::format("{}{}", out.size() > 1 ? ", " : "", in_ba ? "(b,a)" : in_a ? "a" : in_b ? "b" : "-");
      }
      return out + "]";
    }
    std::string rule() const { return fmt::format("{}", fmt::join(letters, " ")); }
  };
  Tensor tensor(std::string letters) {
    std::shuffle(letters.begin(), letters.end(), random_);
    return {letters};
  }
  std::string sizes(const Tensor& t) const {
    std::string out;
    for (char c : t.letters) out += fmt::format("{}{}", out.empty() ? "" : ",", c == 'g' ? 3 : 24);
    return "f32[" + out + "]";
  }

  // x is gathered along t. 0: y keeps t; 1: t is in w too, and kept; 2: t is summed. Of w and y the ring splits f.
  std::string gather(int kind) {
    const std::string batch = below(2) == 0 ? "g" : "";
    const Tensor x = tensor(batch + "td"), y = tensor(batch + (kind == 2 ? "df" : "tf"));
    const int products = 1 + below(3);
    // The other axis splits t before the ring, or the letter d, or nothing.
    const int other = has_b_ ? below(3) : 0;
    const std::string before = other == 1 ? "t" : "", b = other == 2 ? "d" : before;
    std::string params = fmt::format("%x: {} {}", sizes(x), x.layout(before.empty() ? "t" : "", before, b)), body,
                results;
    for (int p = 0; p < products; ++p) {
      const Tensor w = tensor(kind == 0 ? "df" : kind == 1 ? "tdf" : "tf");
      params += fmt::format(", %w{}: {} {}", p, sizes(w), w.layout("f", "", kind == 1 && other == 1 ? "t" : b));
      const bool first = below(2) == 0;
      body += fmt::format(
          "  %y{0} = einsum {1}, {2} {{rule = \"{3}, {4} -> {5}\"}} : {6}\n  %z{0} = gelu %y{0} : {6} {7}\n", p,
          first ? "%x.all" : fmt::format("%w{}", p), first ? fmt::format("%w{}", p) : "%x.all",
          first ? x.rule() : w.rule(), first ? w.rule() : x.rule(), y.rule(), sizes(y),
          y.layout("f", "", kind == 2 && other == 1 ? "" : b));
      results += fmt::format("{}%z{}", results.empty() ? "" : ", ", p);
    }
    return fmt::format("{}) {{\n  %x.all = reshard %x : {} {}\n{}  return {}\n}}\n", params, sizes(x),
                       x.layout("", "", b), body, results);
  }

  // y is scattered along t; the products are summed over f, which the ring splits.
  std::string scatter() {
    const int products = 1 + below(2);
    const int other = has_b_ ? below(3) : 0;
    const std::string before = other == 1 ? "t" : "", b = other == 2 ? "d" : before;
    const Tensor y = tensor("gtd");
    std::string params, body;
    for (int p = 0; p < products; ++p) {
      const bool both = below(3) == 0;
      const Tensor x = tensor("gtf"), w = tensor(both ? "tfd" : "fd");
      params += fmt::format("{0}%x{1}: {2} {3}, %w{1}: {4} {5}", p ? ", " : "", p, sizes(x), x.layout("f", "", b),
                            sizes(w), w.layout("f", "", b));
      body += fmt::format("  %p{0} = einsum %x{0}, %w{0} {{rule = \"{1}, {2} -> {3}\"}} : {4}\n", p, x.rule(), w.rule(),
                          y.rule(), sizes(y));
    }
    if (products == 2) body += fmt::format("  %s = add %p0, %p1 : {}\n", sizes(y));
    body += fmt::format("  %y = gelu %{} : {} {}\n", products == 2 ? "s" : "p0", sizes(y),
                        y.layout(before.empty() ? "t" : "", before, b));
    return fmt::format("{}) {{\n{}  return %y\n}}\n", params, body);
  }

  std::mt19937_64 random_;
  bool has_b_ = false;
};

TEST_CASE("products round rings give what gathers and scatters give, for as many bytes") {
  int rings = 0, turns = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const std::string text = Maker(seed).text();
    INFO("seed " << seed << "\n" << text);
    const Program program = parse_program(text, "ring.mesh", op_table());
    CompileOptions options;
    options.passes.reparse = true;
    const Compiled apart = compile(program, options);
    options.optimize.ring.use = RingOptions::always;
    const Compiled ring = compile(program, options);
    INFO(ring.digest_text);
    CHECK(ring.bill.bytes_all_devices == apart.bill.bytes_all_devices);
    CHECK(ring.bill.bytes == apart.bill.bytes);
    const CheckResult check = check_partition(program, ring, seed);
    INFO(check.text());
    REQUIRE(check.good(2e-4));
    const auto starts = [](const std::string& s) {
      int n = 0;
      for (size_t at = 0; (at = s.find("start turn", at)) != s.npos; ++at) ++n;
      return n;
    };
    rings += starts(ring.digest_text) > 0;
    turns += starts(ring.digest_text);
  }
  CAPTURE(rings, turns);
  CHECK(rings >= 400);
}

// Memory is no worse where that is asked for, and what does not pay is left alone.
TEST_CASE("a ring where it pays") {
  const auto compiled = [](int64_t tokens, RingOptions::Use use, const RingOptions& rates) {
    const std::string text = fmt::format(
        "mesh a=4\nfunc main(%x: f32[{0},1024] [a, -], %w: f32[1024,4096] [-, a]) {{\n  %x.all = reshard %x : "
        "f32[{0},1024] [-, -]\n"
        "  %y = einsum %x.all, %w {{rule = \"t d, d f -> t f\"}} : f32[{0},4096]\n  %z = gelu %y : f32[{0},4096] [-, "
        "a]\n  return %z\n}}\n",
        tokens);
    CompileOptions options;
    options.optimize.ring = rates;
    options.optimize.ring.use = use;
    return compile(parse_program(text, "pays.mesh", op_table()), options);
  };
  const auto is_ring = [](const Compiled& c) { return c.digest_text.find("start turn") != std::string::npos; };
  RingOptions rates{.cost = {.host = {.message_ns = 10'000, .bytes_per_us = 10'000}},
                    .flops_per_us = 1'000'000,
                    .copied_bytes_per_us = 1'000'000,
                    .step_ns = 0};
  const Compiled never = compiled(4096, RingOptions::never, rates),
                 pays = compiled(4096, RingOptions::where_it_pays, rates);
  CHECK(!is_ring(never));
  CHECK(is_ring(pays));
  CHECK(pays.bill.peak_bytes <= never.bill.peak_bytes);
  CHECK(is_ring(compiled(8, RingOptions::always, rates)));
  CHECK(!is_ring(compiled(8, RingOptions::where_it_pays, rates)));  // a message takes longer than the product
  rates.flops_per_us *= 1000;
  CHECK(!is_ring(compiled(4096, RingOptions::where_it_pays, rates)));  // so does a block on its way
}

}  // namespace
}  // namespace meshard
