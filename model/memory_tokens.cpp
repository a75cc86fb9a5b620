#include "model/memory_tokens.h"

#include "model/batch_rows.h"
#include "tensor/ops/relative_attention.h"
#include "tensor/ops/standing_rows.h"

namespace infini {
namespace {

Tensor no_marks(std::int64_t batch, std::int64_t places, Device device) {
  return Tensor::zeros({batch, places}, DType::kUInt8, device);
}

}  // namespace

void MemoryTokens::declare(const ModelConfig& config, std::vector<ParameterSpec>& specs) {
  specs.push_back({.name = "memory_tokens.weight",
                   .shape = {config.memory_tokens, config.d_model},
                   .deviation = config.init_deviation > 0 ? config.init_deviation : 0.02,
                   .full_precision = true});
}

MemoryTokens::MemoryTokens(const ModelConfig& config, const Parameters& parameters)
    : name_(config.architecture_name()),
      accumulates_(config.architecture == Architecture::kAutoCompressor),
      read_(config.read_tokens()),
      written_(config.written_tokens()),
      learned_(parameters["memory_tokens.weight"]) {}

MemoryTokens::Output MemoryTokens::operator()(const Pass& pass, const Tensor& x, const Span& span,
                                              const MemoryState& memory,
                                              const Blocks& blocks) const {
  check(!span.groups, name_,
        ": a segment needs the one before it; segments in groups would not have it");
  const std::int64_t batch = span.layout.batch, segments = span.layout.segments,
                     tokens = span.layout.tokens, width = x.shape()[1];
  Span alone{.layout = span.layout, .tokens = {}, .keep = {}, .borders = {}};
  alone.layout.segments = 1;
  alone.layout.tokens = read_ + tokens + written_;
  const Tensor embedded = x.reshape({batch, segments * tokens, width});

  // Which vectors each segment finds: what a cache of M would hold of m written by each.
  const MemoryState before = given(span, memory, x);
  HeadLayout written = span.layout;
  written.tokens = written_;
  const Tensor seen =
      cache_seen(before.present, {}, span.borders.resets, written, read_, x.device());
  const auto present = [&](std::int64_t s) {
    return columns_of(seen.reshape({batch, (segments + 1) * read_}), {s * read_, (s + 1) * read_});
  };

  Tensor vectors = before.vectors;
  std::vector<Tensor> hidden;
  for (std::int64_t s = 0; s < segments; ++s) {
    if (!span.borders.detach.empty() && span.borders.detach[s]) vectors = vectors.unwatched();
    const Tensor stand = present(s),
                 found = use_memory_ ? stand : no_marks(batch, read_, x.device());
    // Summaries that are not found are turned away, to where no token sees them.
    const Tensor read = accumulates_ ? standing_rows(vectors, stand, {})
                                     : standing_rows(vectors, found, pass(learned_));
    const Tensor last = accumulates_ ? learned_rows(pass, x, batch) : read;
    Tensor rows = join_rows({read, take_rows(embedded, s * tokens, tokens), last});
    if (accumulates_) rows = turn_rows(rows, found, Turn::kFirst);
    Tensor out = blocks(s, rows.reshape({alone.layout.rows(), width}), alone).reshape(rows.shape());
    if (accumulates_) out = turn_rows(out, found, Turn::kBack);
    hidden.push_back(take_rows(out, read_, tokens));
    vectors = take_rows(out, read_ + tokens, written_);
    if (read_ > written_)
      vectors = join_rows({take_rows(read, written_, read_ - written_), vectors});
  }
  return {.hidden = join_rows(hidden).reshape(x.shape()),
          .memory = {.vectors = vectors, .present = present(segments)}};
}

Tensor MemoryTokens::learned_rows(const Pass& pass, const Tensor& x, std::int64_t batch) const {
  const Tensor none = Tensor::zeros({batch, written_, x.shape()[1]}, x.dtype(), x.device());
  return standing_rows(none, no_marks(batch, written_, x.device()), pass(learned_));
}

MemoryState MemoryTokens::given(const Span& span, const MemoryState& memory,
                                const Tensor& x) const {
  const Shape expected{span.layout.batch, read_, x.shape()[1]};
  if (!memory.vectors)
    return {.vectors = Tensor::zeros(expected, x.dtype(), x.device()),
            .present = no_marks(expected[0], read_, x.device())};
  check(memory.vectors.shape() == expected && memory.vectors.dtype() == x.dtype(), name_,
        ": the memory is ", memory.vectors.shape(), " in ", memory.vectors.dtype(), ", expected ",
        expected, " in ", x.dtype());
  return memory;
}

}  // namespace infini
