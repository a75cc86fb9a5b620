// Writes a safetensors file tensor by tensor.
#pragma once

#include <filesystem>
#include <fstream>
#include <span>
#include <vector>

#include "trainer/safetensors.h"

namespace infini {

class SafetensorsWriter {
 public:
  // What the file will hold, in this order; begin and end are the writer's to say. Throws
  // DeviceError, as all that follows, where the disk does not take it.
  SafetensorsWriter(std::filesystem::path path, std::vector<StoredTensor> tensors);
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  ~SafetensorsWriter();  // an unfinished file goes

  void write(std::span<const std::byte> bytes);  // of the next tensor
  // The file gets its name once all of it is on disk.
  void finish();

 private:
  std::filesystem::path path_, temporary_;
  std::vector<StoredTensor> tensors_;
  std::size_t written_ = 0;
  std::ofstream out_;
};

}  // namespace infini
