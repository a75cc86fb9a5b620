// Parameters that ranks lend each other, in sizes: tensor/parameter_lender.h and
// distributed/rank_lender.h.
#pragma once

#include <memory>
#include <vector>

#include "trainer/plan_tape.h"

namespace infini {

// Parameters that are borrowed together: the embedding, a block, or the head.
struct LentPart {
  std::int64_t elements = 0;
  std::int64_t owner_pieces = 0;                            // of one owner each: a call
  std::int64_t gradient_elements = 0, gradient_pieces = 0;  // the same of what is not frozen
};

class PlannedLender {
 public:
  struct Options {
    std::vector<LentPart> parts;  // the embedding, block after block, the head where it is its own
    bool divides_values = false;
    std::int64_t element_bytes = 2;  // of the compute type
    std::int64_t full_bytes = 4;     // of its accumulator
  };
  PlannedLender(Trace& trace, const Options& options) : trace_(trace), options_(options) {}

  static constexpr int kNone = -1;
  // The gradients of a part, taken when the first op asks for them.
  using Gradients = std::shared_ptr<Trace::Block>;
  struct Loan {
    Trace::Block values;  // empty where they are not divided
    Gradients gradients;  // null where nothing is recorded, or nothing trains
    int part = kNone;
  };
  // As borrow() of parameter_lender.h: `next` is the part that is asked for after this one, or
  // kNone.
  Loan borrow(SizeTape* tape, int part, int next, std::weak_ptr<Trace::Block>* shared = nullptr);
  // An op asks for the gradients: now, or where `tape` is given when its backward pass is here.
  void ask(const Loan& loan, SizeTape* tape = nullptr);
  // The last backward pass of a step is done.
  void finish();

 private:
  Trace::Block gather(int part);
  void add_gradients(int part, const Trace::Block& gradients);
  void start(const Trace::Block& gradients) { on_their_way_ = gradients; }
  void settle() { on_their_way_.reset(); }

  Trace& trace_;
  Options options_;
  int next_part_ = kNone;
  Trace::Block next_;                    // values that were gathered ahead
  Trace::Block waiting_, on_their_way_;  // gradients
};

}  // namespace infini
