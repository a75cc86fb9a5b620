// The newest M tokens before each segment, oldest first: rows of numbers that an architecture keeps
// of its tokens, such as Transformer-XL's cache or the pairs of a longer memory.
#pragma once

#include <string_view>

#include "model/span.h"

namespace infini {

struct NewestTokens {
  Tensor context;  // [B (M + (S - 1) T), C]: of row b, segment s finds the M rows from s T on
  Tensor seen;     // [B, S + 1, M], which of them it may read, see cache_seen()
  Tensor rows;     // [B, M, C], after the span
  Tensor present;  // [B, M] u8, 1: a token stands there
};

// rows [R, C] of the span's tokens; what is carried in, [B, any, C] and [B, any] u8 or both empty,
// may be shorter or longer than M: the newest tokens count. What is carried in and the rows are
// copied, without a gradient. Throws, `who` in front, on a carried shape or type that does not fit,
// and on spans that are one of several groups.
NewestTokens newest_tokens(std::string_view who, const Tensor& rows, const Span& span,
                           const Tensor& carried, const Tensor& present, std::int64_t places);

}  // namespace infini
