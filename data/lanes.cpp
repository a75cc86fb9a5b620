#include "data/lanes.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>

#include "data/permutation.h"
#include "data/random_sites.h"
#include "tensor/error.h"

namespace infini {

LaneSource::LaneSource(std::shared_ptr<const TokenStore> store, const RowShape& shape,
                       std::uint64_t seed)
    : store_(std::move(store)), shape_(shape), seed_(seed) {
  check_shape(shape_, *store_);
  check<ConfigError>(shape_.row_tokens % shape_.segment_tokens == 0,
                     "lanes: data.row_tokens must be a multiple of the segment of ",
                     shape_.segment_tokens, " tokens, because rows go on where they stopped; got ",
                     shape_.row_tokens);
  const std::size_t documents = store_->documents().size();
  check<ConfigError>(static_cast<std::size_t>(shape_.batch_rows) <= documents,
                     "lanes: data.batch_rows is ", shape_.batch_rows, ", but the store has only ",
                     documents, " documents and each row reads its own; lower it or use crops");

  std::vector<std::size_t> longest_first(documents);
  std::iota(longest_first.begin(), longest_first.end(), std::size_t{0});
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](std::size_t a, std::size_t b) { return segments_of(a) > segments_of(b); });
  using Load = std::pair<std::int64_t, std::size_t>;  // segments, lane
  std::priority_queue<Load, std::vector<Load>, std::greater<>> emptiest;
  lanes_.resize(static_cast<std::size_t>(shape_.batch_rows));
  for (std::size_t lane = 0; lane < lanes_.size(); ++lane) emptiest.emplace(0, lane);
  std::int64_t longest = 0;
  for (const std::size_t document : longest_first) {
    const auto [load, lane] = emptiest.top();
    emptiest.pop();
    lanes_[lane].push_back(document);
    emptiest.emplace(load + segments_of(document), lane);
    longest = std::max(longest, load + segments_of(document));
  }
  const std::int64_t row_segments = shape_.row_tokens / shape_.segment_tokens;
  steps_per_epoch_ = (longest + row_segments - 1) / row_segments;
}

std::int64_t LaneSource::segments_of(std::size_t document) const {
  const std::int64_t scored = store_->documents()[document].scored_tokens();
  return (scored + shape_.segment_tokens - 1) / shape_.segment_tokens;
}

std::shared_ptr<const LaneSource::Plan> LaneSource::plan(std::int64_t epoch) const {
  const std::lock_guard lock(mutex_);
  if (latest_ && latest_->epoch == epoch) return latest_;
  const auto fresh = std::make_shared<Plan>();
  fresh->epoch = epoch;
  const RandomKey deal{seed_, static_cast<std::uint64_t>(epoch), kSiteLaneOrder};
  for (std::size_t row = 0; row < lanes_.size(); ++row) {
    const std::uint64_t lane = permuted(deal, row, lanes_.size());
    const RandomKey order{deal.bits(~lane), 0, kSiteLaneOrder};
    const std::vector<std::size_t>& documents = lanes_[lane];
    std::vector<Reading> readings;
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < documents.size(); ++i) {
      const std::size_t document = documents[permuted(order, i, documents.size())];
      readings.push_back({document, begin});
      begin += segments_of(document);
    }
    fresh->rows.push_back(std::move(readings));
  }
  latest_ = fresh;
  return latest_;
}

void LaneSource::fill(SequenceBatch& batch, std::int64_t row, const std::vector<Reading>& readings,
                      std::int64_t first_segment) const {
  const std::int64_t last_segment = first_segment + batch.segments;
  auto reading = std::upper_bound(readings.begin(), readings.end(), first_segment,
                                  [](std::int64_t s, const Reading& r) { return s < r.begin; });
  for (--reading; reading != readings.end() && reading->begin < last_segment; ++reading) {
    // Segments [from, to) of this row belong to the document, counted from the start of the epoch.
    const std::int64_t from = std::max(reading->begin, first_segment);
    const std::int64_t to = std::min(reading->begin + segments_of(reading->document), last_segment);
    if (from >= to) continue;  // the lane ended earlier
    if (from == reading->begin)
      batch.resets[static_cast<std::size_t>(row * batch.segments + from - first_segment)] = 1;

    const StoredDocument& document = store_->documents()[reading->document];
    const std::int64_t skip = (from - reading->begin) * shape_.segment_tokens;
    const std::int64_t count =
        std::min((to - from) * shape_.segment_tokens, document.scored_tokens() - skip);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(count) + 1);
    store_->read(document.begin + skip, tokens);
    const std::int64_t begin =
        row * shape_.row_tokens + (from - first_segment) * shape_.segment_tokens;
    std::copy(tokens.begin(), tokens.end() - 1, batch.tokens.begin() + begin);
    std::copy(tokens.begin() + 1, tokens.end(), batch.targets.begin() + begin);
    std::fill_n(batch.keep.begin() + begin, count, std::uint8_t{1});
  }
}

SequenceBatch LaneSource::batch(std::int64_t step, int first_row, int rows) const {
  check_rows(step, first_row, rows);
  SequenceBatch batch = padded_batch(rows, shape_.row_tokens, shape_.segment_tokens,
                                     store_->tokenizer().end_of_text());
  const auto epoch = plan(step / steps_per_epoch_);
  const std::int64_t first_segment = step % steps_per_epoch_ * batch.segments;
  for (int r = 0; r < rows; ++r)
    fill(batch, r, epoch->rows[static_cast<std::size_t>(first_row + r)], first_segment);
  finish_batch(batch);
  return batch;
}

double LaneSource::padding_share() const {
  std::int64_t scored = 0;
  for (const StoredDocument& document : store_->documents()) scored += document.scored_tokens();
  const std::int64_t positions = steps_per_epoch_ * shape_.batch_rows * shape_.row_tokens;
  return 1.0 - static_cast<double>(scored) / static_cast<double>(positions);
}

std::string LaneSource::description() const {
  return text(shape_.batch_rows, " lanes through ", store_->documents().size(), " documents of ",
              store_->path().string(), ", ", shape_.row_tokens,
              " tokens a step each, memory carried: ", steps_per_epoch_, " steps an epoch, ",
              static_cast<int>(padding_share() * 1000) / 10.0, " % of them padding");
}

}  // namespace infini
