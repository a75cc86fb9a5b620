// Attention of a Compressive Transformer (Rae et al. 2020): a segment of T tokens reads itself, the
// M tokens before it, and C rows to which older ones were compressed, with the relative positions
// of Transformer-XL over all C + M + T places. After each segment the T oldest tokens leave the
// memory; c of them at a time become one row of the compressed memory,
//   f(x_1 ... x_c) = W [x_1; ...; x_c]  (convolution)   or   mean(x_1 ... x_c)  (mean_pool)
// and the oldest rows there leave for good. Both hold what the layer's attention took of the
// tokens; a window of which a token does not stand, before a document's start or in padding, leaves
// no row.
//
// What learns W is the reconstruction of attention alone, see attention_reconstruction.h: no
// gradient of the language model goes back through either memory, none of the reconstruction to
// anything but W. So its loss needs no way to the others: where a pass records and gives it a
// weight, pass.auxiliary_scale, the layer makes it one more root of the tape, and evaluation, whose
// passes record nothing, never computes it.
#pragma once

#include "model/xl_attention.h"
#include "tensor/ops/attention_reconstruction.h"

namespace infini {

class CompressiveAttention {
 public:
  // As XlAttention, whose parameters it has; sinusoids [C + M + T, D]. Of the convolution,
  // compression.weight [D, c D].
  CompressiveAttention(const ModelConfig& config, const Parameters& parameters,
                       const std::string& prefix, const Tensor& sinusoids,
                       const TensorGroup* group = nullptr);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  // As those of XlAttention; the compressed memory may be of any length as well.
  using Output = XlAttention::Output;
  Output operator()(const Pass& pass, const Tensor& x, const Tensor& residual, const Span& span,
                    const MemoryState& memory) const;
  MemoryState remember(const Pass& pass, const Tensor& x, const Span& span,
                       const MemoryState& memory) const;

  // Off: no segment reads either memory; both are still kept.
  void use_memory(bool on) { attention_.use_memory(on); }

 private:
  struct Memory {
    NewestTokens tokens;
    // What leaves after each segment: W = floor(T / c) windows.
    Tensor leaving;      // [B S W c, D]
    Tensor windows;      // [B S W, D], compressed, recorded
    Tensor window_seen;  // [B, S, W]
    NewestTokens compressed;

    MemoryState after() const;
  };
  Memory compress(const Pass& pass, const Tensor& x, const Span& span,
                  const MemoryState& memory) const;
  void reconstruct(const Pass& pass, const Tensor& qkv, const Memory& memory,
                   const HeadLayout& layout) const;

  XlAttention attention_;
  std::string_view architecture_;
  std::int64_t cache_tokens_, compressed_tokens_, rate_;
  double scale_, weight_;
  bool learned_;
  Tensor one_;  // the gradient of a root, on the device
  Parameter compression_;
};

}  // namespace infini
