#include "trainer/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "tensor/error.h"

namespace infini {

namespace fs = std::filesystem;

DirectoryLock::DirectoryLock(fs::path directory, int fd)
    : directory_(std::move(directory)), fd_(fd) {}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept
    : directory_(std::exchange(other.directory_, {})), fd_(std::exchange(other.fd_, -1)) {}

DirectoryLock::~DirectoryLock() {
  if (directory_.empty()) return;
  rmdir(directory_.c_str());  // does nothing to one that holds something
  if (fd_ >= 0) close(fd_);
}

std::optional<DirectoryLock> DirectoryLock::try_take(const char* key, const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  check<ConfigError>(!error, key, ": cannot make ", directory.string(), ": ", error.message());
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close(fd);
    return std::nullopt;
  }
  return DirectoryLock(directory, fd);
}

DirectoryLock DirectoryLock::take(const char* key, const fs::path& directory) {
  std::optional<DirectoryLock> lock = try_take(key, directory);
  check<ConfigError>(lock.has_value(), key, ": another process is writing to ", directory.string(),
                     "; wait for its end, or give another directory");
  return std::move(*lock);
}

}  // namespace infini
