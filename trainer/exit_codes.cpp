#include "trainer/exit_codes.h"

#include <unistd.h>

#include <cstdio>
#include <new>

#include "tensor/error.h"

namespace infini {

int exit_code_of(const std::exception& error) {
  if (dynamic_cast<const ConfigError*>(&error)) return kExitConfig;
  if (dynamic_cast<const DataError*>(&error)) return kExitData;
  if (dynamic_cast<const DeviceError*>(&error)) return kExitDevice;
  if (dynamic_cast<const std::bad_alloc*>(&error)) return kExitDevice;
  return kExitError;
}

int guarded(const std::function<int()>& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    const bool out_of_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
    std::fprintf(stderr, "%sinfini: error: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "",
                 out_of_memory ? "out of memory" : error.what());
    return exit_code_of(error);
  }
}

}  // namespace infini
