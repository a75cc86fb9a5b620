#include "tensor/ops/embedding.h"

#include <cstring>

#include "tensor/parallel.h"

namespace infini {
namespace {

class CpuEmbedding final : public EmbeddingKernels {
 public:
  void embedding(const Tensor& tokens, std::int64_t first, const Tensor& table,
                 const Tensor& y) const override {
    const std::int64_t row_bytes = table.shape()[1] * bytes_of(table.dtype());
    const std::int32_t* ids = tokens.data<std::int32_t>();
    parallel_ranges(tokens.size(), 256, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t row = ids[r] - first;
        if (row >= 0 && row < table.shape()[0])
          std::memcpy(y.raw() + r * row_bytes, table.raw() + row * row_bytes, row_bytes);
        else
          std::memset(y.raw() + r * row_bytes, 0, row_bytes);
      }
    });
  }

  // Each thread owns columns, so that every sum runs over the tokens in their order.
  void embedding_grad(const Tensor& tokens, std::int64_t first, std::int64_t, const Tensor& dy,
                      const Tensor& dtable) const override {
    dispatch_float(dy.dtype(), [&]<class T>() {
      dispatch_float(dtable.dtype(), [&]<class G>() {
        const auto [rows, width] = dy.dims<2>();
        const std::int64_t count = dtable.shape()[0];
        const std::int32_t* ids = tokens.data<std::int32_t>();
        const T* upstream = dy.data<T>();
        G* out = dtable.data<G>();
        parallel_ranges(width, 64,
                        [&, rows = rows, width = width](std::int64_t begin, std::int64_t end) {
                          for (std::int64_t r = 0; r < rows; ++r) {
                            const std::int64_t row = ids[r] - first;
                            if (row < 0 || row >= count) continue;
                            const T* from = upstream + r * width;
                            G* to = out + row * width;
                            for (std::int64_t c = begin; c < end; ++c)
                              to[c] = G(Accumulator<G>(to[c]) + Accumulator<G>(from[c]));
                          }
                        });
      });
    });
  }
};

const CpuEmbedding cpu_embedding;

// On a GPU nobody looks.
void check_ids(const Tensor& tokens, std::int64_t vocabulary) {
  if (tokens.device() != Device::kCpu) return;
  const std::int32_t* const ids = tokens.data<std::int32_t>();
  for (std::int64_t r = 0; r < tokens.size(); ++r)
    check(ids[r] >= 0 && ids[r] < vocabulary, "embedding: token id ", ids[r],
          " in a vocabulary of ", vocabulary);
}

}  // namespace

Tensor embedding(const Tensor& tokens, const Tensor& table, const TensorGroup* group) {
  const auto [rows] = tokens.dims<1>();
  const auto [held, width] = table.dims<2>();
  const std::int64_t first = group ? group->index() * held : 0;
  const std::int64_t vocabulary = group ? group->count() * held : held;
  check_ids(tokens, vocabulary);
  const Tensor y = Tensor::empty({rows, width}, table.dtype(), table.device());
  const EmbeddingKernels& device = on<cpu_embedding, cuda_embedding>(table.device());
  device.embedding(tokens, first, table, y);
  if (group) {
    group->sum(y);  // one process has the row, the others zeros
    group->wait();
  }

  return record(y, {table}, [=, &device](const Tensor& dy, Gradients& gradients) {
    device.embedding_grad(tokens, first, vocabulary, dy, zeroed(gradients.of(0)).tensor);
  });
}

}  // namespace infini
