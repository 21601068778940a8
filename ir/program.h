// Program: functions of ops over values, in flat arrays with dense ids. Value and op ids count within their function.
// The global program and the local one that every rank runs are the same structure: a value of a local program keeps
// its global shape and has a closed layout, so its extent on a device follows from the coordinate, and one text serves
// all ranks.
//
// Text: see ir/parse.h. Building: see ir/trace.h.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "meshard/base/attributes.h"
#include "meshard/base/shape.h"
#include "meshard/ir/op.h"
#include "meshard/layout/layout.h"

namespace meshard {

enum class ValueId : int32_t { none = -1 };
constexpr size_t index(ValueId v) { return static_cast<size_t>(v); }

// How a parameter's first value is made: a function of (seed, name, global index), the same on any mesh.
struct Init {
  enum Kind : uint8_t { zeros, ones, normal, uniform, constant } kind = zeros;
  double scale = 0;  // normal: standard deviation; uniform: half width; constant: the number
  bool operator==(const Init&) const = default;
};

struct ValueInfo {
  std::string name;  // "block.0.wq", without "%"
  Type type;         // global
  std::optional<Layout> layout;
  bool pinned = false;  // layout was given (by text or plan), not propagated
  int64_t below = 0;    // integers: 0 <= x < below; 0: no bound known
  int op = -1;          // index of the op that makes it; -1: a parameter of the function
  Place source;         // where the user wrote it
  Place pinned_by;      // where its layout was given, if it is pinned: "zero3.plan:5:24", or a place in the text
};

struct ParamInfo {
  enum Kind : uint8_t { input, param, state } kind = input;
  ValueId of = ValueId::none;  // state of which param; none: of the run, replicated
  Init init;
};

struct Op {
  enum Kind : uint8_t {
    apply,   // def(operands) -> results; a collective may have several operands and as many results: one message
    call,    // functions[callee](operands) -> results, as prefix
    repeat,  // the same `count` times: carried operands are replaced by the results returned in place of them
    wait     // the second half of a collective begun with `start`: its results may be read from here on; operands[0] is
             // the first of them
  } kind = apply;
  const OpDef* def = nullptr;
  std::vector<ValueId> operands, results;
  Attributes attributes;
  AtomSet over;        // collectives: who talks
  bool start = false;  // collectives: the results may be read after the matching wait
  int callee = -1;
  std::string prefix;      // of the names of results, and default names of arguments
  int64_t count = 1;       // repeat
  int index_operand = -1;  // repeat: which parameter of the callee gets the round's number (operand ValueId::none)
  std::string cause;       // collectives put in by partition: why; not part of the text
  bool asked = false;      // and whether a layout written in the program or plan asks for it
  std::vector<std::pair<int, int64_t>> guard;  // runs only where axis (index in mesh) has this coordinate
  Place source;
};

struct Return {
  ValueId value = ValueId::none;
  ValueId in_place = ValueId::none;  // the parameter whose memory it takes over
};

struct Function {
  std::string name;
  std::vector<ValueInfo> values;
  std::vector<ValueId> params;        // in order
  std::vector<ParamInfo> param_info;  // same order; kinds only matter in main
  std::vector<Op> ops;
  std::vector<Return> returns;

  ValueInfo& value(ValueId v) { return values[index(v)]; }
  const ValueInfo& value(ValueId v) const { return values[index(v)]; }
  ValueId find(std::string_view name) const;  // none: there is no such value
  int param_index(ValueId v) const;           // -1: not a parameter
};

class Signatures;
std::shared_ptr<Signatures> make_signatures();

struct Program {
  const OpTable* table = nullptr;
  std::optional<Mesh> mesh;
  std::deque<Function> functions;  // callees before callers; the last is main
  // Rules that were bound (ir/signature.h). No part of what the program says: a pass hands it on to what it makes.
  std::shared_ptr<Signatures> signatures = make_signatures();

  Function& main() { return functions.back(); }
  const Function& main() const { return functions.back(); }
  int find(std::string_view function) const;  // -1: none
};

// "block.0" + "." + "wq"; an empty prefix gives the name itself.
std::string join_name(std::string_view prefix, std::string_view name);
// "block.0.wq@1" -> "block.0.wq": the value of the global program that it must equal ("y@part1": a part of it).
std::string_view base_name(std::string_view name);
// The users of each value of f, as op indices in order; an op that reads it twice is listed twice. Returns are not
// listed.
std::vector<std::vector<int>> users(const Function& f);
// How many times each function runs in one run of main.
std::vector<int64_t> run_counts(const Program& program);

}  // namespace meshard
