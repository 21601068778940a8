// Cost model: how long a step of a reshard is expected to take. A rank needs `message_ns` for each message that it
// receives and the time of its bytes: the α-β model, in whole nanoseconds.
//
//   CostModel model;                                   // all ranks on one host
//   model.ranks_per_host = 8;                          // ranks 0-7 on one host, 8-15 on the next
//   int64_t ns = step_nanoseconds(model, mesh, {4096, 1024}, step, /*element_bytes=*/4);
//
// It serves to choose and to explain; bytes are exact, seconds are not. What it leaves out: other traffic on the same
// link, the time to pack and to add, and that a small call is often carried out as a tree.
#pragma once

#include "meshard/layout/reshard.h"

namespace meshard {

struct Link {
  int64_t message_ns = 0;    // α: for each message that a rank receives
  int64_t bytes_per_us = 1;  // 1/β: what a rank receives in a microsecond; 1000 is one GB/s; at least 1
  bool operator==(const Link&) const = default;
};

struct CostModel {
  // Processes of one host through shared memory, as bench/collectives_bench.cc shows them, and a network of 100 Gbit/s.
  Link host{.message_ns = 2'000, .bytes_per_us = 4'000};
  Link network{.message_ns = 20'000, .bytes_per_us = 12'000};
  int64_t ranks_per_host = 0;  // consecutive ranks that share a host; 0: all of them
  bool operator==(const CostModel&) const = default;

  // The link that ranks which differ along `over` talk by: the network's as soon as one group spans two hosts.
  const Link& link(const Mesh& mesh, AtomSet over) const;
  // A rank that receives so much in so many messages. Saturates at 2^62.
  static int64_t nanoseconds(const Link& link, int64_t messages, int64_t bytes);
  // A call over `over` that brings the busiest rank so much. Between hosts with k ranks of a group on each of h, calls go in
  // phases (collectives/phases.h): what all ranks of a host need crosses once and is passed on within, one phase after the
  // other, so h - 1 of the h k - 1 blocks of an all_gather, and that share of a reduce_scatter and an all_reduce, take the
  // network. The blocks of an all_to_all have one reader each; those within hosts travel meanwhile. All else that spans
  // hosts takes the network.
  int64_t nanoseconds(const Mesh& mesh, Collective kind, AtomSet over, int64_t messages, int64_t bytes) const;
};

// The most messages that one rank receives in a step. Of p ranks in a group: all_gather, reduce_scatter and all_to_all
// p - 1, all_reduce 2 (p - 1), permute 1, exchange one from each rank that it takes a piece of; slice none.
int64_t step_messages(const Mesh& mesh, const Shape& shape, const ReshardStep& step);

// The estimated time of a step on the rank that receives most; of several steps, one after the other, the sum.
int64_t step_nanoseconds(const CostModel& model, const Mesh& mesh, const Shape& shape, const ReshardStep& step,
                         int64_t element_bytes);
int64_t steps_nanoseconds(const CostModel& model, const Mesh& mesh, const Shape& shape,
                          const std::vector<ReshardStep>& steps, int64_t element_bytes);

}  // namespace meshard
