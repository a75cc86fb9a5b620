#include "tensor/ops/columns.h"

#include "tensor/ops/elementwise.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

// Writes a matrix [R, end - begin] where these columns of [R, C] are.
void put_columns(const Tensor& matrix, Columns columns, const Tensor& part) {
  const auto [rows, width] = matrix.dims<2>();
  const std::int64_t element = bytes_of(matrix.dtype()),
                     bytes = (columns.end - columns.begin) * element;
  system_memory(matrix.device())
      .copy({matrix.raw() + columns.begin * element, width * element}, {part.raw(), bytes}, bytes,
            rows);
}

}  // namespace

Tensor join_columns(const std::vector<Tensor>& parts) {
  check(!parts.empty(), "join_columns: there are no parts");
  const Tensor& first = parts.front();
  const std::int64_t rows = first.dims<2>()[0];
  std::vector<Columns> places;
  std::int64_t width = 0;
  for (const Tensor& part : parts) {
    const auto [part_rows, columns] = part.dims<2>();
    check(part_rows == rows && part.dtype() == first.dtype(), "join_columns: ", part.dtype(),
          part.shape(), " beside ", first.dtype(), first.shape());
    places.push_back({width, width + columns});
    width += columns;
  }
  Tensor y = Tensor::empty({rows, width}, first.dtype(), first.device());
  for (std::size_t i = 0; i < parts.size(); ++i) put_columns(y, places[i], parts[i]);
  if (Tape* const tape = tape_of(parts))
    tape->push({&y}, parts, [places](std::span<const Tensor> doutputs, Gradients& gradients) {
      for (std::size_t i = 0; i < places.size(); ++i)
        gradients.hand_on(static_cast<int>(i), columns_of(doutputs[0], places[i]));
    });
  return y;
}

Tensor take_columns(const Tensor& x, Columns columns) {
  const auto [rows, width] = x.dims<2>();
  check(columns.begin >= 0 && columns.begin < columns.end && columns.end <= width,
        "take_columns: columns [", columns.begin, ", ", columns.end, ") of ", x.shape());
  // Of one row columns_of() is a view, which would keep all of x.
  const Tensor part = columns_of(x.unwatched(), columns);
  return record(rows == 1 ? part.clone() : part, {x},
                [columns](const Tensor& dy, Gradients& gradients) {
                  const GradTarget dx = gradients.of(0, columns);
                  if (!dx) return;
                  if (!dx.accumulate) return put_columns(dx.tensor, columns, dy);
                  add_into_columns(dx.tensor, columns.begin, dy);
                });
}

}  // namespace infini
