#include <algorithm>

#include "tensor/ops/decode.cuh"

namespace infini {
namespace {

constexpr int kFewestStages = 4, kMostStages = 16;

// Calls function.operator()<T>() for the types that have a kernel.
template <class Function>
void dispatch(DType dtype, Function&& function) {
  dtype == DType::kBFloat16 ? function.template operator()<BFloat16>()
                            : function.template operator()<float>();
}

int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cuda_check(cudaGetDevice(&device), "decode");
  cuda_check(cudaDeviceGetAttribute(&value, attribute, device), "decode");
  return value;
}

// The newest device that the loaded code may rely on.
template <class N>
bool has_code() {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, decode_kernel<N>), "decode");
  return attributes.ptxVersion >= 90 && device_attribute(cudaDevAttrCooperativeLaunch) != 0;
}

bool is_aligned(const Tensor& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.raw()) % 16 == 0;
}

bool is_aligned(const DecodeLayer& layer) {
  for (const Tensor& tensor :
       {layer.attention_norm, layer.feed_forward_norm, layer.qkv, layer.output, layer.up,
        layer.down, layer.matrix, layer.window_qkv, layer.window_rotated})
    if (tensor && !is_aligned(tensor)) return false;
  return true;
}

// Whether rows are whole pieces of what the kernel reads at a time.
bool has_shape(const DecodeModel& model) {
  const bool half = model.embedding.dtype() == DType::kBFloat16;
  const std::int64_t unit = half ? 32 : 4;
  const HeadLayout& heads = model.heads;
  return model.width() % unit == 0 && model.inner() % unit == 0 && heads.head_width % unit == 0 &&
         heads.head_width <= (half ? 256 : 128) && heads.group() <= kMostGroup &&
         heads.kv_heads <= multiprocessor_count();
}

template <class N>
ExchangeLayout exchange_layout(const DecodePlan& plan) {
  const DecodeModel& model = plan.model;
  const HeadLayout& heads = model.heads;
  int end = 0;
  const auto take = [&](std::int64_t words) {
    const int begin = end;
    end += static_cast<int>((words + 3) / 4 * 4);
    return begin;
  };
  const auto take_vector = [&](std::int64_t size) {
    return take(size * static_cast<std::int64_t>(sizeof(N)) / 4);
  };
  ExchangeLayout at;
  take_vector(heads.qkv_width());
  at.record_words = 2 * heads.head_width + kRecordExtra;
  at.records = take(std::int64_t{heads.heads} * plan.splits * at.record_words);
  at.mixed = take_vector(heads.query_width());
  at.middle = take_vector(model.width());
  at.inner = take_vector(model.inner());
  at.sum = take_vector(model.width());
  at.layer_words = end;
  return at;
}

template <class N>
SharedLayout shared_layout(const DecodePlan& plan) {
  const DecodeModel& model = plan.model;
  const int width = static_cast<int>(model.width()), head_width = model.heads.head_width;
  const int group = model.heads.group(), size = static_cast<int>(sizeof(N));
  const int keys = static_cast<int>((model.window_tokens() + plan.splits - 1) / plan.splits) + 1;
  int end = 2 * kMostStages * static_cast<int>(sizeof(std::uint64_t));  // the ring's barriers
  const auto take = [&](int bytes) {
    const int begin = end;
    end += (bytes + 15) / 16 * 16;
    return begin;
  };
  const auto take_floats = [&](int count) { return take(count * 4); };
  SharedLayout at;
  at.score_stride = keys + 1;
  at.slice = (head_width + plan.splits - 1) / plan.splits;
  at.layers = take(static_cast<int>(model.layers.size() * sizeof(LayerPointers<N>)));
  at.zero = take(16);
  at.sums = take_floats(kConsumerWarps);
  at.partials = take_floats(kPartials);
  at.angles = take_floats(head_width);
  at.stream = take_floats(width);
  at.x = take(
      size * static_cast<int>(std::max({model.width(), model.heads.query_width(), model.inner()})));
  at.raw = take_floats((group + 2) * head_width);
  at.turned = take_floats((group + 1) * head_width);
  at.queries = take(group * head_width * size);
  at.mapped = take_floats(group * at.slice);
  at.normalizer = take_floats(at.slice);
  at.scores = take_floats(group * at.score_stride);
  at.state = take_floats((2 * kConsumerWarps + 2) * kMostGroup);
  at.local = take_floats(kConsumerWarps * group * head_width);
  at.recalled = take_floats(kConsumerWarps * group * head_width);
  at.stages = (end + 127) / 128 * 128;
  const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  at.stage_count = std::min(kMostStages, (most - at.stages) / kStageBytes);
  at.bytes = at.stages + at.stage_count * kStageBytes;
  return at;
}

template <class T>
Tensor layer_pointers(const DecodeModel& model) {
  using N = Native<T>;
  static_assert(sizeof(LayerPointers<N>) % 8 == 0);
  std::vector<std::int64_t> words;
  for (const DecodeLayer& layer : model.layers) {
    const bool recalls = layer.gate && layer.matrix;
    const LayerPointers<N> pointers{
        .attention_norm = layer.attention_norm.data<float>(),
        .feed_forward_norm = layer.feed_forward_norm.data<float>(),
        .gate = layer.gate ? layer.gate.data<float>() : nullptr,
        .matrix = recalls ? layer.matrix.data<float>() : nullptr,
        .normalizer = recalls ? layer.normalizer.data<float>() : nullptr,
        .qkv = native<T>(layer.qkv),
        .output = native<T>(layer.output),
        .up = native<T>(layer.up),
        .down = native<T>(layer.down),
        .window_qkv = native<T>(layer.window_qkv),
        .window_rotated = native<T>(layer.window_rotated)};
    const auto* const begin = reinterpret_cast<const std::int64_t*>(&pointers);
    words.insert(words.end(), begin, begin + sizeof pointers / 8);
  }
  return Tensor::of(words, {static_cast<std::int64_t>(words.size())}).to(Device::kCuda);
}

template <class T>
void launch_step(const DecodePlan& plan, const DecodeStep& step) {
  using N = Native<T>;
  const DecodeModel& model = plan.model;
  const HeadLayout& heads = model.heads;
  auto* const words = reinterpret_cast<std::uint32_t*>(plan.exchange.data<std::int32_t>());
  const std::int64_t count = plan.exchange.size() / 2, turn = plan.steps % 2;
  const auto choice = [](const Tensor& tensor) {
    return tensor ? reinterpret_cast<std::uint64_t*>(tensor.data<std::int64_t>()) : nullptr;
  };
  DecodeArgs<N> args{.layers = reinterpret_cast<const LayerPointers<N>*>(plan.pointers.raw()),
                     .layer_count = static_cast<int>(model.layers.size()),
                     .width = static_cast<int>(model.width()),
                     .heads = heads.heads,
                     .kv_heads = heads.kv_heads,
                     .head_width = heads.head_width,
                     .inner = static_cast<int>(model.inner()),
                     .vocabulary = static_cast<int>(model.vocabulary()),
                     .splits = plan.splits,
                     .activation = model.activation,
                     .scale = static_cast<float>(model.scale),
                     .norm_eps = static_cast<float>(model.norm_eps),
                     .recall_eps = static_cast<float>(model.recall.eps),
                     .recalls = static_cast<bool>(model.layers.front().gate),
                     .bypass_empty = model.recall.bypass_empty,
                     .embedding = native<T>(model.embedding),
                     .head = step.logits ? native<T>(model.head) : nullptr,
                     .final_norm = model.final_norm.data<float>(),
                     .angles = model.rotary_table.data<float>() + step.position * heads.head_width,
                     .token = step.token,
                     .position = static_cast<int>(step.position),
                     .from = choice(step.from),
                     .hidden = native<T>(step.hidden),
                     .logits = native<T>(step.logits),
                     .choice = choice(step.choice),
                     .exchange = words + turn * count,
                     .next_exchange = words + (1 - turn) * count,
                     .exchange_words = static_cast<int>(count),
                     .status = plan.status.data<std::int32_t>(),
                     .words = exchange_layout<N>(plan),
                     .shared = shared_layout<N>(plan)};
  void* arguments[] = {&args};
  // Blocks wait for each other, so all of them must run at a time.
  cuda_check(cudaLaunchCooperativeKernel(
                 reinterpret_cast<const void*>(decode_kernel<N>),
                 dim3(static_cast<unsigned>(plan.blocks)), dim3(kDecodeThreads), arguments,
                 static_cast<std::size_t>(args.shared.bytes), cuda_stream()),
             "decode");
  check_launch("decode");
}

class CudaDecode final : public DecodeKernels {
 public:
  bool plan(DecodePlan& plan) const override {
    const DecodeModel& model = plan.model;
    const DType type = model.embedding.dtype();
    if ((type != DType::kBFloat16 && type != DType::kFloat32) || !has_shape(model)) return false;
    if (!is_aligned(model.embedding) || !is_aligned(model.head) || !is_aligned(model.final_norm) ||
        !std::ranges::all_of(model.layers,
                             [](const DecodeLayer& layer) { return is_aligned(layer); }))
      return false;
    bool fits = false;
    dispatch(type, [&]<class T>() {
      using N = Native<T>;
      if (!has_code<N>()) return;
      plan.blocks = multiprocessor_count();
      plan.splits = std::min(plan.blocks / model.heads.kv_heads, kMostSplits);
      if (shared_layout<N>(plan).stage_count < kFewestStages) return;
      // For all plans of a process.
      cuda_check(cudaFuncSetAttribute(decode_kernel<N>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)),
                 "decode");
      const std::int64_t words = 2 * std::int64_t{exchange_layout<N>(plan).layer_words} *
                                 static_cast<std::int64_t>(model.layers.size());
      plan.exchange = Tensor::empty({words}, DType::kInt32, Device::kCuda);
      static_assert(kEmpty == 0xffffffff);
      cuda_check(cudaMemsetAsync(plan.exchange.raw(), 0xff,
                                 static_cast<std::size_t>(plan.exchange.bytes()), cuda_stream()),
                 "decode");
      plan.status = Tensor::zeros({1}, DType::kInt32, Device::kCuda);
      fits = true;
    });
    if (fits) renew(plan);
    return fits;
  }

  void renew(DecodePlan& plan) const override {
    check(std::ranges::all_of(plan.model.layers,
                              [](const DecodeLayer& layer) { return is_aligned(layer); }),
          "decode: expected memories that begin at multiples of 16 bytes");
    dispatch(plan.model.embedding.dtype(),
             [&]<class T>() { plan.pointers = layer_pointers<T>(plan.model); });
  }

  void decode(const DecodePlan& plan, const DecodeStep& step) const override {
    dispatch(plan.model.embedding.dtype(), [&]<class T>() { launch_step<T>(plan, step); });
  }
};

}  // namespace

const DecodeKernels& cuda_decode() {
  static const CudaDecode kernels;
  return kernels;
}

}  // namespace infini
