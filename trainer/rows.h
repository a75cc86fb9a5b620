// From the data's batches to the tensors a model takes.
#pragma once

#include "data/batch.h"
#include "model/recurrence.h"

namespace infini {

// Rows [first, first + count) of a batch.
Rows rows_of(const SequenceBatch& batch, std::int64_t first, std::int64_t count);

// Of these rows, the segments of this rank's group.
Rows shared_rows_of(const SequenceBatch& batch, std::int64_t first, std::int64_t count,
                    const SegmentExchange& exchange);

}  // namespace infini
