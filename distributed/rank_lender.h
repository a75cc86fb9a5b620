// Parameters that ranks divide among them: what one rank keeps, all use.
#pragma once

#include <vector>

#include "distributed/communicator.h"
#include "distributed/owners.h"
#include "tensor/parameter_lender.h"

namespace infini {

// Takes gradients as the backward pass hands them out, range by range, adds them over the ranks and
// to what their owner keeps: over several backward passes of a step its sum is
// (pass 1 of rank 0 + pass 1 of rank 1 ...) + (pass 2 of rank 0 + ...) + ...
// While one range is on its way the device works on the next. Every call is made by all ranks
// alike.
class RankLender final : public ParameterLender {
 public:
  // The rank among `ranks` that owns each parameter, in their order; those in full precision are
  // everyone's. An owner keeps value and gradient of what it owns.
  RankLender(const Communicator& ranks, const Parameters& parameters,
             const std::vector<int>& owners);

  Tensor values(ElementRange range, ElementRange next) override;
  void add_gradients(ElementRange range, const Tensor& gradients) override;
  // What the device is asked for next sees the sums of all gradients.
  void finish();

 private:
  struct Lent {
    std::int64_t offset;  // in the order of all parameters
    std::int64_t size;
    int owner;
    Tensor gradient;  // [size] on the owner
    std::int64_t end() const { return offset + size; }
  };
  struct Gradients {
    ElementRange range;
    Tensor sum;  // [n]; empty: none
  };
  std::vector<Lent> in(ElementRange range) const;
  // The range in pieces of one owner.
  std::vector<FlatPiece> pieces(ElementRange range) const;
  void start(const Gradients& gradients);
  void settle();  // adds what has arrived

  Communicator ranks_;
  std::vector<Lent> lent_;  // by offset
  Gradients on_their_way_;
};

}  // namespace infini
