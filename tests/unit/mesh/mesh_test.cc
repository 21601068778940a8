#include "meshard/mesh/mesh.h"

#include <catch2/catch.hpp>

#include "meshard/base/text.h"

namespace meshard {
namespace {

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.diagnostic().place.str() + ": " + error.diagnostic().text;
  }
  return "no error";
}

std::string parse_error(std::string_view text) {
  return error_of([&] { Mesh::parse(text); });
}

Atoms atoms(const Mesh& mesh, std::string_view text) {
  Scanner in(text, "axes");
  return mesh.parse_atoms(in);
}

std::string atoms_error(const Mesh& mesh, std::string_view text) {
  return error_of([&] { atoms(mesh, text); });
}

Mesh cut_mesh(std::string_view mesh, std::string_view layouts) {
  const Mesh bare = Mesh::parse(mesh);
  return bare.with_cuts(find_cuts(layouts, "x", bare));
}

}  // namespace

TEST_CASE("a mesh as text") {
  const Mesh mesh = Mesh::parse(" data = 2 ,model=4 # eight devices");
  CHECK(mesh.str() == "data=2, model=4");
  CHECK(mesh.size() == 8);
  CHECK(mesh == Mesh::parse("data=2, model=4"));
  CHECK(!(mesh == Mesh::parse("data=2, model=2")));
  CHECK(!(mesh == Mesh::parse("model=2, data=4")));
  CHECK(mesh.find("model")->size == 4);
  CHECK(mesh.find("pipe") == nullptr);
  CHECK(Mesh::parse("").size() == 1);
  CHECK(Mesh::parse("") == Mesh());
  CHECK(Mesh::parse("data=1, model=1").size() == 1);
  CHECK(Mesh::parse("data=1, model=1").atom_count() == 0);
  CHECK(Mesh::parse("a=16777216").atom_count() == 24);
  CHECK(Mesh::parse("a=16777213").atom_count() == 1);  // a prime
  Scanner in("data=2\nfunc", "x");
  CHECK(Mesh::parse(in).str() == "data=2");
  CHECK(in.word("a word") == "func");
}

TEST_CASE("wrong meshes") {
  CHECK(parse_error("data=0") == "mesh:1:6: axis data has size 0; a size is 1 or more");
  CHECK(parse_error("data=-2") == "mesh:1:6: axis data has size -2; a size is 1 or more");
  CHECK(parse_error("data=x") == "mesh:1:6: expected the size of axis data, a whole number, but found \"x\"");
  CHECK(parse_error("data=2.5") == "mesh:1:6: expected the size of axis data, a whole number, but found \"2.5\"");
  CHECK(parse_error("data=") ==
        "mesh:1:6: expected the size of axis data, a whole number, but found the end of the text");
  CHECK(parse_error("data") == "mesh:1:5: axis data has no size; write data=2 or another number of devices");
  CHECK(parse_error("data, model=2") == "mesh:1:5: axis data has no size; write data=2 or another number of devices");
  CHECK(parse_error("data=2, data=4") == "mesh:1:9: axis data is given twice, first as data=2; name each axis once");
  CHECK(parse_error("data=2 model=4") == "mesh:1:8: expected \",\" or the end of the line after data=2");
  CHECK(parse_error("data=2,") == "mesh:1:8: expected the name of an axis after \",\"");
  CHECK(parse_error("=2") == "mesh:1:1: expected the name of an axis but found \"=\"");
  CHECK(parse_error("2") == "mesh:1:1: expected the name of an axis but found \"2\"");
  CHECK(parse_error("data=2\nmodel=2") == "mesh:2:1: a mesh is one line, but text follows");
  CHECK(parse_error("a=16777217") ==
        "mesh:1:3: axis a=16777217 makes 16777217 devices; a mesh has at most 2^24 = 16777216");
  CHECK(parse_error("a=4096, b=8192") ==
        "mesh:1:11: axis b=8192 makes 8192 times the 4096 of a=4096 devices; a mesh has at most 2^24 = 16777216");
  CHECK(parse_error("a=9223372036854775807") ==
        "mesh:1:3: axis a=9223372036854775807 makes 9223372036854775807 devices; a mesh has at most 2^24 = 16777216");
  CHECK(parse_error("a=99999999999999999999") ==
        "mesh:1:3: expected the size of axis a, a whole number, but 99999999999999999999 does not fit in 63 bits");
}

TEST_CASE("an axis that is not there") {
  const Mesh mesh = Mesh::parse("data=2, model=4");
  CHECK(error_of([&] {
          mesh.axis("modle", {"gpt.plan", 4, 23});
        }) == "gpt.plan:4:23: no axis \"modle\" in mesh data=2, model=4; did you mean \"model\"?");
  CHECK(error_of([&] {
          mesh.axis("pipe", {"gpt.plan", 4, 23});
        }) == "gpt.plan:4:23: no axis \"pipe\" in mesh data=2, model=4");
  CHECK(error_of([&] {
          Mesh().axis("data", {"x", 1, 1});
        }) == "x:1:1: no axis \"data\": the mesh has no axes; give it one, as in data=2");
}

TEST_CASE("ranks count row-major") {
  const Mesh mesh = Mesh::parse("a=2, one=1, b=6");
  CHECK(mesh.rank(std::vector<int64_t>{1, 0, 3}) == Rank{9});
  CHECK(mesh.coordinate(Rank{9}) == std::vector<int64_t>{1, 0, 3});
  CHECK(mesh.coordinate_text(Rank{9}) == "a=1, one=0, b=3");
  CHECK_THROWS_AS(mesh.coordinate(Rank{12}), InternalError);
  CHECK_THROWS_AS(mesh.rank(std::vector<int64_t>{0, 1, 0}), InternalError);
  for (int32_t r = 0; r < mesh.size(); ++r) {
    CHECK(mesh.rank(mesh.coordinate(Rank{r})) == Rank{r});
    CHECK(mesh.position(Rank{r}, mesh.all().list()) == r);
    CHECK(mesh.position(Rank{r}, mesh.find("b")->atoms) == r % 6);
    CHECK(mesh.position(Rank{r}, {}) == 0);
  }
  // 6 = 2 x 3: the digits of b, minor first in the second.
  CHECK(mesh.position(Rank{5}, atoms(mesh, "b:2")) == 1);
  CHECK(mesh.position(Rank{5}, atoms(mesh, "b:(2)3")) == 2);
  CHECK(mesh.position(Rank{4}, atoms(mesh, "(b:(2)3,b:2)")) == 3);
}

TEST_CASE("axes split into prime factors") {
  const Mesh mesh = Mesh::parse("data=2, model=12");
  CHECK(mesh.atom_count() == 4);
  CHECK(mesh.parts(mesh.all()) == 24);
  CHECK(mesh.parts(atoms(mesh, "model:(2)6")) == 6);
  CHECK(mesh.axis_of(3).name == "model");
  CHECK(mesh.stride(0) == 12);
  CHECK(mesh.stride(3) == 1);
  for (const char* text : {"data", "model", "model:2", "model:4", "model:(2)6", "model:(2)2", "model:(4)3",
                           "(data,model)", "(model,data)", "(model:(2)6,model:2)", "(data,model:(4)3)", "()"}) {
    CHECK(mesh.atoms_text(atoms(mesh, text)) == text);
  }
  CHECK(mesh.atoms_text(atoms(mesh, "(model:2,model:(2)6)")) == "model");
  CHECK(mesh.atoms_text(atoms(mesh, "(model:(2)2,model:(4)3)")) == "model:(2)6");
  CHECK(mesh.atoms_text(atoms(mesh, "model:12")) == "model");
  CHECK(mesh.atoms_text(AtomSet::of(atoms(mesh, "(model:(2)6,model:2)"))) == "model");
  CHECK(mesh.atoms_text(mesh.all()) == "(data,model)");
}

TEST_CASE("wrong axes") {
  const Mesh mesh = Mesh::parse("data=2, model=12, one=1");
  CHECK(atoms_error(mesh, "modle") ==
        "axes:1:1: no axis \"modle\" in mesh data=2, model=12, one=1; did you mean \"model\"?");
  CHECK(atoms_error(mesh, "model:5") == "axes:1:1: model:5 is no part of model=12: 5 does not divide 12");
  CHECK(atoms_error(mesh, "model:(2)4") == "axes:1:1: model:(2)4 is no part of model=12: 2 times 4 does not divide 12");
  CHECK(atoms_error(mesh, "model:1") == "axes:1:1: model:1 is no part of an axis; a part has 2 devices or more");
  CHECK(atoms_error(mesh, "model:(0)2") == "axes:1:1: model:(0)2 is no part of an axis; a part has 2 devices or more");
  CHECK(atoms_error(mesh, "model:4611686018427387904") ==
        "axes:1:1: model:4611686018427387904 is no part of an axis; an axis has at most 2^24 = 16777216 devices");
  CHECK(atoms_error(mesh, "(data,data)") == "axes:1:7: axis data is used twice; an axis splits one dimension, once");
  CHECK(atoms_error(mesh, "(one,one)") == "axes:1:6: axis one is used twice; an axis splits one dimension, once");
  CHECK(atoms_error(mesh, "(model:2,model)") ==
        "axes:1:10: model:2 and model overlap; an axis splits one dimension, once");
  CHECK(atoms_error(mesh, "(model:4,model:(2)6)") ==
        "axes:1:10: model:4 and model:(2)6 overlap; an axis splits one dimension, once");
  CHECK(atoms_error(mesh, "model:3") ==
        "axes:1:1: model:3 does not go with the other parts of model=12, whose factors stand in the order 2 x 2 x 3");
  CHECK(atoms_error(mesh, "(data,model") == "axes:1:12: expected \")\" but found the end of the text");
}

TEST_CASE("an axis of size 1 is legal, and so are its parts") {
  const Mesh mesh = Mesh::parse("data=1, model=1");
  CHECK(atoms(mesh, "(data,model)").empty());
  CHECK(atoms(mesh, "(model:2,model:(2)4)").empty());
  CHECK(atoms_error(mesh, "(model:2,model:2)") ==
        "axes:1:10: axis model:2 is used twice; an axis splits one dimension, once");
}

TEST_CASE("cuts order the factors of an axis") {
  const Mesh three = cut_mesh("model=6", "[model:3, -]");
  CHECK(three.atom_size(0) == 3);
  CHECK(three.atoms_text(atoms(three, "model:3")) == "model:3");
  CHECK(three.parts(atoms(three, "model:(3)2")) == 2);
  CHECK(!(three == Mesh::parse("model=6")));
  CHECK(three.str() == "model=6");
  // Prime factors ascend between cuts: 12 cut at 6 is 2 x 3 x 2.
  const Mesh six = cut_mesh("data=2, model=12", "[model:6]");
  CHECK(std::vector<int64_t>{six.atom_size(1), six.atom_size(2), six.atom_size(3)} == std::vector<int64_t>{2, 3, 2});
  CHECK(cut_mesh("model=8", "[model, -]") == Mesh::parse("model=8"));
  CHECK(cut_mesh("model=1", "[model:4]") == Mesh::parse("model=1"));
  // An axis that no cut names keeps its order.
  CHECK(three.with_cuts({}) == three);
}

TEST_CASE("cuts that contradict each other name both places") {
  CHECK(error_of([] { cut_mesh("model=6", "[model:2, -]\n[model:3]"); }) ==
        "x:2:2: model=6 is cut at 3 here and at 2 at x:1:2; the factors of an axis have one order, so one cut must "
        "divide the other");
  CHECK(error_of([] { cut_mesh("model=8", "[model:3]"); }) ==
        "x:1:2: model:3 is no part of model=8: 3 does not divide 8");
  const std::vector<AxisCut> wrong = {{"model", 3, {"x", 1, 1}}};
  CHECK(error_of([&] { Mesh::parse("model=8").with_cuts(wrong); }) == "x:1:1: 3 does not divide model=8");
}

TEST_CASE("cuts are found where layouts can stand") {
  const Mesh mesh = Mesh::parse("data=4, model=8");
  const std::vector<AxisCut> cuts = find_cuts(
      "%data: f32[8] [model:2, -] # model:3\n x {rule = \"data:2\"} block.#-1.model : other:2 + sum(model:(2)4, "
      "data:4)",
      "x", mesh);
  REQUIRE(cuts.size() == 2);
  CHECK(cuts[0].axis == "model");
  CHECK(cuts[0].at == 2);
  CHECK(cuts[0].place == Place{"x", 1, 16});
  CHECK(cuts[1].at == 2);  // model:(2)4 is also bounded by 8, the whole axis
  CHECK(cuts[1].place.line == 2);
}

}  // namespace meshard
