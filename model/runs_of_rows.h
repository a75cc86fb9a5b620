// Tables [B, rows, C] that are read and written by runs of rows of every batch row.
#pragma once

#include "tensor/system_memory.h"
#include "tensor/tensor.h"

namespace infini {

class RunsOfRows {
 public:
  RunsOfRows(const Tensor& table, std::int64_t batch)
      : begin_(table.raw()),
        batch_(batch),
        bytes_(table.bytes() / batch),
        device_(table.device()) {}

  // Copies to rows [first, first + count) of `row_bytes` each from rows [from_first, ...) of
  // another table.
  void copy(std::int64_t first, const RunsOfRows& from, std::int64_t from_first, std::int64_t count,
            std::int64_t row_bytes) const {
    if (count <= 0) return;
    system_memory(device_).copy({begin_ + first * row_bytes, bytes_},
                                {from.begin_ + from_first * row_bytes, from.bytes_},
                                count * row_bytes, batch_);
  }

 private:
  std::byte* begin_;
  std::int64_t batch_, bytes_;
  Device device_;
};

}  // namespace infini
