// Small files as one string.
#pragma once

#include <filesystem>
#include <string>

namespace infini {

// The whole file, or standard input for "-". Throws DataError when it cannot be read.
std::string read_text(const std::filesystem::path& file);
// Replaces the file. Throws DeviceError when it cannot be written.
void write_text(const std::filesystem::path& file, const std::string& content);

}  // namespace infini
