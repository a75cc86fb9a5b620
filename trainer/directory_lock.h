// One process at a time writes to a directory: of a run, or of prepared stores.
#pragma once

#include <filesystem>
#include <optional>

namespace infini {

// Holds a directory until it is destroyed or the process ends, however it ends. Where the file
// system knows no locks nothing is held and nobody is kept out.
class DirectoryLock {
 public:
  // Makes the directory where it is missing; nothing where another process holds it. ConfigError
  // where it cannot be made, which names the `key` that asks for it.
  static std::optional<DirectoryLock> try_take(const char* key,
                                               const std::filesystem::path& directory);
  // The same; ConfigError where another process holds it.
  static DirectoryLock take(const char* key, const std::filesystem::path& directory);

  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  // Also takes away a directory that nothing was written to.
  ~DirectoryLock();

 private:
  DirectoryLock(std::filesystem::path directory, int fd);

  std::filesystem::path directory_;
  int fd_ = -1;
};

}  // namespace infini
