// One token through a whole Infini-Transformer in one kernel, for generation: the products of a
// token are with vectors, so the time is that of reading every weight once, if nothing waits.
#pragma once

#include <optional>
#include <vector>

#include "tensor/ops/heads.h"
#include "tensor/ops/recall.h"

namespace infini {

// What a step reads of one block. Matrices have the compute type; norms, gates and the memory its
// accumulator type.
struct DecodeLayer {
  Tensor attention_norm, feed_forward_norm;  // [D]
  Tensor qkv, output;                        // [(H + 2 Hk) K, D], [D, H K]
  Tensor up, down;                           // [F, D], or [2 F, D] for swiglu; [D, F]
  Tensor gate;                               // [H]; empty where no memory is read
  Tensor matrix, normalizer;                 // [Hk, K, K], [Hk, K]; empty: nothing was written
  // The open segment so far, T rows; a step fills the row of its token, of `rotated` only the keys.
  Tensor window_qkv, window_rotated;  // [T, (H + 2 Hk) K], [T, (H + Hk) K]
};

enum class DecodeActivation { kGelu, kRelu, kSwiglu };

struct DecodeModel {
  HeadLayout heads;
  DecodeActivation activation = DecodeActivation::kGelu;
  double scale = 1, norm_eps = 1e-6;
  RecallOptions recall;
  Tensor embedding, head;  // [N, D]
  Tensor final_norm;       // [D]
  Tensor rotary_table;     // [T, K]
  std::vector<DecodeLayer> layers;

  std::int64_t width() const { return embedding.shape()[1]; }
  std::int64_t vocabulary() const { return embedding.shape()[0]; }
  std::int64_t inner() const { return layers.front().down.shape()[1]; }
  std::int64_t window_tokens() const { return rotary_table.shape()[0]; }
};

// A model laid out for the steps of one sequence. Steps of one plan follow one another; a copy of a
// plan is the same plan.
struct DecodePlan {
  DecodeModel model;
  int teams = 0;           // clusters of 8 blocks
  Tensor pointers;         // to what the layers hold
  Tensor exchange;         // what blocks tell each other during a step
  Tensor status;           // [1] int32, not 0 once a step has waited in vain
  std::int64_t steps = 0;  // taken so far
};

// Nothing where the device has no kernel for the model. It has one from compute capability 9.0 on
// for bf16 and fp32 where D and F are multiples of 16, K is one of 32 and at most 256 (fp32: 128),
// at most 8 query heads share a key/value head, every tensor begins at a multiple of 16 bytes, and
// what a step keeps in shared memory leaves room there for tiles of the matrices.
std::optional<DecodePlan> decode_plan(const DecodeModel& model);
// After tensors of the layers were replaced by others of the same shapes.
void renew(DecodePlan& plan, const DecodeModel& model);

// A token chosen on the device stands in an int64 beside its logit, so that the greatest of these
// numbers is the most likely token and among equals the first.
std::int32_t token_of(std::int64_t choice);

struct DecodeStep {
  std::int32_t token = 0;     // unless it comes from a choice
  Tensor from;                // [1] a choice; may be empty
  std::int64_t position = 0;  // in the open segment
  Tensor hidden;              // [1, D] normalised
  Tensor logits;              // [1, N]; may be empty
  Tensor choice;              // [1] zero before, the most likely token after; may be empty
};
// Takes one token. Throws nothing that happens on the device: see check_status.
void decode(DecodePlan& plan, const DecodeStep& step);
// Waits for the device and throws DeviceError when a step has failed.
void check_status(const DecodePlan& plan);

// What a device provides: decode.cpp says that the CPU has nothing, decode.cu is for CUDA.
class DecodeKernels {
 public:
  // Fills in everything but the model and says whether there is a kernel for it.
  virtual bool plan(DecodePlan& plan) const = 0;
  virtual void renew(DecodePlan& plan) const = 0;
  virtual void decode(const DecodePlan& plan, const DecodeStep& step) const = 0;

 protected:
  ~DecodeKernels() = default;
};

const DecodeKernels& cuda_decode();

}  // namespace infini
