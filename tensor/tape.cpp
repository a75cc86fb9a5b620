#include "tensor/tape.h"

#include <algorithm>
#include <utility>

#include "tensor/ops/elementwise.h"
#include "tensor/system_memory.h"

namespace infini {

void fill_zero(const Tensor& tensor, Columns columns) {
  const auto [rows, width] = tensor.rows_and_width();
  check(columns.begin >= 0 && columns.begin <= columns.end && columns.end <= width,
        "fill_zero: columns [", columns.begin, ", ", columns.end, ") of ", tensor.shape());
  const std::int64_t element = bytes_of(tensor.dtype());
  const SystemMemory::Strip strip{tensor.raw() + columns.begin * element, width * element};
  if (rows > 0 && columns.begin < columns.end)
    system_memory(tensor.device()).fill_zero(strip, (columns.end - columns.begin) * element, rows);
}

Tensor columns_of(const Tensor& matrix, Columns columns) {
  const auto [rows, width] = matrix.dims<2>();
  const std::int64_t count = columns.end - columns.begin, element = bytes_of(matrix.dtype());
  if (rows == 1) return matrix.reshape({width}).slice(columns.begin, count).reshape({1, count});
  const Tensor part = Tensor::empty({rows, count}, matrix.dtype(), matrix.device());
  system_memory(matrix.device())
      .copy({part.raw(), count * element},
            {matrix.raw() + columns.begin * element, width * element}, count * element, rows);
  return part;
}

GradTarget Gradients::of(int input) const {
  const Tensor& tensor = inputs_.at(input);
  return tensor.tape() ? tape_.target(tensor) : GradTarget{};
}

GradTarget Gradients::of(int input, Columns columns) const {
  const Tensor& tensor = inputs_.at(input);
  return tensor.tape() ? tape_.target(tensor, columns) : GradTarget{};
}

Gradients::Renewal Gradients::renew(int input) const {
  const Tensor& tensor = inputs_.at(input);
  return tensor.tape() ? tape_.renew(tensor) : Renewal{};
}

Gradients::Renewal Tape::renew(const Tensor& watched) {
  const GradTarget target = this->target(watched);
  if (!target.accumulate) return {.stood = {}, .sum = target.tensor};
  Slot& slot = slots_[watched.slot()];
  if (slot.lent) return {.stood = target.tensor, .sum = target.tensor};
  if (!slot.external) slot.gradient = Tensor::empty(watched.shape(), slot.dtype, slot.device);
  return {.stood = target.tensor, .sum = slot.gradient};
}

void Gradients::hand_on(int input, const Tensor& dy) const {
  if (const Tensor& tensor = inputs_.at(input); tensor.tape()) tape_.hand_on(tensor, dy);
}

void Tape::hand_on(const Tensor& watched, const Tensor& dy) {
  Slot& slot = slots_[watched.slot()];
  if (slot.gradient || slot.lent || dy.dtype() != slot.dtype) return add_into(target(watched), dy);
  slot.gradient = dy.reshape(watched.shape());
  slot.written = true;
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
  Slot slot;
  slot.gradient = gradient;
  slot.external = slot.written = true;
  return handle(value, std::move(slot));
}

Tensor Tape::watch(const Tensor& value, std::function<Tensor()> gradient) {
  Slot slot;
  slot.lent = std::move(gradient);
  return handle(value, std::move(slot));
}

Tensor Tape::watch(const Tensor& value) { return handle(value, {}); }

GradTarget Tape::target(const Tensor& watched) {
  check(watched.tape() == this, "this tape does not watch the tensor");
  Slot& slot = slots_[watched.slot()];
  if (slot.lent) return {slot.lent().reshape(watched.shape()), true};
  if (!slot.gradient) slot.gradient = Tensor::empty(watched.shape(), slot.dtype, slot.device);
  fill_rest(slot);
  return {slot.gradient.reshape(watched.shape()), std::exchange(slot.written, true)};
}

GradTarget Tape::target(const Tensor& watched, Columns columns) {
  check(watched.tape() == this, "this tape does not watch the tensor");
  Slot& slot = slots_[watched.slot()];
  if (slot.lent) return {slot.lent().reshape(watched.shape()), true};
  if (!slot.gradient) slot.gradient = Tensor::empty(watched.shape(), slot.dtype, slot.device);
  const GradTarget whole{slot.gradient.reshape(watched.shape()), true};
  if (slot.written) return whole;

  // Columns of a view of another width are others.
  std::vector<Columns>& parts = slot.written_columns;
  if (slot.gradient.shape()[-1] != watched.shape()[-1]) {
    const bool fresh = parts.empty();
    fill_rest(slot);
    if (!fresh) return whole;
    slot.gradient = whole.tensor;
  }
  const auto at = std::ranges::lower_bound(parts, columns.begin, {}, &Columns::end);
  if (at != parts.end() && at->begin <= columns.begin && columns.end <= at->end) return whole;
  const bool apart = std::ranges::none_of(parts, [&](const Columns& part) {
    return part.begin < columns.end && columns.begin < part.end;
  });
  if (!apart) {
    fill_rest(slot);
    slot.written = true;
    return whole;
  }
  // Neighbours become one, so that what was written as two parts is added to as one.
  if (at != parts.end() && at->end == columns.begin) {
    at->end = columns.end;
    if (const auto next = at + 1; next != parts.end() && next->begin == at->end) {
      at->end = next->end;
      parts.erase(next);
    }
  } else if (at != parts.end() && at->begin == columns.end) {
    at->begin = columns.begin;
  } else {
    parts.insert(at, columns);
  }
  slot.written = parts.size() == 1 && parts[0].begin == 0 && parts[0].end == watched.shape()[-1];
  if (slot.written) parts.clear();
  return {whole.tensor, false};
}

void Tape::fill_rest(Slot& slot) {
  if (slot.written_columns.empty()) return;
  std::int64_t begin = 0;
  for (const Columns& part : slot.written_columns) {
    fill_zero(slot.gradient, {begin, part.begin});
    begin = part.end;
  }
  fill_zero(slot.gradient, {begin, slot.gradient.shape()[-1]});
  slot.written_columns.clear();
  slot.written = true;
}

Tensor Tape::gradient(const Tensor& watched) {
  check(watched.tape() == this, "this tape does not watch the tensor");
  Slot& slot = slots_[watched.slot()];
  if (slot.lent) return slot.lent().reshape(watched.shape());
  fill_rest(slot);
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

void Tape::on_backward(std::function<void()> action) {
  entries_.push_back({.outputs = {},
                      .inputs = {},
                      .backward = [action = std::move(action)](std::span<const Tensor>,
                                                               Gradients&) { action(); }});
}

void Tape::backward() {
  std::vector<Tensor> doutputs;
  while (!entries_.empty()) {
    Entry entry = std::move(entries_.back());
    entries_.pop_back();
    doutputs.clear();
    bool reached = entry.outputs.empty();  // an action
    for (const auto& [index, shape] : entry.outputs) {
      Slot& slot = slots_[index];
      fill_rest(slot);
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
  seed(loss, one.to(loss.device()));
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
