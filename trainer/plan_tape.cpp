#include "trainer/plan_tape.h"

#include <utility>

namespace infini {

Trace::Block SizeTape::Gradients::of(std::size_t input) const {
  const Sized& tensor = inputs_.at(input);
  return tensor.tape ? tape_.target(tensor.slot) : nullptr;
}

bool SizeTape::Gradients::share(std::size_t input, std::size_t other) const {
  const Sized &first = inputs_.at(input), &second = inputs_.at(other);
  return first.tape && second.tape && tape_.share(first.slot, second.slot);
}

Trace::Block SizeTape::target(int index) {
  Slot& slot = slots_[index];
  if (!slot.gradient) slot.gradient = trace_.take(slot.bytes, MemoryKind::kActivations);
  if (slot.shared && slot.written) {  // whoever adds gets a copy of its own
    slot.gradient = trace_.take(slot.bytes, MemoryKind::kActivations);
    slot.shared = false;
  }
  slot.written = true;
  return slot.gradient;
}

bool SizeTape::share(int first_index, int second_index) {
  Slot &first = slots_[first_index], &second = slots_[second_index];
  if (first_index == second_index || first.written || second.written || first.bytes != second.bytes)
    return false;
  first.gradient = second.gradient = trace_.take(first.bytes, MemoryKind::kActivations);
  first.shared = second.shared = second.written = true;
  return true;
}

Sized SizeTape::watch(const Sized& value) { return watch(value, nullptr); }

Sized SizeTape::watch(const Sized& value, const Trace::Block& gradient) {
  slots_.push_back({.gradient = gradient, .bytes = value.bytes(), .written = gradient != nullptr});
  return {.block = value.block, .tape = this, .slot = static_cast<int>(slots_.size()) - 1};
}

void SizeTape::push(const std::vector<Sized*>& outputs, std::vector<Sized> inputs,
                    Backward backward) {
  Entry entry{.outputs = {}, .inputs = std::move(inputs), .backward = std::move(backward)};
  for (Sized* output : outputs) {
    *output = watch(*output);
    entry.outputs.push_back(output->slot);
  }
  for (Sized& input : entry.inputs) input.block.reset();
  entries_.push_back(std::move(entry));
}

void SizeTape::backward() {
  std::vector<Trace::Block> doutputs;
  while (!entries_.empty()) {
    Entry entry = std::move(entries_.back());
    entries_.pop_back();
    doutputs.clear();
    bool reached = false;
    for (const int index : entry.outputs) {
      Slot& slot = slots_[index];
      reached |= slot.written;
      doutputs.push_back(slot.written ? std::exchange(slot.gradient, nullptr) : nullptr);
      slot.written = slot.shared = false;
    }
    if (reached) entry.backward(doutputs, Gradients(*this, entry.inputs));
  }
}

}  // namespace infini
