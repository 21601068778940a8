// AdamW of one parameter, and of many in one launch: most of a model's parameters are so small that putting a kernel on the
// stream for each would take longer than the kernels.
#ifndef MESHARD_KERNELS_DEVICE_ADAMW_INL_H
#define MESHARD_KERNELS_DEVICE_ADAMW_INL_H

#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

// What all parameters of a launch have in common.
struct AdamwCommon {
  double beta1, beta2, eps;
  Side rate, clip, step;

  bool operator==(const AdamwCommon&) const = default;
};

template <class T>
struct AdamwParameter {
  int64_t team;  // its first
  int64_t n;
  double decay;
  const T *w, *m, *v, *g;
  T *w_out, *m_out, *v_out;
};

// Each team has kElements of one parameter. The table is an argument of the kernel, of which a GPU takes 32 KiB.
template <class T, int kMost>
struct AdamwBody {
  static constexpr int64_t kElements = 4096;
  AdamwCommon common;
  int count;
  AdamwParameter<T> parameters[kMost];

  // The last parameter that begins at the team or before.
  MESHARD_BODY const AdamwParameter<T>& parameter_of(int64_t team) const {
    int first = 0, last = count;
    while (last - first > 1) {
      const int middle = (first + last) / 2;
      (parameters[middle].team <= team ? first : last) = middle;
    }
    return parameters[first];
  }

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const AdamwParameter<T>& p = parameter_of(team.index());
    A* correct = team.memory<A>();
    team.each(2, [&](int64_t i) {
      correct[i] = static_cast<A>(1 / (1 - ::pow(i == 0 ? common.beta1 : common.beta2, common.step.get(0))));
    });
    const A keep1 = static_cast<A>(common.beta1), add1 = static_cast<A>(1 - common.beta1);
    const A keep2 = static_cast<A>(common.beta2), add2 = static_cast<A>(1 - common.beta2);
    const A eps = static_cast<A>(common.eps), decay = static_cast<A>(p.decay);
    const A learn = static_cast<A>(common.rate.get(0)), shrink = static_cast<A>(common.clip.get(0));
    const int64_t first = (team.index() - p.team) * kElements;
    team.each(p.n - first < kElements ? p.n - first : kElements, [&](int64_t at) {
      const int64_t i = first + at;
      if (shrink - shrink != 0) {  // not finite: all stays as it is
        p.w_out[i] = p.w[i];
        p.m_out[i] = p.m[i];
        p.v_out[i] = p.v[i];
        return;
      }
      const A w = load(p.w[i]), g = load(p.g[i]) * shrink;
      const A m = keep1 * load(p.m[i]) + add1 * g;
      const A v = keep2 * load(p.v[i]) + add2 * g * g;
      const A direction = m * correct[0] / (::sqrt(v * correct[1]) + eps) + decay * w;
      p.w_out[i] = store<T>(w - learn * direction);
      p.m_out[i] = store<T>(m);
      p.v_out[i] = store<T>(v);
    });
  }
};

struct AdamwMember {
  int64_t n;
  double beta1, beta2, eps, decay;
  Dtype scalars[3];
};

template <class T, int kMost>
class AdamwLaunch {
 public:
  explicit AdamwLaunch(void* stream) : stream_(stream) {}

  void add(const AdamwMember& a, const KernelCall& call) {
    const AdamwCommon common{a.beta1, a.beta2, a.eps, side(call.operands[4], a.scalars[0]),
                             side(call.operands[5], a.scalars[1]), side(call.operands[6], a.scalars[2])};
    if (a.n == 0) return;
    if (body_.count == kMost || (body_.count > 0 && body_.common != common)) launch();
    body_.common = common;
    body_.parameters[body_.count++] = {teams_, a.n, a.decay, in<T>(call, 0), in<T>(call, 1), in<T>(call, 2), in<T>(call, 3),
                                       out<T>(call, 0), out<T>(call, 1), out<T>(call, 2)};
    teams_ += (a.n + body_.kElements - 1) / body_.kElements;
  }
  void launch() {
    if (body_.count > 0) run_teams(teams_, 256, 2 * sizeof(double), body_, stream_);
    body_.count = 0;
    teams_ = 0;
  }

 private:
  void* stream_;
  int64_t teams_ = 0;
  AdamwBody<T, kMost> body_ = {};
};

template <class T>
void run_adamws(std::span<const KernelMember> members, void* stream) {
  AdamwLaunch<T, 256> all(stream);
  for (const KernelMember& m : members) all.add(*static_cast<const AdamwMember*>(m.kernel->member.get()), m.call);
  all.launch();
}

inline Prepared adamw(const KernelSpec& spec) {
  auto member = std::make_shared<const AdamwMember>(
      AdamwMember{spec.results[0].type.shape.elements(), spec.attributes->number("beta1", 0.9),
                  spec.attributes->number("beta2", 0.95), spec.attributes->number("eps", 1e-8),
                  spec.attributes->number("decay", 0),
                  {spec.operands[4].type.dtype, spec.operands[5].type.dtype, spec.operands[6].type.dtype}});
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    const auto run = [member](const KernelCall& call) {
      AdamwLaunch<T, 1> one(call.stream);
      one.add(*member, call);
      one.launch();
    };
    return {0, run, run_adamws<T>, member};
  });
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_ADAMW_INL_H
