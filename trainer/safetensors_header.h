// The JSON header of a safetensors file as a list of tensors.
#pragma once

#include "trainer/safetensors.h"

namespace infini {

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  // in the order of the text
  std::uint64_t bytes = 0;            // of the file, before the data
};

// Reads the header and checks every entry by itself; how entries and file fit together is the
// caller's to check. Throws DataError naming file and tensor.
SafetensorsHeader read_safetensors_header(const std::filesystem::path& path,
                                          std::uint64_t file_bytes);

}  // namespace infini
