#include "trainer/document_scores.h"

#include <algorithm>

namespace infini {

void score_document(const InfiniTransformer& model, std::int64_t scored,
                    std::int64_t segments_at_once, const ReadTokens& read,
                    const VisitScores& visit) {
  const std::int64_t segment = model.config().segment_tokens, stretch = segment * segments_at_once;
  const Recurrence recurrence(model, {});
  Memories memory = empty_memories(model.config());
  for (std::int64_t begin = 0; begin < scored; begin += stretch) {
    const std::int64_t count = std::min(stretch, scored - begin);
    std::vector<std::int32_t> tokens(count + 1);
    read(begin, tokens);
    const std::span<const std::int32_t> all(tokens);
    const Rows rows{.segment_tokens = segment,
                    .tokens = Tensor::of(all.first(count), {1, count}),
                    .targets = Tensor::of(all.last(count), {1, count}),
                    .weights = {},
                    .resets = {},
                    .keep = {}};
    const RowsResult result = recurrence.evaluate(rows, memory, segments_at_once);
    memory = result.memory;
    visit(begin, all.last(count), result.nll.to_vector<double>());
  }
}

}  // namespace infini
