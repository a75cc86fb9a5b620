#include "trainer/plan_tape.h"

#include <algorithm>
#include <utility>

namespace infini {

Trace::Block SizeTape::Gradients::of(std::size_t input) const {
  const Sized& tensor = inputs_.at(input);
  return tensor.tape ? tape_.target(tensor.slot) : nullptr;
}

void SizeTape::Gradients::hand_on(std::size_t input, const Trace::Block& dy) const {
  const Sized& tensor = inputs_.at(input);
  if (!tensor.tape) return;
  Slot& slot = tape_.slots_[tensor.slot];
  if (!slot.gradient) slot.gradient = dy;
  slot.written = true;
}

SizeTape::Gradients::Renewal SizeTape::Gradients::renew(std::size_t input) const {
  const Sized& tensor = inputs_.at(input);
  return tensor.tape ? tape_.renew(tensor.slot) : Renewal{};
}

Trace::Block SizeTape::target(int index) {
  Slot& slot = slots_[index];
  if (!slot.gradient) slot.gradient = trace_.take(slot.bytes, MemoryKind::kActivations);
  slot.written = true;
  return slot.gradient;
}

SizeTape::Gradients::Renewal SizeTape::renew(int index) {
  const bool stood = slots_[index].written;
  const Trace::Block before = target(index);
  Slot& slot = slots_[index];
  if (!stood) return {.stood = nullptr, .sum = before};
  if (!slot.external) slot.gradient = trace_.take(slot.bytes, MemoryKind::kActivations);
  return {.stood = before, .sum = slot.gradient};
}

Sized SizeTape::watch(const Sized& value) { return watch(value, nullptr); }

Sized SizeTape::watch(const Sized& value, const Trace::Block& gradient) {
  slots_.push_back({.gradient = gradient,
                    .bytes = value.bytes(),
                    .written = gradient != nullptr,
                    .external = gradient != nullptr});
  return {.block = value.block, .tape = this, .slot = static_cast<int>(slots_.size()) - 1};
}

void SizeTape::push(const std::vector<Sized*>& outputs, std::vector<Sized> inputs,
                    Backward backward) {
  if (std::ranges::none_of(inputs, [](const Sized& input) { return input.tape; })) return;
  Entry entry{.outputs = {}, .inputs = std::move(inputs), .backward = std::move(backward)};
  for (Sized* output : outputs) {
    *output = watch(*output);
    entry.outputs.push_back(output->slot);
  }
  for (Sized& input : entry.inputs) input.block.reset();
  entries_.push_back(std::move(entry));
}

void SizeTape::on_backward(std::function<void()> action) {
  entries_.push_back(
      {.outputs = {},
       .inputs = {},
       .backward = [action = std::move(action)](const auto&, const auto&) { action(); }});
}

void SizeTape::backward() {
  std::vector<Trace::Block> doutputs;
  while (!entries_.empty()) {
    Entry entry = std::move(entries_.back());
    entries_.pop_back();
    doutputs.clear();
    bool reached = entry.outputs.empty();  // an action
    for (const int index : entry.outputs) {
      Slot& slot = slots_[index];
      reached |= slot.written;
      doutputs.push_back(slot.written ? std::exchange(slot.gradient, nullptr) : nullptr);
      slot.written = false;
    }
    if (reached) entry.backward(doutputs, Gradients(*this, entry.inputs));
  }
}

}  // namespace infini
