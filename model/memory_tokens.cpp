#include "model/memory_tokens.h"

#include "tensor/ops/columns.h"
#include "tensor/ops/relative_attention.h"
#include "tensor/ops/standing_rows.h"

namespace infini {

void MemoryTokens::declare(const ModelConfig& config, std::vector<ParameterSpec>& specs) {
  specs.push_back({.name = "memory_tokens.weight",
                   .shape = {config.memory_tokens, config.d_model},
                   .deviation = config.init_deviation > 0 ? config.init_deviation : 0.02,
                   .full_precision = true});
}

MemoryTokens::MemoryTokens(const ModelConfig& config, const Parameters& parameters)
    : read_(config.read_tokens()),
      written_(config.written_tokens()),
      start_(parameters["memory_tokens.weight"]) {}

MemoryTokens::Output MemoryTokens::operator()(const Pass& pass, const Tensor& x, const Span& span,
                                              const MemoryState& memory,
                                              const Blocks& blocks) const {
  check(!span.groups,
        "rmt: a segment needs the one before it; segments in groups would not have it");
  const std::int64_t batch = span.layout.batch, segments = span.layout.segments,
                     tokens = span.layout.tokens, width = x.shape()[1];
  Span alone{.layout = span.layout, .tokens = {}, .keep = {}, .borders = {}};
  alone.layout.segments = 1;
  alone.layout.tokens = read_ + tokens + written_;

  // Columns of a batch row: `count` rows from `first` on.
  const auto columns = [&](std::int64_t first, std::int64_t count) {
    return Columns{first * width, (first + count) * width};
  };
  const MemoryState before = given(span, memory, x);
  HeadLayout written = span.layout;
  written.tokens = written_;
  const Tensor seen =
      cache_seen(before.present, {}, span.borders.resets, written, read_, x.device());
  const Tensor flags = seen.reshape({batch, (segments + 1) * read_});
  const auto present = [&](std::int64_t s) {
    return columns_of(flags, {s * read_, (s + 1) * read_});
  };
  const Tensor nothing = Tensor::zeros({batch, read_}, DType::kUInt8, x.device());
  const Tensor embedded = x.reshape({batch, segments * tokens * width});

  Tensor vectors = before.vectors;
  std::vector<Tensor> hidden;
  for (std::int64_t s = 0; s < segments; ++s) {
    if (!span.borders.detach.empty() && span.borders.detach[s]) vectors = vectors.unwatched();
    const Tensor read = standing_rows(vectors, use_memory_ ? present(s) : nothing, pass(start_))
                            .reshape({batch, read_ * width});
    const Tensor rows =
        join_columns({read, take_columns(embedded, columns(s * tokens, tokens)), read});
    const Tensor out = blocks(s, rows.reshape({alone.layout.rows(), width}), alone)
                           .reshape({batch, alone.layout.tokens * width});
    hidden.push_back(take_columns(out, columns(read_, tokens)));
    vectors =
        take_columns(out, columns(read_ + tokens, written_)).reshape({batch, written_, width});
  }
  return {.hidden = join_columns(hidden).reshape(x.shape()),
          .memory = {.vectors = vectors, .present = present(segments)}};
}

MemoryState MemoryTokens::given(const Span& span, const MemoryState& memory,
                                const Tensor& x) const {
  const Shape expected{span.layout.batch, read_, x.shape()[1]};
  if (!memory.vectors)
    return {.vectors = Tensor::zeros(expected, x.dtype(), x.device()),
            .present = Tensor::zeros({expected[0], read_}, DType::kUInt8, x.device())};
  check(memory.vectors.shape() == expected && memory.vectors.dtype() == x.dtype(),
        "rmt: the memory is ", memory.vectors.shape(), " in ", memory.vectors.dtype(),
        ", expected ", expected, " in ", x.dtype());
  return memory;
}

}  // namespace infini
