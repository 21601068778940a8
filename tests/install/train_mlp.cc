// Trains a small network on four devices, which this process simulates: the README's program.
#include <cmath>
#include <cstdio>

#include "meshard/meshard.h"

using namespace meshard;

int main() {
  constexpr int64_t kBatch = 101, kHidden = 33;  // sizes need not divide

  // The model and its training step, written as if there were one device.
  Trace trace(op_table());
  Scope s = trace.scope();
  Value x = s.input("x", Dtype::f32, {kBatch, 2}), y = s.input("y", Dtype::f32, {kBatch});  // [b, i], [b]
  Value up = s.param("up", {2, kHidden}, {Init::normal, 1});                                // [i, j]
  Value bias = s.param("bias", {kHidden}, {Init::normal, 1});                               // [j]
  Value down = s.param("down", {kHidden}, {Init::normal, 0.1});                             // [j]
  Value hidden = tanh(einsum("b i, i j -> b j", x, up) + bias).named("hidden");             // [b, j]
  Value guess = einsum("b j, j -> b", hidden, down).named("guess");                         // [b]
  Value loss = mean(square(guess - y)).named("loss");                                       // []
  trace.result(loss);
  std::vector<Value> weights = trace.params(), grads = gradients(trace, loss, weights);
  for (size_t i = 0; i < weights.size(); ++i) trace.result(weights[i] - 0.05 * grads[i], weights[i]);

  // Where everything lies is a text beside the model.
  Plan plan = Plan::parse(R"(
      mesh data=2, model=2
      x             [data, -]
      y             [data]
      up            [-, model]
      bias, down    [model]
  )");
  Compiled step = compile(trace.program(), plan);
  std::printf("%s\n", step.bill.table(false).c_str());

  Session session(step, {.seed = 1});
  std::vector<double> points, products;  // the network learns to multiply
  for (int i = 0; i < kBatch; ++i) {
    const double u = std::sin(0.7 * i), v = std::sin(1.1 * i);
    points.insert(points.end(), {u, v});
    products.push_back(u * v);
  }
  session.set("x", points);
  session.set("y", products);
  for (int i = 0; i <= 1000; ++i) {
    session.run();
    if (i % 200 == 0) std::printf("step %4d  loss %.5f\n", i, session.scalar("loss"));
  }
  return session.scalar("loss") < 0.01 ? 0 : 1;
}
