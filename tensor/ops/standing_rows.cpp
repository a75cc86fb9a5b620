#include "tensor/ops/standing_rows.h"

#include <algorithm>

#include "tensor/parallel.h"

namespace infini {
namespace {

class CpuStandingRows final : public StandingRowsKernels {
 public:
  void rows(const Rows& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const auto [batch, rows, width] = args.x.dims<3>();
      const std::uint8_t* present = args.present.data<std::uint8_t>();
      const T* x = args.x.data<T>();
      const A* otherwise = args.otherwise ? args.otherwise.data<A>() : nullptr;
      T* y = args.y.data<T>();
      for (std::int64_t r = 0; r < batch * rows; ++r)
        for (std::int64_t c = 0; c < width; ++c)
          y[r * width + c] = present[r]  ? x[r * width + c]
                             : otherwise ? T(otherwise[r % rows * width + c])
                                         : T(A(0));
    });
  }

  void rows_grad(const RowsGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const auto [batch, rows, width] = args.dy.dims<3>();
      const std::uint8_t* present = args.present.data<std::uint8_t>();
      const T* dy = args.dy.data<T>();
      if (args.dx) {
        T* dx = args.dx.tensor.data<T>();
        for (std::int64_t r = 0; r < batch * rows; ++r)
          for (std::int64_t i = r * width; i < (r + 1) * width; ++i) {
            const A stood = args.dx.accumulate ? A(dx[i]) : A(0);
            dx[i] = T(present[r] ? stood + A(dy[i]) : stood);
          }
      }
      if (!args.dotherwise) return;
      A* dotherwise = args.dotherwise.tensor.data<A>();
      for (std::int64_t i = 0; i < rows * width; ++i) {
        A sum = args.dotherwise.accumulate ? dotherwise[i] : A(0);
        for (std::int64_t b = 0; b < batch; ++b)
          if (!present[b * rows + i / width]) sum += A(dy[b * rows * width + i]);
        dotherwise[i] = sum;
      }
    });
  }

  void chosen(const Chosen& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      const std::int64_t width = args.x.shape()[2];
      const std::uint8_t* present = args.present.data<std::uint8_t>();
      const T *x = args.x.data<T>(), *otherwise = args.otherwise.data<T>();
      T* y = args.y.data<T>();
      for (std::int64_t i = 0; i < args.x.size(); ++i)
        y[i] = present[i / width] ? x[i] : otherwise[i];
    });
  }

  void chosen_grad(const ChosenGrad& args) const override {
    dispatch_float(args.dy.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const std::int64_t width = args.dy.shape()[2];
      const std::uint8_t* present = args.present.data<std::uint8_t>();
      const T* dy = args.dy.data<T>();
      for (const bool standing : {true, false}) {
        const GradTarget& target = standing ? args.dx : args.dotherwise;
        if (!target) continue;
        T* d = target.tensor.data<T>();
        for (std::int64_t i = 0; i < args.dy.size(); ++i) {
          const A passed = (present[i / width] != 0) == standing ? A(dy[i]) : A(0);
          d[i] = T((target.accumulate ? A(d[i]) : A(0)) + passed);
        }
      }
    });
  }

  void turn(const Turned& args) const override {
    dispatch_float(args.x.dtype(), [&]<class T>() {
      const auto [batch, rows, width] = args.x.dims<3>();
      const std::int64_t places = args.present.shape()[1];
      const std::uint8_t* present = args.present.data<std::uint8_t>();
      const T* x = args.x.data<T>();
      T* y = args.y.tensor.data<T>();
      for (std::int64_t b = 0; b < batch; ++b) {
        const std::int64_t absent =
            std::count(present + b * places, present + (b + 1) * places, std::uint8_t{0});
        for (std::int64_t i = 0; i < rows; ++i) {
          const std::int64_t other = (i + absent) % rows;
          const std::int64_t from = (b * rows + (args.turn == Turn::kFirst ? other : i)) * width,
                             to = (b * rows + (args.turn == Turn::kFirst ? i : other)) * width;
          for (std::int64_t c = 0; c < width; ++c)
            y[to + c] = args.y.accumulate
                            ? T(Accumulator<T>(y[to + c]) + Accumulator<T>(x[from + c]))
                            : x[from + c];
        }
      }
    });
  }
};

const CpuStandingRows cpu_standing_rows;

}  // namespace

Tensor standing_rows(const Tensor& x, const Tensor& present, const Tensor& otherwise) {
  const auto [batch, rows, width] = x.dims<3>();
  const Shape flags{batch, rows}, others{rows, width};
  check(present.shape() == flags, "standing_rows: present is ", present.shape(), ", expected ",
        flags);
  check(
      !otherwise || (otherwise.shape() == others && otherwise.dtype() == accumulator_of(x.dtype())),
      "standing_rows: the others are ", otherwise.dtype(), otherwise.shape(), ", expected ",
      accumulator_of(x.dtype()), others);
  const Tensor y = Tensor::empty_like(x);
  const StandingRowsKernels& device = on<cpu_standing_rows, cuda_standing_rows>(x.device());
  device.rows({.x = x, .present = present, .otherwise = otherwise, .y = y});
  return record(y, {x, otherwise}, [=, &device](const Tensor& dy, Gradients& gradients) {
    device.rows_grad(
        {.present = present, .dy = dy, .dx = gradients.of(0), .dotherwise = gradients.of(1)});
  });
}

Tensor chosen_rows(const Tensor& x, const Tensor& otherwise, const Tensor& present) {
  const auto [batch, rows, width] = x.dims<3>();
  const Shape flags{batch, rows};
  check(present.shape() == flags, "chosen_rows: present is ", present.shape(), ", expected ",
        flags);
  check(otherwise.shape() == x.shape() && otherwise.dtype() == x.dtype(),
        "chosen_rows: the others are ", otherwise.dtype(), otherwise.shape(), ", expected ",
        x.dtype(), x.shape());
  const Tensor y = Tensor::empty_like(x);
  const StandingRowsKernels& device = on<cpu_standing_rows, cuda_standing_rows>(x.device());
  device.chosen({.x = x, .otherwise = otherwise, .present = present, .y = y});
  return record(y, {x, otherwise}, [=, &device](const Tensor& dy, Gradients& gradients) {
    device.chosen_grad(
        {.present = present, .dy = dy, .dx = gradients.of(0), .dotherwise = gradients.of(1)});
  });
}

Tensor turn_rows(const Tensor& x, const Tensor& present, Turn turn) {
  const auto [batch, rows, width] = x.dims<3>();
  const auto [flags, places] = present.dims<2>();
  check(flags == batch && places <= rows, "turn_rows: present is ", present.shape(), ", rows are ",
        x.shape());
  const Tensor y = Tensor::empty_like(x);
  const StandingRowsKernels& device = on<cpu_standing_rows, cuda_standing_rows>(x.device());
  device.turn({.x = x.unwatched(), .present = present, .turn = turn, .y = {.tensor = y}});
  return record(y, {x}, [=, &device](const Tensor& dy, Gradients& gradients) {
    if (const GradTarget dx = gradients.of(0))
      device.turn({.x = dy,
                   .present = present,
                   .turn = turn == Turn::kFirst ? Turn::kBack : Turn::kFirst,
                   .y = dx});
  });
}

}  // namespace infini
