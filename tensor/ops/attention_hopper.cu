// Local attention on Hopper: which kernels of hopper_*.cuh run, and with what.
#include <algorithm>
#include <limits>

#include "tensor/ops/attention_hopper.h"
#include "tensor/ops/hopper_key_grad.cuh"
#include "tensor/ops/hopper_query_grad.cuh"
#include "tensor/ops/launch.cuh"

namespace infini {
namespace {

using hopper::GradArgs;
using hopper::GradRows;
using hopper::kBlock;
using hopper::kTile;

constexpr std::int64_t kMostScoreBytes = std::int64_t{5} << 29;  // 2.5 GiB

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

// Boxes of 64 columns, whose axes are 64 columns, rows, chunks of columns, heads and segments. Rows
// beyond the last are zeros.
CUtensorMap box_map(const BFloat16* first, const cuuint64_t (&extents)[5],
                    const cuuint64_t (&strides)[4], cuuint32_t rows, cuuint32_t chunks) {
  const cuuint32_t box[] = {hopper::kChunk, rows, chunks, 1, 1}, steps[] = {1, 1, 1, 1, 1};
  CUtensorMap map;
  const CUresult status = encode_tiled()(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, const_cast<BFloat16*>(first), extents, strides,
      box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check<DeviceError>(status == CUDA_SUCCESS, "attention on Hopper: the driver refuses a map of ",
                     extents[1], " rows, ", extents[3], " heads and ", extents[4],
                     " segments, error ", static_cast<int>(status));
  return map;
}
cuuint64_t size(std::int64_t count) { return static_cast<cuuint64_t>(count); }

// Tiles of `heads` heads that begin in the columns from `first` on, of rows `leading` apart.
CUtensorMap tile_map(const BFloat16* first, std::int64_t leading, int heads,
                     const HeadLayout& layout) {
  const int chunks = layout.head_width / hopper::kChunk;
  return box_map(first,
                 {hopper::kChunk, size(layout.tokens), size(chunks), size(heads),
                  size(layout.batch * layout.segments)},
                 {size(2 * leading), hopper::kRowBytes, size(2 * layout.head_width),
                  size(2 * leading * layout.tokens)},
                 kTile, static_cast<cuuint32_t>(chunks));
}
// 64 columns of a matrix of a state [states, K, K]: chunks are the map's heads, states its
// segments.
CUtensorMap state_map(const BFloat16* first, std::int64_t states, int width) {
  return box_map(
      first, {hopper::kChunk, size(width), 1, size(width / hopper::kChunk), size(states)},
      {size(2 * width), hopper::kRowBytes, hopper::kRowBytes, size(2) * size(width) * size(width)},
      static_cast<cuuint32_t>(width), 1);
}

bool takes(const Tensor& rotated, const Tensor& qkv, const HeadLayout& layout) {
  const std::int64_t most = std::numeric_limits<int>::max() / 2;
  return qkv.dtype() == DType::kBFloat16 && (layout.head_width == 64 || layout.head_width == 128) &&
         layout.rows() > 0 && layout.rows() * layout.heads < most &&
         takes_packs<8>(native<BFloat16>(rotated), native<BFloat16>(qkv)) && is_hopper() &&
         encode_tiled();
}

GradRows rows_of(const GradTarget& target, std::int64_t column) {
  if (!target) return {};
  return {.out = native<BFloat16>(target.tensor) + column,
          .leading = target.tensor.shape()[-1],
          .accumulate = target.accumulate};
}

template <int kWidth>
GradArgs grad_args(const AttentionKernels::AttentionGrad& args, const TurnBack* turn_back) {
  const HeadLayout& n = args.layout;
  constexpr double kLog2E = 1.44269504088896341;
  GradArgs result{};
  const std::int64_t rotated = n.rotated_width(), qkv = n.qkv_width(), y = n.query_width();
  result.queries = tile_map(args.rotated.data<BFloat16>(), rotated, n.heads, n);
  result.keys = tile_map(args.rotated.data<BFloat16>() + n.key_column(0), rotated, n.kv_heads, n);
  result.values = tile_map(args.qkv.data<BFloat16>() + n.value_column(0), qkv, n.kv_heads, n);
  result.dy = tile_map(args.dy.data<BFloat16>(), y, n.heads, n);
  result.tokens = static_cast<int>(n.tokens);
  result.tiles = static_cast<int>(blocks_for(n.tokens, kTile));
  result.heads = n.heads;
  result.kv_heads = n.kv_heads;
  result.scale = static_cast<float>(args.scale);
  result.scale_log2 = static_cast<float>(args.scale * kLog2E);
  result.dqueries = rows_of(turn_back ? turn_back->dqueries : args.drotated, 0);
  result.dkeys = rows_of(turn_back ? turn_back->dkeys : args.drotated, n.key_column(0));
  result.dvalues = rows_of(args.dqkv, n.value_column(0));
  if (turn_back)
    result.dqueries.angles = result.dkeys.angles =
        turn_back->table.data<float>() + turn_back->first_position * kWidth;
  return result;
}

void launch_persistent(const char* who, void (*kernel)(GradArgs), std::size_t shared_bytes,
                       const GradArgs& args) {
  const std::int64_t items = std::int64_t{args.schedule.heads} * args.schedule.blocks;
  launch(who, kernel, static_cast<unsigned>(std::min<std::int64_t>(items, multiprocessor_count())),
         hopper::kThreads, shared_bytes, args);
}

template <int kWidth>
void run_grad(const AttentionKernels::AttentionGrad& args, const TurnBack* turn_back) {
  const HeadLayout& n = args.layout;
  GradArgs grad = grad_args<kWidth>(args, turn_back);
  Tensor dmatrix;  // rounded, as operands of products are
  if (turn_back && turn_back->dmatrix) {
    dmatrix = turn_back->dmatrix.to(DType::kBFloat16);
    grad.sums = {
        .keys = tile_map(args.qkv.data<BFloat16>() + n.key_column(0), n.qkv_width(), n.kv_heads, n),
        .dmatrix = state_map(dmatrix.data<BFloat16>(), n.batch * n.segments * n.kv_heads, kWidth),
        .dnormalizer = turn_back->dnormalizer.data<float>(),
        .keep = turn_back->keep ? turn_back->keep.data<std::uint8_t>() : nullptr};
  }
  const int segments = static_cast<int>(n.batch * n.segments);
  const int blocks = static_cast<int>(blocks_for(n.tokens, kBlock));
  const Tensor row_sums = Tensor::empty({segments, n.heads, grad.tiles, hopper::kRowSums},
                                        DType::kFloat32, Device::kCuda);
  grad.row_sums = row_sums.data<float>();
  if (args.row_dots) {
    const std::int64_t count = std::int64_t{segments} * n.heads * grad.tiles * kTile;
    launch("attention: row sums", hopper::given_row_sums_kernel,
           blocks_for(count, hopper::kRowSumThreads), hopper::kRowSumThreads, 0,
           args.row_dots.data<float>(), args.log_sum.data<float>(), grad.tokens, grad.tiles, count,
           row_sums.data<float>());
  } else {
    launch("attention: row sums", hopper::row_sums_kernel<kWidth>,
           {static_cast<unsigned>(segments * grad.tiles), static_cast<unsigned>(n.heads)},
           hopper::kRowSumThreads, 0, native<BFloat16>(args.y), native<BFloat16>(args.dy),
           args.log_sum.data<float>(), grad.tokens, grad.tiles, row_sums.data<float>());
  }

  // As many key heads at a time as the scores of their queries have room.
  const std::int64_t each = std::int64_t{n.group()} * grad.tiles * (grad.tiles + 1) / 2;
  const int kv_heads = segments * n.kv_heads;
  const int most = static_cast<int>(
      std::clamp<std::int64_t>(kMostScoreBytes / (each * hopper::kScoreTileBytes), 1, kv_heads));
  const int turns = static_cast<int>(blocks_for(kv_heads, most));
  const Tensor dscores =
      Tensor::empty({most * each, kTile * kTile}, DType::kBFloat16, Device::kCuda);
  const Tensor next = Tensor::zeros({2 * turns}, DType::kInt32, Device::kCuda);
  grad.dscores = native<BFloat16>(dscores);
  for (int turn = 0; turn < turns; ++turn) {
    const int first = turn * most, count = std::min(most, kv_heads - first);
    grad.schedule = {.first = first,
                     .heads = count,
                     .blocks = blocks,
                     .first_kv_head = first,
                     .next = next.data<std::int32_t>() + 2 * turn};
    launch_persistent("attention: gradient of keys and values", hopper::key_grad_kernel<kWidth, 3>,
                      sizeof(hopper::KeyShared<kWidth, 3>), grad);
    if (!grad.dqueries.out) continue;
    grad.schedule.first *= n.group();
    grad.schedule.heads *= n.group();
    ++grad.schedule.next;
    launch_persistent("attention: gradient of queries", hopper::query_grad_kernel<kWidth, 6>,
                      sizeof(hopper::QueryShared<kWidth, 6>), grad);
  }
}

}  // namespace

bool attention_grad_hopper(const AttentionKernels::AttentionGrad& args, const TurnBack* turn_back) {
  if (!takes(args.rotated, args.qkv, args.layout) ||
      !takes_packs<8>(native<BFloat16>(args.y), native<BFloat16>(args.dy)))
    return false;
  args.layout.head_width == 128 ? run_grad<128>(args, turn_back) : run_grad<64>(args, turn_back);
  return true;
}

}  // namespace infini
