#include "tensor/tape.h"

#include <utility>

#include "tensor/ops/elementwise.h"

namespace infini {

GradTarget Gradients::of(int input) const {
  const Tensor& tensor = inputs_.at(input);
  return tensor.tape() ? tape_.target(tensor) : GradTarget{};
}

Tensor Tape::handle(const Tensor& value, Slot slot) {
  Tensor result = value;
  result.tape_ = this;
  result.slot_ = static_cast<int>(slots_.size());
  slot.dtype = value.dtype();
  slot.device = value.device();
  slots_.push_back(std::move(slot));
  return result;
}

Tensor Tape::watch(const Tensor& value, const Tensor& gradient) {
  check(gradient.shape() == value.shape(), "watch: a gradient of shape ", gradient.shape(),
        " for a value of shape ", value.shape());
  return handle(value, {.gradient = gradient, .external = true, .written = true});
}

Tensor Tape::watch(const Tensor& value) { return handle(value, {}); }

GradTarget Tape::target(const Tensor& watched) {
  check(watched.tape() == this, "this tape does not watch the tensor");
  Slot& slot = slots_[watched.slot()];
  if (!slot.gradient) slot.gradient = Tensor::empty(watched.shape(), slot.dtype, slot.device);
  return {slot.gradient.reshape(watched.shape()), std::exchange(slot.written, true)};
}

Tensor Tape::gradient(const Tensor& watched) const {
  check(watched.tape() == this, "this tape does not watch the tensor");
  const Slot& slot = slots_[watched.slot()];
  return slot.written ? slot.gradient.reshape(watched.shape()) : Tensor{};
}

void Tape::seed(const Tensor& watched, const Tensor& gradient) {
  add_into(target(watched), gradient);
}

void Tape::push(std::vector<Tensor*> outputs, std::vector<Tensor> inputs, Backward backward) {
  Entry entry{.outputs = {}, .inputs = std::move(inputs), .backward = std::move(backward)};
  for (Tensor*& output : outputs) {
    *output = handle(output->unwatched(), {});
    entry.outputs.emplace_back(output->slot(), output->shape());
  }
  // An entry needs the identity of its inputs, not their elements: what backward reads, it
  // captured.
  for (Tensor& input : entry.inputs) input.storage_.reset();
  entries_.push_back(std::move(entry));
}

void Tape::backward() {
  std::vector<Tensor> doutputs;
  while (!entries_.empty()) {
    Entry entry = std::move(entries_.back());
    entries_.pop_back();
    doutputs.clear();
    bool reached = false;
    for (const auto& [index, shape] : entry.outputs) {
      Slot& slot = slots_[index];
      reached |= slot.written;
      doutputs.push_back(slot.written ? std::exchange(slot.gradient, {}).reshape(shape) : Tensor{});
      slot.written = false;
    }
    Gradients gradients(*this, entry.inputs);
    if (reached) entry.backward(doutputs, gradients);
  }
}

void Tape::backward(const Tensor& loss) {
  check(loss.size() == 1, "backward: expected a scalar, got shape ", loss.shape());
  const Tensor one = Tensor::of(std::vector<double>{1}, loss.shape()).to(loss.dtype());
  seed(loss, one);
  backward();
}

Tape* tape_of(std::span<const Tensor> inputs) {
  Tape* tape = nullptr;
  for (const Tensor& input : inputs) {
    if (!input.tape()) continue;
    check(!tape || tape == input.tape(), "an op with inputs on two tapes");
    tape = input.tape();
  }
  return tape;
}

}  // namespace infini
