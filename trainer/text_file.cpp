#include "trainer/text_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "tensor/error.h"

namespace infini {

std::string read_text(const std::filesystem::path& file) {
  if (file == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream in(file, std::ios::binary);
  check<ConfigError>(in.good() && !std::filesystem::is_directory(file), "cannot read ",
                     file.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

void check_destination(const char* key, const std::filesystem::path& file) {
  if (file.empty()) return;
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  check<ConfigError>(std::filesystem::is_directory(folder), key, ": cannot write ", file.string(),
                     ": there is no folder ", folder.string());
  check<ConfigError>(!std::filesystem::exists(folder / "manifest.json"), key, ": cannot write ",
                     file.string(), ": ", folder.string(), " is a checkpoint");
  const bool is_there = std::filesystem::exists(file);
  check<ConfigError>(!std::filesystem::is_directory(file), key, ": cannot write ", file.string(),
                     ": it is a folder");
  check<ConfigError>(access((is_there ? file : folder).c_str(), W_OK) == 0, key, ": cannot write ",
                     file.string(), ": ", std::strerror(errno));
}

void write_text(const std::filesystem::path& file, const std::string& content) {
  std::FILE* const out = std::fopen(file.c_str(), "wb");
  bool written = out && std::fwrite(content.data(), 1, content.size(), out) == content.size();
  int cause = errno;
  if (out && std::fclose(out) != 0 && written) {
    written = false;
    cause = errno;
  }
  check<DeviceError>(written, "cannot write ", file.string(), ": ", std::strerror(cause));
}

}  // namespace infini
