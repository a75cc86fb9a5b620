// Products by cuBLASLt. It works on column-major matrices: a row-major C is C^T there, so
// C = op(A) op(B) becomes C^T = op(B)^T op(A)^T with no transposition of anything.
#ifdef INFINI_CUDA

#include <cublasLt.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "tensor/cuda.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/product.h"
#include "tensor/ops/product_plans.h"

namespace infini {
namespace {

constexpr std::int64_t kWorkspaceBytes = 64 << 20;
constexpr int kCandidates = 24;
constexpr std::size_t kTimedRuns = 5;
constexpr float kHopeless = 1.5f;  // times the fastest: run once and no more
// Of products longer than kShortest milliseconds, those within kNearly of the fastest meet again.
constexpr float kShortest = 0.2f, kNearly = 1.06f, kFinalMilliseconds = 20;
constexpr int kFinalists = 5, kFinalRounds = 4;

void lt_check(cublasStatus_t status, const char* who) {
  check<DeviceError>(status == CUBLAS_STATUS_SUCCESS, who, ": ", cublasLtGetStatusString(status));
}

cudaDataType_t cuda_type(DType dtype) {
  return dtype == DType::kFloat64    ? CUDA_R_64F
         : dtype == DType::kBFloat16 ? CUDA_R_16BF
                                     : CUDA_R_32F;
}

// The least alignment of all matrices, up to the 16 bytes that the fast kernels ask for.
int common_alignment(std::initializer_list<const Tensor*> tensors) {
  std::uintptr_t bits = 16;
  for (const Tensor* tensor : tensors) {
    const Shape& shape = tensor->shape();
    bits |= reinterpret_cast<std::uintptr_t>(tensor->raw());
    if (shape.rank() == 3 && shape[0] > 1) bits |= tensor->bytes() / shape[0];
  }
  return static_cast<int>(bits & (~bits + 1));
}

// A product as cuBLASLt sees it. Frees its descriptors.
class LtProduct {
 public:
  LtProduct(const Product& product, const ProductExtents& extents, cublasLtEpilogue_t epilogue,
            const Tensor& auxiliary)
      : shape_{.m = extents.n,
               .n = extents.m,
               .k = extents.k,
               .batch = extents.batch,
               .transpose_a = product.transpose_b,
               .transpose_b = product.transpose_a,
               .accumulate = product.accumulate || product.addend,
               .in = product.a.dtype(),
               .out = product.c.dtype(),
               .tf32 = product.a.dtype() == DType::kFloat32 && tf32_allowed(),
               .epilogue = epilogue,
               .alignment = common_alignment({&product.a, &product.b, &product.c,
                                              auxiliary ? &auxiliary : &product.c,
                                              product.addend ? &product.addend : &product.c})},
        a_(product.b.raw()),
        b_(product.a.raw()),
        c_(product.c.raw()),
        addend_(product.addend ? product.addend.raw() : nullptr) {
    const bool wide = shape_.in == DType::kFloat64;
    const cublasComputeType_t compute = wide          ? CUBLAS_COMPUTE_64F
                                        : shape_.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                      : CUBLAS_COMPUTE_32F;
    lt_check(cublasLtMatmulDescCreate(&operation_, compute, wide ? CUDA_R_64F : CUDA_R_32F),
             "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, shape_.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, shape_.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (auxiliary) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(auxiliary.raw()));
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape_.m);
    }
    layout(a_layout_, shape_.in, shape_.transpose_a ? shape_.k : shape_.m,
           shape_.transpose_a ? shape_.m : shape_.k);
    layout(b_layout_, shape_.in, shape_.transpose_b ? shape_.n : shape_.k,
           shape_.transpose_b ? shape_.k : shape_.n);
    layout(c_layout_, shape_.out, shape_.m, shape_.n);
  }
  LtProduct(const LtProduct&) = delete;
  LtProduct& operator=(const LtProduct&) = delete;
  ~LtProduct() {
    cublasLtMatrixLayoutDestroy(a_layout_);
    cublasLtMatrixLayoutDestroy(b_layout_);
    cublasLtMatrixLayoutDestroy(c_layout_);
    cublasLtMatmulDescDestroy(operation_);
  }

  const ProductShape& shape() const { return shape_; }

  // What the library proposes for this shape, then what else it proposes for twice as many rows and
  // for half as many: of gelu's gradient for 32,768 rows it leaves out what it names for 65,536, of
  // which half takes half the time of anything that it does name.
  std::vector<cublasLtMatmulAlgo_t> candidates(cublasLtHandle_t handle) const {
    std::vector<cublasLtMatmulAlgo_t> algorithms = proposed(handle, shape_.n);
    check<DeviceError>(!algorithms.empty(), "cuBLASLt has no algorithm for a product of ",
                       shape_.in, " [", shape_.n, ", ", shape_.k, "] by [", shape_.k, ", ",
                       shape_.m, "] into ", shape_.out);
    for (const std::int64_t rows : {2 * shape_.n, shape_.n / 2})
      for (const cublasLtMatmulAlgo_t& other : proposed(handle, rows)) {
        const auto is_other = [&](const cublasLtMatmulAlgo_t& known) {
          return std::ranges::equal(known.data, other.data);
        };
        if (std::ranges::none_of(algorithms, is_other) && accepts(handle, other))
          algorithms.push_back(other);
      }
    return algorithms;
  }

  bool accepts(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle, operation_, a_layout_, b_layout_, c_layout_, c_layout_,
                                   &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= kWorkspaceBytes;
  }
  cublasStatus_t run(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm, void* c,
                     void* workspace) const {
    const double wide[] = {1, shape_.accumulate ? 1.0 : 0.0};
    const float narrow[] = {1, shape_.accumulate ? 1.0f : 0.0f};
    const bool is_wide = shape_.in == DType::kFloat64;
    const void* alpha = is_wide ? static_cast<const void*>(wide) : narrow;
    const void* beta = is_wide ? static_cast<const void*>(wide + 1) : narrow + 1;
    return cublasLtMatmul(handle, operation_, alpha, a_, a_layout_, b_, b_layout_, beta,
                          addend_ ? addend_ : c, c_layout_, c, c_layout_, &algorithm, workspace,
                          kWorkspaceBytes, cuda_stream());
  }
  void* c() const { return c_; }

 private:
  // For so many rows of the result in row-major order; none where the library has none.
  std::vector<cublasLtMatmulAlgo_t> proposed(cublasLtHandle_t handle, std::int64_t rows) const {
    if (rows == 0) return {};
    cublasLtMatmulPreference_t preference = nullptr;
    lt_check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      lt_check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
               "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes});
    // No matrix is aligned to less than its elements.
    const auto least = [&](DType type) {
      return static_cast<std::uint32_t>(std::max<std::int64_t>(shape_.alignment, bytes_of(type)));
    };
    for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                 CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES})
      prefer(attribute, least(shape_.in));
    for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                 CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(attribute, least(shape_.out));
    cublasLtMatrixLayout_t b = nullptr, c = nullptr;
    layout(b, shape_.in, shape_.transpose_b ? rows : shape_.k,
           shape_.transpose_b ? shape_.k : rows);
    layout(c, shape_.out, shape_.m, rows);
    std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, operation_, a_layout_, b, c, c, preference, kCandidates, found.data(), &count);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(c);
    cublasLtMatmulPreferenceDestroy(preference);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    if (status == CUBLAS_STATUS_SUCCESS)
      for (int i = 0; i < count; ++i) algorithms.push_back(found[i].algo);
    return algorithms;
  }
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, Value value) {
    lt_check(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof value),
             "cublasLtMatmulDescSetAttribute");
  }
  // Of matrices that stand one after the other.
  void layout(cublasLtMatrixLayout_t& made, DType type, std::int64_t rows,
              std::int64_t columns) const {
    lt_check(cublasLtMatrixLayoutCreate(&made, cuda_type(type), rows, columns, rows),
             "cublasLtMatrixLayoutCreate");
    if (shape_.batch == 1) return;
    const auto set_to = [&](cublasLtMatrixLayoutAttribute_t attribute, auto value) {
      lt_check(cublasLtMatrixLayoutSetAttribute(made, attribute, &value, sizeof value),
               "cublasLtMatrixLayoutSetAttribute");
    };
    set_to(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(shape_.batch));
    set_to(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, rows * columns);
  }

  ProductShape shape_;
  const void *a_, *b_;
  void* c_;
  const void* addend_;  // or null
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_layout_ = nullptr, b_layout_ = nullptr, c_layout_ = nullptr;
};

// The device's time for `runs` calls, once it is asked for.
class Stopwatch {
 public:
  template <class Run>
  Stopwatch(int runs, const Run& run) {
    for (cudaEvent_t* event : {&begin_, &end_})
      cuda_check(cudaEventCreate(event), "cudaEventCreate");
    cuda_check(cudaEventRecord(begin_, cuda_stream()), "cudaEventRecord");
    for (int i = 0; i < runs; ++i) run();
    cuda_check(cudaEventRecord(end_, cuda_stream()), "cudaEventRecord");
  }
  Stopwatch(Stopwatch&& other) noexcept
      : begin_(std::exchange(other.begin_, nullptr)), end_(std::exchange(other.end_, nullptr)) {}
  Stopwatch& operator=(Stopwatch&&) = delete;
  ~Stopwatch() {
    for (cudaEvent_t event : {begin_, end_})
      if (event) cudaEventDestroy(event);
  }

  float milliseconds() const {
    float elapsed = 0;
    cuda_check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    cuda_check(cudaEventElapsedTime(&elapsed, begin_, end_), "cudaEventElapsedTime");
    return elapsed;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class CudaProduct final : public ProductKernels {
 public:
  void multiply(const Product& product) const override {
    const ProductExtents extents = extents_of(product);
    if (extents.m == 0 || extents.n == 0 || extents.batch == 0) return;
    if (extents.k == 0) {
      if (product.addend)
        product.c.copy_from(product.addend);
      else if (!product.accumulate)
        product.c.fill_zero();
      return;
    }
    run(LtProduct(product, extents, CUBLASLT_EPILOGUE_DEFAULT, {}));
  }

  // The activation rides on the product where the library has it for the type, which keeps what
  // went into it; else it is a pass of its own, which keeps the slope.
  void multiply_gelu(const Product& product, const Tensor& kept) const override {
    if (rides(product))
      return run(LtProduct(product, extents_of(product),
                           kept ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_GELU, kept));
    Product inner = product;
    inner.c = kept ? kept : product.c;
    multiply(inner);
    cuda_activation().elementwise(ActivationKernels::Kind::kGelu, inner.c, product.c, kept);
  }
  void multiply_gelu_grad(const Product& product, const Tensor& kept) const override {
    if (rides(product))
      return run(LtProduct(product, extents_of(product), CUBLASLT_EPILOGUE_DGELU, kept));
    multiply(product);
    cuda_activation().elementwise_grad(kept, product.c, {.tensor = product.c, .accumulate = false});
  }

 private:
  static bool rides(const Product& product) {
    return product.a.dtype() == DType::kBFloat16 && product.c.shape()[1] % 8 == 0 &&
           product.c.size() > 0;
  }

  // Made at the first product, on the device that is current then; never destroyed, like the
  // allocator's blocks.
  struct State {
    cublasLtHandle_t handle = nullptr;
    Tensor workspace;
    ProductPlans plans;

    State() : workspace(Tensor::empty({kWorkspaceBytes}, DType::kUInt8, Device::kCuda)) {
      lt_check(cublasLtCreate(&handle), "cublasLtCreate");
    }
  };
  static State& state() {
    static State& made = *new State;
    return made;
  }

  static void run(const LtProduct& product) {
    State& at = state();
    const auto accepts = [&](const cublasLtMatmulAlgo_t& algorithm) {
      return product.accepts(at.handle, algorithm);
    };
    const cublasLtMatmulAlgo_t* algorithm = at.plans.find(product.shape(), accepts);
    if (!algorithm) {
      at.plans.add(product.shape(), fastest(at, product));
      algorithm = at.plans.find(product.shape(), accepts);
    }
    lt_check(product.run(at.handle, *algorithm, product.c(), at.workspace.raw()), "cublasLtMatmul");
    if (is_profiling()) mark_work(profile_name(product.shape()));
  }

  // C [m, n] and the depth of the sum, in row-major order.
  static std::string profile_name(const ProductShape& shape) {
    return text("product ", shape.n, " x ", shape.m, " x ", shape.k,
                shape.batch > 1 ? text(", ", shape.batch, " times") : "",
                shape.epilogue == CUBLASLT_EPILOGUE_DEFAULT ? ""
                : shape.epilogue == CUBLASLT_EPILOGUE_DGELU ? " with gelu's gradient"
                                                            : " with gelu",
                shape.accumulate ? ", added" : "");
  }

  // Times every candidate on the operands at hand, into scratch of the result's size; then those
  // that were nearly the fastest for so long that the device gets as warm as in training. At its
  // power limit the one that needs least energy wins, which a single run does not show.
  static cublasLtMatmulAlgo_t fastest(State& at, const LtProduct& product) {
    const std::vector<cublasLtMatmulAlgo_t> candidates = product.candidates(at.handle);
    if (candidates.size() == 1) return candidates[0];
    const ProductShape& shape = product.shape();
    const Tensor scratch = Tensor::zeros({shape.batch, shape.n, shape.m}, shape.out, Device::kCuda);
    std::vector<Timed> timed;
    float best = std::numeric_limits<float>::infinity();
    for (const cublasLtMatmulAlgo_t& candidate : candidates) {
      const auto run = [&] {
        return product.run(at.handle, candidate, scratch.raw(), at.workspace.raw());
      };
      if (run() != CUBLAS_STATUS_SUCCESS) continue;
      std::vector<float> times;
      while (times.size() < kTimedRuns && (times.empty() || times[0] < kHopeless * best)) {
        const Stopwatch watch(1, run);
        times.push_back(watch.milliseconds());
      }
      timed.push_back({candidate, median(times)});
      best = std::min(best, timed.back().milliseconds);
    }
    std::ranges::stable_sort(timed, {}, &Timed::milliseconds);
    check<DeviceError>(!timed.empty(), "cuBLASLt runs none of its algorithms for a product of ",
                       shape.in, " [", shape.n, ", ", shape.k, "] by [", shape.k, ", ", shape.m,
                       "], ", shape.batch, " times");
    if (timed[0].milliseconds < kShortest) return timed[0].algorithm;
    const float limit = kNearly * timed[0].milliseconds;
    std::erase_if(timed, [&](const Timed& one) { return one.milliseconds > limit; });
    timed.resize(std::min<std::size_t>(timed.size(), kFinalists));

    const int runs = static_cast<int>(kFinalMilliseconds / timed[0].milliseconds) + 1;
    std::vector<std::vector<Stopwatch>> rounds(timed.size());
    for (int round = 0; round < kFinalRounds; ++round)
      for (std::size_t i = 0; i < timed.size(); ++i)
        rounds[i].emplace_back(runs, [&] {
          product.run(at.handle, timed[i].algorithm, scratch.raw(), at.workspace.raw());
        });
    for (std::size_t i = 0; i < timed.size(); ++i) {
      std::vector<float> times;
      for (std::size_t round = 1; round < rounds[i].size(); ++round)  // the first one warms up
        times.push_back(rounds[i][round].milliseconds());
      timed[i].milliseconds = median(times);
    }
    return std::ranges::min_element(timed, {}, &Timed::milliseconds)->algorithm;
  }

  struct Timed {
    cublasLtMatmulAlgo_t algorithm;
    float milliseconds;
  };
  static float median(std::vector<float> times) {
    std::ranges::sort(times);
    return times[times.size() / 2];
  }
};

}  // namespace

const ProductKernels& cuda_product() {
  static const CudaProduct kernels;
  return kernels;
}

}  // namespace infini

#endif  // INFINI_CUDA
