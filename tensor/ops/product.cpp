#include "tensor/ops/product.h"

#include "tensor/ops/activation.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/product_onednn.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// Tiles of C that are computed on their own. The bytes of the result do not depend on how C is cut
// (gemm.h).
constexpr std::int64_t kTileRows = 128;
constexpr std::int64_t kTileColumns = 256;

template <class A, class C>
void multiply_tiles(const Product& product, const ProductExtents& extents) {
  const auto [m, n, k, batch] = extents;
  const A* a = product.a.data<A>();
  const A* b = product.b.data<A>();
  C* c = product.c.data<C>();
  const std::int64_t lda = product.transpose_a ? m : k, ldb = product.transpose_b ? k : n;
  const std::int64_t across = (n + kTileColumns - 1) / kTileColumns;
  const std::int64_t down = (m + kTileRows - 1) / kTileRows;
  parallel_for(across * down, [&, m = m, n = n, k = k](std::int64_t tile) {
    const std::int64_t i = tile / across * kTileRows, j = tile % across * kTileColumns;
    gemm(product.transpose_a, product.transpose_b, std::min(kTileRows, m - i),
         std::min(kTileColumns, n - j), k, product.transpose_a ? a + i : a + i * lda, lda,
         product.transpose_b ? b + j * ldb : b + j, ldb, c + i * n + j, n, product.accumulate);
  });
}

class CpuProduct final : public ProductKernels {
 public:
  void multiply(const Product& asked) const override {
    const ProductExtents extents = extents_of(asked);
    if (asked.c.shape().rank() == 3) {
      for (std::int64_t i = 0; i < extents.batch; ++i) multiply(one_of(asked, i));
      return;
    }
    const auto [m, n, k, batch] = extents;
    Product product = asked;
    if (product.addend) {
      product.c.copy_from(product.addend);
      product.accumulate = true;
    }
    if (m > 0 && n > 0 && k > 0 && multiply_onednn(product, m, n, k)) return;
    dispatch_float(product.a.dtype(), [&]<class T>() {
      if (product.c.dtype() == dtype_of<T>())
        multiply_tiles<T, T>(product, extents);
      else
        multiply_tiles<T, Accumulator<T>>(product, extents);
    });
  }

  // The slope is kept: the gradient then is one multiplication.
  void multiply_gelu(const Product& product, const Tensor& kept) const override {
    Product inner = product;
    inner.c = kept ? kept : product.c;
    multiply(inner);
    cpu_activation().elementwise(ActivationKernels::Kind::kGelu, inner.c, product.c, kept);
  }
  void multiply_gelu_grad(const Product& product, const Tensor& kept) const override {
    multiply(product);
    cpu_activation().elementwise_grad(kept, product.c, {.tensor = product.c, .accumulate = false});
  }

 private:
  static Product one_of(const Product& batch, std::int64_t i) {
    const auto matrix = [i](const Tensor& matrices) {
      const auto [count, rows, columns] = matrices.dims<3>();
      return matrices.slice(i, 1).reshape({rows, columns});
    };
    Product product = batch;
    for (Tensor* tensor : {&product.a, &product.b, &product.c}) *tensor = matrix(*tensor);
    if (batch.addend) product.addend = matrix(batch.addend);
    return product;
  }
};

const CpuProduct cpu_product;

bool tf32 = false;

}  // namespace

void allow_tf32(bool allowed) { tf32 = allowed; }
bool tf32_allowed() { return tf32; }

ProductExtents extents_of(const Product& product) {
  const bool many = product.c.shape().rank() == 3;
  const std::int64_t batch = many ? product.c.shape()[0] : 1;
  const auto rows_and_columns = [&](const Tensor& factor) {
    if (!many) return factor.dims<2>();
    const auto [count, rows, columns] = factor.dims<3>();
    check(count == batch, "multiply: a factor is ", factor.shape(), ", the result ",
          product.c.shape());
    return std::array{rows, columns};
  };
  const auto [a_rows, a_columns] = rows_and_columns(product.a);
  const auto [b_rows, b_columns] = rows_and_columns(product.b);
  const auto [m, k] =
      product.transpose_a ? std::pair(a_columns, a_rows) : std::pair(a_rows, a_columns);
  const auto [n, depth] =
      product.transpose_b ? std::pair(b_rows, b_columns) : std::pair(b_columns, b_rows);
  const Shape made = many ? Shape{batch, m, n} : Shape{m, n};
  check(k == depth && product.c.shape() == made, "multiply: op(A) is ", Shape{m, k},
        " and op(B) is ", Shape{depth, n}, ", which do not make ", product.c.shape());
  const DType type = product.a.dtype();
  check(product.b.dtype() == type &&
            (product.c.dtype() == type || product.c.dtype() == accumulator_of(type)),
        "multiply: A is ", type, ", B is ", product.b.dtype(), ", C is ", product.c.dtype());
  const Tensor& addend = product.addend;
  check(!addend || (addend.shape() == product.c.shape() && addend.dtype() == product.c.dtype()),
        "multiply: the addend is ", addend.dtype(), addend.shape(), ", the product ",
        product.c.dtype(), product.c.shape());
  return {m, n, k, batch};
}

const ProductKernels& product_kernels(Device device) {
  return on<cpu_product, cuda_product>(device);
}

void multiply(const Product& product) { product_kernels(product.c.device()).multiply(product); }

// Added last, the residual is rounded once however many processes there are.
void finish_sum(const TensorGroup& group, const Tensor& y, const Tensor& residual) {
  group.sum(y);
  group.wait();
  if (residual) add_into({.tensor = y, .accumulate = true}, residual);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& residual,
              const WeightSplit& split) {
  const auto [outputs, width] = weight.dims<2>();
  check(x.shape().rank() > 0 && x.shape()[-1] == width, "linear: x is ", x.shape(),
        ", expected [..., ", width, "]");
  check(x.dtype() == weight.dtype(), "linear: x is ", x.dtype(), ", weight is ", weight.dtype());

  std::vector<std::int64_t> extents(x.shape().begin(), x.shape().end());
  extents.back() = outputs;
  const Tensor y = Tensor::empty(Shape(extents), x.dtype(), x.device());
  const Shape rows_in{width ? x.size() / width : 0, width}, rows_out{rows_in[0], outputs};
  const Tensor rows = x.unwatched().reshape(rows_in), matrix = weight.unwatched();
  check(!residual || residual.shape() == y.shape(), "linear: the residual is ", residual.shape(),
        ", expected ", y.shape());
  const TensorGroup* const sums_y = split.sums_y();
  multiply({.a = rows,
            .b = matrix,
            .c = y.reshape(rows_out),
            .transpose_b = true,
            .addend = residual && !sums_y ? residual.unwatched().reshape(rows_out) : Tensor{}});
  if (sums_y) finish_sum(*sums_y, y, residual.unwatched());

  const Tensor kept = weight.tape() ? rows : Tensor{};  // a frozen weight's gradient needs no x
  return record(y, {x, weight, residual}, [=](const Tensor& dy, Gradients& gradients) {
    // dx = dy weight,  dweight = dy^T x.
    const Tensor drows = dy.reshape(rows_out);
    const PartialGradient dx(gradients.of(0), split.sums_dx());
    if (const GradTarget& part = dx.part())
      multiply({.a = drows,
                .b = matrix,
                .c = part.tensor.reshape(rows_in),
                .accumulate = part.accumulate});
    dx.send();
    if (const GradTarget dweight = gradients.of(1))
      multiply({.a = drows,
                .b = kept,
                .c = dweight.tensor,
                .transpose_a = true,
                .accumulate = dweight.accumulate});
    dx.receive();
    gradients.hand_on(2, dy);
  });
}

}  // namespace infini
