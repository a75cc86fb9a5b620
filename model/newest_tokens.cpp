#include "model/newest_tokens.h"

#include <algorithm>

#include "model/runs_of_rows.h"
#include "tensor/ops/relative_attention.h"

namespace infini {

NewestTokens newest_tokens(std::string_view who, const Tensor& rows, const Span& span,
                           const Tensor& carried, const Tensor& present, std::int64_t places) {
  check(!span.groups, who,
        ": a segment needs the one before it; segments in groups would not have it");
  const HeadLayout& layout = span.layout;
  const std::int64_t batch = layout.batch, width = rows.shape()[1];
  const std::int64_t tokens = layout.segments * layout.tokens,
                     read = places + tokens - layout.tokens;
  const DType dtype = rows.dtype();
  const Device device = rows.device();
  const std::int64_t row_bytes = width * bytes_of(dtype);

  Tensor before, marks;
  if (carried) {
    const Shape& given = carried.shape();
    check(given.rank() == 3 && given[0] == batch && given[2] == width && carried.dtype() == dtype,
          who, ": the cache is ", given, " in ", carried.dtype(), ", expected [", batch, ", M, ",
          width, "] in ", dtype);
    const std::int64_t had = given[1], kept = std::min(had, places);
    check(present && present.shape() == Shape{batch, had}, who, ": the cache is ", given,
          ", its marks are ", present.shape());
    before = carried;
    marks = present;
    if (had != places) {
      before = Tensor::zeros({batch, places, width}, dtype, device);
      marks = Tensor::zeros({batch, places}, DType::kUInt8, device);
      RunsOfRows(before, batch).copy(places - kept, {carried, batch}, had - kept, kept, row_bytes);
      RunsOfRows(marks, batch).copy(places - kept, {present, batch}, had - kept, kept, 1);
    }
  } else {
    before = Tensor::zeros({batch, places, width}, dtype, device);
  }

  const NewestTokens result{
      .context = Tensor::empty({batch * read, width}, dtype, device),
      .seen = cache_seen(marks, span.keep, span.borders.resets, layout, places, device),
      .rows = Tensor::empty({batch, places, width}, dtype, device),
      .present = Tensor::empty({batch, places}, DType::kUInt8, device)};
  const RunsOfRows from_before(before, batch), from_rows(rows, batch);
  // Places [first, first + count) of what was carried in and the rows after it.
  const auto fill = [&](const RunsOfRows& to, std::int64_t first, std::int64_t count) {
    const std::int64_t old = std::clamp<std::int64_t>(places - first, 0, count);
    to.copy(0, from_before, first, old, row_bytes);
    to.copy(old, from_rows, first + old - places, count - old, row_bytes);
  };
  fill({result.context, batch}, 0, read);
  fill({result.rows, batch}, tokens, places);
  RunsOfRows(result.present, batch)
      .copy(0, {result.seen, batch}, layout.segments * places, places, 1);
  return result;
}

}  // namespace infini
