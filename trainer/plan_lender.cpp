#include "trainer/plan_lender.h"

#include <utility>

namespace infini {

PlannedLender::Loan PlannedLender::borrow(SizeTape* tape, int part, int next,
                                          std::weak_ptr<Trace::Block>* shared) {
  Loan loan{.values = {}, .gradients = shared ? shared->lock() : nullptr, .part = part};
  if (!tape || options_.parts[part].gradient_elements == 0) {
    loan.gradients = nullptr;
  } else if (!loan.gradients) {
    loan.gradients = std::make_shared<Trace::Block>();
    tape->on_backward([this, part, gradients = loan.gradients] {
      add_gradients(part, std::exchange(*gradients, nullptr));
    });
    if (shared) *shared = loan.gradients;
  }
  if (!options_.divides_values) return loan;
  loan.values = next_part_ == part ? next_ : gather(part);
  next_.reset();
  settle();
  start(std::exchange(waiting_, nullptr));
  next_part_ = next;
  if (next != kNone) next_ = gather(next);
  return loan;
}

void PlannedLender::ask(const Loan& loan, SizeTape* tape) {
  if (!loan.gradients) return;
  const auto take = [this, gradients = loan.gradients, part = loan.part] {
    if (!*gradients)
      *gradients = trace_.take(options_.parts[part].gradient_elements * options_.full_bytes,
                               MemoryKind::kExchange);
  };
  if (tape)
    tape->on_backward(take);
  else
    take();
}

void PlannedLender::add_gradients(int part, const Trace::Block& gradients) {
  Work& work = trace_.work;
  work.lent_gradient_bytes +=
      static_cast<double>(options_.parts[part].gradient_elements * options_.full_bytes);
  work.lent_gradient_calls += options_.parts[part].gradient_pieces;
  if (waiting_ || !options_.divides_values) {
    settle();
    start(std::exchange(waiting_, nullptr));
  }
  waiting_ = gradients;
  if (!options_.divides_values) start(std::exchange(waiting_, nullptr));
}

void PlannedLender::finish() {
  next_.reset();
  next_part_ = kNone;
  waiting_.reset();
  settle();
}

Trace::Block PlannedLender::gather(int part) {
  const std::int64_t bytes = options_.parts[part].elements * options_.element_bytes;
  trace_.work.gathered_value_bytes += static_cast<double>(bytes);
  trace_.work.gathered_value_calls += options_.parts[part].owner_pieces;
  return trace_.take(bytes, MemoryKind::kExchange);
}

}  // namespace infini
