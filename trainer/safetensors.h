// A safetensors file: 8 bytes with the length of a JSON header, the header, and the tensors' bytes.
// Whoever made the file is not trusted: the header is read as a stream, with limits, and what it
// says must fit the file to the byte before any of them is looked at.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trainer/stored_type.h"

namespace infini {

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kFp32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // of its bytes, behind the header

  std::string type_text() const;  // "bf16 [2, 3]"
};

class SafetensorsFile {
 public:
  // Throws DataError naming the file and, where it is one, the tensor: a file that is cut, a header
  // that is not one or has more than 100,000 tensors, types other than F32, BF16 and F16, offsets
  // that overlap, leave holes, run past the end or do not fit the shape, names that come twice.
  explicit SafetensorsFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // by name
  const StoredTensor* find(const std::string& name) const;               // null: there is none
  // Of the file in memory, which is mapped; as long as this lives.
  std::span<const std::byte> bytes(const StoredTensor& tensor) const;

 private:
  std::filesystem::path path_;
  std::vector<StoredTensor> tensors_;
  std::uint64_t data_begin_ = 0;
  std::shared_ptr<const std::byte> mapped_;
};

}  // namespace infini
