#include "trainer/checkpoint_manifest.h"

#include <xxhash.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "data/durable_file.h"
#include "tensor/error.h"

namespace infini {
namespace {

constexpr int kVersion = 1;

// The closing lines of a manifest, which guard those before them. Always of the same length.
std::string seal(std::string_view body) {
  return text(",\n  \"xxh3\": \"", hash_digits(XXH3_64bits(body.data(), body.size())), "\"\n}\n");
}

Manifest parse(const std::string& json, const std::string& who) {
  try {
    const auto root = nlohmann::json::parse(json);
    const int version = root.at("version");
    check<DataError>(version == kVersion, who, ": checkpoint format ", version,
                     ", this build reads ", kVersion);
    Manifest manifest{
        .step = root.at("step"), .ranks = root.at("ranks"), .files = {}, .buffers = {}};
    for (const auto& [name, file] : root.at("files").items())
      manifest.files.push_back({.name = name, .bytes = file.at("bytes"), .xxh3 = file.at("xxh3")});
    for (const auto& buffer : root.at("buffers"))
      manifest.buffers.push_back(
          {.name = buffer.at("name"), .dtype = buffer.at("dtype"), .shape = buffer.at("shape")});
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    throw DataError(text(who, ": is not a manifest: ", error.what()));
  }
}

}  // namespace

std::string manifest_text(const Manifest& manifest) {
  nlohmann::ordered_json root = {{"format", "infini checkpoint"},
                                 {"version", kVersion},
                                 {"step", manifest.step},
                                 {"ranks", manifest.ranks},
                                 {"files", nlohmann::ordered_json::object()},
                                 {"buffers", nlohmann::ordered_json::array()}};
  for (const Manifest::File& file : manifest.files)
    root["files"][file.name] = {{"bytes", file.bytes}, {"xxh3", file.xxh3}};
  for (const BufferInfo& buffer : manifest.buffers)
    root["buffers"].push_back(
        {{"name", buffer.name}, {"dtype", buffer.dtype}, {"shape", buffer.shape}});

  std::string body = root.dump(2);
  body.resize(body.size() - 2);  // without the closing "\n}"
  return body + seal(body);
}

Manifest checked_manifest(const std::filesystem::path& directory, int rank, int ranks) {
  const std::filesystem::path path = directory / "manifest.json";
  check<DataError>(std::filesystem::is_directory(directory), directory.string(),
                   ": no such checkpoint");
  check<DataError>(std::filesystem::exists(path), directory.string(),
                   ": has no manifest.json, so it is not a complete checkpoint");
  const std::string json = read_file(path);
  const std::size_t seal_bytes = seal("").size();
  const std::string_view whole = json;
  check<DataError>(whole.size() > seal_bytes &&
                       whole.ends_with(seal(whole.substr(0, whole.size() - seal_bytes))),
                   path.string(), ": is damaged, its text does not match the hash at its end");

  Manifest manifest = parse(json, path.string());
  for (std::size_t i = 0; i < manifest.files.size(); ++i) {
    if (static_cast<int>(i % static_cast<std::size_t>(ranks)) != rank) continue;
    const Manifest::File& file = manifest.files[i];
    const std::filesystem::path member = directory / file.name;
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(member, error);
    check<DataError>(!error, member.string(), ": is missing, ", file.bytes, " bytes expected");
    check<DataError>(bytes == file.bytes, member.string(), ": is damaged, has ", bytes,
                     " bytes, expected ", file.bytes);
    const std::string found = hash_digits(hash_file(member));
    check<DataError>(found == file.xxh3, member.string(), ": is damaged, xxh3 is ", found,
                     ", expected ", file.xxh3);
  }
  return manifest;
}

}  // namespace infini
