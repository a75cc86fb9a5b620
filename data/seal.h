// 32 bytes at the end of a file that say whether all bytes before them are as they were written:
//   "INFSEAL1", length before the seal, xxh3 of those bytes, xxh3 of the 24 bytes so far (numbers
//   little-endian).
// HDF5 ignores what stands behind its own bytes, so a sealed HDF5 file is an HDF5 file.
#pragma once

#include <filesystem>
#include <string_view>

namespace infini {

void write_seal(const std::filesystem::path& path);

// Reads the file once. Throws DataError when a byte was changed, lost or added, calling the file a
// `what`.
void check_seal(const std::filesystem::path& path, std::string_view what);

}  // namespace infini
