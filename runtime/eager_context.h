// What DTensors share behind Eager: interned types and layouts, compiled ops, memory. Internal to runtime/.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/ir/trace.h"
#include "meshard/runtime/dtensor.h"
#include "meshard/runtime/executor.h"

namespace meshard::eager {

// A type with a layout, interned: values of one kind have one pointer, so that the key of an op is a few words.
struct Kind {
  Type type;
  Layout layout;
  int64_t below = 0;
  int id = 0;
  std::vector<Rect> rects;       // of each device here
  std::vector<int64_t> offsets;  // of its block in a value's memory, bytes
  int64_t bytes = 0;             // of all devices here
  mutable std::vector<std::pair<std::string, const Kind*>> others;  // the same type in other layouts, as they were asked for
};

// A value. One piece of memory holds the blocks of all devices here.
struct Node {
  int64_t references = 1;
  Context* context = nullptr;
  const Kind* kind = nullptr;
  Buffer buffer;
  Value value;        // while a function is traced: what stands for it
  int64_t trace = 0;  // which tracing; 0: it has numbers
};

// Memory of values that are gone, for new ones of about their size: four sizes an octave.
class Pool {
 public:
  explicit Pool(int64_t most_idle) : most_idle_(most_idle) {}
  Buffer take(int64_t bytes);
  void give(Buffer buffer);
  int64_t used() const { return used_; }
  int64_t idle() const { return idle_; }

 private:
  static int64_t round_up(int64_t bytes);
  static size_t number(int64_t rounded);
  std::vector<std::vector<Buffer>> free_;
  int64_t used_ = 0, idle_ = 0, most_idle_;
};

// A compiled program on the memory of values.
struct Bound {
  Compiled compiled;
  std::unique_ptr<Executor> executor;
  std::vector<const Kind*> results;
  std::vector<int> shares;  // Executor::shares
  std::vector<int> inputs;  // of a tape's reverse pass: which values it reads
  std::vector<int64_t> arena_offsets;
  int64_t arena_bytes = 0, unasked_bytes = 0;
  const void* arena = nullptr;  // where it was put last
};

struct Request {
  const OpDef* def = nullptr;
  const Attributes* attributes = nullptr;
  std::span<const DTensor> operands;
  const Kind* asked = nullptr;   // the result's type and layout, where the caller gives it
  const Type* type = nullptr;    // its type
};

// An op as it was compiled for operands of given kinds.
struct Entry {
  uint64_t hash = 0;
  int id = 0;
  const OpDef* def = nullptr;
  Attributes attributes;
  std::vector<const Kind*> operands;
  const Kind* asked = nullptr;
  std::unique_ptr<Type> type;
  std::unique_ptr<Bound> bound;
};

struct Recorded {
  const Entry* entry = nullptr;
  std::vector<DTensor> operands, results;
};

// A function that is being traced.
struct Tracing {
  int64_t number = 0;
  Trace* trace = nullptr;
};

// The global program of one op on such operands, with the layouts that are known, and whether it is the local one already:
// where all operands are as the op needs them, nothing is left to choose. UserError as of check_attributes and infer_types.
struct OneOp {
  Program program;
  bool local = false;
};
OneOp one_op_program(const OpTable& table, const Mesh& mesh, const OpDef& def, const Attributes& attributes,
                     std::span<const Kind* const> operands, const Kind* asked, const Type* type, const Place& place);

struct Context {
  Mesh mesh;
  EagerOptions options;
  std::vector<std::unique_ptr<Communicator>> owned;
  std::vector<Communicator*> devices;
  std::vector<Rank> ranks;
  std::map<std::string, std::unique_ptr<Kind>> kinds;
  std::map<std::string, const Kind*, std::less<>> types;  // as texts of the caller name them
  std::vector<std::unique_ptr<Entry>> entries;
  std::vector<Entry*> slots;  // by hash, open addressing; a power of two, at most half full
  std::map<std::vector<int64_t>, std::unique_ptr<Bound>> reverses;  // of tapes, by what was recorded
  Pool pool;
  Buffer arena;
  std::vector<Node*> spare;
  std::vector<std::vector<Recorded>*> tapes;
  Tracing tracing;
  int64_t tracings = 0;
  EagerStats stats;
  int64_t references = 0;  // handles and values

  Context(const Mesh& mesh, EagerOptions options);
  ~Context();
  void retain() { ++references; }
  void release() {
    if (--references == 0) delete this;
  }

  const Kind* kind(const Type& type, const Layout& layout, int64_t below);
  const Kind* kind_of(std::string_view type, const std::source_location& where);  // a type's text, whole
  const Kind* kind_in(const Kind* kind, std::string_view layout, const std::source_location& where);  // UserError: no layout of it
  static Node* node(const DTensor& t) { return t.node_; }
  static DTensor handle(Node* node) { return DTensor(node); }
  Node* make_node(const Kind* kind);  // without memory
  DTensor make(const Kind* kind);     // with memory, whose contents are anything
  DTensor symbol(Value value);
  void drop(Node* node);

  // Runs an op; results gets all of them. `where` is for messages.
  void run(const Request& request, std::vector<DTensor>* all, DTensor* first, const std::source_location& where);
  Entry& find(const Request& request, const std::source_location& where);
  Entry& compile(const Request& request, uint64_t hash, const std::source_location& where);
  void insert(Entry* entry);
  void check(std::string_view op, std::span<const DTensor> operands, const std::source_location& where) const;
  Value value(const DTensor& t, std::string_view what, const std::source_location& where) const;
  std::vector<Value> trace(const Request& request, const std::source_location& where);

  std::unique_ptr<Bound> bind(Compiled compiled, const std::string& what);
  // Results: all of them, or the first, or both.
  void execute(Bound& bound, std::span<const DTensor> inputs, std::vector<DTensor>* all, DTensor* first);
  // The same memory as another kind, where a program returns what it was given.
  DTensor renamed(const DTensor& source, const Kind* kind);
};

}  // namespace meshard::eager
