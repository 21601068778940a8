// Products of two operands as batched matrix products: factors fall into batch (in both operands and the result), m
// (first operand and result), n (second and result) and k (both operands, summed). An operand whose groups don't lie at
// one stride each is copied into order first, and a result afterwards.
#include <omp.h>

#include <cstring>
#include <dnnl.hpp>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "meshard/kernels/cpu/copy.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/few_rows.h"

namespace meshard::cpu {
namespace {

using dnnl::memory;
using Group = std::vector<int>;  // factors, major first

struct Groups {
  Group batch, m, n, k;
};

// A block as a stack of matrices: elements between neighbours of the stack, the rows and the columns.
struct Matrices {
  int64_t stack = 0, row = 0, column = 0;
};

int64_t size_of(const KernelSpec& spec, const Group& group) {
  int64_t size = 1;
  for (int f : group) size *= spec.factors[static_cast<size_t>(f)].size;
  return size;
}

// none: a factor is missing from where a product needs it, or is summed in one operand alone.
std::optional<Groups> find_groups(const KernelSpec& spec) {
  Groups g;
  for (size_t i = 0; i < spec.factors.size(); ++i) {
    const int f = static_cast<int>(i);
    if (spec.factors[i].size == 1) continue;
    const bool a = has_factor(spec.operands[0], f), b = has_factor(spec.operands[1], f),
               y = has_factor(spec.results[0], f);
    if (!a && !b && !y) continue;
    if (a + b + y < 2) return std::nullopt;
    (a && b && y ? g.batch : a && y ? g.m : b && y ? g.n : g.k).push_back(f);
  }
  return g;
}

// The group in the order in which the block has it.
Group ordered(const Group& group, const KernelOperand& block) {
  Group out;
  for (int f : factors_of(block)) {
    if (std::find(group.begin(), group.end(), f) != group.end()) out.push_back(f);
  }
  return out;
}

// The one stride at which the group's points lie; none if there is no such stride. `alone` is that of a single point.
std::optional<int64_t> stride_of(const KernelSpec& spec, const KernelOperand& block, const Group& group,
                                 int64_t alone) {
  if (group.empty()) return alone;
  const std::vector<int64_t> strides = factor_strides(spec, block);
  for (size_t i = 0; i + 1 < group.size(); ++i) {
    const auto outer = static_cast<size_t>(group[i]), inner = static_cast<size_t>(group[i + 1]);
    if (strides[outer] != strides[inner] * spec.factors[inner].size) return std::nullopt;
  }
  return strides[static_cast<size_t>(group.back())];
}

// none: it must be copied into order. Rows or columns must be next to one another.
std::optional<Matrices> matrices(const KernelSpec& spec, const KernelOperand& block, const Group& batch,
                                 const Group& rows, const Group& columns) {
  const int64_t r = size_of(spec, rows), c = size_of(spec, columns);
  const std::optional<int64_t> row_step = stride_of(spec, block, rows, c),
                               column_step = stride_of(spec, block, columns, 1);
  const std::optional<int64_t> stack = stride_of(spec, block, batch, r * c);
  if (!row_step || !column_step || !stack) return std::nullopt;
  Matrices out{*stack, *row_step, *column_step};
  if (rows.empty() && out.column != 1) out.row = 1;  // a single row with gaps is a column of a matrix lying on its side
  if (out.column == 1 && out.row >= c) return out;
  if (out.row == 1 && out.column >= r) return out;
  return std::nullopt;
}

// The block with its groups as dimensions, in this order.
KernelOperand in_order(const KernelSpec& spec, Dtype dtype, std::initializer_list<Group> groups) {
  KernelOperand block{{dtype, {}}, {}};
  for (const Group& group : groups) {
    block.type.shape.dims.push_back(size_of(spec, group));
    block.dims.push_back(group);
  }
  return block;
}

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// oneDNN asks OpenMP how many threads there are, when it makes a primitive and when it runs one.
class Threads {
 public:
  explicit Threads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

struct Sizes {
  int64_t batch = 1, m = 1, n = 1, k = 1;
};

// A primitive with its memory objects, made once: a run only puts in the addresses, so it may run in one thread at a
// time.
struct Primitive {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::primitive primitive;
  memory a, b, y, scratch;
  std::unordered_map<int, memory> arguments;
  int64_t scratch_bytes = 0;

  template <class Description>
  void set(const Description& description, std::array<int, 3> arguments_of, const memory::desc& da,
           const memory::desc& db, const memory::desc& dy) {
    a = memory(da, engine, nullptr);
    b = memory(db, engine, nullptr);
    y = memory(dy, engine, nullptr);
    scratch = memory(description.scratchpad_desc(), engine, nullptr);
    scratch_bytes = static_cast<int64_t>(description.scratchpad_desc().get_size());
    arguments = {{arguments_of[0], a}, {arguments_of[1], b}, {arguments_of[2], y}, {DNNL_ARG_SCRATCHPAD, scratch}};
  }

  void run(const void* pa, const void* pb, void* py, void* pscratch) {
    a.set_data_handle(const_cast<void*>(pa));
    b.set_data_handle(const_cast<void*>(pb));
    y.set_data_handle(py);
    scratch.set_data_handle(pscratch);
    primitive.execute(stream, arguments);
    stream.wait();
  }
};

memory::desc describe(memory::dims sizes, memory::dims strides, Dtype dtype = Dtype::f32) {
  const auto type = dtype == Dtype::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  return memory::desc(std::move(sizes), type, std::move(strides));
}

template <class Description>
bool implemented_as(const Description& description, std::string_view what) {
  return std::string_view(description.impl_info_str()).find(what) != std::string_view::npos;
}

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

// Dense products run fastest as inner products, which go straight to oneDNN's packed GEMM: rows of a times rows of b^T
// ...
bool inner_product(Primitive& p, const Sizes& s, const Matrices& a, const Matrices& b) {
  const memory::desc da = describe({s.m, s.k}, {s.k, 1}), dy = describe({s.m, s.n}, {s.n, 1});
  if (a.column == 1 && a.row == s.k && b.column == 1 && b.row == s.n) {
    const memory::desc db = describe({s.n, s.k}, {1, s.n});
    const dnnl::inner_product_forward::primitive_desc d({dnnl::prop_kind::forward_inference, da, db, dy},
                                                        user_scratchpad(), p.engine, true);
    if (!d || !implemented_as(d, "gemm")) return false;
    p.primitive = dnnl::inner_product_forward(d);
    p.set(d, {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST}, da, db, dy);
    return true;
  }
  // ... and columns of a times columns of b as the gradient of an inner product's weights.
  if (a.row == 1 && a.column == s.m && b.column == 1 && b.row == s.n) {
    const memory::desc outer = describe({s.k, s.m}, {s.m, 1}), inner = describe({s.k, s.n}, {s.n, 1});
    const dnnl::inner_product_forward::primitive_desc hint({dnnl::prop_kind::forward_training, inner, dy, outer},
                                                           p.engine, true);
    if (!hint) return false;
    const dnnl::inner_product_backward_weights::primitive_desc d({inner, dy, outer}, user_scratchpad(), p.engine, hint,
                                                                 true);
    if (!d || !implemented_as(d, "gemm")) return false;
    p.primitive = dnnl::inner_product_backward_weights(d);
    p.set(d, {DNNL_ARG_DIFF_DST, DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS}, outer, inner, dy);
    return true;
  }
  return false;
}

bool matrix_product(Primitive& p, const Sizes& s, const Matrices& a, const Matrices& b, const Matrices& y, Dtype from,
                    Dtype to) {
  const auto stack = [&](int64_t rows, int64_t columns, const Matrices& x, Dtype dtype) {
    if (s.batch == 1) return describe({rows, columns}, {x.row, x.column}, dtype);
    return describe({s.batch, rows, columns}, {x.stack, x.row, x.column}, dtype);
  };
  const memory::desc da = stack(s.m, s.k, a, from), db = stack(s.k, s.n, b, from), dy = stack(s.m, s.n, y, to);
  const dnnl::matmul::primitive_desc d({da, db, dy}, user_scratchpad(), p.engine, true);
  if (!d || implemented_as(d, "ref")) return false;
  p.primitive = dnnl::matmul(d);
  p.set(d, {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST}, da, db, dy);
  return true;
}

// A product with the copies that it needs. Offsets are bytes in the workspace.
struct Product {
  KernelOperand a, b, y;  // as the matrix product sees them
  std::function<void(const void* x, void* y)> copy_a, copy_b, copy_y;
  int64_t at_a = 0, at_b = 0, at_y = 0, at_scratch = 0;
  Primitive primitive;
};

// a is [batch, m, k], b [batch, k, n] and the result [batch, m, n] with n next to one another, or false.
bool make_primitive(const KernelSpec& spec, const Groups& g, Product& p) {
  const std::optional<Matrices> a = matrices(spec, p.a, g.batch, g.m, g.k), b = matrices(spec, p.b, g.batch, g.k, g.n);
  const std::optional<Matrices> y = matrices(spec, p.y, g.batch, g.m, g.n);
  if (!a || !b || !y || y->column != 1) return false;
  const Sizes s{size_of(spec, g.batch), size_of(spec, g.m), size_of(spec, g.n), size_of(spec, g.k)};
  const Dtype from = p.a.type.dtype, to = p.y.type.dtype;
  if (from == Dtype::f32 && s.batch == 1 && y->row == s.n && inner_product(p.primitive, s, *a, *b)) return true;
  return matrix_product(p.primitive, s, *a, *b, *y, from, to);
}

// Orders of the groups that need the fewest elements copied.
struct Order {
  Groups groups;
  bool copy_a = true, copy_b = true, copy_y = true;
  int64_t copied = std::numeric_limits<int64_t>::max();
};

Order best_order(const KernelSpec& spec, const Groups& found) {
  const KernelOperand &a = spec.operands[0], &b = spec.operands[1], &y = spec.results[0];
  Order best;
  for (int choice = 0; choice < 8; ++choice) {
    Order o;
    o.groups = {ordered(found.batch, y), ordered(found.m, choice & 1 ? a : y), ordered(found.n, choice & 2 ? b : y),
                ordered(found.k, choice & 4 ? b : a)};
    const Groups& g = o.groups;
    o.copy_a = !matrices(spec, a, g.batch, g.m, g.k);
    o.copy_b = !matrices(spec, b, g.batch, g.k, g.n);
    const std::optional<Matrices> result = matrices(spec, y, g.batch, g.m, g.n);
    o.copy_y = !result || result->column != 1;
    o.copied = (o.copy_a ? a.type.shape.elements() : 0) + (o.copy_b ? b.type.shape.elements() : 0) +
               (o.copy_y ? y.type.shape.elements() : 0);
    if (o.copied < best.copied) best = o;
  }
  return best;
}

// An operand in order: [batch, rows, columns], or columns first where its own last factor is one of the rows.
KernelOperand packed(const KernelSpec& spec, const KernelOperand& block, const Group& batch, const Group& rows,
                     const Group& columns) {
  for (const std::vector<int>& all = factors_of(block); int f : std::vector<int>(all.rbegin(), all.rend())) {
    if (spec.factors[static_cast<size_t>(f)].size == 1) continue;
    if (std::find(rows.begin(), rows.end(), f) != rows.end()) return in_order(spec, block.type.dtype, {batch, columns, rows});
    break;
  }
  return in_order(spec, block.type.dtype, {batch, rows, columns});
}

template <class T>
std::function<void(const void*, void*)> untyped(Copy<T> copy) {
  if (!copy) return nullptr;
  return [copy = std::move(copy)](const void* x, void* y) { copy(static_cast<const T*>(x), static_cast<T*>(y)); };
}

std::shared_ptr<Product> make_product(const KernelSpec& spec, const Order& order) {
  const Groups& g = order.groups;
  auto p = std::make_shared<Product>();
  const KernelOperand &a = spec.operands[0], &b = spec.operands[1], &y = spec.results[0];
  const auto reorder = [&](const KernelOperand& from, const KernelOperand& to) {
    const Nest<2> nest(spec, factors_of(to), {&from, &to});
    return from.type.dtype == Dtype::bf16 ? untyped(make_copy<uint16_t>(nest, spec.threads))
                                          : untyped(make_copy<float>(nest, spec.threads));
  };
  p->a = order.copy_a ? packed(spec, a, g.batch, g.m, g.k) : a;
  p->b = order.copy_b ? packed(spec, b, g.batch, g.k, g.n) : b;
  p->y = order.copy_y ? in_order(spec, y.type.dtype, {g.batch, g.m, g.n}) : y;
  if (order.copy_a) p->copy_a = reorder(a, p->a);
  if (order.copy_b) p->copy_b = reorder(b, p->b);
  if (order.copy_y) p->copy_y = reorder(p->y, y);
  if ((order.copy_a && !p->copy_a) || (order.copy_b && !p->copy_b) || (order.copy_y && !p->copy_y)) return nullptr;
  if (!make_primitive(spec, g, *p)) return nullptr;
  p->at_b = p->at_a + (order.copy_a ? aligned(p->a.type.bytes()) : 0);
  p->at_y = p->at_b + (order.copy_b ? aligned(p->b.type.bytes()) : 0);
  p->at_scratch = p->at_y + (order.copy_y ? aligned(p->y.type.bytes()) : 0);
  return p;
}

// The transposed product, for a result whose m lies innermost: y^T = b^T a^T.
KernelSpec turn(KernelSpec spec) {
  std::swap(spec.operands[0], spec.operands[1]);
  return spec;
}

Prepared run_product(std::shared_ptr<Product> p, bool turned, int threads) {
  return {p->at_scratch + p->primitive.scratch_bytes, [p = std::move(p), turned, threads](const KernelCall& call) {
            const Threads guard(threads);
            auto* workspace = static_cast<std::byte*>(call.workspace);
            const auto space = [&](int64_t at) -> void* { return workspace + at; };
            const void* a = call.operands[turned ? 1 : 0];
            const void* b = call.operands[turned ? 0 : 1];
            void* y = p->copy_y ? space(p->at_y) : call.results[0];
            if (p->copy_a) {
              p->copy_a(a, space(p->at_a));
              a = space(p->at_a);
            }
            if (p->copy_b) {
              p->copy_b(b, space(p->at_b));
              b = space(p->at_b);
            }
            p->primitive.run(a, b, y, space(p->at_scratch));
            if (p->copy_y) p->copy_y(y, call.results[0]);
          }};
}

// A few rows (operand `rows_in`) and a matrix, both as they lie: reading the matrix takes all the time. Empty where it is
// something else.
Prepared few_rows(const KernelSpec& spec, const Groups& found, int rows_in) {
  const auto x_at = static_cast<size_t>(rows_in);
  const KernelOperand &rows = spec.operands[x_at], &matrix = spec.operands[1 - x_at];
  const Groups g{{}, ordered(rows_in == 0 ? found.m : found.n, rows), ordered(rows_in == 0 ? found.n : found.m, matrix), ordered(found.k, matrix)};
  const int64_t count = size_of(spec, g.m), n = size_of(spec, g.n), k = size_of(spec, g.k);
  const std::optional<Matrices> x = matrices(spec, rows, {}, g.m, g.k), w = matrices(spec, matrix, {}, g.k, g.n);
  const std::optional<Matrices> y = matrices(spec, spec.results[0], {}, g.m, g.n);
  if (size_of(spec, found.batch) != 1 || count > kFewRows || n < count || !x || !w || !y || y->column != 1) return {};
  constexpr int64_t kUnit = 16, kElements = 1 << 16;  // columns that stay together; what a further thread pays for
  const bool packs = x->column != 1;
  const FewRowsFns f = best_few_rows_functions();
  return {packs ? count * k * static_cast<int64_t>(sizeof(float)) : 0,
          [=, x = *x, w = *w, y = *y, threads = spec.threads](const KernelCall& call) {
            FewRows p{count, k, n, in<float>(call, x_at), x.row, in<float>(call, 1 - x_at), 0, out<float>(call), y.row};
            if (packs) {
              auto* space = static_cast<float*>(call.workspace);
              for (int64_t i = 0; i < count * k; ++i) space[i] = p.x[i / k * x.row + i % k * x.column];
              p.x = space;
              p.ld_x = k;
            }
            const bool across = w.column == 1;
            p.ld_w = across ? w.row : w.column;
            parallel_parts(threads, (n + kUnit - 1) / kUnit, kElements / (kUnit * k) + 1, [&](int64_t, int64_t begin, int64_t end) {
              FewRows mine = p;
              mine.n = std::min(end * kUnit, n) - begin * kUnit;
              mine.w += begin * kUnit * (across ? 1 : p.ld_w);
              mine.y += begin * kUnit;
              across ? f.across(mine) : f.along(mine);
            });
          }};
}

// AMX has units for bf16, and AMD's vectors take one at the rate of f32. Of Intel's vector instruction (vdpbf16ps) one
// takes as long as four multiply-adds of f32 and does the work of two: there f32 is faster, conversion included. By the
// kind of processor and not by a measurement, so that runs are alike.
bool has_fast_bf16() {
  const auto has = [](dnnl::cpu_isa isa) {
    const auto all = static_cast<unsigned>(dnnl::get_effective_cpu_isa()), wanted = static_cast<unsigned>(isa);
    return (all & wanted) == wanted;
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_is("amd")) return has(dnnl::cpu_isa::avx512_core_bf16);
#endif
  return has(dnnl::cpu_isa::avx512_core_amx);
}

// Of operands of one type, f32 or bf16.
Prepared product(const KernelSpec& spec) {
  if (spec.operands.size() != 2) return {};
  const std::optional<Groups> found = find_groups(spec);
  if (!found || (found->m.empty() && found->n.empty()))
    return {};  // without rows and columns there is no matrix product
  const int64_t bytes = spec.results[0].type.bytes();
  if (bytes == 0) return {0, [](const KernelCall&) {}};
  if (size_of(spec, found->k) == 0) {
    return {0, [bytes](const KernelCall& call) { std::memset(call.results[0], 0, static_cast<size_t>(bytes)); }};
  }
  const bool few_first = size_of(spec, found->m) <= size_of(spec, found->n);
  if (Prepared p = !all_f32(spec) ? Prepared() : few_rows(spec, *found, few_first ? 0 : 1); p.run) return p;
  const Threads guard(spec.threads);
  const Order straight = best_order(spec, *found);
  const Order across = best_order(turn(spec), {found->batch, found->n, found->m, found->k});
  const bool turned = across.copied < straight.copied;
  std::shared_ptr<Product> p = turned ? make_product(turn(spec), across) : make_product(spec, straight);
  if (!p) return {};
  return run_product(std::move(p), turned, spec.threads);
}

}  // namespace

Prepared einsum(const KernelSpec& spec) {
  if (all_f32(spec)) return product(spec);
  return has_fast_bf16() ? einsum_bf16(spec) : Prepared();
}

Prepared einsum_bf16(const KernelSpec& spec) {
  if (spec.operands.size() != 2 || spec.results[0].type.dtype == Dtype::f64) return {};
  for (const KernelOperand& o : spec.operands) {
    if (o.type.dtype != Dtype::bf16) return {};
  }
  return product(spec);
}

}  // namespace meshard::cpu
