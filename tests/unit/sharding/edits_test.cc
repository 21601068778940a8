// Changes of one layout by one axis.
#include <catch2/catch.hpp>

#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/sharding/edits.h"

namespace meshard {
namespace {

using Texts = std::vector<std::string>;

TEST_CASE("layouts near a layout: an axis dropped, moved or put") {
  const Mesh mesh = Mesh::parse("data=2, model=4, one=1");
  CHECK(layouts_near("[data, -]", mesh) == Texts{"[-, -]", "[-, data]", "[(data,model), -]", "[data, model]"});
  CHECK(layouts_near("[(data,model)]", mesh) == Texts{"[model]", "[data]"});
  CHECK(layouts_near("[]", mesh).empty());
  // "..." stays, and may lose a dimension that gets an axis.
  CHECK(layouts_near("[data, ...]", mesh) ==
        Texts{"[-, ...]", "[-, data, ...]", "[-, ..., data]", "[(data,model), ...]", "[data, model, ...]", "[data, ..., model]"});
  // A sum that is to be done uses its axes; parts of an axis are words like others.
  CHECK(layouts_near("[-] + sum(data,model)", mesh).empty());
  CHECK(layouts_near("[model:2, model:(2)2]", mesh) ==
        Texts{"[-, model:(2)2]", "[-, (model:(2)2,model:2)]", "[model:2, -]", "[(model:2,model:(2)2), -]", "[(model:2,data), model:(2)2]",
              "[model:2, (model:(2)2,data)]"});
}

TEST_CASE("an edit of a plan changes one layout of one line; a line is added at the end") {
  const Program program = parse_program("mesh data=2\nfunc main(%x: f32[4]) {\n  %y = gelu %x : f32[4]\n  return %y\n}\n", "p.mesh", op_table());
  const Plan plan = Plan::parse("# the batch\nx [data]  # split", "x.plan");
  LayoutEdit edit{{"x.plan", 2, 3}, "[data]", "[-]", "", "", "", ""};
  CHECK(edit.text() == "[data] -> [-]");
  CHECK(apply(edit, program, &plan).plan->text() == "# the batch\nx [-]  # split");
  edit = {{}, "", "[data]", "y", "", "", ""};
  CHECK(edit.text() == "add the line \"y [data]\"");
  CHECK(apply(edit, program, &plan).plan->text() == "# the batch\nx [data]  # split\ny optional [data]\n");
}

TEST_CASE("an edit of a program text pins one value") {
  const Program program = parse_program("mesh data=2\nfunc main(%x: f32[4]) {\n  %y = gelu %x : f32[4]\n  return %y\n}\n", "p.mesh", op_table());
  const LayoutEdit edit{{"p.mesh", 3, 3}, "", "[data]", "", "", "main", "y"};
  CHECK(edit.text() == "write [data] behind %y");
  const Program changed = apply(edit, program, nullptr).program;
  const ValueInfo& y = changed.main().value(changed.main().find("y"));
  CHECK(y.pinned);
  CHECK(y.layout->str(*changed.mesh) == "[data]");
  CHECK(y.pinned_by == Place{"p.mesh", 3, 3});
}

}  // namespace
}  // namespace meshard
