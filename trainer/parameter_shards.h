// Which of the ranks that hold the same parameters looks after which of them.
#pragma once

#include <map>
#include <memory>

#include "distributed/layout.h"
#include "distributed/rank_lender.h"

namespace infini {

// What a parameter weighs for its owner: what is frozen nothing, or where ranks divide values a
// quarter of what trains, which has a gradient and two means beside its value.
std::int64_t parameter_weight(const ParameterSpec& spec, Shard shard);
// The owner of each parameter among `ranks`, so that all have about the same to hold.
std::vector<int> parameter_owners(const std::vector<ParameterSpec>& specs, int ranks, Shard shard);

// Parameters are owned whole, so that what an optimizer measures over one of them (Adafactor: means
// of rows and columns, root mean squares) is measured by one rank as if it were alone. Those in
// full precision (norms, gates), of which there are few, are kept and updated by every rank.
class ParameterShards {
 public:
  // Collective over `replicas`, as all calls of one that is divided are. `tensors`: the ranks that
  // have the other parts of these parameters, and those that are not parts as they are here.
  ParameterShards(const Communicator& replicas, const Communicator& tensors, Shard shard,
                  const std::vector<ParameterSpec>& specs);

  // Whether ranks can only run the model together, because each keeps the values of some
  // parameters.
  bool divides_values() const { return divides(Shard::kParameters); }
  // What this rank keeps of each parameter; empty: everything of all.
  Keeps keeps() const;
  // What lends the rest, of which `parameters` are kept here; none where everything is.
  std::unique_ptr<RankLender> lender(const Parameters& parameters) const;

  // Whether this rank updates the parameter: all ranks do where nothing is divided.
  bool updates(const Parameter& parameter) const;
  // Whether this rank is the one of its replicas that saves it and its state.
  bool owns(const Parameter& parameter) const;
  // Whether it is this rank of those that share blocks that speaks for a tensor: for a part every
  // rank, for what all have the first.
  bool speaks_for(const Division& division) const;

  // The gradients [n] that are exchanged after the backward pass or as it makes them final, and who
  // needs the sum of which. Others a lender exchanges.
  Tensor exchanged(const Parameters& parameters) const;
  std::vector<FlatPiece> pieces() const;

  // The sum of the squares of all gradients of all parts, an fp64 scalar, after every exchange: the
  // same bits on all ranks that share blocks.
  Tensor square_sum_of_gradients(const Parameters& parameters) const;
  // Brings every rank that keeps them the values that others have updated.
  void share_values(const Parameters& parameters) const;

 private:
  bool divides(Shard what) const { return shard_ >= what && replicas_.size() > 1; }
  // Of whom each parameter takes its updates, or kEveryone.
  std::vector<int> updaters() const;
  // The ranges of a buffer of gradients that this rank measures.
  std::vector<FlatPiece> measured(const Parameters& parameters) const;

  Communicator replicas_, tensors_;
  Shard shard_;
  std::vector<ParameterSpec> specs_;
  std::vector<int> owners_;
  std::map<std::string, int> owner_by_name_;
  std::int64_t full_elements_ = 0;  // of those in full precision that train together
};

}  // namespace infini
