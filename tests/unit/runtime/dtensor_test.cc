#include "meshard/runtime/dtensor.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "meshard/base/text.h"
#include "meshard/collectives/lockstep.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/dtensor_functions.h"
#include "meshard/runtime/state.h"

namespace meshard {
namespace {

std::vector<double> counting(int64_t n, double step = 0.125) {
  std::vector<double> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(step * static_cast<double>(i % 11 - 4));
  return v;
}

DTensor make(const Eager& e, const char* type, const char* layout) { return e.tensor(type, counting(Type::parse(type).shape.elements()), layout); }

void check_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance = 1e-5) {
  REQUIRE(a.size() == b.size());
  size_t at = 0;
  while (at < a.size() && (a[at] == b[at] || a[at] == Approx(b[at]).margin(tolerance))) ++at;
  if (at < a.size()) FAIL("element " << at << " is " << a[at] << ", not " << b[at]);
  SUCCEED();
}

TEST_CASE("results stay as ops make them, and are put together when they are read") {
  Eager e(Mesh::parse("data=2, model=2"));
  const DTensor x = make(e, "f32[5,8]", "[data, -]"), up = make(e, "f32[8,6]", "[-, model]"), down = make(e, "f32[6,3]", "[model, -]");
  const DTensor h = einsum("b i, i j -> b j", x, up);
  CHECK(h.layout_text() == "[data, model]");
  const DTensor p = einsum("b j, j k -> b k", h, down);
  CHECK(p.layout_text() == "[data, -] + sum(model)");
  const DTensor twice = p + p;
  CHECK(twice.layout_text() == "[data, -] + sum(model)");
  const DTensor loss = mean(scale(twice, 3));
  CHECK(loss.layout_text() == "[] + sum(data,model)");
  CHECK(e.stats().unasked_bytes == 0);
  CHECK(h.local(3).shape == Shape{2, 3});

  Eager one{Mesh()};
  const DTensor q = einsum("b j, j k -> b k", einsum("b i, i j -> b j", make(one, "f32[5,8]", "[-, -]"), make(one, "f32[8,6]", "[-, -]")),
                           make(one, "f32[6,3]", "[-, -]"));
  check_near(p.values(), q.values());
  CHECK(loss.item() == Approx(mean(scale(q + q, 3)).item()));
  // Through what is not linear a sum does not pass: it is reduced first.
  const DTensor g = gelu(p);
  CHECK(!g.layout().is_pending());
  CHECK(e.stats().unasked_bytes > 0);
  check_near(g.values(), gelu(q).values());
}

TEST_CASE("an op is compiled once for a kind of operands") {
  Eager e(Mesh::parse("data=2"));
  const DTensor x = make(e, "f32[5,8]", "[data, -]"), y = make(e, "f32[5,8]", "[data, -]"), z = make(e, "f32[5,8]", "[-, -]");
  (void)(x + y);
  CHECK(e.stats().misses == 1);
  (void)(y + x);
  CHECK(e.stats().misses == 1);
  CHECK(e.stats().hits == 1);
  (void)(x + z);          // another layout
  (void)scale(x, 2);      // another op
  (void)scale(x, 3);      // other attributes
  (void)e.apply("scale", {x}, {{"factor", 3.0}});  // the same
  CHECK(e.stats().misses == 4);
  CHECK(e.stats().hits == 2);
}

TEST_CASE("redistribute changes the layout and no value") {
  Eager e(Mesh::parse("data=2, model=3"));
  const std::vector<double> values = counting(35);
  for (const char* from : {"[-, -]", "[data, -]", "[-, data]", "[(data,model), -]", "[data, model]", "[model, data]"}) {
    const DTensor x = e.tensor("f32[5,7]", values, from);
    CHECK(x.values() == values);
    for (const char* to : {"[-, -]", "[data, -]", "[model, -]", "[-, (data,model)]", "[data, model]", "[(model,data), -]"}) {
      const DTensor y = x.redistribute(to);
      CHECK(y.layout_text() == to);
      CHECK(y.values() == values);
    }
  }
  CHECK(e.stats().unasked_bytes == 0);
  const DTensor whole = make(e, "f32[5,7]", "[-, -]");
  const auto misses = e.stats().misses;
  CHECK(whole.redistribute("[-, -]").local().data == whole.local().data);
  CHECK(e.stats().misses == misses);
  const DTensor parts = e.blocks("f32[4]", "[-] + sum(data)", [](const Rect& r, const View& v) {
    for (int64_t i = 0; i < v.elements(); ++i) v.as<float>()[i] = static_cast<float>(r.dims[0].begin + i);
  });
  CHECK(parts.values() == std::vector<double>{0, 2, 4, 6});
  CHECK(parts.redistribute("[data] ").layout_text() == "[data]");
}

TEST_CASE("values made from nothing are the same on any mesh") {
  Eager one{Mesh()}, e(Mesh::parse("data=2, model=2"));
  CHECK(full(e, "f32[5]", "[data]", 0.5).values() == std::vector<double>(5, 0.5));
  CHECK(normal(e, "f32[5,6]", "[data, model]", 7, "w", 0.1).values() == normal(one, "f32[5,6]", "[-, -]", 7, "w", 0.1).values());
  CHECK(e.make("iota", "i32[6]", "[model]", {{"dimension", int64_t{0}}}).values() == std::vector<double>{0, 1, 2, 3, 4, 5});
  const DTensor x = make(e, "f32[3]", "[data]");
  CHECK(convert(x, Dtype::f64).type().str() == "f64[3]");
  CHECK(convert(x, Dtype::bf16).type().str() == "bf16[3]");
}

TEST_CASE("what had to be moved is reported, and refused where everything is to be explicit") {
  std::vector<std::string> reports;
  EagerOptions options;
  options.report = [&](std::string_view text) { reports.emplace_back(text); };
  Eager e(Mesh::parse("data=2"), options);
  const DTensor a = make(e, "f32[4,6]", "[data, -]"), b = make(e, "f32[6,4]", "[-, data]");
  const DTensor c = einsum("m k, k n -> m n", a, b);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].starts_with("dtensor_test.cc:"));
  CHECK(reports[0].find(": einsum: all_gather over data of ") != std::string::npos);
  CHECK(e.stats().unasked_bytes == 48);
  (void)einsum("m k, k n -> m n", a, b);
  CHECK(reports.size() == 1);
  CHECK(e.stats().unasked_bytes == 96);
  CHECK(e.program("einsum", std::vector{a, b}, {{"rule", std::string("m k, k n -> m n")}}).find("all_gather") != std::string::npos);

  Eager strict(Mesh::parse("data=2"), {.partition = {Mode::explicit_only}});
  const DTensor sa = make(strict, "f32[4,6]", "[data, -]"), sb = make(strict, "f32[6,4]", "[-, data]");
  CHECK_THROWS_WITH(einsum("m k, k n -> m n", sa, sb), Catch::Contains("explicit") && Catch::Contains("all_gather over data of"));
  check_near(einsum("m k, k n -> m n", sa, sb.redistribute("[-, -]")).values(), c.values());
}

TEST_CASE("memory of values that are gone is used again") {
  Eager e(Mesh::parse("data=2"));
  DTensor x = make(e, "f32[64,64]", "[data, -]");
  x = scale(x, 0.5);
  const int64_t used = e.stats().used_bytes;
  CHECK(used == 64 * 64 * 4);
  for (int i = 0; i < 10; ++i) x = scale(x, 0.5);
  CHECK(e.stats().used_bytes == used);
  CHECK(e.stats().idle_bytes == used);
  x = DTensor();
  CHECK(e.stats().used_bytes == 0);
  DTensor kept;
  {
    Eager gone(Mesh::parse("data=2"));
    kept = make(gone, "f32[3]", "[data]");
  }
  CHECK(scale(kept, 2).values() == std::vector<double>{-1, -0.75, -0.5});
}

// The same function, on values of a program and on DTensors.
const auto kMlp = [](auto x, auto up, auto down) { return einsum("b f, f d -> b d", gelu(einsum("b d, d f -> b f", x, up)), down); };

TEST_CASE("one function serves DTensors and programs") {
  Eager e(Mesh::parse("data=2, model=2"));
  const DTensor y = kMlp(make(e, "f32[5,8]", "[data, -]"), make(e, "f32[8,6]", "[-, model]"), make(e, "f32[6,8]", "[model, -]"));
  Trace trace(op_table());
  Scope s = trace.scope();
  CHECK(kMlp(s.input("x", Dtype::f32, {5, 8}), s.input("up", Dtype::f32, {8, 6}), s.input("down", Dtype::f32, {6, 8})).type() == y.type());
}

TEST_CASE("what does not fit is said with the caller's line") {
  Eager e(Mesh::parse("data=2")), other(Mesh::parse("data=2"));
  const DTensor x = make(e, "f32[5,8]", "[data, -]");
  CHECK_THROWS_WITH(x + make(e, "f32[3,8]", "[-, -]"), Catch::StartsWith("dtensor_test.cc:") && Catch::Contains("add"));
  CHECK_THROWS_WITH(x + DTensor(), Catch::EndsWith("add: operand 1 is none; a DTensor comes from an Eager or an op"));
  CHECK_THROWS_WITH(DTensor() + x, Catch::EndsWith("add: operand 0 is none; a DTensor comes from an Eager or an op"));
  CHECK_THROWS_WITH(x + make(other, "f32[5,8]", "[data, -]"), Catch::EndsWith("add: operand 1 lives on another Eager than operand 0; make both on one"));
  CHECK_THROWS_WITH(e.apply("gelo", {x}), Catch::EndsWith("no op \"gelo\"; did you mean \"gelu\"?"));
  CHECK_THROWS_WITH(e.apply("all_gather", {x}), Catch::EndsWith("all_gather is an op of local programs; redistribute() changes a layout"));
  CHECK_THROWS_WITH(x.redistribute("[dada, -]"), Catch::StartsWith("dtensor_test.cc:") && Catch::Contains(": no axis \"dada\" in mesh data=2; did you mean \"data\"?"));
  CHECK_THROWS_WITH(x.redistribute("[data]"), Catch::StartsWith("dtensor_test.cc:"));
  CHECK_THROWS_WITH(x.redistribute("[?, -]"), Catch::EndsWith("layout [?, -] is open (\"?\"), but a value lies in one place: write - where it is whole"));
  CHECK_THROWS_WITH(x.redistribute("[data, -] + sum(data)"), Catch::Contains("data"));
  CHECK(x.redistribute("[-, -] + sum(data)").values() == x.values());  // gathered, then one device's and zeros
  CHECK_THROWS_WITH(e.tensor("f32[2,2]", counting(3), "[-, -]"), Catch::EndsWith("tensor f32[2,2] has 4 elements; 3 were given"));
  CHECK_THROWS_WITH(e.tensor("i32[2]", std::vector<double>{1, 0.5}, "[-]"), Catch::EndsWith("tensor i32[2]: element [1] is 0.5"));
  CHECK_THROWS_WITH(e.tensor("i32[2]", std::vector<double>{1, 7}, "[-]", 7), Catch::EndsWith("tensor: element [1] is 7, not in 0 .. 6"));
  CHECK_THROWS_WITH(e.tensor("f32[2]", counting(2), "[-] + sum(data)"),
                    Catch::EndsWith("tensor: [-] + sum(data) is pending, but the elements given are whole; blocks() takes each device's part of a sum"));
  CHECK_THROWS_WITH(full(e, "f33[2]", "[-]", 1), Catch::StartsWith("dtensor_test.cc:") && Catch::Contains("f33"));
  CHECK_THROWS_WITH(x.item(), "item() of f32[5,8], which is no single element; values() gives all");
  CHECK_THROWS_WITH(x.local(2), "local(2): this process has 2 devices");
  CHECK_THROWS_WITH(DTensor().values(), "values() of a DTensor that is none; it comes from an Eager or an op");
  auto comms = lockstep_communicators(2);
  std::vector<Communicator*> devices{comms[0].get(), comms[1].get()};
  CHECK_THROWS_WITH(Eager(Mesh::parse("data=4"), devices), "the mesh data=4 has 4 devices, but 2 ranks are running; start 4 ranks or change the mesh");
}

// Every op of the table, each of its cases: on one device, and on a mesh with its operands split in several ways.
TEST_CASE("every op runs, on any mesh with the same numbers") {
  Eager one{Mesh()}, four(Mesh::parse("data=2, model=2"));
  int runs = 0;
  for (const OpDef* def : op_table().all()) {
    if (def->collective || def->identity) continue;
    for (const OpCase& c : def->cases) {
      INFO(def->name << " " << c.operands << " " << c.attributes);
      Scanner attribute_text(c.attributes, "case");
      const Attributes attributes = c.attributes.empty() ? Attributes() : Attributes::parse(attribute_text);
      std::vector<Type> types, results;
      for (Scanner in(c.operands, "case"); !in.at_end(); in.accept(",")) types.push_back(Type::parse(in));
      for (Scanner in(c.results, "case"); !in.at_end(); in.accept(",")) results.push_back(Type::parse(in));
      int64_t elements = 0;
      for (const Type& t : types) elements += t.shape.elements();
      if (elements > 3000) continue;
      if (!def->explicit_type) results.clear();
      if (types.empty()) {
        const std::string layout = results[0].shape.rank() == 0 ? "[]" : results[0].shape.rank() == 1 ? "[data]" : "[data, model, ...]";
        const std::string whole = Layout(results[0].shape.rank()).str(Mesh());
        const DTensor a = one.make(*def, results[0].str(), whole, attributes);
        check_near(four.make(*def, results[0].str(), a.shape().rank() < 3 ? layout : whole, attributes).values(), a.values());
        ++runs;
        continue;
      }
      const auto operands = [&](const Eager& e, int way) {
        std::vector<DTensor> out;
        for (size_t i = 0; i < types.size(); ++i) {
          const Type& t = types[i];
          std::vector<double> v;
          for (int64_t k = 0; k < t.shape.elements(); ++k) {
            v.push_back(t.dtype == Dtype::i32 ? static_cast<double>((k * 7 + 3) % c.below) : 0.3 + 0.1 * static_cast<double>((k * 5 + static_cast<int64_t>(i)) % 12));
          }
          Layout l(t.shape.rank());
          for (int d = 0; d < t.shape.rank(); ++d) {
            if (way == 1 && d == 0) l.dims[0].atoms = {0};
            if (way == 2 && d == t.shape.rank() - 1) l.dims.back().atoms = {1};
            if (way == 3 && d == static_cast<int>(i) % t.shape.rank()) l.dims[static_cast<size_t>(d)].atoms = {0, 1};
          }
          out.push_back(e.tensor(t.str(), v, l.str(e.mesh()), t.dtype == Dtype::i32 ? c.below : 0));
        }
        return out;
      };
      const std::vector<DTensor> want = one.apply_all(def->name, operands(one, 0), attributes, results);
      for (int way = 0; way < 4; ++way) {
        INFO("way " << way);
        const std::vector<DTensor> have = four.apply_all(def->name, operands(four, way), attributes, results);
        REQUIRE(have.size() == want.size());
        for (size_t r = 0; r < have.size(); ++r) check_near(have[r].values(), want[r].values(), 2e-3);
        ++runs;
      }
    }
  }
  CHECK(runs > 200);
}

}  // namespace
}  // namespace meshard
