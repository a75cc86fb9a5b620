#include "trainer/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "tensor/error.h"

namespace infini {

namespace fs = std::filesystem;

RunLock::RunLock(fs::path directory, int fd) : directory_(std::move(directory)), fd_(fd) {}

RunLock::RunLock(RunLock&& other) noexcept
    : directory_(std::exchange(other.directory_, {})), fd_(std::exchange(other.fd_, -1)) {}

RunLock::~RunLock() {
  if (directory_.empty()) return;
  rmdir(directory_.c_str());  // does nothing to one that holds something
  if (fd_ >= 0) close(fd_);
}

std::optional<RunLock> RunLock::try_take(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  check<ConfigError>(!error, "directory: cannot make ", directory.string(), ": ", error.message());
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close(fd);
    return std::nullopt;
  }
  return RunLock(directory, fd);
}

RunLock RunLock::take(const fs::path& directory) {
  std::optional<RunLock> lock = try_take(directory);
  check<ConfigError>(lock.has_value(), "directory: another process is writing to ",
                     directory.string(), "; wait for its end, or give another directory");
  return std::move(*lock);
}

}  // namespace infini
