// The loss of every token of one document, read from its first token to its last with the memory
// carried. What is held does not grow with the document.
#pragma once

#include <functional>
#include <span>

#include "model/recurrence.h"

namespace infini {

// Fills `out` with the document's tokens from `begin` on.
using ReadTokens = std::function<void(std::int64_t begin, std::span<std::int32_t> out)>;

// A stretch of the document: nll[i] in nats is that of targets[i], token begin + i + 1.
using VisitScores = std::function<void(std::int64_t begin, std::span<const std::int32_t> targets,
                                       std::span<const double> nll)>;

// Scores tokens 1 .. `scored` of a document of more than `scored` tokens, a stretch of
// `segments_at_once` segments at a time.
void score_document(const InfiniTransformer& model, std::int64_t scored,
                    std::int64_t segments_at_once, const ReadTokens& read,
                    const VisitScores& visit);

}  // namespace infini
