#include "meshard/ir/text_reader.h"

#include <cmath>

#include "fmt/format.h"
#include "meshard/ir/parse.h"

namespace meshard {

void TextReader::preamble() {
  if (in_.accept_word("meshard")) {
    const Place place = in_.place();
    const int64_t version = in_.integer("the version of the text");
    if (version > kTextVersion) {
      in_.fail(place, fmt::format("text version {}; this program reads up to {}", version, kTextVersion));
    }
    if (version < 1) in_.fail(place, fmt::format("text version {}; versions count from 1", version));
  }
  if (in_.accept_word("mesh")) {
    mesh_ = Mesh::parse(in_);
    mesh_ = mesh_->with_cuts(find_cuts(text_, file_, *mesh_));
  }
}

const Mesh& TextReader::need_mesh(const Place& place, std::string_view what, std::string_view example) {
  if (!mesh_)
    in_.fail(place,
             fmt::format("{} needs a mesh; write a line such as \"mesh {}\" before the first function", what, example));
  return *mesh_;
}

std::string TextReader::function_name(std::string_view what) {
  const Place place = in_.place();
  std::string name = in_.word_of(".", what);
  if (split_name(name).empty()) in_.fail(place, fmt::format("\"{}\" is no name of a function", name));
  return name;
}

std::string TextReader::value_name(std::string_view also) {
  const Place place = in_.place();
  if (in_.peek() != '%') in_.expect("%");
  const std::string name = in_.word_of(fmt::format("%.@{}", also), "a value").substr(1);
  if (name.empty() || name.find('%') != std::string::npos)
    in_.fail(place, fmt::format("\"%{}\" is no name of a value", name));
  return name;
}

std::string TextReader::plain_name() {
  const Place place = in_.place();
  std::string name = value_name();
  if (!is_value_name(name)) in_.fail(place, fmt::format("\"%{}\" is no name of one value", name));
  return name;
}

NameParts TextReader::run_name() {
  const Place place = in_.place();
  const std::string name = value_name();
  NameParts parts = split_name(name);
  if (parts.empty())
    in_.fail(place, fmt::format("\"%{}\" is no name of a value; a range is two numbers, as in 0..11", name));
  return parts;
}

TextReader::Typed TextReader::typed() {
  Typed out;
  out.place = in_.place();
  out.type = Type::parse(in_);
  if (in_.peek() == '[') {
    const Place place = in_.place();
    out.layout_place = place;
    const Mesh& mesh = need_mesh(place, "a layout", "data=2, model=4");
    out.layout = show_line(place, [&] { return Layout::parse(in_, mesh, out.type.shape.rank()); });
    out.marked = in_.accept("!");
    any_marked_ = any_marked_ || out.marked;
  }
  if (in_.accept_word("below")) {
    in_.expect("=");
    const Place place = in_.place();
    out.below = in_.integer("a bound");
    if (out.below < 1) in_.fail(place, fmt::format("below={}: a bound is 1 or more", out.below));
    if (out.below > int64_t{1} << 31)
      in_.fail(place, fmt::format("below={}: an i32 is less than 2^31 = 2147483648", out.below));
    if (is_float(out.type.dtype))
      in_.fail(place, fmt::format("below is a bound of integers; the type is {}", out.type.str()));
  }
  return out;
}

Init TextReader::init() {
  in_.expect("=");
  const Place place = in_.place();
  const std::string kind = in_.word("zeros, ones, constant(x), normal(s) or uniform(s)");
  if (kind == "zeros") return {};
  if (kind == "ones") return {Init::ones};
  if (kind != "normal" && kind != "uniform" && kind != "constant") {
    const std::string known[] = {"zeros", "ones", "constant", "normal", "uniform"};
    in_.fail(place, fmt::format("no init \"{}\"; there are zeros, ones, constant(x), normal(s) and uniform(s){}", kind,
                                did_you_mean(kind, known)));
  }
  in_.expect("(");
  const Place number = in_.place();
  const double scale = in_.number(kind == "constant" ? "a number" : "a scale");
  if (kind == "constant") {
    if (!std::isfinite(scale)) in_.fail(number, "a constant is a finite number");
    in_.expect(")");
    return {Init::constant, scale};
  }
  if (!std::isfinite(scale) || scale < 0) in_.fail(number, "a scale is a finite number, 0 or more");
  in_.expect(")");
  return {kind == "normal" ? Init::normal : Init::uniform, scale};
}

std::vector<std::pair<int, int64_t>> TextReader::guard() {
  std::vector<std::pair<int, int64_t>> out;
  if (!in_.accept_word("at")) return out;
  do {
    const Place place = in_.place();
    const std::string name = in_.word("an axis of the mesh");
    const Mesh& mesh = need_mesh(place, "a guard", "pipe=4");
    const Axis& axis = show_line(place, [&]() -> const Axis& { return mesh.axis(name, place); });
    const auto index = static_cast<int>(&axis - mesh.axes().data());
    in_.expect("=");
    const int64_t coordinate = in_.integer("a coordinate");
    if (coordinate < 0 || coordinate >= axis.size) {
      in_.fail(place, fmt::format("{}={} is outside of mesh {}", name, coordinate, mesh.str()));
    }
    for (const auto& [other, at] : out) {
      if (other == index) in_.fail(place, fmt::format("the guard names axis {} twice", name));
    }
    out.emplace_back(index, coordinate);
  } while (in_.accept(","));
  return out;
}

AtomSet TextReader::over(const OpDef& def) {
  in_.expect("{");
  if (!in_.accept_word("over")) in_.fail(fmt::format("expected \"over\": {} takes {{over = axes}}", def.name));
  in_.expect("=");
  const Place place = in_.place();
  const Mesh& mesh = need_mesh(place, "a collective", "data=2");
  const AtomSet out = AtomSet::of(show_line(place, [&] { return mesh.parse_atoms(in_); }));
  in_.expect("}");
  return out;
}

}  // namespace meshard
