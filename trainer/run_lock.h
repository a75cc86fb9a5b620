// One process at a time writes to the directory of a run.
#pragma once

#include <filesystem>
#include <optional>

namespace infini {

// Holds a directory until it is destroyed or the process ends, however it ends. Where the file
// system knows no locks nothing is held and nobody is kept out.
class RunLock {
 public:
  // Makes the directory where it is missing; nothing where another process holds it. ConfigError
  // where it cannot be made.
  static std::optional<RunLock> try_take(const std::filesystem::path& directory);
  // The same; ConfigError where another process holds it.
  static RunLock take(const std::filesystem::path& directory);

  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&&) = delete;
  // Also takes away a directory that nothing was written to.
  ~RunLock();

 private:
  RunLock(std::filesystem::path directory, int fd);

  std::filesystem::path directory_;
  int fd_ = -1;
};

}  // namespace infini
