#include "tensor/ops/gemm.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

// B is packed in blocks of kDepth x kColumns that stay in the second-level cache, A in blocks of
// kDepth x kRows; both are converted to the accumulator type on the way. A panel of kPanelRows rows
// of A stays in the first-level cache while all panels of B pass it; its product with one panel of
// B is held in registers.

namespace infini {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kPanelRows = 8;  // 16 of the 32 registers hold sums
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kPanelRows = 4;  // 8 of the 16 registers hold sums
#else
constexpr int kVectorBytes = 16;
constexpr int kPanelRows = 4;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef std::uint32_t words __attribute__((vector_size(kVectorBytes)));
  typedef std::uint16_t halves __attribute__((vector_size(kVectorBytes / 2)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);
template <class T>
constexpr int kPanelColumns = 2 * kLanes<T>;

constexpr std::int64_t kDepth = 256;
constexpr std::int64_t kRows = 64;
constexpr std::int64_t kColumns = 512;

// Vectors of the accumulator type T in memory that holds T or BFloat16, at any alignment.
template <class T>
Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
Vector<float> load(const BFloat16* from) {
  VectorOf<float>::halves h;
  std::memcpy(&h, from, sizeof h);
  const auto words = __builtin_convertvector(h, VectorOf<float>::words) << 16;
  return reinterpret_cast<Vector<float>>(words);
}
template <class T>
void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}
void store(BFloat16* to, Vector<float> v) {
  const auto words = reinterpret_cast<VectorOf<float>::words>(v);
  const auto rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16;
  const auto quiet = (words >> 16) | 0x40;  // rounding could carry a NaN into infinity
  const auto halves = __builtin_convertvector((words & 0x7FFFFFFF) > 0x7F800000 ? quiet : rounded,
                                              VectorOf<float>::halves);
  std::memcpy(static_cast<void*>(to), &halves, sizeof halves);
}

// Scratch memory of one thread that grows to the largest size asked for.
template <class T>
class Scratch {
 public:
  T* of(std::int64_t count) {
    if (count > count_) {
      memory_.reset(static_cast<T*>(::operator new(count * sizeof(T), kAlignment)));
      count_ = count;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(T* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<T, Delete> memory_;
  std::int64_t count_ = 0;
};

// Where one thread keeps the packed blocks, whatever the types it packs from.
template <class T>
struct PackingBuffers {
  Scratch<T> a, b, wide;

  static PackingBuffers& of_this_thread() {
    static thread_local PackingBuffers buffers;
    return buffers;
  }
};

template <class V, std::size_t... i>
V low_halves_interleaved(V x, V y, std::index_sequence<i...>) {
  return __builtin_shufflevector(x, y, (i % 2 ? sizeof...(i) + i / 2 : i / 2)...);
}
template <class V, std::size_t... i>
V high_halves_interleaved(V x, V y, std::index_sequence<i...>) {
  constexpr std::size_t half = sizeof...(i) / 2;
  return __builtin_shufflevector(x, y, (half + (i % 2 ? sizeof...(i) + i / 2 : i / 2))...);
}

// Transposes a block of `rows` vectors in registers. Seen as one sequence of rows * lanes elements,
// a round rotates the bits of every element's index by one; log2(rows) rounds move the row to the
// end.
template <int rows, class T>
void transpose_block(Vector<T> (&block)[rows]) {
  using Lanes = std::make_index_sequence<kLanes<T>>;
  for (int round = 1; round < rows; round *= 2) {
    Vector<T> next[rows];
    for (int i = 0; i < rows / 2; ++i) {
      next[2 * i] = low_halves_interleaved(block[i], block[i + rows / 2], Lanes{});
      next[2 * i + 1] = high_halves_interleaved(block[i], block[i + rows / 2], Lanes{});
    }
    for (int i = 0; i < rows; ++i) block[i] = next[i];
  }
}

// Writes panel[p][j] = source(j, p) for j < width, p < depth, with zeros for the columns from
// `width` on. source(j, p) is source[p * stride + j], or source[j * stride + p] when `across`.
template <int columns, class T, class Source>
void pack_panel(bool across, std::int64_t width, std::int64_t depth, const Source* source,
                std::int64_t stride, T* panel) {
  constexpr int lanes = kLanes<T>;
  constexpr int rows =
      columns < lanes ? columns : lanes;  // of the block that is transposed at a time
  std::int64_t p = 0;
  if (width == columns && across) {
    for (; p + lanes <= depth; p += lanes)
      for (int j = 0; j < columns; j += rows) {
        Vector<T> block[rows];
        for (int r = 0; r < rows; ++r) block[r] = load(source + (j + r) * stride + p);
        transpose_block<rows, T>(block);
        // A block narrower than a vector fills the whole panel: its vectors lie one after the
        // other.
        constexpr int step = rows < lanes ? lanes : columns;
        for (int r = 0; r < rows; ++r) store(panel + p * columns + r * step + j, block[r]);
      }
  } else if (width == columns) {
    for (; p < depth; ++p)
      for (int j = 0; j < columns; ++j)
        panel[p * columns + j] = static_cast<T>(source[p * stride + j]);
  }
  if (width < columns) std::fill(panel + p * columns, panel + depth * columns, T{0});
  if (across) {
    for (std::int64_t j = 0; j < width; ++j)
      for (std::int64_t q = p; q < depth; ++q)
        panel[q * columns + j] = static_cast<T>(source[j * stride + q]);
  } else {
    for (; p < depth; ++p)
      for (std::int64_t j = 0; j < width; ++j)
        panel[p * columns + j] = static_cast<T>(source[p * stride + j]);
  }
}

// Packs `width` columns in panels of `columns` one after the other.
template <int columns, class T, class Source>
void pack(bool across, std::int64_t width, std::int64_t depth, const Source* source,
          std::int64_t stride, T* packed) {
  for (std::int64_t j = 0; j < width; j += columns)
    pack_panel<columns>(across, std::min<std::int64_t>(columns, width - j), depth,
                        source + j * (across ? stride : 1), stride, packed + j * depth);
}

// One tile of C: `rows` rows by the first `width` columns of a panel of B, which lie in its first
// `vectors` vectors.
template <int rows, int vectors, class T, class C>
void multiply_tile(std::int64_t depth, const T* a, const T* b, C* c, std::int64_t ldc,
                   std::int64_t width, bool accumulate) {
  constexpr int lanes = kLanes<T>;
  Vector<T> sum[rows][vectors] = {};
  for (std::int64_t p = 0; p < depth; ++p, a += kPanelRows, b += kPanelColumns<T>) {
    Vector<T> right[vectors];
    for (int v = 0; v < vectors; ++v) right[v] = load(b + v * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
      for (int v = 0; v < vectors; ++v) sum[i][v] += a[i] * right[v];
  }
  if (width == vectors * lanes) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i, c += ldc)
      for (int v = 0; v < vectors; ++v)
        store(c + v * lanes, accumulate ? sum[i][v] + load(c + v * lanes) : sum[i][v]);
    return;
  }
  T row[vectors * lanes];
  for (int i = 0; i < rows; ++i, c += ldc) {
    for (int v = 0; v < vectors; ++v) store(row + v * lanes, sum[i][v]);
    for (std::int64_t j = 0; j < width; ++j) c[j] = C(accumulate ? row[j] + c[j] : row[j]);
  }
}

// multiply_tile for a number of rows known at run time.
template <class T, class C, int rows = kPanelRows>
void multiply_rows(std::int64_t count, std::int64_t depth, const T* a, const T* b, C* c,
                   std::int64_t ldc, std::int64_t width, bool accumulate) {
  if (count == rows) {
    if (width <= kLanes<T>)
      multiply_tile<rows, 1>(depth, a, b, c, ldc, width, accumulate);
    else
      multiply_tile<rows, 2>(depth, a, b, c, ldc, width, accumulate);
  } else if constexpr (rows > 1) {
    multiply_rows<T, C, rows - 1>(count, depth, a, b, c, ldc, width, accumulate);
  }
}

std::int64_t whole_panels(std::int64_t count, std::int64_t panel) {
  return (count + panel - 1) / panel * panel;
}

}  // namespace

template <class A, class B, class C>
void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
          const A* a, std::int64_t lda, const B* b, std::int64_t ldb, C* c, std::int64_t ldc,
          bool accumulate) {
  using T = Accumulator<C>;
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate)
      for (std::int64_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, C(T{0}));
    return;
  }
  if constexpr (!std::is_same_v<C, T>) {
    if (k > kDepth) {  // a sum in several parts is rounded once, at the end
      T* const wide = PackingBuffers<T>::of_this_thread().wide.of(m * n);
      gemm(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, wide, n, false);
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          C& out = c[i * ldc + j];
          out = C(accumulate ? wide[i * n + j] + out : wide[i * n + j]);
        }
      return;
    }
  }

  constexpr std::int64_t panel_columns = kPanelColumns<T>;
  auto& buffers = PackingBuffers<T>::of_this_thread();
  T* const packed_a = buffers.a.of(kRows * kDepth);
  T* const packed_b = buffers.b.of(whole_panels(std::min(n, kColumns), panel_columns) * kDepth);

  for (std::int64_t j0 = 0; j0 < n; j0 += kColumns) {
    const std::int64_t columns = std::min(kColumns, n - j0);
    for (std::int64_t p0 = 0; p0 < k; p0 += kDepth) {
      const std::int64_t depth = std::min(kDepth, k - p0);
      const bool add = accumulate || p0 > 0;
      pack<panel_columns>(transpose_b, columns, depth,
                          transpose_b ? b + j0 * ldb + p0 : b + p0 * ldb + j0, ldb, packed_b);
      for (std::int64_t i0 = 0; i0 < m; i0 += kRows) {
        const std::int64_t rows = std::min(kRows, m - i0);
        pack<kPanelRows>(!transpose_a, rows, depth,
                         transpose_a ? a + p0 * lda + i0 : a + i0 * lda + p0, lda, packed_a);
        for (std::int64_t i = 0; i < rows; i += kPanelRows)
          for (std::int64_t j = 0; j < columns; j += panel_columns)
            multiply_rows<T>(std::min<std::int64_t>(kPanelRows, rows - i), depth,
                             packed_a + i * depth, packed_b + j * depth,
                             c + (i0 + i) * ldc + j0 + j, ldc, std::min(panel_columns, columns - j),
                             add);
      }
    }
  }
}

#define INFINI_GEMM(A, B, C)                                                                  \
  template void gemm<A, B, C>(bool, bool, std::int64_t, std::int64_t, std::int64_t, const A*, \
                              std::int64_t, const B*, std::int64_t, C*, std::int64_t, bool);
INFINI_GEMM(double, double, double)
INFINI_GEMM(float, float, float)
INFINI_GEMM(float, float, BFloat16)
INFINI_GEMM(float, BFloat16, float)
INFINI_GEMM(float, BFloat16, BFloat16)
INFINI_GEMM(BFloat16, float, float)
INFINI_GEMM(BFloat16, float, BFloat16)
INFINI_GEMM(BFloat16, BFloat16, float)
INFINI_GEMM(BFloat16, BFloat16, BFloat16)
#undef INFINI_GEMM

}  // namespace infini
