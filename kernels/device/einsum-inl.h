// Products: of two operands by a library of matrix products where there is one, else one result a thread or a team.
#ifndef MESHARD_KERNELS_DEVICE_EINSUM_INL_H
#define MESHARD_KERNELS_DEVICE_EINSUM_INL_H

#include "meshard/kernels/device/index-inl.h"
#include "meshard/kernels/device/gemm.h"
#include "meshard/kernels/device/map-inl.h"
#include "meshard/kernels/device/product.h"
#include "meshard/kernels/epilogue.h"

namespace meshard::MESHARD_DEVICE {

// Any number of operands.
template <class T, size_t N>
struct ProductBody {
  Points<N + 1> kept, summed;
  const T* x[N];
  T* y;

  MESHARD_BODY Sum<T> term(const typename Points<N + 1>::At& at, int64_t i) const {
    const auto here = summed.at(i);
    Sum<T> value = load(x[0][at[0] + here[0]]);
    for (size_t o = 1; o < N; ++o) value *= load(x[o][at[o] + here[o]]);
    return value;
  }
  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = kept.at(i);
    Sum<T> sum = 0;
    for (int64_t j = 0; j < summed.count; ++j) sum += term(at, j);
    y[at[N]] = store<T>(sum);
  }
  MESHARD_BODY void operator()(const Team& team) const {
    const auto at = kept.at(team.index());
    const Sum<T> sum = team.sum<Sum<T>>(summed.count, [&](int64_t j) { return term(at, j); });
    team.each(1, [&](int64_t) { y[at[N]] = store<T>(sum); });
  }
};

template <size_t N>
Prepared product_of(const KernelSpec& spec) {
  std::array<const KernelOperand*, N + 1> blocks;
  for (size_t i = 0; i < N; ++i) blocks[i] = &spec.operands[i];
  blocks[N] = &spec.results[0];
  const Points<N + 1> kept = points_of<N + 1>(spec, factors_of(spec.results[0]), blocks);
  const Points<N + 1> summed = points_of<N + 1>(spec, reduced_factors(spec, spec.results[0]), blocks);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              ProductBody<T, N> body{kept, summed, {}, out<T>(call)};
              for (size_t i = 0; i < N; ++i) body.x[i] = in<T>(call, i);
              if (summed.count >= 256) return run_teams(kept.count, kRowThreads, 0, body, call.stream);
              run_points(kept.count, body, call.stream);
            }};
  });
}

// A stack of matrix products where no library takes them.
template <class T, class R>
struct GemmBody {
  Gemm g;
  const T *a, *b;
  R* y;

  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t j = i % g.n, r = i / g.n % g.m, s = i / g.n / g.m;
    const T* row = a + s * g.a.stack + r * g.a.row;
    const T* column = b + s * g.b.stack + j * g.b.column;
    Sum<T> sum = 0;
    for (int64_t k = 0; k < g.k; ++k) sum += load(row[k * g.a.column]) * load(column[k * g.b.row]);
    y[s * g.y.stack + r * g.y.row + j * g.y.column] = store<R>(sum);
  }
};

// What a sum lacks where no library adds it: a bias, and an activation if `activates`.
template <class T>
struct FinishBody {
  Points<2> points;  // bias, sum
  Map activation;
  bool activates;
  const T* bias;
  T *sum, *y;
  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = points.at(i);
    sum[at[1]] = store<T>(load(sum[at[1]]) + load(bias[at[0]]));
    if constexpr (!std::is_same_v<T, int32_t>) {
      if (activates) y[at[1]] = store<T>(map_float(activation, load(sum[at[1]]), Sum<T>(0), 0, 0));
    }
  }
};

// Operands a and b; with an epilogue the call has a bias as a third, and with `keeps_sum` the sum as a second result, and
// `run` is empty where the library does not take it. Narrow operands may give f32: then it is what is added up, unrounded.
inline Prepared product(const KernelSpec& spec, Gemm::Epilogue epilogue, bool keeps_sum) {
  const std::optional<Product> found = find_product(spec);
  const Dtype from = spec.operands[0].type.dtype, to = spec.results[0].type.dtype;
  const bool alike = std::all_of(spec.operands.begin(), spec.operands.end(), [&](const KernelOperand& o) { return o.type.dtype == from; });
  if (!alike || (to != from && (!found || !is_narrow(from) || to != Dtype::f32))) return {};
  if (!found && epilogue != Gemm::Epilogue::none) return {};
  switch (found ? 0 : spec.operands.size()) {
    case 0: break;
    case 1: return product_of<1>(spec);
    case 2: return product_of<2>(spec);
    case 3: return product_of<3>(spec);
    default: return product_of<4>(spec);
  }
  const Product& p = *found;
  const auto strides = [](const MatrixStack& s) { return Gemm::Strides{s.stack, s.row, s.column}; };
  const Gemm gemm{from, to, from == Dtype::f32 && tf32_allowed(), p.stack, p.m, p.n, p.k, strides(p.a), strides(p.b), strides(p.y), epilogue, keeps_sum};
  const PreparedGemm library = prepare_gemm(gemm);
  if (epilogue != Gemm::Epilogue::none && (!library.run || (keeps_sum && p.y.packed))) return {};
  // In the workspace: what is copied, then what the library wants.
  int64_t used = 0;
  const auto take = [&](const MatrixStack& s, int64_t elements, Dtype dtype) {
    const int64_t at = used;
    if (s.packed) used += aligned(elements * size_bytes(dtype));
    return at;
  };
  const int64_t at_a = take(p.a, p.stack * p.m * p.k, from), at_b = take(p.b, p.stack * p.k * p.n, from),
                at_y = take(p.y, p.stack * p.m * p.n, to);
  const Points<2> copy_a = p.a.packed ? Points<2>(*p.a.points) : Points<2>(),
                  copy_b = p.b.packed ? Points<2>(*p.b.points) : Points<2>(),
                  copy_y = p.y.packed ? Points<2>(*p.y.points) : Points<2>();
  Points<2> back = copy_y;
  for (int l = 0; l < back.loops; ++l) std::swap(back.step[l][0], back.step[l][1]);
  const auto prepare = [&]<class T, class R>(T, R) -> Prepared {
    return {used + library.workspace_bytes,
            [=, packed_a = p.a.packed, packed_b = p.b.packed, packed_y = p.y.packed](const KernelCall& call) {
              auto* scratch = static_cast<std::byte*>(call.workspace);
              const T *a = in<T>(call, 0), *b = in<T>(call, 1);
              R* y = out<R>(call);
              const auto pack = [&](const Points<2>& points, const T* from, int64_t at) {
                T* to = reinterpret_cast<T*>(scratch + at);
                run_points(points.count, TransposeBody<T>{points, from, to}, call.stream);
                return to;
              };
              if (packed_a) a = pack(copy_a, a, at_a);
              if (packed_b) b = pack(copy_b, b, at_b);
              R* to = packed_y ? reinterpret_cast<R*>(scratch + at_y) : y;
              if (library.run) {
                const bool finishes = epilogue != Gemm::Epilogue::none;
                library.run({a, b, to, scratch + used, call.stream, finishes ? call.operands[2] : nullptr, keeps_sum ? call.results[1] : nullptr});
              } else {
                run_points(gemm.stack * gemm.m * gemm.n, GemmBody<T, R>{gemm, a, b, to}, call.stream);
              }
              if (packed_y) run_points(back.count, TransposeBody<R>{back, to, y}, call.stream);
            }};
  };
  return for_float(from, [&]<class T>() -> Prepared {
    if constexpr (kNarrowType<T>) {
      if (to == Dtype::f32) return prepare(T(), float());
    }
    return prepare(T(), T());
  });
}

inline Prepared einsum(const KernelSpec& spec) { return product(spec, Gemm::Epilogue::none, false); }

// Whether the bias is one number for each column of the product as the library sees it, in that order.
inline bool along_columns(const KernelSpec& spec) {
  const auto all = [&](const KernelOperand& block, auto wanted) {
    std::vector<int> factors;
    for (int f : factors_of(block)) {
      if (spec.factors[static_cast<size_t>(f)].size != 1 && wanted(f)) factors.push_back(f);
    }
    return factors;
  };
  const auto column = [&](int f) { return has_factor(spec.operands[1], f) && !has_factor(spec.operands[0], f); };
  return all(spec.operands[2], [](int) { return true; }) == all(spec.results[0], column);
}

inline Prepared product_and(const KernelSpec& spec, bool activates) {
  const EpilogueParts parts(spec, activates);
  const bool keeps_sum = activates && spec.results.size() == 2;
  const bool gelu = activates && spec.attributes->text("activation") == "gelu";
  const bool alike = std::all_of(spec.operands.begin(), spec.operands.end(), [&](const KernelOperand& o) { return o.type.dtype == spec.results[0].type.dtype; });
  if (alike && (gelu || !activates) && along_columns(spec)) {
    const Prepared whole = product(parts.product, gelu ? Gemm::Epilogue::gelu : Gemm::Epilogue::bias, keeps_sum);
    if (whole.run) return whole;
  }
  const Prepared first = einsum(parts.product);
  if (!first.run) return {};
  const KernelOperand& sum = spec.results[parts.sum];
  const Points<2> points = points_of<2>(spec, factors_of(sum), {&spec.operands[2], &sum});
  return for_float(sum.type.dtype, [&]<class T>() -> Prepared {
    return {first.workspace_bytes, [=, at = parts.sum](const KernelCall& call) {
              first.run({call.operands.first(2), call.results.subspan(at, 1), call.workspace, call.stream});
              run_points(points.count,
                         FinishBody<T>{points, gelu ? Map::gelu : Map::silu, activates, in<T>(call, 2), static_cast<T*>(call.results[at]), out<T>(call)},
                         call.stream);
            }};
  });
}
inline Prepared einsum_bias(const KernelSpec& spec) { return product_and(spec, false); }
inline Prepared einsum_activation(const KernelSpec& spec) { return product_and(spec, true); }

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_EINSUM_INL_H
