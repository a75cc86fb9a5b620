#include <algorithm>
#include <bit>
#include <cub/cub.cuh>
#include <type_traits>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/embedding.h"

namespace infini {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kCopies = 4;  // words of a thread in flight

// The ids whose rows a table holds.
struct HeldIds {
  std::int64_t first, count;

  __device__ __forceinline__ std::int64_t row(std::int32_t id) const { return id - first; }
  __device__ __forceinline__ bool has(std::int32_t id) const {
    return id >= first && id < first + count;
  }
};

// One warp copies a row of `words`, or zeros.
template <class Word>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const std::int32_t* tokens, std::int64_t rows, const Word* table, HeldIds ids,
                  int words, Word* y) {
  const std::int64_t r = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (r >= rows) return;
  const std::int32_t id = tokens[r];
  Word* const to = y + r * words;
  if (!ids.has(id)) {
    for (int w = threadIdx.x % 32; w < words; w += 32) to[w] = Word{};
    return;
  }
  const Word* const from = table + ids.row(id) * words;
  for (int first = threadIdx.x % 32; first < words; first += 32 * kCopies) {
    Word held[kCopies];
#pragma unroll
    for (int k = 0; k < kCopies; ++k)
      if (first + 32 * k < words) held[k] = from[first + 32 * k];
#pragma unroll
    for (int k = 0; k < kCopies; ++k)
      if (first + 32 * k < words) to[first + 32 * k] = held[k];
  }
}

__global__ void __launch_bounds__(kThreads) count_up_kernel(std::int32_t* places, int count) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) places[i] = i;
}

// The rows of dy are added in the order of their ids, and of tokens where ids are equal. That order
// is cut into windows of 32 rows; the rows of one id in a window are a run. A run that another
// window continues leaves its sum in `partial`: at place 0 of its window where it began before, at
// place 1 where it begins there.
template <class T, class G>
struct Sorted {
  const std::int32_t *ids, *places;  // [R], places in dy
  const T* dy;
  G* dtable;
  HeldIds held;         // the rows of others are left out
  Compute<G>* partial;  // [windows, 2, D]
  std::int64_t width;
  int rows, windows;
};

constexpr int kWindow = 32;
constexpr int kBatch = 4;  // rows on their way at a time

// A warp takes 32 n columns of a window. A run that lies in it whole starts from what stands in the
// table, so that it is added row by row.
template <int n, class T, class G>
__global__ void __launch_bounds__(kThreads) window_kernel(const Sorted<T, G> args) {
  using A = Compute<G>;
  const int window = blockIdx.x, lane = threadIdx.x % 32, begin = window * kWindow;
  const std::int64_t column =
      ((std::int64_t{blockIdx.y} * kWarps + threadIdx.x / 32) * 32 + lane) * n;
  const bool inside = column < args.width;
  const int count = min(kWindow, args.rows - begin), mine = begin + min(lane, count - 1);
  const std::int32_t id = args.ids[mine], place = args.places[mine];
  const std::int32_t left = __shfl_up_sync(0xffffffff, id, 1);
  const unsigned starts = __ballot_sync(0xffffffff, lane == 0 || (lane < count && id != left));
  const int last = 31 - __clz(starts);  // where the last run starts
  const bool before = begin > 0 && args.ids[begin - 1] == args.ids[begin];
  const bool after =
      begin + count < args.rows && args.ids[begin + count] == args.ids[begin + count - 1];
  const auto is_whole = [&](int start) {
    return !(start == 0 && before) && !(start == last && after);
  };

  A sum[n] = {};
  int start = 0;
  for (int first = 0; first < count; first += kBatch) {
    Held<n, T> rows[kBatch];
    Held<n, G> stood[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = first + k;
      const std::int64_t from = __shfl_sync(0xffffffff, place, i % 32);
      const std::int32_t to = __shfl_sync(0xffffffff, id, i % 32);
      if (i >= count || !inside || !args.held.has(to)) continue;
      rows[k] = hold<n>(args.dy + from * args.width + column);
      if (starts >> i & 1 && is_whole(i))
        stood[k] = hold<n>(args.dtable + args.held.row(to) * args.width + column);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = first + k;
      const std::int32_t to = __shfl_sync(0xffffffff, id, i % 32);
      if (i >= count || !args.held.has(to)) continue;
      if (starts >> i & 1) {
        start = i;
#pragma unroll
        for (int e = 0; e < n; ++e) sum[e] = is_whole(i) ? stood[k][e] : A(0);
      }
#pragma unroll
      for (int e = 0; e < n; ++e) sum[e] += static_cast<A>(rows[k][e]);
      const bool ends = i + 1 == count || starts >> (i + 1) & 1;
      if (!ends || !inside) continue;
      if (is_whole(start))
        store_pack<n>(args.dtable + args.held.row(to) * args.width + column, sum);
      else
        store_pack<n>(args.partial +
                          (2 * std::int64_t{window} + !(start == 0 && before)) * args.width +
                          column,
                      sum);
    }
  }
}

constexpr int kSlices = 8;

// Adds up each id's runs in order: a block for 32 n columns of the id whose rows begin in its
// window and go on in others. Of those, thread row s takes the s-th eighth; the eighths are added
// in order.
template <int n, class T, class G>
__global__ void __launch_bounds__(32 * kSlices) join_kernel(const Sorted<T, G> args) {
  using A = Compute<G>;
  const int window = blockIdx.x, end = (window + 1) * kWindow;
  if (end >= args.rows || args.ids[end] != args.ids[end - 1]) return;
  const std::int32_t id = args.ids[end];
  if (window > 0 && args.ids[end - kWindow - 1] == id) return;  // began before
  if (!args.held.has(id)) return;
  // The first window that starts with another id lies in [low, high].
  int low = window + 1, high = args.windows;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (args.ids[middle * kWindow] == id)
      low = middle + 1;
    else
      high = middle;
  }
  const std::int64_t column = (std::int64_t{blockIdx.y} * 32 + threadIdx.x) * n;
  const bool inside = column < args.width;
  const int runs = low - window, each = (runs + kSlices - 1) / kSlices;
  const int first = window + static_cast<int>(threadIdx.y) * each, stop = min(first + each, low);
  A sum[n] = {};
#pragma unroll 4
  for (int w = first; inside && w < stop; ++w) {
    A values[n];
    load_pack<n>(args.partial + (2 * std::int64_t{w} + (w == window)) * args.width + column,
                 values);
#pragma unroll
    for (int e = 0; e < n; ++e) sum[e] += values[e];
  }
  __shared__ A sums[kSlices][32][n];
#pragma unroll
  for (int e = 0; e < n; ++e) sums[threadIdx.y][threadIdx.x][e] = sum[e];
  __syncthreads();
  if (threadIdx.y != 0 || !inside) return;
  for (int slice = 1; slice < kSlices; ++slice)
#pragma unroll
    for (int e = 0; e < n; ++e) sum[e] += sums[slice][threadIdx.x][e];
  put_pack<n>(args.dtable + args.held.row(id) * args.width + column, true, sum);
}

// Sorts (id, place) by id; equal ids keep their order. `vocabulary` bounds the ids.
struct SortedTokens {
  Tensor ids, places;

  SortedTokens(const Tensor& tokens, std::int64_t vocabulary)
      : ids(Tensor::empty_like(tokens)), places(Tensor::empty_like(tokens)) {
    const int count = static_cast<int>(tokens.size());
    const int bits =
        std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocabulary - 1))));
    const Tensor unsorted = Tensor::empty_like(tokens);
    count_up_kernel<<<blocks_for(count, kThreads), kThreads, 0, cuda_stream()>>>(
        unsorted.data<std::int32_t>(), count);
    check_launch("embedding_grad");
    std::size_t bytes = 0;
    const auto sort = [&](void* scratch) {
      cuda_check(cub::DeviceRadixSort::SortPairs(
                     scratch, bytes, tokens.data<std::int32_t>(), ids.data<std::int32_t>(),
                     unsorted.data<std::int32_t>(), places.data<std::int32_t>(), count, 0, bits,
                     cuda_stream()),
                 "embedding_grad");
    };
    sort(nullptr);
    const Tensor scratch =
        Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::kUInt8, Device::kCuda);
    sort(scratch.raw());
  }
};

template <int n, class T, class G>
void launch_sums(const Sorted<T, G>& sorted) {
  const auto windows = static_cast<unsigned>(sorted.windows);
  window_kernel<n>
      <<<dim3(windows, blocks_for(sorted.width, kThreads * n)), kThreads, 0, cuda_stream()>>>(
          sorted);
  check_launch("embedding_grad");
  join_kernel<n>
      <<<dim3(windows, blocks_for(sorted.width, 32 * n)), dim3(32, kSlices), 0, cuda_stream()>>>(
          sorted);
  check_launch("embedding_grad");
}

// T is the type of dy, G that of the table's gradient.
template <class T, class G>
void add_rows(const Tensor& tokens, std::int64_t first, std::int64_t vocabulary, const Tensor& dy,
              const Tensor& dtable) {
  using A = Accumulator<G>;
  const auto [rows, width] = dy.dims<2>();
  if (rows == 0 || width == 0) return;
  check(rows < std::int64_t{1} << 31, "embedding: ", rows, " tokens at a time");
  const SortedTokens order(tokens, vocabulary);
  const std::int64_t windows = (rows + kWindow - 1) / kWindow;
  const Tensor partial = Tensor::empty({windows, 2, width}, dtype_of<A>(), Device::kCuda);
  const Sorted<Native<T>, Native<G>> sorted{.ids = order.ids.template data<std::int32_t>(),
                                            .places = order.places.template data<std::int32_t>(),
                                            .dy = native<T>(dy),
                                            .dtable = native<G>(dtable),
                                            .held = {first, dtable.shape()[0]},
                                            .partial = partial.data<A>(),
                                            .width = width,
                                            .rows = static_cast<int>(rows),
                                            .windows = static_cast<int>(windows)};
  constexpr int n = std::min(kPackSize<Native<T>>, kPackSize<Native<G>>);
  if (width % n == 0 && takes_packs<n>(sorted.dy) && takes_packs<n>(sorted.dtable))
    launch_sums<n>(sorted);
  else
    launch_sums<1>(sorted);
}

class CudaEmbedding final : public EmbeddingKernels {
 public:
  void embedding(const Tensor& tokens, std::int64_t first, const Tensor& table,
                 const Tensor& y) const override {
    const std::int64_t row_bytes = table.shape()[1] * bytes_of(table.dtype());
    if (tokens.size() == 0 || row_bytes == 0) return;
    const auto gather = [&]<class Word>() {
      gather_kernel<<<blocks_for(tokens.size(), kWarps), kThreads, 0, cuda_stream()>>>(
          tokens.data<std::int32_t>(), tokens.size(), reinterpret_cast<const Word*>(table.raw()),
          HeldIds{first, table.shape()[0]},
          static_cast<int>(row_bytes / static_cast<std::int64_t>(sizeof(Word))),
          reinterpret_cast<Word*>(y.raw()));
      check_launch("embedding");
    };
    if (row_bytes % 16 == 0 && takes_packs<16>(table.raw(), y.raw()))
      gather.template operator()<uint4>();
    else if (bytes_of(table.dtype()) == 2)
      gather.template operator()<std::uint16_t>();
    else
      gather.template operator()<std::uint32_t>();
  }

  void embedding_grad(const Tensor& tokens, std::int64_t first, std::int64_t vocabulary,
                      const Tensor& dy, const Tensor& dtable) const override {
    dispatch_float(dy.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      if (dtable.dtype() == dtype_of<A>())
        return add_rows<T, A>(tokens, first, vocabulary, dy, dtable);
      check(dtable.dtype() == dy.dtype(), "embedding: the gradient of a table is ", dtable.dtype(),
            ", that of its rows ", dy.dtype());
      add_rows<T, T>(tokens, first, vocabulary, dy, dtable);
    });
  }
};

}  // namespace

const EmbeddingKernels& cuda_embedding() {
  static const CudaEmbedding kernels;
  return kernels;
}

}  // namespace infini
