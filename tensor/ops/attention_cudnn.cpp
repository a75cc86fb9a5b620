#include "tensor/ops/attention_cudnn.h"

#ifdef INFINI_CUDNN

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>

#include "tensor/cuda.h"
#include "tensor/ops/cudnn_graph.h"
#include "tensor/ops/elementwise.h"

namespace infini {
namespace {

using cudnn::Binding;
using cudnn::CudnnError;
using cudnn::Extents;
using cudnn::Graph;
using cudnn::Node;
using cudnn::Plan;

// Most that the gradients of scores may take while a deterministic backward pass runs: 2 bytes for
// each pair of tokens of a head. The segments beyond wait for another run of a plan.
constexpr std::int64_t kScoreGradBytes = std::int64_t{512} << 20;
constexpr std::size_t kOldestVersion = 91002;      // 9.10.0 and 9.10.1 compute wrong attention
constexpr std::size_t kRaggedGradVersion = 91501;  // before it, keys must fill tiles of 128
constexpr int kDeterministicMajor = 9;             // newer devices need other engines for that
constexpr std::size_t kMostPlans = 256;            // in memory

// What a plan is made for.
struct Key {
  std::int64_t segments, tokens;
  int heads, kv_heads, head_width;
  bool backward = false, deterministic = true;
  std::int64_t dvalue_leading = 0;  // from one row of dV to the next

  explicit Key(const HeadLayout& layout)
      : segments(layout.batch * layout.segments),
        tokens(layout.tokens),
        heads(layout.heads),
        kv_heads(layout.kv_heads),
        head_width(layout.head_width) {}
  auto operator<=>(const Key&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Key& key) {
  return out << "cuDNN " << cudnnGetVersion() << ", attention "
             << (key.backward ? "backward" : "forward") << " of " << key.segments << " segments of "
             << key.tokens << " tokens, " << key.heads << " heads of " << key.head_width << " over "
             << key.kv_heads << ": ";
}

// The tensors of a plan that lie in memory.
enum Name : std::int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOutput,
  kLogSum,
  kScale,   // a number, as are the next two
  kHidden,  // -infinity, the score of a later token
  kOne,
  kDOutput,
  kDelta,  // sum_c dy y of each row, which cuDNN hands from one of its kernels to the next
  kDQuery,
  kDQuerySums,  // where atomics add up dQ
  kDKey,
  kDValue,
};

// The graphs that cuDNN's attention engines recognise: keys come transposed, softmax in its steps,
// everything inside is fp32 except the left factors of products over tokens.
class AttentionGraph : public Graph {
 public:
  explicit AttentionGraph(const Key& key)
      : key_(key),
        rotated_leading_(std::int64_t{key.heads + key.kv_heads} * key.head_width),
        qkv_leading_(std::int64_t{key.heads + 2 * key.kv_heads} * key.head_width),
        y_leading_(std::int64_t{key.heads} * key.head_width),
        scores_{key.segments, key.heads, key.tokens, key.tokens},
        rows_{key.segments, key.heads, key.tokens, 1} {
    key.backward ? backward() : forward();
  }

 private:
  void forward() {
    const Node query = in_columns(kQuery, key_.heads, rotated_leading_);
    const Node key = in_columns(kKey, key_.kv_heads, rotated_leading_, kTransposed);
    const Node value = in_columns(kValue, key_.kv_heads, qkv_leading_);

    const Node product = multiply(query, key);
    const Node scores = hide_future(pointwise(CUDNN_POINTWISE_MUL, product, number(kScale)));
    const Node highest = inside(rows_), sum = inside(rows_);
    reduce(CUDNN_REDUCE_TENSOR_MAX, scores, highest);
    const Node shifted = pointwise(CUDNN_POINTWISE_SUB, scores, highest);
    const Node weights = pointwise(CUDNN_POINTWISE_EXP, shifted);
    reduce(CUDNN_REDUCE_TENSOR_ADD, weights, sum);
    const Node log_sum = pointwise(CUDNN_POINTWISE_LOG, sum);
    pointwise({.mode = CUDNN_POINTWISE_ADD, .y = in_rows(kLogSum), .x = highest, .b = log_sum});
    const Node probabilities = inside(scores_, CUDNN_DATA_BFLOAT16);
    pointwise({.mode = CUDNN_POINTWISE_DIV, .y = probabilities, .x = weights, .b = sum});
    Graph::multiply(probabilities, value, in_columns(kOutput, key_.heads, y_leading_));
  }

  // The equations of CpuAttention::backward.
  void backward() {
    const Node query = in_columns(kQuery, key_.heads, rotated_leading_);
    const Node key = in_columns(kKey, key_.kv_heads, rotated_leading_, kTransposed);
    const Node value = in_columns(kValue, key_.kv_heads, qkv_leading_, kTransposed);
    const Node y = in_columns(kOutput, key_.heads, y_leading_);
    const Node dy = in_columns(kDOutput, key_.heads, y_leading_);
    const Node scale = number(kScale);

    const Node dot = inside(rows_), delta = in_rows(kDelta);
    reduce(CUDNN_REDUCE_TENSOR_ADD, pointwise(CUDNN_POINTWISE_MUL, dy, y), dot);
    pointwise({.mode = CUDNN_POINTWISE_MUL, .y = delta, .x = dot, .b = number(kOne)});

    const Node scores = pointwise(CUDNN_POINTWISE_MUL, multiply(query, key), scale);
    const Node shifted = pointwise(CUDNN_POINTWISE_SUB, scores, in_rows(kLogSum));
    const Node probabilities = pointwise(CUDNN_POINTWISE_EXP, hide_future(shifted));
    multiply_for_keys(transpose(probabilities, CUDNN_DATA_BFLOAT16), dy,
                      in_columns(kDValue, key_.kv_heads, key_.dvalue_leading));

    const Node dprobabilities = multiply(dy, value);
    const Node centred = pointwise(CUDNN_POINTWISE_SUB, dprobabilities, delta);
    const Node weighted = pointwise(CUDNN_POINTWISE_MUL, centred, probabilities);
    const Node dscores = pointwise(CUDNN_POINTWISE_MUL, weighted, scale);
    multiply_for_keys(transpose(dscores, CUDNN_DATA_BFLOAT16), query,
                      in_columns(kDKey, key_.kv_heads, rotated_leading_));

    const Node rows_of_keys = transpose(key, CUDNN_DATA_FLOAT);
    const Node dquery = in_columns(kDQuery, key_.heads, rotated_leading_);
    if (key_.deterministic) {
      Graph::multiply(dscores, rows_of_keys, dquery);
    } else {
      const Node sums =
          memory(kDQuerySums, query.dims, cudnn::packed(query.dims), CUDNN_DATA_FLOAT);
      Graph::multiply(dscores, rows_of_keys, sums);
      pointwise({.mode = CUDNN_POINTWISE_IDENTITY, .y = dquery, .x = sums});
    }
  }

  static constexpr bool kTransposed = true;
  // Heads side by side in the columns of a matrix whose rows are `leading` apart.
  Node in_columns(Name name, int heads, std::int64_t leading, bool transposed = false) {
    const Extents dims{key_.segments, heads, key_.tokens, key_.head_width};
    const Extents strides{key_.tokens * leading, key_.head_width, leading, 1};
    if (!transposed) return memory(name, dims, strides, CUDNN_DATA_BFLOAT16);
    return memory(name, cudnn::transposed(dims), cudnn::transposed(strides), CUDNN_DATA_BFLOAT16);
  }
  Node in_rows(Name name) { return memory(name, rows_, cudnn::packed(rows_), CUDNN_DATA_FLOAT); }

  Node multiply(const Node& a, const Node& b) {
    const Node c = inside(scores_);
    Graph::multiply(a, b, c);
    return c;
  }

  // c = a b, added up over the query heads that share a key head.
  void multiply_for_keys(const Node& a, const Node& b, const Node& c) {
    if (key_.heads == key_.kv_heads) return Graph::multiply(a, b, c);
    const Node each = inside({c.dims[0], key_.heads, c.dims[2], c.dims[3]}, CUDNN_DATA_BFLOAT16);
    Graph::multiply(a, b, each);
    reduce(CUDNN_REDUCE_TENSOR_ADD, each, c);
  }

  Node hide_future(const Node& scores) {
    const Node row = inside(scores_, CUDNN_DATA_INT32), column = inside(scores_, CUDNN_DATA_INT32);
    const Node seen = inside(scores_, CUDNN_DATA_BOOLEAN), result = inside(scores_);
    pointwise({.mode = CUDNN_POINTWISE_GEN_INDEX, .y = row, .x = scores, .axis = 2});
    pointwise({.mode = CUDNN_POINTWISE_GEN_INDEX, .y = column, .x = scores, .axis = 3});
    pointwise({.mode = CUDNN_POINTWISE_CMP_GE,
               .y = seen,
               .x = row,
               .b = column,
               .precision = CUDNN_DATA_BOOLEAN});
    pointwise({.mode = CUDNN_POINTWISE_BINARY_SELECT,
               .y = result,
               .x = scores,
               .b = number(kHidden),
               .t = seen});
    return result;
  }

  const Key key_;
  const std::int64_t rotated_leading_, qkv_leading_, y_leading_;
  const Extents scores_, rows_;
};

// The handle and the plans of this process. Never destroyed: the driver may go first.
class Library {
 public:
  static Library& get() {
    static Library& library = *new Library;
    return library;
  }

  std::string reason() {
    const std::lock_guard lock(mutex_);
    return reason_;
  }
  bool refuse(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    reason_ = reason;
    return false;
  }

  // Nothing where cuDNN has no engine; asks it once for each key.
  std::shared_ptr<const Plan> plan(const Key& key) {
    const std::lock_guard lock(mutex_);
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      if (plans_.size() >= kMostPlans) plans_.clear();  // shapes that never repeat
      found = plans_.emplace(key, make(key)).first;
    }
    if (!found->second.plan) reason_ = found->second.reason;
    return found->second.plan;
  }

  void run(const Key& key, const Plan& plan, std::span<const Binding> bindings) {
    const std::lock_guard lock(mutex_);
    const Tensor workspace = Tensor::empty({plan.workspace_bytes()}, DType::kUInt8, Device::kCuda);
    try {
      plan.run(handle_, bindings, workspace.raw());
      mark_work(key.backward ? "local_attention_grad" : "local_attention");
    } catch (const CudnnError& error) {
      throw DeviceError(text(key, error.what()));
    }
  }

 private:
  struct Entry {
    std::shared_ptr<const Plan> plan;
    std::string reason;
  };

  Entry make(const Key& key) {
    try {
      if (!handle_) {
        cudnn::check_status(cudnnCreate(&handle_), "cudnnCreate");
        cudnn::check_status(cudnnSetStream(handle_, cuda_stream()), "cudnnSetStream");
      }
      return {AttentionGraph(key).compile(handle_), {}};
    } catch (const CudnnError& error) {
      return {nullptr, text(key, error.what())};
    }
  }

  std::mutex mutex_;
  cudnnHandle_t handle_ = nullptr;
  std::map<Key, Entry> plans_;
  std::string reason_;
};

// Empty when cuDNN may be asked.
std::string refusal(const Tensor& qkv, const HeadLayout& layout) {
  if (qkv.dtype() != DType::kBFloat16) return text("attention of ", qkv.dtype());
  if (layout.head_width != 64 && layout.head_width != 128)
    return text("attention with heads of width ", layout.head_width);
  if (layout.tokens < 2) return text("attention of ", layout.tokens, " tokens");
  if (cudnnGetVersion() < kOldestVersion) return text("cuDNN ", cudnnGetVersion());
  return {};
}

void* at(const Tensor& tensor, std::int64_t row, std::int64_t leading, std::int64_t column) {
  return tensor.data<BFloat16>() + row * leading + column;
}

// Constants that plans read while they are launched.
float hidden = -std::numeric_limits<float>::infinity(), one = 1;

}  // namespace

bool attention_cudnn(const AttentionKernels::Attention& args) {
  const HeadLayout& n = args.layout;
  Library& library = Library::get();
  if (args.first_query != 0) return library.refuse("attention from a later query on");
  if (const std::string reason = refusal(args.qkv, n); !reason.empty())
    return library.refuse(reason);

  const Key key(n);
  const auto plan = library.plan(key);
  if (!plan) return false;

  const Tensor log_sum = args.log_sum ? args.log_sum
                                      : Tensor::empty({key.segments, n.heads, n.tokens},
                                                      DType::kFloat32, Device::kCuda);
  float scale = static_cast<float>(args.scale);
  const Binding bindings[] = {{kQuery, at(args.rotated, 0, 0, 0)},
                              {kKey, at(args.rotated, 0, 0, n.key_column(0))},
                              {kValue, at(args.qkv, 0, 0, n.value_column(0))},
                              {kOutput, at(args.y, 0, 0, 0)},
                              {kLogSum, log_sum.data<float>()},
                              {kScale, &scale},
                              {kHidden, &hidden}};
  library.run(key, *plan, bindings);
  return true;
}

bool attention_grad_cudnn(const AttentionKernels::AttentionGrad& args, bool deterministic) {
  const HeadLayout& n = args.layout;
  Library& library = Library::get();
  if (const std::string reason = refusal(args.qkv, n); !reason.empty())
    return library.refuse(reason);
  if (n.tokens % 128 != 0 && cudnnGetVersion() < kRaggedGradVersion)
    return library.refuse(
        text("the gradient of attention of ", n.tokens, " tokens by cuDNN ", cudnnGetVersion()));
  if (deterministic && compute_capability().major != kDeterministicMajor)
    return library.refuse(text("a deterministic gradient of attention on a device of capability ",
                               compute_capability().major));

  // Runs of about the same number of segments, so that there are at most two plans.
  const std::int64_t segments = n.batch * n.segments;
  const std::int64_t padded = (n.tokens + 127) / 128 * 128;
  const std::int64_t segment_bytes = 2 * n.heads * padded * padded;
  const std::int64_t most =
      deterministic ? std::clamp<std::int64_t>(kScoreGradBytes / segment_bytes, 1, segments)
                    : segments;
  const std::int64_t runs = (segments + most - 1) / most, each = (segments + runs - 1) / runs;

  // What is asked for and overwritten is written where it belongs, all else into rows of its own.
  const bool own_rotated = !args.drotated || args.drotated.accumulate;
  const bool own_values = !args.dqkv || args.dqkv.accumulate;
  const std::int64_t rotated_leading = n.rotated_width(), qkv_leading = n.qkv_width(),
                     y_leading = n.query_width(),
                     values_leading = own_values ? qkv_leading - rotated_leading : qkv_leading;
  const auto scratch = [](const Shape& shape, DType dtype) {
    return Tensor::empty(shape, dtype, Device::kCuda);
  };

  Key key(n);
  key.backward = true;
  key.deterministic = deterministic;
  key.dvalue_leading = values_leading;
  key.segments = segments - (runs - 1) * each;
  if (!library.plan(key)) return false;  // of the last run, before the first one has begun

  for (std::int64_t first = 0; first < segments; first += each) {
    key.segments = std::min(each, segments - first);
    const auto plan = library.plan(key);
    if (!plan) return false;
    const std::int64_t row = first * n.tokens, rows = key.segments * n.tokens;
    const Tensor drotated =
        own_rotated ? scratch({rows, rotated_leading}, DType::kBFloat16) : args.drotated.tensor;
    const Tensor dvalues =
        own_values ? scratch({rows, values_leading}, DType::kBFloat16) : args.dqkv.tensor;
    const Tensor delta = scratch({key.segments, n.heads, n.tokens}, DType::kFloat32);
    const std::int64_t drow = own_rotated ? 0 : row;
    float scale = static_cast<float>(args.scale);
    std::vector<Binding> bindings = {
        {kQuery, at(args.rotated, row, rotated_leading, 0)},
        {kKey, at(args.rotated, row, rotated_leading, n.key_column(0))},
        {kValue, at(args.qkv, row, qkv_leading, n.value_column(0))},
        {kOutput, at(args.y, row, y_leading, 0)},
        {kDOutput, at(args.dy, row, y_leading, 0)},
        {kLogSum, args.log_sum.data<float>() + row * n.heads},
        {kDelta, delta.data<float>()},
        {kDQuery, at(drotated, drow, rotated_leading, 0)},
        {kDKey, at(drotated, drow, rotated_leading, n.key_column(0))},
        {kDValue,
         own_values ? dvalues.data<BFloat16>() : at(dvalues, row, qkv_leading, n.value_column(0))},
        {kScale, &scale},
        {kHidden, &hidden},
        {kOne, &one}};
    const Tensor sums = deterministic ? Tensor() : scratch({rows, y_leading}, DType::kFloat32);
    if (sums) bindings.emplace_back(kDQuerySums, sums.data<float>());
    library.run(key, *plan, bindings);
    if (own_rotated && args.drotated)
      add_into_columns(args.drotated.tensor.slice(row, rows), 0, drotated);
    if (own_values && args.dqkv)
      add_into_columns(args.dqkv.tensor.slice(row, rows), n.value_column(0), dvalues);
  }
  return true;
}

std::string attention_cudnn_reason() { return Library::get().reason(); }

}  // namespace infini

#else

namespace infini {

bool attention_cudnn(const AttentionKernels::Attention&) { return false; }
bool attention_grad_cudnn(const AttentionKernels::AttentionGrad&, bool) { return false; }
std::string attention_cudnn_reason() { return "cuDNN is not built in"; }

}  // namespace infini

#endif
