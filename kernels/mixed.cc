#include "meshard/kernels/mixed.h"

#include "meshard/base/buffer.h"

namespace meshard {
namespace {

// One operand or result that is converted: where its f32 copy lies in the workspace.
struct Copied {
  size_t at = 0;  // its place in the call
  int64_t offset = 0;
  Prepared convert;
};

Prepared prepare_convert(PrepareFn convert, const Type& from, const Type& to, int threads) {
  static const Attributes kNone;
  const int64_t n = from.shape.elements();
  KernelSpec spec;
  spec.attributes = &kNone;
  spec.factors = {{"n", n, n, 0}};
  spec.operands = {{{from.dtype, {n}}, {{0}}, {}, {}}};
  spec.results = {{{to.dtype, {n}}, {{0}}, {}, {}}};
  spec.threads = threads;
  return convert(spec);
}

}  // namespace

FloatTypes float_types(const KernelSpec& spec) {
  FloatTypes types;
  for (const auto* list : {&spec.operands, &spec.results}) {
    for (const KernelOperand& o : *list) {
      types.narrow = types.narrow || is_narrow(o.type.dtype);
      types.wide = types.wide || o.type.dtype == Dtype::f32;
    }
  }
  return types;
}

Prepared in_f32(PrepareFn kernel, PrepareFn convert, const KernelSpec& spec) {
  KernelSpec wide = spec;
  std::vector<Copied> reads, writes;
  int64_t bytes = 0;
  const auto copy = [&](std::vector<KernelOperand>& list, std::vector<Copied>& copies, bool reads_it) {
    for (size_t i = 0; i < list.size(); ++i) {
      Type& type = list[i].type;
      if (!is_narrow(type.dtype)) continue;
      const Type half = type;
      type.dtype = Dtype::f32;
      Prepared made = reads_it ? prepare_convert(convert, half, type, spec.threads) : prepare_convert(convert, type, half, spec.threads);
      MESHARD_CHECK(made.run && made.workspace_bytes == 0, "a change of dtype needs no workspace");
      copies.push_back({i, bytes, std::move(made)});
      bytes += (type.bytes() + kAlignment - 1) / kAlignment * kAlignment;
    }
  };
  copy(wide.operands, reads, true);
  copy(wide.results, writes, false);
  Prepared inner = kernel(wide);
  if (!inner.run) return {};
  return {bytes + inner.workspace_bytes,
          [reads, writes, bytes, inner = std::move(inner), operands = std::vector<void*>(spec.operands.size()),
           results = std::vector<void*>(spec.results.size())](const KernelCall& call) mutable {
            auto* workspace = static_cast<std::byte*>(call.workspace);
            operands.assign(call.operands.begin(), call.operands.end());
            results.assign(call.results.begin(), call.results.end());
            for (const Copied& c : reads) {
              void *const from = call.operands[c.at], *const to = workspace + c.offset;
              c.convert.run({{&from, 1}, {&to, 1}, nullptr, call.stream});
              operands[c.at] = to;
            }
            for (const Copied& c : writes) results[c.at] = workspace + c.offset;
            inner.run({operands, results, workspace + bytes, call.stream});
            for (const Copied& c : writes) {
              void *const from = workspace + c.offset, *const to = call.results[c.at];
              c.convert.run({{&from, 1}, {&to, 1}, nullptr, call.stream});
            }
          }};
}

Prepared prepare_any(PrepareFn kernel, PrepareFn convert, const KernelSpec& spec) {
  return float_types(spec).mixed() ? in_f32(kernel, convert, spec) : kernel(spec);
}

}  // namespace meshard
