// Parameters that a pass borrows from elsewhere and gives back, because the process does not keep
// all of their elements.
#pragma once

#include <memory>

#include "tensor/pass.h"

namespace infini {

// Elements [begin, end) of all parameters in their order; the ends are borders of parameters.
struct ElementRange {
  std::int64_t begin = 0, end = 0;

  std::int64_t size() const { return end - begin; }
  friend bool operator==(const ElementRange&, const ElementRange&) = default;
};

// Parameters in full precision are never lent: what stands in their place in a range means nothing.
class ParameterLender {
 public:
  virtual ~ParameterLender() = default;
  // The values of a range [n] in the compute type; or an empty tensor where the process keeps them.
  // `next`, where it is not empty, is the range that is asked for after this one.
  virtual Tensor values(ElementRange range, ElementRange next) = 0;
  // Takes the gradients [n] of a range from one backward pass; they are destroyed. The range is one
  // of the order of all gradients, in which frozen parameters have no place.
  virtual void add_gradients(ElementRange range, const Tensor& gradients) = 0;
};

// What the backward pass of one tape adds to the gradients of a range of theirs, in memory that is
// taken when the first op asks for it.
class LentGradients {
 public:
  LentGradients(ElementRange range, DType dtype, Device device)
      : range_(range), dtype_(dtype), device_(device) {}

  Tensor of(std::int64_t offset, const Shape& shape);
  void give_to(ParameterLender& lender);

 private:
  Tensor all();  // [n]

  ElementRange range_;
  DType dtype_;
  Device device_;
  Tensor sum_;  // empty until asked for
};

struct Loan {
  ElementRange range;
  Tensor values;                             // [n], or empty
  std::shared_ptr<LentGradients> gradients;  // null where nothing is recorded, or nothing trains
};

// The pass with the parameters of a range at hand; the pass itself where `lender` is null. While it
// records, what is recorded with it adds to gradients that the lender receives when the backward
// pass has done all that is recorded from now on. Two borrowings that name the same `shared` are
// one as long as the first is on its tape: the lender receives their gradients together.
Pass borrow(const Pass& pass, ParameterLender* lender, const Parameters& parameters,
            ElementRange range, ElementRange next = {},
            std::weak_ptr<LentGradients>* shared = nullptr);

}  // namespace infini
