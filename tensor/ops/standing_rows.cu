#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/ops/standing_rows.h"

namespace infini {
namespace {

constexpr int kThreads = 256;

// A thread for each element of y.
template <class N>
__global__ void rows_kernel(const N* x, const std::uint8_t* present, const Compute<N>* otherwise,
                            std::int64_t rows, std::int64_t width, std::int64_t count, N* y) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  if (present[i / width])
    y[i] = x[i];
  else
    y[i] = N(otherwise ? otherwise[i % (rows * width)] : Compute<N>(0));
}

// A thread for each element of a batch row: it takes them from batch row to batch row.
template <class N>
__global__ void rows_grad_kernel(const std::uint8_t* present, const N* dy, std::int64_t batch,
                                 std::int64_t rows, std::int64_t width, N* dx, bool add_dx,
                                 Compute<N>* dotherwise, bool add_dotherwise) {
  using A = Compute<N>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= rows * width) return;
  A sum = dotherwise && add_dotherwise ? dotherwise[i] : A(0);
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t at = b * rows * width + i;
    const bool stands = present[b * rows + i / width];
    const A upstream = A(dy[at]);
    if (dx) dx[at] = N((add_dx ? A(dx[at]) : A(0)) + (stands ? upstream : A(0)));
    if (!stands) sum += upstream;
  }
  if (dotherwise) dotherwise[i] = sum;
}

// A thread for each element.
template <class N>
__global__ void chosen_kernel(const N* x, const N* otherwise, const std::uint8_t* present,
                              std::int64_t width, std::int64_t count, N* y) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) y[i] = present[i / width] ? x[i] : otherwise[i];
}

// A thread for each element, of rows that stand or of the others.
template <class N>
__global__ void chosen_grad_kernel(const std::uint8_t* present, bool standing, const N* dy,
                                   std::int64_t width, std::int64_t count, N* d, bool add) {
  using A = Compute<N>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const A passed = (present[i / width] != 0) == standing ? A(dy[i]) : A(0);
  d[i] = N((add ? A(d[i]) : A(0)) + passed);
}

// A block for each row of x; all of them count the flags of its batch row.
template <class N>
__global__ void turn_kernel(const N* x, const std::uint8_t* present, std::int64_t rows,
                            std::int64_t width, std::int64_t places, bool first, N* y, bool add) {
  const std::int64_t i = blockIdx.x % rows, b = blockIdx.x / rows;
  int zeros = 0;
  for (std::int64_t m = threadIdx.x; m < places; m += kThreads) zeros += !present[b * places + m];
  const std::int64_t other = (i + block_sum<kThreads>(zeros)) % rows;
  const N* const from = x + (b * rows + (first ? other : i)) * width;
  N* const to = y + (b * rows + (first ? i : other)) * width;
  for (std::int64_t c = threadIdx.x; c < width; c += kThreads)
    to[c] = add ? N(Compute<N>(to[c]) + Compute<N>(from[c])) : from[c];
}

class CudaStandingRows final : public StandingRowsKernels {
 public:
  void rows(const Rows& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      const auto [batch, rows, width] = args.x.dims<3>();
      launch("standing_rows", rows_kernel<Native<T>>, blocks_for(args.x.size(), kThreads), kThreads,
             0, native<T>(args.x), args.present.data<std::uint8_t>(),
             native<Accumulator<T>>(args.otherwise), rows, width, args.x.size(), native<T>(args.y));
    });
  }

  void rows_grad(const RowsGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      const auto [batch, rows, width] = args.dy.dims<3>();
      launch("standing_rows_grad", rows_grad_kernel<Native<T>>, blocks_for(rows * width, kThreads),
             kThreads, 0, args.present.data<std::uint8_t>(), native<T>(args.dy), batch, rows, width,
             native<T>(args.dx.tensor), args.dx.accumulate,
             native<Accumulator<T>>(args.dotherwise.tensor), args.dotherwise.accumulate);
    });
  }

  void chosen(const Chosen& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      launch("chosen_rows", chosen_kernel<Native<T>>, blocks_for(args.x.size(), kThreads), kThreads,
             0, native<T>(args.x), native<T>(args.otherwise), args.present.data<std::uint8_t>(),
             args.x.shape()[2], args.x.size(), native<T>(args.y));
    });
  }

  void chosen_grad(const ChosenGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      for (const bool standing : {true, false})
        if (const GradTarget& target = standing ? args.dx : args.dotherwise)
          launch("chosen_rows_grad", chosen_grad_kernel<Native<T>>,
                 blocks_for(args.dy.size(), kThreads), kThreads, 0,
                 args.present.data<std::uint8_t>(), standing, native<T>(args.dy),
                 args.dy.shape()[2], args.dy.size(), native<T>(target.tensor), target.accumulate);
    });
  }

  void turn(const Turned& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      const auto [batch, rows, width] = args.x.dims<3>();
      launch("turn_rows", turn_kernel<Native<T>>, static_cast<unsigned>(batch * rows), kThreads, 0,
             native<T>(args.x), args.present.data<std::uint8_t>(), rows, width,
             args.present.shape()[1], args.turn == Turn::kFirst, native<T>(args.y.tensor),
             args.y.accumulate);
    });
  }
};

}  // namespace

const StandingRowsKernels& cuda_standing_rows() {
  static const CudaStandingRows kernels;
  return kernels;
}

}  // namespace infini
