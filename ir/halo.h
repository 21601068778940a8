// Halos: an op whose rule has "t~" reads, for its block of t, a range of an operand's dimension that other devices may
// hold in part. Which range, who sends what to whom, and the bytes, follow from OpDef::reach and the layouts; nothing
// else of the op is known here.
//
//   const HaloFetch fetch{mesh, def, attributes, rule, operand_types, split.atoms, 0};
//   if (fetch.needed()) elements += fetch.received_elements(rank);
#pragma once

#include <span>

#include "meshard/ir/program.h"

namespace meshard {

// A piece that moves: where it lies in the operand, and where in the range that its reader asked for. The two differ by
// the extent where the op reads the dimension as a ring.
struct HaloPiece {
  Rank peer{};
  Rect part;    // in the operand
  Rect wanted;  // in the reader's range
};

struct HaloTransfer {
  std::vector<HaloPiece> sends, receives;  // sorted by the position of the peer in the group; one piece a peer at most
  std::vector<HaloPiece> keeps;            // peer: the rank itself
};

class HaloFetch;

// An op of a local program, under the split that its layouts say.
class PlacedOp {
 public:
  PlacedOp(const Mesh& mesh, const Function& function, const Op& op);
  HaloFetch fetch(int operand) const;

 private:
  const Mesh& mesh_;
  const Op& op_;
  std::vector<Type> operands_;
  BoundRule rule_;
  FactorAtoms atoms_;
};

class HaloFetch {
 public:
  HaloFetch(const Mesh& mesh, const OpDef& def, const Attributes& attributes, const BoundRule& rule,
            std::span<const Type> operands, const FactorAtoms& atoms, int operand);

  // Whether a dimension of the operand that is written with "~" is split: else the op reads what it holds.
  bool needed() const { return !over_.empty(); }
  AtomSet over() const { return over_; }             // the devices that exchange pieces
  AtomSet along() const { return layout_.split(); }  // what a device holds and reads depends on these
  const Shape& shape() const { return operands_[static_cast<size_t>(operand_)].shape; }
  Rect held(Rank rank) const;
  // What the op reads on `rank`, all of it; it may pass the ends of the operand (OpDef::reach).
  Rect wanted(Rank rank) const;
  HaloTransfer transfer(Rank rank) const;
  int64_t received_elements(Rank rank) const;
  bool moves() const;  // whether any device receives anything: a range may lie within what is held

 private:
  std::vector<HaloPiece> pieces(Rank holder, Rank reader) const;

  const Mesh& mesh_;
  const OpDef& def_;
  const Attributes& attributes_;
  const BoundRule& rule_;
  std::span<const Type> operands_;
  const FactorAtoms& atoms_;
  int operand_;
  Layout layout_;
  AtomSet over_;
};

// Elements of the operand that all devices together receive when the op runs under `atoms`; 0 without halos.
int64_t halo_elements(const Mesh& mesh, const OpDef& def, const Attributes& attributes, const BoundRule& rule,
                      std::span<const Type> operands, const FactorAtoms& atoms, int operand);

}  // namespace meshard
