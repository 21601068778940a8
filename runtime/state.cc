#include "meshard/runtime/state.h"

#include <fmt/format.h>

#include <cstring>

#include "meshard/kernels/random.h"
#include "meshard/layout/block.h"

namespace meshard {

State::State(const Program& local, std::vector<Rank> devices, Backend* backend)
    : mesh_(*local.mesh), devices_(std::move(devices)), backend_(backend), buffers_(devices_.size()) {
  add(local);
}

void State::add(const Program& local) {
  MESHARD_CHECK(local.mesh->str() == mesh_.str(), "programs of one State have one mesh");
  const Function& main = local.main();
  const size_t before = entries_.size();
  for (size_t p = 0; p < main.params.size(); ++p) {
    const ParamInfo& info = main.param_info[p];
    if (info.kind == ParamInfo::input) continue;
    const ValueInfo& v = main.value(main.params[p]);
    if (const StateEntry* e = find(v.name)) {
      MESHARD_CHECK(e->type == v.type && e->layout == *v.layout, fmt::format("%{} has one type and layout in all programs of a State", v.name));
      continue;
    }
    by_name_[v.name] = static_cast<int>(entries_.size());
    entries_.push_back({v.name, v.type, *v.layout, info.kind, info.init});
  }
  for (size_t d = 0; d < devices_.size(); ++d) {
    for (size_t i = before; i < entries_.size(); ++i) {
      const StateEntry& e = entries_[i];
      buffers_[d].emplace_back(backend_, local_elements(mesh_, e.type.shape, e.layout, devices_[d]) * size_bytes(e.type.dtype));
    }
  }
}

const StateEntry* State::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &entries_[static_cast<size_t>(it->second)];
}

View State::view(std::string_view name, int device) const {
  const auto it = by_name_.find(name);
  MESHARD_CHECK(it != by_name_.end(), fmt::format("the state has no \"{}\"", name));
  const StateEntry& e = entries_[static_cast<size_t>(it->second)];
  const Rank rank = devices_[static_cast<size_t>(device)];
  return {buffers_[static_cast<size_t>(device)][static_cast<size_t>(it->second)].data(), e.type.dtype,
          local_shape(mesh_, e.type.shape, e.layout, rank)};
}

View State::read(std::string_view name, int device, Buffer& copy) const {
  View block = view(name, device);
  if (backend_ == nullptr) return block;
  copy = Buffer(block.bytes());
  backend_->copy(copy.data(), block.data, block.bytes(), Backend::compute);
  backend_->synchronize(Backend::compute);
  block.data = copy.data();
  return block;
}

void State::write(std::string_view name, int device, const void* from) {
  const View block = view(name, device);
  if (backend_ == nullptr) {
    if (block.bytes() > 0) std::memmove(block.data, from, static_cast<size_t>(block.bytes()));
    return;
  }
  backend_->copy(block.data, from, block.bytes(), Backend::compute);
  backend_->synchronize(Backend::compute);
}

int64_t State::bytes(int device) const {
  int64_t sum = 0;
  for (const Memory& b : buffers_[static_cast<size_t>(device)]) sum += (b.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  return sum;
}

void State::init(uint64_t seed, int threads) {
  for (size_t d = 0; d < devices_.size(); ++d) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      const StateEntry& e = entries_[i];
      const Rect rect = local_rect(mesh_, e.type.shape, e.layout, devices_[d]);
      std::vector<int64_t> begin;
      for (const Block& b : rect.dims) begin.push_back(b.begin);
      const Memory& memory = buffers_[d][i];
      const Buffer host(backend_ != nullptr ? memory.bytes() : 0);
      const View view{backend_ != nullptr ? host.data() : memory.data(), e.type.dtype, rect.shape()};
      switch (e.init.kind) {
        case Init::zeros: fill_constant(view, 0); break;
        case Init::ones: fill_constant(view, 1); break;
        case Init::constant: fill_constant(view, e.init.scale); break;
        case Init::normal: fill_normal(view, e.type.shape, begin, static_cast<int64_t>(seed), e.name, e.init.scale, threads); break;
        case Init::uniform: fill_uniform(view, e.type.shape, begin, static_cast<int64_t>(seed), e.name, e.init.scale, threads); break;
      }
      if (backend_ != nullptr) write(e.name, static_cast<int>(d), host.data());
    }
  }
}

std::vector<double> State::gather(std::string_view name) const {
  const StateEntry* e = find(name);
  MESHARD_CHECK(e != nullptr, fmt::format("the state has no \"{}\"", name));
  std::vector<View> blocks;
  std::vector<Buffer> copies;
  for (size_t d = 0; d < devices_.size(); ++d) {
    blocks.push_back(read(name, static_cast<int>(d), copies.emplace_back()));
  }
  return put_together(mesh_, e->type.shape, e->layout, devices_, blocks);
}

std::vector<double> put_together(const Mesh& mesh, const Shape& shape, const Layout& layout, std::span<const Rank> devices,
                                 std::span<const View> blocks) {
  MESHARD_CHECK(layout.replicated() || static_cast<int64_t>(devices.size()) == mesh.size(),
                "only a process that holds all devices can put a split tensor together");
  const auto n = static_cast<size_t>(shape.elements());
  std::vector<double> whole(n, 0.0);
  std::vector<uint64_t> seen(n, 0);  // which pending parts have been put in; 0: none
  const Rect all{[&] {
    InlineVector<Block, 5> dims;
    for (int64_t d : shape.dims) dims.push_back({0, d});
    return dims;
  }()};
  const Atoms pending = layout.pending_atoms().list();
  Reduction kind = Reduction::sum;
  for (int k = 0; k < kReductions; ++k) {
    if (!layout.pending[static_cast<size_t>(k)].empty()) kind = static_cast<Reduction>(k);
  }
  for (size_t d = 0; d < devices.size(); ++d) {
    const Rect mine = local_rect(mesh, shape, layout, devices[d]);
    const int64_t elements = mine.elements();
    std::vector<double> values(static_cast<size_t>(elements)), spread(n), mask(n, 0.0);
    read_doubles(blocks[d], values.data());
    std::vector<double> ones(values.size(), 1.0);
    copy_rect(values.data(), mine, spread.data(), all, mine, sizeof(double));
    copy_rect(ones.data(), mine, mask.data(), all, mine, sizeof(double));
    const auto part = static_cast<uint64_t>(mesh.position(devices[d], pending));
    for (size_t i = 0; i < n; ++i) {
      if (mask[i] == 0) continue;
      if (seen[i] == 0) {
        whole[i] = spread[i];
        seen[i] = part + 1;
      } else if (part + 1 > seen[i]) {
        whole[i] = kind == Reduction::sum ? whole[i] + spread[i] : kind == Reduction::max ? std::max(whole[i], spread[i]) : std::min(whole[i], spread[i]);
        seen[i] = part + 1;
      }
    }
  }
  return whole;
}

void read_doubles(const View& view, double* out) {
  const int64_t n = view.elements();
  for (int64_t i = 0; i < n; ++i) {
    switch (view.dtype) {
      case Dtype::f64: out[i] = view.as<double>()[i]; break;
      case Dtype::f32: out[i] = view.as<float>()[i]; break;
      case Dtype::bf16: out[i] = static_cast<float>(view.as<bfloat16>()[i]); break;
      case Dtype::f16: out[i] = static_cast<float>(view.as<float16>()[i]); break;
      case Dtype::i32: out[i] = view.as<int32_t>()[i]; break;
    }
  }
}

void write_doubles(const double* in, const View& view) {
  const int64_t n = view.elements();
  for (int64_t i = 0; i < n; ++i) {
    switch (view.dtype) {
      case Dtype::f64: view.as<double>()[i] = in[i]; break;
      case Dtype::f32: view.as<float>()[i] = static_cast<float>(in[i]); break;
      case Dtype::bf16: view.as<bfloat16>()[i] = bfloat16(static_cast<float>(in[i])); break;
      case Dtype::f16: view.as<float16>()[i] = float16(static_cast<float>(in[i])); break;
      case Dtype::i32: view.as<int32_t>()[i] = static_cast<int32_t>(in[i]); break;
    }
  }
}

void fill_constant(const View& view, double value) {
  if (value == 0) {
    if (view.bytes() > 0) std::memset(view.data, 0, static_cast<size_t>(view.bytes()));
    return;
  }
  std::vector<double> values(static_cast<size_t>(view.elements()), value);
  write_doubles(values.data(), view);
}

}  // namespace meshard
