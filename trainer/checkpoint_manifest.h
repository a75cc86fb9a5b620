// manifest.json of a checkpoint: what the directory holds, guarded by a hash of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/checkpoint_shard.h"

namespace infini {

struct Manifest {
  struct File {
    std::string name;
    std::uintmax_t bytes = 0;
    std::string xxh3;  // 16 hexadecimal digits
  };

  std::int64_t step = 0;
  int ranks = 1;
  std::vector<File> files;
  std::vector<BufferInfo> buffers;  // of all ranks together, each whole
};

// JSON whose last member is the xxh3 of all text before it.
std::string manifest_text(const Manifest& manifest);

// Reads <directory>/manifest.json and compares every file it names with its size and hash. Throws
// DataError naming the first that differs. Of `ranks` ranks, this one looks at every ranks-th file.
Manifest checked_manifest(const std::filesystem::path& directory, int rank = 0, int ranks = 1);

}  // namespace infini
