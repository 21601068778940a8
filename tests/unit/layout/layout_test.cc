#include "meshard/layout/layout.h"

#include <catch2/catch.hpp>

#include "meshard/base/text.h"

namespace meshard {
namespace {

std::string error_of(std::string_view text, const Mesh& mesh, int rank = -1) {
  try {
    Layout::parse(text, mesh, rank);
  } catch (const UserError& error) {
    return error.diagnostic().place.str() + ": " + error.diagnostic().text;
  }
  return "no error";
}

}  // namespace

TEST_CASE("layouts print as they are written") {
  const Mesh mesh = Mesh::parse("data=2, model=8");
  for (const char* text : {"[]", "[-]", "[data, -, model]", "[(data,model), -]", "[(model,data), -]", "[data, ?]",
                           "[data?, model:2?]", "[model:2, model:(2)4, data]", "[(model:(2)4,model:2), -]",
                           "[(model:(2)2,data)?, model:(4)2]", "[data, -] + sum(model)", "[-] + max(data,model)",
                           "[model:2] + sum(data) + max(model:(2)2) + min(model:(4)2)", "[] + sum(data,model)"}) {
    CHECK(Layout::parse(text, mesh).str(mesh) == text);
  }
  const auto printed = [&](std::string_view text, int rank = -1) { return Layout::parse(text, mesh, rank).str(mesh); };
  CHECK(printed("[ (model:2,model:(2)4) ,-]+sum ( data )") == "[model, -] + sum(data)");
  CHECK(printed("[(data)]") == "[data]");
  CHECK(printed("[-] + sum(model) + sum(data)") == "[-] + sum(data,model)");
  CHECK(printed("[-, model, ...]", 4) == "[-, model, -, -]");
  CHECK(printed("[..., model]", 3) == "[-, -, model]");
  CHECK(printed("[data, ..., model]", 3) == "[data, -, model]");
  CHECK(printed("[data, ..., model]", 2) == "[data, model]");
  CHECK(printed("[...]", 0) == "[]");
}

TEST_CASE("axes of size 1 vanish") {
  const Mesh mesh = Mesh::parse("data=1, model=4");
  CHECK(Layout::parse("[data:2, (data:(4)2,model)] + sum(data:(2)2)", mesh).str(mesh) == "[-, model]");
  CHECK(!Layout::parse("[data, -]", mesh).is_pending());
  CHECK(error_of("[data, data]", mesh) == "layout:1:8: axis data is used twice; an axis splits one dimension, once");
}

TEST_CASE("wrong layouts") {
  const Mesh mesh = Mesh::parse("data=2, model=8");
  CHECK(error_of("[data, modle]", mesh) ==
        "layout:1:8: no axis \"modle\" in mesh data=2, model=8; did you mean \"model\"?");
  CHECK(error_of("[data, data]", mesh) == "layout:1:8: axis data is used twice; an axis splits one dimension, once");
  CHECK(error_of("[data] + sum(data)", mesh) ==
        "layout:1:14: axis data is used twice; an axis splits one dimension, once");
  CHECK(error_of("[model:2] + sum(model)", mesh) ==
        "layout:1:17: model:2 and model overlap; an axis splits one dimension, once");
  CHECK(error_of("[data, -, model]", mesh, 2) ==
        "layout:1:1: layout [data, -, model] has 3 entries, but the tensor has 2 dimensions");
  CHECK(error_of("[-]", mesh, 0) == "layout:1:1: layout [-] has 1 entry, but the tensor has 0 dimensions");
  CHECK(error_of("[]", mesh, 1) == "layout:1:1: layout [] has 0 entries, but the tensor has 1 dimension");
  CHECK(error_of("[data, ..., model]", mesh, 1) ==
        "layout:1:1: layout [data, ..., model] has 2 entries beside \"...\", but the tensor has 1 dimension");
  CHECK(error_of("[...]", mesh) ==
        "layout:1:2: \"...\" needs a tensor whose dimensions are known; write each dimension, \"-\" for whole");
  CHECK(error_of("[..., -, ...]", mesh, 3) == "layout:1:10: \"...\" stands twice in a layout");
  CHECK(error_of("[data,]", mesh) == "layout:1:7: expected an axis, \"-\" (whole), \"?\" (open) or \"...\"");
  CHECK(error_of("data", mesh) == "layout:1:1: expected \"[\" but found \"data\"");
  CHECK(error_of("[data", mesh) == "layout:1:6: expected \",\" but found the end of the text");
  CHECK(error_of("[data] + prod(model)", mesh) == "layout:1:10: no reduction \"prod\"; there are sum, max and min");
  CHECK(error_of("[data] + sum model", mesh) == "layout:1:14: expected \"(\" but found \"model\"");
  CHECK(error_of("[data] model", mesh) == "layout:1:8: the layout ends here, but text follows");
}

TEST_CASE("what a layout uses") {
  const Mesh mesh = Mesh::parse("data=2, model=8");
  const Layout layout = Layout::parse("[data, model:2?] + sum(model:(2)4)", mesh);
  CHECK(mesh.atoms_text(layout.split()) == "(data,model:2)");
  CHECK(mesh.atoms_text(layout.pending_atoms()) == "model:(2)4");
  CHECK(layout.used() == mesh.all());
  CHECK(layout.is_pending());
  CHECK(layout.has_open());
  CHECK(!layout.replicated());
  CHECK(layout.closed().str(mesh) == "[data, model:2] + sum(model:(2)4)");
  CHECK(layout.without_pending().str(mesh) == "[data, model:2?]");
  CHECK(Layout::open(2).str(mesh) == "[?, ?]");
  CHECK(Layout(3).str(mesh) == "[-, -, -]");
  CHECK(Layout(3).replicated());
  CHECK(Layout(2) == Layout::parse("[-, -]", mesh));
  CHECK(!(Layout(2) == Layout::open(2)));
}

TEST_CASE("a layout moves to a mesh with other factors") {
  const Mesh from = Mesh::parse("data=2, model=6");
  const std::vector<AxisCut> cuts = {{"model", 3, {}}};
  const Mesh to = from.with_cuts(cuts);
  const Layout layout = Layout::parse("[model, data?]", from);
  CHECK(translate(layout, from, to).str(to) == "[model, data?]");
  CHECK(translate(layout, from, from) == layout);
  const Layout pending = Layout::parse("[-] + max(data,model)", from);
  CHECK(translate(pending, from, to).str(to) == "[-] + max(data,model)");
}

TEST_CASE("every layout of two dimensions reads back as it prints") {
  const Mesh mesh = Mesh::parse("a=2, b=4");
  // Each atom goes to dimension 0 or 1, before or after what is there, to a pending sum or max, or nowhere.
  int count = 0;
  for (int code = 0; code < 7 * 7 * 7; ++code) {
    Layout layout(2);
    int rest = code;
    for (AtomId atom = 0; atom < 3; ++atom, rest /= 7) {
      Atoms& dim = layout.dims[static_cast<size_t>(rest % 7 / 2 % 2)].atoms;
      switch (rest % 7) {
        case 0:
        case 2:
          dim.push_back(atom);
          break;
        case 1:
        case 3:
          dim.insert(dim.begin(), atom);
          break;
        case 4:
          layout.pending_of(Reduction::sum).add(atom);
          break;
        case 5:
          layout.pending_of(Reduction::max).add(atom);
          break;
        default:
          break;
      }
    }
    const std::string text = layout.str(mesh);
    REQUIRE(Layout::parse(text, mesh, 2) == layout);
    REQUIRE(Layout::parse(text, mesh, 2).str(mesh) == text);
    ++count;
  }
  CHECK(count == 343);
}

}  // namespace meshard
