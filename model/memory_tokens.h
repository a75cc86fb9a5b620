// Memory that belongs to the model, not to its layers: vectors that stand before and after the
// tokens of a segment as tokens do and run through all blocks with them, so that segments run one
// after the other. Local attention is causal over the lengthened segment of M + T + m rows and its
// rotary positions count all of them: what stands before is seen by every token, what stands after
// sees every token and is seen by none.
//
// rmt (Bulatov, Kuratov, Burtsev 2022, section 3), M = m, learned start:
//   [., h_s, mem_{s+1}] = norm(blocks([mem_s; x_s; mem_s])),   mem = start for a document
// auto_compressor (Chevalier et al. 2023, section 3), M = m n, learned e:
//   [., h_s, sum_s] = norm(blocks([sum_{s-n}; ...; sum_{s-1}; x_s; e]))
// of the n newest segments of the document; while there are fewer, positions start with them.
//
// As in the published code the rows of a memory see each other causally, and what is written is
// taken after the final norm; the paper of rmt lets them see each other both ways. Padding is seen
// like tokens: it stands at the end of a document, and the segment after it starts another.
#pragma once

#include <functional>

#include "model/memory_state.h"
#include "model/span.h"
#include "tensor/pass.h"

namespace infini {

class MemoryTokens {
 public:
  // The parameter is memory_tokens.weight [m, D], in full precision: start, or e.
  MemoryTokens(const ModelConfig& config, const Parameters& parameters);
  static void declare(const ModelConfig& config, std::vector<ParameterSpec>& specs);

  // Runs the lengthened segment s of a span, rows [B (M + T + m), D], as a span of its own through
  // all blocks and the final norm.
  using Blocks = std::function<Tensor(std::int64_t s, const Tensor& rows, const Span& alone)>;
  struct Output {
    Tensor hidden;       // [R, D], normalised, of tokens alone
    MemoryState memory;  // after the last segment
  };
  // x [R, D], the embedded tokens; memory before the first segment. Segments in groups are refused.
  Output operator()(const Pass& pass, const Tensor& x, const Span& span, const MemoryState& memory,
                    const Blocks& blocks) const;

  // Off: every segment starts like the first of a document, for ablations; the memory is still
  // written.
  void use_memory(bool on) { use_memory_ = on; }

 private:
  // [B, m, D] like x, the learned vectors in every batch row.
  Tensor learned_rows(const Pass& pass, const Tensor& x, std::int64_t batch) const;
  // [B, M, D] and [B, M]: what is carried in, or nothing.
  MemoryState given(const Span& span, const MemoryState& memory, const Tensor& x) const;

  std::string_view name_;        // of the architecture
  bool accumulates_;             // summaries of several segments, or one memory
  std::int64_t read_, written_;  // M, m
  bool use_memory_ = true;
  Parameter learned_;
};

}  // namespace infini
