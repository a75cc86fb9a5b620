#include "trainer/exit_codes.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <new>

#include "tensor/error.h"

namespace infini {

int exit_code_of(const std::exception& error) {
  if (dynamic_cast<const ConfigError*>(&error)) return kExitConfig;
  if (dynamic_cast<const DataError*>(&error)) return kExitData;
  if (dynamic_cast<const DeviceError*>(&error)) return kExitDevice;
  if (dynamic_cast<const std::bad_alloc*>(&error)) return kExitDevice;
  if (dynamic_cast<const std::filesystem::filesystem_error*>(&error)) return kExitDevice;
  return kExitError;
}

std::string message_of(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) ? "out of memory" : error.what();
}

int guarded(const std::function<int()>& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%sinfini: error: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "",
                 message_of(error).c_str());
    return exit_code_of(error);
  }
}

}  // namespace infini
