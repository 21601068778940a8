#include "minimize.h"

#include <set>

#include "edits.h"
#include "meshard/base/error.h"
#include "meshard/ir/verify.h"

namespace meshard::fuzz {
namespace {

class Minimizer {
 public:
  Minimizer(Program program, const std::function<bool(const Program&)>& fails, int tries)
      : best_(std::move(program)), fails_(fails), tries_(tries) {}

  Program run() {
    for (bool changed = true; changed && tries_ > 0;) {
      changed = mesh();
      changed |= returns();
      changed |= ops();
      changed |= sizes();
      changed |= layouts();
      changed |= parameters();
    }
    return std::move(best_);
  }

 private:
  // Takes the edited program if it is one and still fails.
  template <class Edit>
  bool attempt(Edit edit) {
    Program next = best_;
    if (tries_ <= 0 || !edit(next)) return false;
    Program less = next;
    return (drop_unread(less) && take(std::move(less))) || take(std::move(next));
  }

  bool take(Program next) {
    try {
      verify(next, Level::traced);
    } catch (const std::exception&) {
      return false;
    }
    --tries_;
    if (!fails_(next)) return false;
    best_ = std::move(next);
    return true;
  }

  bool mesh() {
    bool changed = false;
    for (int a = best_.mesh->atom_count(); a-- > 0;)
      changed |= attempt([&](Program& p) { return drop_atom(p, static_cast<AtomId>(a)); });
    return changed;
  }

  // Edits are tried from the last function, op or return to the first; what is gone is out of range and skipped.
  template <class Count, class Edit>
  bool each(Count count, Edit edit) {
    bool changed = false;
    for (size_t f = best_.functions.size(); f-- > 0;) {
      if (f >= best_.functions.size()) continue;
      for (size_t i = count(best_.functions[f]); i-- > 0;) {
        if (f >= best_.functions.size() || i >= count(best_.functions[f])) continue;
        changed |= edit(f, i);
      }
    }
    return changed;
  }
  static size_t op_count(const Function& f) { return f.ops.size(); }

  bool returns() {
    return each([](const Function& f) { return f.returns.size(); },
                [&](size_t f, size_t i) {
                  bool changed = attempt([&](Program& p) {
                    Return& r = p.functions[f].returns[i];
                    if (r.in_place == ValueId::none) return false;
                    r.in_place = ValueId::none;
                    return true;
                  });
                  return changed | attempt([&](Program& p) { return drop_return(p, f, i); });
                });
  }

  bool ops() {
    bool changed = each(op_count, [&](size_t f, size_t i) { return attempt([&](Program& p) { return cut(p, f, i); }); });
    changed |= each(op_count, [&](size_t f, size_t i) {
      for (size_t operand = 0; operand < 4; ++operand) {
        if (attempt([&](Program& p) { return bypass(p, f, i, operand); })) return true;
      }
      return false;
    });
    changed |= each(op_count, [&](size_t f, size_t i) {
      return attempt([&](Program& p) { return call_once(p, f, i); }) | (i < best_.functions[f].ops.size() && attempt([&](Program& p) { return inline_call(p, f, i); }));
    });
    changed |= each(op_count, [&](size_t f, size_t i) {
      return attempt([&](Program& p) {
        Op& op = p.functions[f].ops[i];
        if (op.kind != Op::repeat || op.count < 2) return false;
        --op.count;
        return true;
      });
    });
    return changed;
  }

  bool sizes() {
    std::set<int64_t> found;
    for (const Function& f : best_.functions) {
      for (const ValueInfo& v : f.values) found.insert(v.type.shape.dims.begin(), v.type.shape.dims.end());
    }
    bool changed = false;
    for (int64_t n : found) {
      for (int64_t smaller = 1; smaller < n; ++smaller) {
        if (!attempt([&](Program& p) { return resize(p, n, smaller); })) continue;
        changed = true;
        break;
      }
    }
    return changed;
  }

  bool layouts() {
    return each([](const Function& f) { return f.values.size(); },
                [&](size_t f, size_t i) {
                  const auto value = [&](Program& p) -> ValueInfo& { return p.functions[f].values[i]; };
                  if (!best_.functions[f].values[i].layout) return false;
                  if (attempt([&](Program& p) {
                        value(p).layout.reset();
                        value(p).pinned = false;
                        return true;
                      }))
                    return true;
                  bool changed = false;
                  const auto with = [&](auto change) {
                    if (f >= best_.functions.size() || i >= best_.functions[f].values.size()) return;
                    changed |= attempt([&](Program& p) {
                      if (!value(p).layout) return false;
                      const Layout before = *value(p).layout;
                      change(*value(p).layout);
                      return *value(p).layout != before;
                    });
                  };
                  with([](Layout& l) { l = l.closed(); });
                  with([](Layout& l) { l = l.without_pending(); });
                  for (size_t d = 0; d < 6; ++d) {
                    with([&](Layout& l) {
                      if (d < l.dims.size()) l.dims[d].atoms.clear();
                    });
                    with([&](Layout& l) {
                      if (d < l.dims.size() && !l.dims[d].atoms.empty()) l.dims[d].atoms.pop_back();
                    });
                  }
                  return changed;
                });
  }

  bool parameters() {
    return each([](const Function& f) { return f.params.size(); },
                [&](size_t f, size_t i) {
                  return attempt([&](Program& p) {
                    ParamInfo& info = p.functions[f].param_info[i];
                    if (info.kind == ParamInfo::input) return false;
                    info = ParamInfo();
                    return true;
                  });
                });
  }

  Program best_;
  const std::function<bool(const Program&)>& fails_;
  int tries_;
};

}  // namespace

Program minimize(Program program, const std::function<bool(const Program&)>& fails, int tries) {
  return Minimizer(std::move(program), fails, tries).run();
}

}  // namespace meshard::fuzz
