// A collective of several values: one call on staging areas in which their parts stand one after another.
#include "meshard/runtime/device.h"

namespace meshard {
namespace {

class MessagePlanner {
 public:
  MessagePlanner(const Mesh& mesh, const Flat& flat, const FlatStep& step, Rank rank) {
    for (size_t i = 0; i < step.operands.size(); ++i) {
      const FlatValue& from = flat.values[static_cast<size_t>(step.operands[i])];
      const ReshardStep s = reshard_step(flat, step, i);
      const Shape& shape = from.type.shape;
      values_.push_back({s, &shape, local_rect(mesh, shape, s.from, rank), local_rect(mesh, shape, s.to, rank)});
    }
    const ReshardStep& s = values_[0].step;
    c_.group = Group(mesh, s.over, rank);
    c_.element_bytes = size_bytes(flat.values[static_cast<size_t>(step.operands[0])].type.dtype);
    c_.call.kind = s.kind;
    c_.call.reduction = s.reduction;
    c_.call.dtype = flat.values[static_cast<size_t>(step.operands[0])].type.dtype;
    c_.stage_send = true;
    switch (s.kind) {
      case Collective::all_reduce:
        all_reduce();
        break;
      case Collective::all_gather:
        all_gather(mesh);
        break;
      case Collective::reduce_scatter:
        reduce_scatter(mesh);
        break;
      case Collective::all_to_all:
      case Collective::permute:
      case Collective::exchange:
        pieces(mesh, rank);
        break;
      default:
        throw InternalError("this collective is no step of several values");
    }
  }

  CollectiveStep take() { return std::move(c_); }

 private:
  struct Part {
    ReshardStep step;
    const Shape* shape;
    Rect held, wanted;
  };

  void pack(size_t i, const Rect& part) {
    if (part.elements() > 0) c_.pack.push_back({values_[i].held, part, part, 0, c_.send_elements, i});
    c_.send_elements += part.elements();
  }
  void unpack(size_t i, const Rect& part, int64_t offset) {
    if (part.elements() > 0) c_.unpack.push_back({part, values_[i].wanted, part, offset, 0, i});
  }

  // In place: sent and received in one area.
  void all_reduce() {
    for (size_t i = 0; i < values_.size(); ++i) {
      unpack(i, values_[i].wanted, c_.send_elements);
      pack(i, values_[i].held);
    }
    c_.call.send_elements = c_.send_elements;
  }

  void all_gather(const Mesh& mesh) {
    c_.stage_receive = true;
    for (size_t i = 0; i < values_.size(); ++i) pack(i, values_[i].held);
    for (Rank peer : c_.group.ranks()) {
      const int64_t begin = c_.receive_elements;
      for (size_t i = 0; i < values_.size(); ++i) {
        const Rect part = local_rect(mesh, *values_[i].shape, values_[i].step.from, peer);
        unpack(i, part, c_.receive_elements);
        c_.receive_elements += part.elements();
      }
      c_.counts.push_back(c_.receive_elements - begin);
    }
  }

  void reduce_scatter(const Mesh& mesh) {
    c_.stage_receive = true;
    for (Rank peer : c_.group.ranks()) {
      const int64_t begin = c_.send_elements;
      for (size_t i = 0; i < values_.size(); ++i) pack(i, local_rect(mesh, *values_[i].shape, values_[i].step.to, peer));
      c_.counts.push_back(c_.send_elements - begin);
    }
    for (size_t i = 0; i < values_.size(); ++i) {
      unpack(i, values_[i].wanted, c_.receive_elements);
      c_.receive_elements += values_[i].wanted.elements();
    }
  }

  void pieces(const Mesh& mesh, Rank rank) {
    c_.stage_receive = true;
    std::vector<Transfer> transfers;
    for (size_t i = 0; i < values_.size(); ++i) {
      transfers.push_back(transfer(mesh, *values_[i].shape, values_[i].step, rank));
      for (const Rect& part : transfers.back().keeps) {
        c_.keep.push_back({values_[i].held, values_[i].wanted, part, 0, 0, i});
      }
    }
    for (Rank peer : c_.group.ranks()) {
      const int64_t sent = c_.send_elements, received = c_.receive_elements;
      for (size_t i = 0; i < values_.size(); ++i) {
        for (const Piece& p : transfers[i].sends) {
          if (p.peer == peer) pack(i, p.part);
        }
        for (const Piece& p : transfers[i].receives) {
          if (p.peer != peer) continue;
          unpack(i, p.part, c_.receive_elements);
          c_.receive_elements += p.part.elements();
        }
      }
      c_.send_counts.push_back(c_.send_elements - sent);
      c_.counts.push_back(c_.receive_elements - received);
    }
  }

  std::vector<Part> values_;
  CollectiveStep c_;
};

}  // namespace

CollectiveStep plan_message(const Mesh& mesh, const Flat& flat, const FlatStep& step, Rank rank) {
  return MessagePlanner(mesh, flat, step, rank).take();
}

}  // namespace meshard
