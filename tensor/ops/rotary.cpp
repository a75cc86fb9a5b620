#include "tensor/ops/rotary.h"

#include <cmath>
#include <numbers>

#include "tensor/parallel.h"

namespace infini {
namespace {

class CpuRotary final : public RotaryKernels {
 public:
  void rotate(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
              std::int64_t first_position, const Tensor& rotated) const override {
    dispatch_float(qkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      each_row<A>(
          table, layout, first_position, [&](std::int64_t r, const A* cosine, const A* sine) {
            const int half = layout.head_width / 2;
            for (int head = 0; head < layout.heads + layout.kv_heads; ++head) {
              const T* in = qkv.data<T>() + r * layout.qkv_width() + head * layout.head_width;
              T* out = rotated.data<T>() + r * layout.rotated_width() + head * layout.head_width;
              for (int i = 0; i < half; ++i) {
                out[i] = T(A(in[i]) * cosine[i] - A(in[i + half]) * sine[i]);
                out[i + half] = T(A(in[i + half]) * cosine[i] + A(in[i]) * sine[i]);
              }
            }
          });
    });
  }

  // The gradient of a rotation is the rotation back.
  void rotate_grad(const RotateGrad& args) const override {
    const HeadLayout& layout = args.layout;
    const Tensor dqkv = zeroed(args.dqueries, layout.query_columns()).tensor;
    zeroed(args.dkeys, layout.key_columns());
    dispatch_float(dqkv.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      each_row<A>(args.table, layout, args.first_position,
                  [&](std::int64_t r, const A* cosine, const A* sine) {
                    const int half = layout.head_width / 2;
                    for (int head = 0; head < layout.heads + layout.kv_heads; ++head) {
                      const T* in = args.drotated.data<T>() + r * layout.rotated_width() +
                                    head * layout.head_width;
                      T* out = dqkv.data<T>() + r * layout.qkv_width() + head * layout.head_width;
                      for (int i = 0; i < half; ++i) {
                        const A low = A(in[i]), high = A(in[i + half]);
                        out[i] = T(A(out[i]) + low * cosine[i] + high * sine[i]);
                        out[i + half] = T(A(out[i + half]) + high * cosine[i] - low * sine[i]);
                      }
                    }
                  });
    });
  }

 private:
  template <class A, class Row>
  static void each_row(const Tensor& table, const HeadLayout& layout, std::int64_t first_position,
                       Row row) {
    const int half = layout.head_width / 2;
    parallel_ranges(layout.rows(), 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t position = first_position + r % layout.tokens;
        const A* cosine = table.data<A>() + position * layout.head_width;
        row(r, cosine, cosine + half);
      }
    });
  }
};

const CpuRotary cpu_rotary;

}  // namespace

double RotaryScaling::frequency(double unscaled) const {
  if (kind == Kind::kNone) return unscaled;
  const double slow = unscaled / factor;
  if (kind == Kind::kLinear) return slow;
  const double turns = static_cast<double>(original_tokens) * unscaled / (2 * std::numbers::pi);
  if (turns < slow_turns) return slow;
  if (turns > fast_turns) return unscaled;
  const double share = (turns - slow_turns) / (fast_turns - slow_turns);
  return (1 - share) * slow + share * unscaled;
}

Tensor rotary_table(std::int64_t positions, int head_width, double base, DType dtype, Device device,
                    const RotaryScaling& scaling) {
  check(head_width % 2 == 0, "rotary_table: the head width must be even, got ", head_width);
  const int half = head_width / 2;
  std::vector<double> values(positions * head_width);
  for (std::int64_t position = 0; position < positions; ++position)
    for (int i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(position) * scaling.frequency(std::pow(base, -2.0 * i / head_width));
      values[position * head_width + i] = std::cos(angle);
      values[position * head_width + half + i] = std::sin(angle);
    }
  return Tensor::of(values, {positions, head_width}).to(dtype).to(device);
}

const RotaryKernels& rotary_kernels(Device device) { return on<cpu_rotary, cuda_rotary>(device); }

Tensor rotate(const Tensor& qkv, const Tensor& table, const HeadLayout& layout,
              std::int64_t first_position) {
  layout.check_rows("rotate", qkv, layout.qkv_width());
  check(first_position + layout.tokens <= table.shape()[0], "rotate: position ",
        first_position + layout.tokens - 1, " in a table of ", table.shape()[0]);
  const DType full = accumulator_of(qkv.dtype());
  check(table.shape()[-1] == layout.head_width && table.dtype() == full, "rotate: the table is ",
        table.dtype(), table.shape(), ", expected ", full, "[..., ", layout.head_width, "]");
  const Tensor rotated =
      Tensor::empty({layout.rows(), layout.rotated_width()}, qkv.dtype(), qkv.device());
  const RotaryKernels& device = rotary_kernels(qkv.device());
  device.rotate(qkv, table, layout, first_position, rotated);

  return record(rotated, {qkv}, [=, &device](const Tensor& drotated, Gradients& gradients) {
    device.rotate_grad({.drotated = drotated,
                        .table = table,
                        .layout = layout,
                        .first_position = first_position,
                        .dqueries = gradients.of(0, layout.query_columns()),
                        .dkeys = gradients.of(0, layout.key_columns())});
  });
}

}  // namespace infini
