#include "meshard/autodiff/differentiate.h"

#include <fmt/format.h>

#include "meshard/autodiff/path.h"
#include "meshard/autodiff/prune.h"
#include "meshard/autodiff/reverse.h"
#include "meshard/base/error.h"
#include "meshard/ops/functions.h"

namespace meshard {
namespace {

void check(const Value& loss, const std::vector<Value>& wrt) {
  if (!loss) throw UserError("gradients: the loss is none; it must be a value of the program");
  const Function& f = loss.builder().function();
  const auto place = [&](const Value& v) { return v.builder().function().value(v.id()).source; };
  if (loss.shape().rank() != 0 || !is_float(loss.type().dtype)) {
    throw UserError(place(loss),
                    fmt::format("gradients: the loss %{} is {}; it must be one float: take a mean or a sum",
                                loss.name(), loss.type().str()));
  }
  for (size_t i = 0; i < wrt.size(); ++i) {
    if (!wrt[i]) throw UserError(fmt::format("gradients: value {} to differentiate for is none", i));
    if (&wrt[i].builder() != &loss.builder()) {
      throw UserError(
          place(wrt[i]),
          fmt::format(
              "gradients: %{} is a value of func {} but the loss %{} of func {}; pass it into or out of the function",
              wrt[i].name(), wrt[i].builder().function().name, loss.name(), f.name));
    }
    if (!is_float(wrt[i].type().dtype)) {
      throw UserError(place(wrt[i]), fmt::format("gradients: %{} is {}; only floats have gradients", wrt[i].name(),
                                                 wrt[i].type().str()));
    }
  }
}

}  // namespace

std::vector<Value> gradients(Trace& trace, Value loss, const std::vector<Value>& wrt, double scale) {
  check(loss, wrt);
  Builder& builder = loss.builder();
  Function& f = builder.function();
  VjpFunctions functions(trace);
  std::vector<ValueId> ids;
  for (const Value& v : wrt)
    ids.push_back(Reverse(trace, functions, builder.function_index(), builder.function_index()).root(v.id()));
  functions.straightened().straighten(builder.function_index(), ids, {loss.id()});
  const size_t first = f.ops.size();
  const Place place = builder.source();
  builder.set_source(f.value(loss.id()).source);
  Reverse reverse(trace, functions, builder.function_index(), builder.function_index());
  Value one = fill(builder, scale, loss.type());
  reverse.rename(one, loss.name() + ".d");
  reverse.seed(loss.id(), one);
  reverse.run(ids);

  std::vector<ValueId> found;
  for (ValueId v : ids) {
    Value gradient = reverse.cotangent(v);
    if (!gradient) {
      gradient = fill(builder, 0, f.value(v).type);
      reverse.rename(gradient, f.value(v).name + ".d");
      if (reverse.is_parameter(v)) {
        gradient = grad(gradient);
        reverse.rename(gradient, f.value(v).name + ".grad");
      }
    }
    found.push_back(gradient.id());
  }
  builder.set_source(place);

  const std::vector<ValueId> renumbered = prune(f, found, {.first = first});
  builder.names_changed();
  std::vector<Value> out;
  for (ValueId v : found) out.emplace_back(&builder, renumbered[index(v)]);
  return out;
}

}  // namespace meshard
