#include "trainer/text_file.h"

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

void write_text(const std::filesystem::path& file, const std::string& content) {
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << content;
  check<DeviceError>(out.flush().good(), "cannot write ", file.string());
}

}  // namespace infini
