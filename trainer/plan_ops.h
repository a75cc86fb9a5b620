// The ops of a step in sizes: each allocates, keeps and does what its namesake in tensor/ops does.
#pragma once

#include "tensor/device.h"
#include "tensor/ops/heads.h"
#include "trainer/plan_tape.h"

namespace infini {

// The memory of one layer, or what segments add to it; or that of the model.
struct SizedState {
  Sized matrix{}, normalizer{};
  Sized vectors{};
  Sized cached{}, present{};
  Sized pairs{}, pairs_present{};
  Sized compressed{}, compressed_present{};
  Sized averages{}, norm_moments{}, norm_tokens{};
  Sized window{}, feedback{}, feedback_present{};
};
constexpr Sized SizedState::*kSizedParts[] = {
    &SizedState::matrix,        &SizedState::normalizer,   &SizedState::vectors,
    &SizedState::cached,        &SizedState::present,      &SizedState::pairs,
    &SizedState::pairs_present, &SizedState::compressed,   &SizedState::compressed_present,
    &SizedState::averages,      &SizedState::norm_moments, &SizedState::norm_tokens,
    &SizedState::window,        &SizedState::feedback,     &SizedState::feedback_present};

// Which sides of a product other ranks of a tensor group have the rest of.
enum class Split { kNone, kColumns, kRows };  // the outputs: dx is summed; the sum: y is

class PlannedOps {
 public:
  struct Options {
    Device device = Device::kCuda;
    std::int64_t element_bytes = 2;  // of the compute type
    std::int64_t full_bytes = 4;     // of its accumulator
    int tensors = 1;                 // ranks that share each block
  };
  PlannedOps(Trace& trace, const Options& options) : trace_(trace), options_(options) {}

  // R rows; `tape` null records nothing. Results are in the compute type unless said otherwise. Of
  // parameters only whether they are watched counts.
  Sized embedding(SizeTape* tape, std::int64_t rows, std::int64_t width, const Sized& tokens,
                  const Sized& table) const;
  Sized linear(SizeTape* tape, const Sized& x, const Sized& weight, std::int64_t rows,
               std::int64_t width, std::int64_t outputs, Split split,
               const Sized& residual = {}) const;
  Sized rms_norm(SizeTape* tape, const Sized& x, const Sized& weight, std::int64_t rows,
                 std::int64_t width) const;
  Sized add_bias(SizeTape* tape, const Sized& x, const Sized& bias, std::int64_t rows,
                 std::int64_t width) const;
  Sized head_norm(SizeTape* tape, const Sized& qkv, const Sized& query_weight,
                  const Sized& key_weight, const HeadLayout& layout) const;
  struct FeedForwardInputs {
    Sized x, up, down, residual;
  };
  Sized gelu_feed_forward(SizeTape* tape, const FeedForwardInputs& in, std::int64_t rows,
                          std::int64_t width, std::int64_t inner) const;
  Sized relu(SizeTape* tape, const Sized& x, std::int64_t rows, std::int64_t width) const;
  Sized affine(SizeTape* tape, const Sized& x, std::int64_t elements, bool full = false) const;
  Sized gated(SizeTape* tape, const Sized& x, std::int64_t rows, std::int64_t inner) const;
  Sized rotary_attention(SizeTape* tape, const Sized& qkv, const HeadLayout& layout) const;
  // Matrices of so many rows side by side, and columns of one that make `elements` in all.
  Sized join_columns(SizeTape* tape, const std::vector<Sized>& parts, std::int64_t rows) const;
  Sized take_columns(SizeTape* tape, const Sized& x, std::int64_t elements) const;
  // standing_rows, with others in the place of those that do not stand, or turn_rows.
  Sized rows_chosen(SizeTape* tape, const Sized& x, std::int64_t elements,
                    const Sized& others = {}) const;
  SizedState memory_sums(const HeadLayout& layout) const;  // unrecorded
  struct AttentionAndSums {
    Sized y;
    SizedState sums;
  };
  AttentionAndSums rotary_attention_and_sums(SizeTape* tape, const Sized& qkv,
                                             const HeadLayout& layout) const;
  struct Loss {
    Sized loss, nll;
  };
  Loss cross_entropy(SizeTape* tape, const Sized& x, const Sized& weight, std::int64_t rows,
                     std::int64_t width, std::int64_t vocabulary) const;

  Trace& trace() const { return trace_; }
  const Options& options() const { return options_; }
  Sized make(std::int64_t elements, MemoryKind kind = MemoryKind::kActivations) const {
    return {.block = trace_.take(elements * options_.element_bytes, kind)};
  }
  Sized make_full(std::int64_t elements, MemoryKind kind = MemoryKind::kActivations) const {
    return {.block = trace_.take(elements * options_.full_bytes, kind)};
  }
  Sized make_bytes(std::int64_t bytes) const {
    return {.block = trace_.take(bytes, MemoryKind::kActivations)};
  }
  Trace::Block workspace(std::int64_t bytes) const {
    return trace_.take(bytes, MemoryKind::kWorkspace);
  }
  bool on_gpu() const { return options_.device == Device::kCuda; }
  // Of the keys of all tokens, or of their values.
  double key_bytes(const HeadLayout& layout) const {
    return static_cast<double>(layout.rows() * layout.kv_heads * layout.head_width *
                               options_.element_bytes);
  }
  // Whether the kernels for bf16 and heads of 64 or 128 take this.
  bool has_fast_kernels(const HeadLayout& layout) const {
    return on_gpu() && options_.element_bytes == 2 &&
           (layout.head_width == 64 || layout.head_width == 128);
  }

 private:
  struct Attended {
    Sized rotated, y, log_sum;
  };
  Attended attend(const HeadLayout& layout) const;
  void attend_grad(const HeadLayout& layout) const;
  void product(std::int64_t m, std::int64_t n, std::int64_t k, bool added = false) const {
    ++trace_.work.products[{m, n, k, added}];
    ++trace_.work.kernels;
  }
  // Columns of a matrix as tensor/tape.h copies them: of one row a view.
  Sized columns_of(const Sized& x, std::int64_t rows, std::int64_t bytes) const;
  // A kernel that reads and writes so many numbers of the compute type.
  void pass(double elements) const {
    trace_.work.elementwise_bytes += elements * static_cast<double>(options_.element_bytes);
    ++trace_.work.kernels;
  }
  // y, of so many numbers that are made of those of the first input, one of one.
  Sized moved(SizeTape* tape, Sized y, std::vector<Sized> inputs, std::int64_t elements) const;
  bool divided() const { return options_.tensors > 1; }
  void sum_over_tensors(std::int64_t elements) const;
  // A sum whose residual is added once it has arrived.
  void finish_sum(std::int64_t elements, const Sized& residual) const;
  // A chunk of logits whose other columns other ranks have.
  void lose_divided(std::int64_t rows, std::int64_t elements) const;
  Trace::Block norm_workspace(std::int64_t rows, std::int64_t width) const;
  // Partial sums of a bias's or a head norm's gradient, `gpu_pieces` of them on a GPU.
  Trace::Block column_workspace(std::int64_t gpu_pieces, std::int64_t rows,
                                std::int64_t width) const;

  Trace& trace_;
  Options options_;
};

}  // namespace infini
