// Products with gelu on Hopper: which kernel of hopper_product.cuh runs, and with what.
#include <algorithm>
#include <limits>

#include "tensor/ops/hopper_product.cuh"
#include "tensor/ops/product_hopper.h"

namespace infini {
namespace {

namespace kernels = hopper::product;
using kernels::Args;

bool is_hopper() {
  int device = 0, major = 0, minor = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "cudaDeviceGetAttribute");
  return major == 9 && minor == 0;
}

// The driver's function, found without linking to the driver; null where it has none.
using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
EncodeTiled encode_tiled() {
  static const auto function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                                12000, cudaEnableDefault, &result);
#else
    const cudaError_t status =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
    cuda_check(status, "cuTensorMapEncodeTiled");
    return reinterpret_cast<EncodeTiled>(result == cudaDriverEntryPointSuccess ? found : nullptr);
  }();
  return function;
}

// Axes from the one whose numbers lie side by side on; strides, in bytes, from the second axis on.
template <int rank>
struct MapShape {
  cuuint64_t extents[rank], strides[rank - 1];
  cuuint32_t box[rank];
  CUtensorMapSwizzle swizzle;
};
template <int rank>
CUtensorMap map_of(const Tensor& matrix, const MapShape<rank>& shape) {
  cuuint32_t steps[rank];
  std::fill_n(steps, rank, 1u);
  CUtensorMap map;
  const CUresult status =
      encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, matrix.raw(), shape.extents,
                     shape.strides, shape.box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, shape.swizzle,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check<DeviceError>(status == CUDA_SUCCESS,
                     "product on Hopper: the driver refuses a tensor map of ", matrix.shape(),
                     ", error ", static_cast<int>(status));
  return map;
}

cuuint64_t size(std::int64_t count) { return static_cast<cuuint64_t>(count); }

// Boxes of `rows` rows of `chunks` chunks. What is beyond the matrix is zeros.
CUtensorMap chunk_map(const Tensor& matrix, int rows, int chunks) {
  const auto [height, width] = matrix.dims<2>();
  return map_of<3>(matrix, {.extents = {hopper::kChunk, size(height), size(width / hopper::kChunk)},
                            .strides = {size(2 * width), hopper::kRowBytes},
                            .box = {hopper::kChunk, cuuint32_t(rows), cuuint32_t(chunks)},
                            .swizzle = CU_TENSOR_MAP_SWIZZLE_128B});
}
CUtensorMap piece_map(const Tensor& matrix) {
  const auto [height, width] = matrix.dims<2>();
  return map_of<2>(matrix, {.extents = {size(width), size(height)},
                            .strides = {size(2 * width)},
                            .box = {kernels::kPieceColumns, kernels::kPieceRows},
                            .swizzle = CU_TENSOR_MAP_SWIZZLE_64B});
}

bool takes(const Product& product, const ProductExtents& extents, const Tensor& kept) {
  const auto [m, n, k] = extents;
  const auto packed = [](const Tensor& tensor) { return takes_packs<8>(native<BFloat16>(tensor)); };
  return product.a.dtype() == DType::kBFloat16 && product.c.dtype() == DType::kBFloat16 &&
         !product.accumulate && m > 0 && n > 0 && k > 0 && n % kernels::kColumns == 0 &&
         k % hopper::kChunk == 0 &&
         std::max({m, n, k, m / kernels::kRows * n}) < std::numeric_limits<int>::max() / 2 &&
         packed(product.a) && packed(product.b) && packed(product.c) && packed(kept) &&
         is_hopper() && encode_tiled();
}

template <bool kGrad, int kCluster>
void launch_product(const Args& args) {
  constexpr const char* kWho = kGrad ? "product with gelu's slope" : "product with gelu";
  const auto kernel = kernels::product_kernel<kGrad, kCluster>;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = kCluster;
  config.blockDim = kernels::kThreads;
  config.dynamicSmemBytes = sizeof(kernels::Shared);
  config.stream = cuda_stream();
  config.attrs = &cluster;
  config.numAttrs = 1;
  static const int most = [&] {
    int clusters = 0;
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(config.dynamicSmemBytes)),
               kWho);
    cuda_check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), kWho);
    return clusters;
  }();
  config.gridDim = kCluster * std::min(args.order.items(), most);
  cuda_check(cudaLaunchKernelEx(&config, kernel, args), kWho);
}

template <bool kGrad>
bool run(const Product& product, const Tensor& kept, const HopperProductPlan& plan) {
  const ProductExtents extents = extents_of(product);
  if (product.transpose_a || product.transpose_b == kGrad || !takes(product, extents, kept))
    return false;
  check(kept ? kept.shape() == product.c.shape() : !kGrad, "product on Hopper: kept is ",
        kept.shape(), ", C is ", product.c.shape());
  const auto [m, n, k] = extents;
  const int part = kernels::kColumns / plan.cluster;
  const int tiles = static_cast<int>(blocks_for(m, kernels::kRows));
  const Args args{.a = chunk_map(product.a, kernels::kRows, 1),
                  .b = kGrad ? chunk_map(product.b, hopper::kChunk, part / hopper::kChunk)
                             : chunk_map(product.b, part, 1),
                  .c = piece_map(product.c),
                  .kept = piece_map(kept ? kept : product.c),
                  .order = {.down = static_cast<int>(blocks_for(tiles, plan.cluster)),
                            .across = static_cast<int>(n / kernels::kColumns),
                            .band = plan.band},
                  .rows = static_cast<int>(m),
                  .steps = std::max(static_cast<int>(k / hopper::kChunk), kernels::kPieces),
                  .keeps = static_cast<bool>(kept)};
  plan.cluster == 2 ? launch_product<kGrad, 2>(args) : launch_product<kGrad, 1>(args);
  if (is_profiling()) mark_work(text("product ", m, " x ", n, " x ", k, " with gelu"));
  return true;
}

}  // namespace

bool multiply_gelu_hopper(const Product& product, const Tensor& kept,
                          const HopperProductPlan& plan) {
  return run<false>(product, kept, plan);
}
bool multiply_gelu_grad_hopper(const Product& product, const Tensor& kept,
                               const HopperProductPlan& plan) {
  return run<true>(product, kept, plan);
}

}  // namespace infini
