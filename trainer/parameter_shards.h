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
  ParameterShards(const Communicator& replicas, Shard shard, const Parameters& parameters);

  // Whether this rank updates the parameter: all ranks do where nothing is divided, and always for
  // those in full precision (norms, gates), of which there are few.
  bool updates(const Parameter& parameter) const;
  // Whether this rank is the one that saves it.
  bool saves(const Parameter& parameter) const;

  // For the exchange of gradients: who needs the sum of which.
  const std::vector<FlatPiece>& pieces() const { return pieces_; }
  // The sum of the squares of all gradients, an fp64 scalar, after that exchange.
  Tensor square_sum_of_gradients() const;
  // Brings every rank the values that others have updated.
  void share_values() const;

 private:
  bool divided() const { return shard_ != Shard::kNone && replicas_.size() > 1; }

  Communicator replicas_;
  Shard shard_;
  Tensor gradients_, values_;  // [P]
  std::map<std::string, int> owners_;
  std::vector<FlatPiece> pieces_;
};

}  // namespace infini
