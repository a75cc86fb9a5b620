#include "tensor/parameter_lender.h"

namespace infini {

Tensor LentGradients::all() {
  if (!sum_) sum_ = Tensor::zeros({range_.size()}, dtype_, device_);
  return sum_;
}

Tensor LentGradients::of(std::int64_t offset, const Shape& shape) {
  return all().slice(offset - range_.begin, shape.size()).reshape(shape);
}

void LentGradients::give_to(ParameterLender& lender) {
  lender.add_gradients(range_, all());
  sum_ = {};
}

Pass borrow(const Pass& pass, ParameterLender* lender, const Parameters& parameters,
            ElementRange range, ElementRange next, std::weak_ptr<LentGradients>* shared) {
  Pass result = pass;
  if (!lender) return result;
  const auto loan = std::make_shared<Loan>();
  loan->range = range;
  const ElementRange trained{.begin = parameters.gradient_offset(range.begin),
                             .end = parameters.gradient_offset(range.end)};
  if (pass.tape && trained.size() > 0) {
    if (shared) loan->gradients = shared->lock();
    if (!loan->gradients) {
      const auto gradients = std::make_shared<LentGradients>(
          trained, parameters.gradients().dtype(), parameters.gradients().device());
      pass.tape->on_backward([gradients, lender] { gradients->give_to(*lender); });
      loan->gradients = gradients;
      if (shared) *shared = gradients;
    }
  }
  loan->values = lender->values(range, next);
  result.loan = loan;
  return result;
}

Tensor Pass::borrowed(const Parameter& parameter) const {
  const ElementRange range = loan->range;
  const Shape& shape = parameter.value.shape();
  check(parameter.offset >= range.begin && parameter.offset + shape.size() <= range.end,
        parameter.name, " was not borrowed for this pass");
  const Tensor value =
      loan->values ? loan->values.slice(parameter.offset - range.begin, shape.size()).reshape(shape)
                   : parameter.value;
  if (!tape || parameter.frozen) return value;
  return tape->watch(value, [gradients = loan->gradients, offset = parameter.gradient_offset,
                             shape] { return gradients->of(offset, shape); });
}

}  // namespace infini
