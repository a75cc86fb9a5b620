// From the data's batches to the tensors a model takes.
#pragma once

#include "data/batch.h"
#include "model/recurrence.h"

namespace infini {

// Rows [first, first + count) of a batch.
Rows rows_of(const SequenceBatch& batch, std::int64_t first, std::int64_t count);

}  // namespace infini
