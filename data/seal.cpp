#include "data/seal.h"

#include <xxhash.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "data/durable_file.h"
#include "tensor/error.h"

namespace infini {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMark[] = {'I', 'N', 'F', 'S', 'E', 'A', 'L', '1'};

struct Seal {
  char mark[8];
  std::uint64_t length, hash, own_hash;

  static Seal of(std::uint64_t length, std::uint64_t hash) {
    Seal seal{.mark = {}, .length = length, .hash = hash, .own_hash = 0};
    std::memcpy(seal.mark, kMark, sizeof kMark);
    seal.own_hash = XXH3_64bits(&seal, offsetof(Seal, own_hash));
    return seal;
  }
};
static_assert(sizeof(Seal) == 32);

}  // namespace

void write_seal(const std::filesystem::path& path) {
  const Seal seal = Seal::of(std::filesystem::file_size(path), hash_file(path));
  std::ofstream file(path, std::ios::binary | std::ios::app);
  file.write(reinterpret_cast<const char*>(&seal), sizeof seal);
  file.close();
  check<DeviceError>(file.good(), path.string(), ": cannot be written");
}

void check_seal(const std::filesystem::path& path, std::string_view what) {
  const std::string who = path.string();
  std::error_code missing;
  const std::uint64_t size = std::filesystem::file_size(path, missing);
  check<DataError>(!missing, who, ": no such ", what);
  Seal found{};
  if (size >= sizeof(Seal)) {
    std::ifstream file(path, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(size - sizeof(Seal)));
    file.read(reinterpret_cast<char*>(&found), sizeof found);
  }
  check<DataError>(
      std::memcmp(found.mark, kMark, sizeof kMark) == 0, who, ": is not a complete ", what,
      ": the seal at its end is missing (truncated, still being written, or another file)");
  const std::uint64_t length = size - sizeof(Seal);
  const std::uint64_t hash = hash_file(path, length);
  const Seal expected = Seal::of(length, hash);
  check<DataError>(std::memcmp(&found, &expected, sizeof found) == 0, who, ": this ", what,
                   " is damaged: its ", length, " bytes hash to ", hash_digits(hash),
                   ", sealed were ", found.length, " bytes with ", hash_digits(found.hash));
}

}  // namespace infini
