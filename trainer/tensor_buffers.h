// Tensors as a checkpoint sees them: memory of this process.
#pragma once

#include "tensor/parameters.h"
#include "trainer/checkpoint_shard.h"

namespace infini {

// A tensor on the CPU is its own buffer; one on a device has a copy in host memory.
class TensorBuffers {
 public:
  // to_write: the buffers hold the tensors' elements now; else they are there to be read into.
  explicit TensorBuffers(bool to_write) : to_write_(to_write) {}

  void add(const std::string& name, const Tensor& tensor, const Division& division = {});
  // A part of what ranks divide: see BufferInfo.
  void add(const std::string& name, const Tensor& tensor, std::vector<std::int64_t> whole,
           std::vector<std::int64_t> begin);
  // Brings what was read into the buffers to the tensors.
  void put_back() const;

  const std::vector<NamedBuffer>& list() const { return list_; }
  // What must live as long as the buffers are used.
  const std::vector<Tensor>& owners() const { return here_; }

 private:
  bool to_write_;
  std::vector<NamedBuffer> list_;
  std::vector<Tensor> tensors_, here_;
};

}  // namespace infini
