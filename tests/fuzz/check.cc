#include "check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "interpret.h"
#include "meshard/ir/parse.h"
#include "meshard/ir/verify.h"
#include "meshard/sharding/lower.h"
#include "meshard/sharding/propagate.h"

namespace meshard::fuzz {
namespace {

bool reads(const Program& program, Dtype dtype) {
  for (const Function& f : program.functions) {
    for (const ValueInfo& v : f.values) {
      if (v.type.dtype == dtype) return true;
    }
  }
  return false;
}

// A tolerance, and how far inputs are moved to see what rounding may do.
struct Rounding {
  double tolerance, jitter;
};
Rounding rounding(const Program& program) {
  if (reads(program, Dtype::bf16)) return {1e-1, 4e-3};
  if (reads(program, Dtype::f16)) return {2e-2, 5e-4};
  if (reads(program, Dtype::f32)) return {1e-3, 1e-6};
  return {1e-8, 1e-14};
}

Verdict check_text(const Program& program, const std::string& what) {
  const std::string text = print(program);
  const Program again = parse_program(text, what, *program.table);
  std::string why;
  if (!equal(program, again, &why)) return {Verdict::text, fmt::format("{}: {}", what, why)};
  if (print(again) != text) return {Verdict::text, fmt::format("{}: it prints in another way", what)};
  return {};
}

Verdict check_erased(const Program& program) {
  bool changed = false;
  const Program closed = propagate(lower(propagate(program), &changed));
  const Program local = partition(closed);
  std::string why;
  if (!equal(erase(closed), erase(local), &why)) return {Verdict::erased, why};
  return {};
}

// Whether results move that far when inputs move by a rounding error.
bool amplifies(const Compiled& one, const CheckOptions& data, const Rounding& limits) {
  const Results still = simulate(one, data);
  // What is left of numbers that cancel moves in leaps: it may stay where it is under the smallest changes.
  for (const double times : {1, 2, 3, 4, 16, 64, 256}) {
    CheckOptions moved = data;
    moved.jitter = limits.jitter * times;
    if (largest_difference(still, simulate(one, moved)) > limits.tolerance / 20 * std::max(1.0, times / 4)) return true;
  }
  return false;
}

Verdict check_all(const Program& program, const CheckOptions& data) {
  verify(program, Level::traced);
  if (Verdict v = check_text(program, "the program"); v.kind != Verdict::good) return v;
  const Rounding limits = rounding(program);
  CompileOptions options;
  options.passes.reparse = true;
  // Every other program as it is planned by default.
  options.optimize.overlap = data.seed % 2 == 1;
  if (data.seed % 4 >= 2) options.optimize.ring.use = RingOptions::always;
  if (data.seed % 4 == 1) options.optimize.bucket_bytes = 64;
  if (data.seed % 8 == 3) options.optimize.regather = 3;
  const Compiled compiled = compile(program, options);
  const bool rings = compiled.digest_text.find("= start turn ") != std::string::npos;
  if (Verdict v = check_text(compiled.local, "the local program"); v.kind != Verdict::good) return v;
  if (Verdict v = check_erased(program); v.kind != Verdict::good) return v;
  const Compiled again = compile_local(parse_program(compiled.digest_text, "local", *program.table));
  for (int64_t d = 0; d < compiled.local.mesh->size(); ++d) {
    const auto device = static_cast<size_t>(d);
    if (again.bill.device_bytes[device] != compiled.bill.device_bytes[device])
      return {Verdict::bytes, "the bill of the parsed local program"};
  }

  const CheckResult r = check_partition(program, compiled, data);
  if (!r.bytes_agree) return {Verdict::bytes, r.text()};
  if (!r.memory_agrees) return {Verdict::memory, r.text()};
  const Compiled one = compile(without_layouts(program), {.optimize = {.on = false}});
  const auto differ = [&](Verdict::Kind kind, std::string message) -> Verdict {
    if (amplifies(one, data, limits)) return {Verdict::amplified, std::move(message)};
    return {kind, std::move(message)};
  };
  if (!(r.largest_error <= limits.tolerance)) return differ(Verdict::values, r.text());
  if (!r.replicas_agree) return differ(Verdict::replicas, r.text());
  std::string where;
  const double error = largest_difference(simulate(one, data), interpret(program, data), &where);
  if (!(error <= limits.tolerance)) return differ(Verdict::twin, fmt::format("{:.2e} in %{}", error, where));
  return {.rings = rings};
}

}  // namespace

std::string Verdict::str() const {
  static const char* const names[] = {"good",   "refused", "amplified", "broken", "text", "erased",
                                      "values", "replicas", "bytes",    "memory", "twin"};
  return std::string(names[kind]) + (message.empty() ? "" : ": " + message);
}

Verdict check_program(const Program& program, const CheckOptions& data) {
  try {
    return check_all(program, data);
  } catch (const UserError& e) {
    return {Verdict::refused, e.what()};
  } catch (const std::exception& e) {
    return {Verdict::broken, e.what()};
  }
}

}  // namespace meshard::fuzz
