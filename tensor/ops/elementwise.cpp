#include "tensor/ops/elementwise.h"

#include <algorithm>

#include "tensor/parallel.h"

namespace infini {
namespace {

// Pieces whose sums are added in order: a fixed cut, whatever the number of threads.
constexpr std::int64_t kSumPiece = 1 << 16;

class CpuElementwise final : public ElementwiseKernels {
 public:
  void add_into(const Tensor& target, const Tensor& source, bool accumulate) const override {
    dispatch_float(target.dtype(), [&]<class To>() {
      dispatch_float(source.dtype(), [&]<class From>() {
        To* to = target.data<To>();
        const From* from = source.data<From>();
        using Sum = Accumulator<To>;
        parallel_ranges(target.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
          if (accumulate)
            for (std::int64_t i = begin; i < end; ++i)
              to[i] = To(static_cast<Sum>(to[i]) + static_cast<Sum>(from[i]));
          else
            for (std::int64_t i = begin; i < end; ++i) to[i] = To(static_cast<Sum>(from[i]));
        });
      });
    });
  }

  void add_into_columns(const Tensor& target, std::int64_t first,
                        const Tensor& source) const override {
    const auto [rows, columns] = source.dims<2>();
    const std::int64_t leading = target.shape()[1];
    dispatch_float(target.dtype(), [&]<class T>() {
      T* to = target.data<T>() + first;
      const T* from = source.data<T>();
      const std::int64_t grain = std::max<std::int64_t>(kElementGrain / columns, 1);
      parallel_ranges(rows, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row)
          for (std::int64_t c = 0; c < columns; ++c) {
            T& element = to[row * leading + c];
            element = T(static_cast<Accumulator<T>>(element) +
                        static_cast<Accumulator<T>>(from[row * columns + c]));
          }
      });
    });
  }

  void add(const Tensor& x, const Tensor& y, const Tensor& sum) const override {
    dispatch_float(x.dtype(), [&]<class T>() {
      const T *a = x.data<T>(), *b = y.data<T>();
      T* out = sum.data<T>();
      parallel_ranges(x.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          out[i] = T(static_cast<Accumulator<T>>(a[i]) + static_cast<Accumulator<T>>(b[i]));
      });
    });
  }

  void affine_into(const GradTarget& target, const Tensor& source, double factor,
                   double offset) const override {
    dispatch_float(source.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const T* from = source.data<T>();
      T* to = target.tensor.data<T>();
      const A keep = target.accumulate ? A(1) : A(0);
      parallel_ranges(source.size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        if (keep == 0) std::fill(to + begin, to + end, T(0.0f));
        for (std::int64_t i = begin; i < end; ++i)
          to[i] = T(A(to[i]) + (A(factor) * A(from[i]) + A(offset)));
      });
    });
  }

  void sum(const Tensor& values, bool of_squares, const Tensor& result) const override {
    std::vector<double> sums((values.size() + kSumPiece - 1) / kSumPiece);
    dispatch_float(values.dtype(), [&]<class T>() {
      const T* data = values.data<T>();
      parallel_ranges(values.size(), kSumPiece, [&](std::int64_t begin, std::int64_t end) {
        constexpr int kLanes = 8;
        double lanes[kLanes] = {};
        std::int64_t i = begin;
        for (; i + kLanes <= end; i += kLanes)
          for (int lane = 0; lane < kLanes; ++lane) {
            const double value = static_cast<Accumulator<T>>(data[i + lane]);
            lanes[lane] += of_squares ? value * value : value;
          }
        for (; i < end; ++i) {
          const double value = static_cast<Accumulator<T>>(data[i]);
          lanes[0] += of_squares ? value * value : value;
        }
        double piece = 0;
        for (const double lane : lanes) piece += lane;
        sums[begin / kSumPiece] = piece;
      });
    });
    double total = 0;
    for (const double piece : sums) total += piece;
    *result.data<double>() = total;
  }
};

const CpuElementwise cpu_elementwise;

}  // namespace

void add_into(const GradTarget& target, const Tensor& source) {
  check(target.tensor.size() == source.size(), "add_into: ", source.shape(), " into ",
        target.tensor.shape());
  on<cpu_elementwise, cuda_elementwise>(source.device())
      .add_into(target.tensor, source, target.accumulate);
}

void add_into_columns(const Tensor& target, std::int64_t first, const Tensor& source) {
  const auto [rows, columns] = source.dims<2>();
  const auto [all, width] = target.dims<2>();
  check(rows == all && first >= 0 && first + columns <= width && source.dtype() == target.dtype(),
        "add_into_columns: ", source.dtype(), source.shape(), " from column ", first, " on of ",
        target.dtype(), target.shape());
  if (source.size() > 0)
    on<cpu_elementwise, cuda_elementwise>(source.device()).add_into_columns(target, first, source);
}

Tensor add(const Tensor& x, const Tensor& y) {
  check(x.shape() == y.shape() && x.dtype() == y.dtype(), "add: ", x.dtype(), x.shape(), " and ",
        y.dtype(), y.shape());
  const Tensor sum = Tensor::empty_like(x);
  on<cpu_elementwise, cuda_elementwise>(x.device()).add(x, y, sum);
  return record(sum, {x, y}, [](const Tensor& dy, Gradients& gradients) {
    for (int input = 0; input < 2; ++input)
      if (const GradTarget dx = gradients.of(input)) add_into(dx, dy);
  });
}

Tensor affine(const Tensor& x, double factor, double offset) {
  const Tensor y = Tensor::empty_like(x);
  const ElementwiseKernels& device = on<cpu_elementwise, cuda_elementwise>(x.device());
  device.affine_into({.tensor = y, .accumulate = false}, x, factor, offset);
  return record(y, {x}, [factor, &device](const Tensor& dy, Gradients& gradients) {
    device.affine_into(gradients.of(0), dy, factor, 0);
  });
}

void convert_into(const Tensor& target, const Tensor& source) {
  add_into({.tensor = target, .accumulate = false}, source);
}

Tensor sum(const Tensor& values) {
  const Tensor total = Tensor::empty({}, DType::kFloat64, values.device());
  on<cpu_elementwise, cuda_elementwise>(values.device()).sum(values, false, total);
  return total;
}

Tensor square_sum(const Tensor& values) {
  const Tensor total = Tensor::empty({}, DType::kFloat64, values.device());
  on<cpu_elementwise, cuda_elementwise>(values.device()).sum(values, true, total);
  return total;
}

}  // namespace infini
