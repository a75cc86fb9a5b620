// Attention of Transformer-XL (Dai et al. 2019, section 3): a segment reads itself and a cache of
// the M tokens before it, with relative positions. The cache holds what the layer's attention took
// of these tokens; keys and values are computed from it anew and no gradient goes back through it:
//   h~ = [SG(cache); x],   q = x Wq,   k = h~ Wk,   v = h~ Wv,   r = sinusoids Wr
// and scores as in relative_attention.h. Training and evaluation may have caches of other lengths:
// no parameter depends on M. Paper: post-norm; here, as with infini, what attention takes is
// normalised before it.
#pragma once

#include "model/memory_state.h"
#include "model/newest_tokens.h"
#include "model/span.h"
#include "tensor/ops/relative_attention.h"
#include "tensor/pass.h"
#include "tensor/tensor_group.h"

namespace infini {

class XlAttention {
 public:
  // Parameters are named prefix + "query.weight" and so on; sinusoids [M + T, D], a row for each
  // distance. The heads are not divided: `group` must be null.
  XlAttention(const ModelConfig& config, const Parameters& parameters, const std::string& prefix,
              const Tensor& sinusoids, const TensorGroup* group = nullptr);
  static void declare(const ModelConfig& config, const std::string& prefix,
                      std::vector<ParameterSpec>& specs);

  struct Output {
    Tensor y;            // [R, D], residual added
    MemoryState memory;  // after the last segment
  };
  // x and residual [R, D]; memory before the first segment. Its cache may be of any length, of
  // which the newest M tokens count. Segments in groups are refused.
  Output operator()(const Pass& pass, const Tensor& x, const Tensor& residual, const Span& span,
                    const MemoryState& memory) const;
  // The memory alone.
  MemoryState remember(const Pass& pass, const Tensor& x, const Span& span,
                       const MemoryState& memory) const;

  // Off: no segment reads the cache, for ablations; it is still kept.
  void use_memory(bool on) { use_memory_ = on; }

  // The steps of a call, for attentions that do more between them.
  struct Attended {
    Tensor qkv;          // [R, (H + 2 Hk) K]
    Tensor y;            // [R, H K], what the heads read of the cache and the segment
    MemoryState memory;  // after the last segment
  };
  Attended attend(const Pass& pass, const Tensor& x, const Span& span,
                  const MemoryState& memory) const;
  // y of a context, rows and marks as relative_attention() takes keys, values and marks of it.
  Tensor read(const Pass& pass, const Tensor& qkv, const Tensor& context, const Tensor& seen,
              const HeadLayout& layout) const;
  // Keys and values of rows [..., D] by weights that are constants here: [..., 2 Hk K].
  Tensor constant_pairs(const Pass& pass, const Tensor& rows) const;
  Tensor project(const Pass& pass, const Tensor& x) const;                             // qkv alone
  Tensor output(const Pass& pass, const Tensor& heads, const Tensor& residual) const;  // [R, D]

 private:
  NewestTokens cache(const Tensor& x, const Span& span, const MemoryState& memory) const;

  std::string_view architecture_;
  std::int64_t cache_tokens_;
  double scale_;
  bool use_memory_ = true;
  Tensor sinusoids_;
  Parameter qkv_, key_value_, position_, content_bias_, position_bias_, output_;
};

}  // namespace infini
