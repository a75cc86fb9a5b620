#include "trainer/plan_trace.h"

#include <numeric>

#include "tensor/allocator.h"

namespace infini {

std::string_view name_of(MemoryKind kind) {
  constexpr std::array<std::string_view, static_cast<int>(MemoryKind::kCount)> kNames = {
      "values",  "gradients", "masters",  "optimizer", "activations",
      "borders", "logits",    "exchange", "workspace"};
  return kNames[static_cast<int>(kind)];
}

std::int64_t MemoryUse::total() const {
  return std::accumulate(bytes.begin(), bytes.end(), rounding);
}

Trace::Block Trace::take(std::int64_t bytes, MemoryKind kind) {
  const std::int64_t size = block_bytes(bytes);
  if (std::int64_t& waiting = free_[size]; waiting > 0)
    --waiting;
  else
    reserved_ += size;
  now_.of(kind) += bytes;
  now_.rounding += size - bytes;
  now_bytes_ += size;
  if (now_bytes_ > peak_bytes_) {
    peak_bytes_ = now_bytes_;
    peak_ = now_;
  }
  return {new std::int64_t(bytes), [this, kind, size](const std::int64_t* block) {
            now_.of(kind) -= *block;
            now_.rounding -= size - *block;
            now_bytes_ -= size;
            ++free_[size];
            delete block;
          }};
}

}  // namespace infini
