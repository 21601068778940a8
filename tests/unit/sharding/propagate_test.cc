// Propagation that visits what has changed gives what visiting everything gives, origins included.
#include "meshard/sharding/propagate.h"

#include <catch2/catch.hpp>
#include <random>

#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"

namespace meshard {
namespace {

// A function of random products, sums and elementwise ops on [6, 12] values, called twice, some layouts given.
std::string random_program(uint64_t seed) {
  std::mt19937_64 engine(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(engine() % n); };
  const char* const layouts[] = {"[a, -]!", "[-, b]!", "[?, c]!", "[(a,b), ?]!", "[b?, a]!", "[-, -]!"};
  const auto layout = [&](size_t percent) {
    return below(100) < percent ? std::string(" ") + layouts[below(std::size(layouts))] : std::string();
  };
  const auto body = [&](std::string_view prefix, size_t ops, std::vector<std::string> values) {
    std::string out;
    for (size_t i = 0; i < ops; ++i) {
      const std::string x = values[below(values.size())], y = values[below(values.size())];
      const std::string made = fmt::format("{}{}", prefix, i), type = "f32[12,12]" + layout(15);
      switch (below(4)) {
        case 0:
          out += fmt::format("  %{} = einsum %{}, %{} {{rule = \"i j, j k -> i k\"}} : {}\n", made, x, y, type);
          break;
        case 1:
          out += fmt::format("  %{} = einsum %{}, %{} {{rule = \"i j, i k -> k j\"}} : {}\n", made, x, y, type);
          break;
        case 2:
          out += fmt::format("  %{} = add %{}, %{} : {}\n", made, x, y, type);
          break;
        default:
          out += fmt::format("  %{} = gelu %{} : {}\n", made, x, type);
      }
      values.push_back(made);
    }
    return out;
  };
  std::string text = "mesh a=2, b=2, c=3\n";
  text += fmt::format("func f(%x: f32[12,12]{}, %w: f32[12,12]) {{\n", layout(30));
  text += body("y", 1 + below(8), {"x", "w"}) + "  return %y0 -> %x\n}\n";
  text += fmt::format("func main(%x: f32[12,12] [a, -]!, %w: f32[12,12]{}, %v: f32[12,12]{}) {{\n", layout(50), layout(50));
  text += body("g", 1 + below(10), {"x", "w", "v"}) + "  call f as one (x = %g0, w = %w)\n";
  text += body("h", 1 + below(10), {"one.y0", "v", "w"}) + "  call f as two (x = %h0, w = %v)\n  return %two.y0\n}\n";
  return text;
}

TEST_CASE("only what has changed need be visited") {
  int changed = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const std::string text = random_program(seed);
    const Program program = parse_program(text, "p.mesh", op_table());
    Origins fast_origins, slow_origins;
    const Program fast = propagate(program, &fast_origins);
    const Program slow = propagate(program, &slow_origins, {.visit_all = true});
    if (print(fast) != print(slow)) FAIL("differ for\n" << text << print(fast) << print(slow));
    for (size_t f = 0; f < fast.functions.size(); ++f) {
      const Function& function = fast.functions[f];
      for (size_t v = 0; v < function.values.size(); ++v) {
        for (AtomId atom : function.values[v].layout->split().list()) {
          const auto id = static_cast<ValueId>(v);
          const Origin *a = fast_origins.find(static_cast<int>(f), id, atom), *b = slow_origins.find(static_cast<int>(f), id, atom);
          REQUIRE((a == nullptr) == (b == nullptr));
          if (a == nullptr) continue;
          ++changed;
          CHECK((a->function == b->function && a->from == b->from && a->through == b->through));
        }
      }
    }
  }
  CHECK(changed > 4000);
}

}  // namespace
}  // namespace meshard
