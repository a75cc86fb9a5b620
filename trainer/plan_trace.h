// What a step asks of a device, without a device: blocks of memory by kind, and work. The plan
// walks through a step with one of these in hand.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>

namespace infini {

enum class MemoryKind {
  kValues,
  kGradients,
  kMasters,
  kOptimizer,
  kActivations,  // what the tape keeps, and gradients on their way through it
  kBorders,      // memories at the borders of pieces, and those carried between steps
  kLogits,
  kExchange,   // what ranks send each other, and what is kept of it
  kWorkspace,  // of kernels, and the rows themselves
  kCount
};
std::string_view name_of(MemoryKind kind);

// Bytes in use by kind, as they were asked for, and what blocks of fixed sizes add to them.
struct MemoryUse {
  std::array<std::int64_t, static_cast<int>(MemoryKind::kCount)> bytes{};
  std::int64_t rounding = 0;

  std::int64_t& of(MemoryKind kind) { return bytes[static_cast<int>(kind)]; }
  std::int64_t of(MemoryKind kind) const { return bytes[static_cast<int>(kind)]; }
  std::int64_t total() const;
};

// What kernels do, by what bounds them.
struct Work {
  // C [m, n] of a sum over k. `added`: into fp32 numbers that are there already.
  struct Product {
    std::int64_t m, n, k;
    bool added;
    auto operator<=>(const Product&) const = default;
  };
  std::map<Product, std::int64_t> products;  // how many of each

  double attention_flops = 0, attention_grad_flops = 0;  // causal scores at half
  double elementwise_bytes = 0;                          // norms, rotation, activations, losses
  double memory_bytes = 0;       // reads of the memory and its sums, with their gradients
  double overlap_bytes = 0;      // what the delta rule takes off
  double scan_bytes = 0;         // the linear memory over segments
  double affine_scan_bytes = 0;  // the same for the delta rule
  double optimizer_bytes = 0;
  std::int64_t kernels = 0;

  // What waits for other ranks: calls, and bytes that this rank contributes to each kind.
  std::int64_t segment_gathers = 0;
  double segment_gather_bytes = 0;  // of one rank
  std::int64_t tensor_sums = 0;
  double tensor_sum_bytes = 0;
  std::int64_t tensor_gathers = 0;
  double tensor_gather_bytes = 0;  // of one rank
  // Values that were gathered from their owners and gradients that went to them, part by part.
  std::int64_t gathered_value_calls = 0, lent_gradient_calls = 0;
  double gathered_value_bytes = 0, lent_gradient_bytes = 0;
};

// Like the allocator of tensors: sizes are rounded, and a block that was given back serves the next
// one of its size.
class Trace {
 public:
  // Gives its bytes back when the last owner lets go, which must be before the trace ends.
  using Block = std::shared_ptr<const std::int64_t>;
  Block take(std::int64_t bytes, MemoryKind kind);

  const MemoryUse& now() const { return now_; }
  const MemoryUse& peak() const { return peak_; }
  std::int64_t peak_bytes() const { return peak_bytes_; }
  std::int64_t reserved_bytes() const { return reserved_; }  // with the blocks that wait

  Work work;

 private:
  MemoryUse now_, peak_;
  std::int64_t now_bytes_ = 0, peak_bytes_ = 0, reserved_ = 0;
  std::map<std::int64_t, std::int64_t> free_;  // blocks that wait, by size
};

}  // namespace infini
