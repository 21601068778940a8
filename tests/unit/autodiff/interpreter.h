// Runs a whole program on one device with the reference kernels, and holds gradients against central differences.
#pragma once

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "meshard/base/buffer.h"
#include "meshard/base/error.h"
#include "meshard/ir/program.h"

namespace meshard::test {

// f64 or i32, as doubles: small programs only.
struct Data {
  Type type;
  std::vector<double> x;
};
using DataMap = std::map<std::string, Data>;

inline std::vector<Data> run_op(const Op& op, const std::vector<Data>& operands, const std::vector<Type>& results) {
  std::vector<Type> types;
  for (const Data& d : operands) types.push_back(d.type);
  const BoundRule rule = bind_rule(*op.def, op.attributes, types, results, op.source);
  KernelSpec spec;
  spec.attributes = &op.attributes;
  for (const Factor& f : rule.factors) spec.factors.push_back({f.name, f.size, f.size, 0});
  for (size_t i = 0; i < types.size(); ++i) spec.operands.push_back({types[i], rule.operands[i]});
  for (size_t i = 0; i < results.size(); ++i) spec.results.push_back({results[i], rule.results[i]});

  const Prepared kernel = op.def->reference(spec);
  std::vector<Buffer> in, out;
  std::vector<void*> in_data, out_data;
  for (const Data& d : operands) {
    in.emplace_back(d.type.bytes());
    in_data.push_back(in.back().data());
    for (size_t i = 0; i < d.x.size(); ++i) {
      if (d.type.dtype == Dtype::i32)
        static_cast<int32_t*>(in_data.back())[i] = static_cast<int32_t>(d.x[i]);
      else
        static_cast<double*>(in_data.back())[i] = d.x[i];
    }
  }
  for (const Type& t : results) {
    out.emplace_back(t.bytes());
    out_data.push_back(out.back().data());
  }
  Buffer workspace(kernel.workspace_bytes);
  kernel.run({in_data, out_data, workspace.data()});
  std::vector<Data> made;
  for (size_t r = 0; r < results.size(); ++r) {
    Data d{results[r], std::vector<double>(static_cast<size_t>(results[r].shape.elements()))};
    for (size_t i = 0; i < d.x.size(); ++i) {
      d.x[i] =
          results[r].dtype == Dtype::i32 ? static_cast<int32_t*>(out_data[r])[i] : static_cast<double*>(out_data[r])[i];
    }
    made.push_back(std::move(d));
  }
  return made;
}

inline std::vector<Data> run_function(const Program& program, const Function& f, const std::vector<Data>& arguments) {
  std::vector<Data> values(f.values.size());
  for (size_t p = 0; p < f.params.size(); ++p) values[index(f.params[p])] = arguments[p];
  for (const Op& op : f.ops) {
    std::vector<Data> operands, made;
    for (ValueId v : op.operands)
      operands.push_back(v == ValueId::none ? Data{Type{Dtype::i32, {}}, {0}} : values[index(v)]);
    if (op.kind == Op::apply) {
      std::vector<Type> types;
      for (ValueId r : op.results) types.push_back(f.value(r).type);
      made = run_op(op, operands, types);
    } else {
      const Function& callee = program.functions[static_cast<size_t>(op.callee)];
      for (int64_t round = 0; round < op.count; ++round) {
        if (op.index_operand >= 0) operands[static_cast<size_t>(op.index_operand)].x = {static_cast<double>(round)};
        made = run_function(program, callee, operands);
        for (size_t r = 0; r < made.size(); ++r) {
          const ValueId carried = callee.returns[r].in_place;
          if (carried != ValueId::none) operands[static_cast<size_t>(callee.param_index(carried))] = made[r];
        }
      }
    }
    for (size_t r = 0; r < op.results.size(); ++r) values[index(op.results[r])] = std::move(made[r]);
  }
  std::vector<Data> out;
  for (const Return& r : f.returns) out.push_back(values[index(r.value)]);
  return out;
}

// The results of main by name.
inline DataMap run_program(const Program& program, const DataMap& inputs) {
  const Function& main = program.main();
  std::vector<Data> arguments;
  for (ValueId p : main.params) arguments.push_back(inputs.at(main.value(p).name));
  const std::vector<Data> results = run_function(program, main, arguments);
  DataMap out;
  for (size_t r = 0; r < results.size(); ++r) out[main.value(main.returns[r].value).name] = results[r];
  return out;
}

// Something for each parameter of main, the same in each run.
inline DataMap draw_inputs(const Program& program) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> number(0.3, 1.2);
  DataMap out;
  for (ValueId p : program.main().params) {
    const ValueInfo& v = program.main().value(p);
    Data d{v.type, std::vector<double>(static_cast<size_t>(v.type.shape.elements()))};
    for (double& x : d.x) {
      x = v.type.dtype == Dtype::i32
              ? static_cast<double>(random() % static_cast<uint64_t>(std::max<int64_t>(v.below, 1)))
              : number(random) * (random() % 3 == 0 ? -1 : 1);
    }
    out[v.name] = std::move(d);
  }
  return out;
}

// Holds result `gradient` against central differences of result `loss` in parameter `param`, at up to `entries` places.
inline void check_gradient(const Program& program, const DataMap& inputs, const std::string& loss,
                           const std::string& param, const std::string& gradient, size_t entries = 5) {
  const Data got = run_program(program, inputs).at(gradient);
  const size_t n = got.x.size();
  REQUIRE(got.type == inputs.at(param).type);
  const size_t stride = std::max<size_t>(1, n / std::max<size_t>(entries, 1));
  for (size_t i = 0; i < n; i += stride) {
    const double step = 1e-5;
    DataMap moved = inputs;
    moved.at(param).x[i] += step;
    const double up = run_program(program, moved).at(loss).x[0];
    moved.at(param).x[i] -= 2 * step;
    const double down = run_program(program, moved).at(loss).x[0];
    INFO(param << " element " << i << " of " << n);
    CHECK(got.x[i] == Approx((up - down) / (2 * step)).epsilon(1e-6).margin(1e-9));
  }
}

}  // namespace meshard::test
