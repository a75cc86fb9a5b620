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
// Where values are divided, gathers those of a range from their owners, and those of the next range
// at the same time as the device works on this one.
//
// Gradients of one range and values of another are on their way while the device works on a third:
// at most two ranges of each are in memory. Every call is made by all ranks alike.
class RankLender final : public ParameterLender {
 public:
  // The rank among `ranks` that owns each parameter, in their order; those in full precision are
  // everyone's. An owner keeps value and gradient of what it owns; the others keep its value where
  // ranks do not divide values.
  RankLender(const Communicator& ranks, const Parameters& parameters,
             const std::vector<int>& owners, bool divides_values);

  Tensor values(ElementRange range, ElementRange next) override;
  void add_gradients(ElementRange range, const Tensor& gradients) override;
  // What the device is asked for next sees the sums of all gradients, and values that are asked for
  // are those of now: to be called before owners change them.
  void finish();

 private:
  // The value of a parameter, or its gradient.
  struct Lent {
    std::int64_t offset;  // in the order of all parameters, or of all gradients
    std::int64_t size;
    int owner;
    Tensor kept;  // [size] on the owner
    std::int64_t end() const { return offset + size; }
  };
  struct Elements {
    ElementRange range;
    Tensor all;  // [n]; empty: none
  };
  static std::vector<Lent> in(ElementRange range, const std::vector<Lent>& all);
  // The range in pieces of one owner.
  static std::vector<FlatPiece> pieces(ElementRange range, const std::vector<Lent>& all);
  Elements gather(ElementRange range) const;
  void start(const Elements& gradients);
  void settle();  // waits for what is on its way and adds it

  Communicator ranks_;
  std::vector<Lent> values_, gradients_;  // by offset; what is frozen has no gradient
  bool divides_values_;
  DType compute_;
  Device device_;
  Elements next_;                    // values that were gathered ahead
  Elements waiting_, on_their_way_;  // gradients
};

}  // namespace infini
