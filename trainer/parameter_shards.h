// Which of the ranks that hold the same parameters looks after which of them.
#pragma once

#include <map>

#include "distributed/layout.h"
#include "distributed/owners.h"
#include "tensor/parameters.h"

namespace infini {

// Parameters are owned whole, so that what an optimizer measures over one of them (Adafactor: means
// of rows and columns, root mean squares) is measured by one rank as if it were alone.
class ParameterShards {
 public:
  // `tensors`: the ranks that have the other parts of divided parameters, and whole copies of the
  // others.
  ParameterShards(const Communicator& replicas, const Communicator& tensors, Shard shard,
                  const Parameters& parameters);

  // Whether this rank updates the parameter: all ranks do where nothing is divided, and always for
  // those in full precision (norms, gates), of which there are few.
  bool updates(const Parameter& parameter) const;
  // Whether this rank is the one of its replicas that saves it and its state.
  bool owns(const Parameter& parameter) const;
  // Whether it is this rank of those that share blocks that speaks for a tensor: for a part every
  // rank, for what all have the first.
  bool speaks_for(const Division& division) const;

  // For the exchange of gradients: who needs the sum of which.
  const std::vector<FlatPiece>& pieces() const { return pieces_; }
  // The sum of the squares of all gradients of all parts, an fp64 scalar, after that exchange: the
  // same bits on all ranks that share blocks.
  Tensor square_sum_of_gradients() const;
  // Brings every rank the values that others have updated.
  void share_values() const;

 private:
  bool divided() const { return shard_ != Shard::kNone && replicas_.size() > 1; }

  Communicator replicas_, tensors_;
  Shard shard_;
  Tensor gradients_, values_;  // [P]
  std::map<std::string, int> owners_;
  std::vector<FlatPiece> pieces_;
  std::vector<FlatPiece> measured_;  // by this rank
};

}  // namespace infini
