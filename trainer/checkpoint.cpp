#include "trainer/checkpoint.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "data/durable_file.h"
#include "tensor/error.h"
#include "trainer/checkpoint_manifest.h"

namespace infini {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfig = "config.yaml";
constexpr const char* kTemporary = ".tmp";

std::string step_name(std::int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return name;
}

std::string shard_name(int rank, int ranks) {
  char name[48];
  std::snprintf(name, sizeof name, "shard-%05d-of-%05d.h5", rank, ranks);
  return name;
}

void sync_directory(const fs::path& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && fsync(fd) == 0;
  const int cause = errno;
  if (fd >= 0) close(fd);
  check<DeviceError>(synced, directory.string(),
                     ": cannot be brought to disk: ", std::strerror(cause));
}

void rename_directory(const fs::path& from, const fs::path& to, unsigned flags = 0) {
  check<DeviceError>(renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0,
                     from.string(), ": cannot be renamed to ", to.string(), ": ",
                     std::strerror(errno));
}

// Leftovers of a process that died while it saved or removed.
void remove_temporaries(const fs::path& checkpoints) {
  for (const auto& entry : fs::directory_iterator(checkpoints))
    if (entry.path().extension() == kTemporary) fs::remove_all(entry.path());
}

// Under a temporary name first: a half-removed directory must not look like a checkpoint.
void remove_checkpoint(const fs::path& directory) {
  fs::path doomed = directory;
  doomed += ".removed";
  doomed += kTemporary;
  rename_directory(directory, doomed);
  fs::remove_all(doomed);
}

// Gives the finished temporary its name. A checkpoint of the same step changes places with it, so
// that at every moment one of the two stands; it is removed afterwards.
void publish(const fs::path& temporary, const fs::path& directory) {
  sync_directory(temporary);
  if (!fs::exists(directory)) {
    rename_directory(temporary, directory);
  } else {
    rename_directory(temporary, directory, RENAME_EXCHANGE);
    fs::remove_all(temporary);
  }
  sync_directory(directory.parent_path());
}

// The buffers of which the shards hold parts.
std::vector<BufferInfo> wholes(const std::vector<std::vector<BufferInfo>>& shards) {
  std::vector<BufferInfo> result;
  std::set<std::string> names;
  for (const std::vector<BufferInfo>& shard : shards)
    for (const BufferInfo& part : shard)
      if (names.insert(part.name).second)
        result.push_back({.name = part.name, .dtype = part.dtype, .shape = part.whole_shape()});
  return result;
}

std::vector<BufferInfo> infos(const std::vector<NamedBuffer>& buffers) {
  std::vector<BufferInfo> result;
  for (const NamedBuffer& buffer : buffers) result.push_back(buffer.info());
  return result;
}

// `first`: what the first shard holds; the others are there to be read.
void write_config_and_manifest(const fs::path& temporary, std::int64_t step,
                               const std::vector<BufferInfo>& first, const std::string& config,
                               int ranks) {
  write_file(temporary / kConfig, config);
  Manifest manifest{.step = step, .ranks = ranks, .files = {}, .buffers = {}};
  std::vector<std::string> names = {kConfig};
  for (int rank = 0; rank < ranks; ++rank) names.push_back(shard_name(rank, ranks));
  for (const std::string& name : names)
    manifest.files.push_back({.name = name,
                              .bytes = fs::file_size(temporary / name),
                              .xxh3 = hash_digits(hash_file(temporary / name))});
  std::vector<std::vector<BufferInfo>> shards{first};
  for (int rank = 1; rank < ranks; ++rank)
    shards.push_back(shard_buffers(temporary / shard_name(rank, ranks)));
  manifest.buffers = wholes(shards);
  write_file(temporary / "manifest.json", manifest_text(manifest));
  checked_manifest(temporary);
}

void remove_older(const fs::path& run, std::int64_t step, int keep_last) {
  std::vector<CheckpointPath> kept = list_checkpoints(run);
  std::erase_if(kept, [&](const CheckpointPath& entry) { return entry.step > step; });
  if (keep_last <= 0 || kept.size() <= static_cast<std::size_t>(keep_last)) return;
  kept.resize(kept.size() - static_cast<std::size_t>(keep_last));
  for (const CheckpointPath& old : kept) remove_checkpoint(old.directory);
}

std::int64_t element_count(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

// Fills what the shard holds of the wanted buffers and takes it off what is missing of them.
void read_from(const fs::path& file, const std::vector<BufferInfo>& parts,
               std::span<const NamedBuffer> wanted, std::map<std::string, std::int64_t>& missing) {
  std::vector<NamedBuffer> direct;
  for (const NamedBuffer& buffer : wanted)
    for (const BufferInfo& part : parts) {
      if (part.name != buffer.name || !overlap(part, buffer.info())) continue;
      if (part.begin == buffer.begin && part.shape == buffer.shape) {
        direct.push_back(buffer);
        missing[buffer.name] -= element_count(part.shape);
        continue;
      }
      std::vector<std::byte> bytes(element_count(part.shape) *
                                   (buffer.bytes / element_count(buffer.shape)));
      const NamedBuffer staged{.name = part.name,
                               .dtype = part.dtype,
                               .shape = part.shape,
                               .data = bytes.data(),
                               .bytes = bytes.size(),
                               .whole = part.whole,
                               .begin = part.begin};
      read_shard(file, {&staged, 1});
      missing[buffer.name] -= copy_common(buffer, staged);
    }
  read_shard(file, direct);
}

// What can be offered when a newer checkpoint is damaged.
std::string newest_intact(std::span<const CheckpointPath> older) {
  for (; !older.empty(); older = older.first(older.size() - 1)) {
    try {
      const Checkpoint good(older.back().directory);
      return text("the checkpoint before it is intact: ", good.directory().string(),
                  "; to go on from there, move the damaged one away");
    } catch (const DataError&) {  // damaged as well: look further back
    }
  }
  return "no other checkpoint of this run is intact";
}

}  // namespace

fs::path save_checkpoint(const fs::path& run, std::int64_t step, const CheckpointContents& contents,
                         const SaveOptions& options) {
  check(options.ranks == 1 || options.all_agree, "save_checkpoint: ", options.ranks,
        " ranks need all_agree");
  fs::path directory = run / "checkpoints" / step_name(step);
  fs::path temporary = directory;
  temporary += kTemporary;
  const bool first = options.rank == 0;

  // Each part runs on the ranks that have something to do; all learn whether all have succeeded.
  std::string failure = "another rank could not write its part";
  const auto all_succeed = [&](bool takes_part, const auto& part) {
    bool succeeded = true;
    try {
      if (takes_part) part();
    } catch (const std::exception& error) {
      succeeded = false;
      failure = error.what();
    }
    return options.all_agree ? options.all_agree(succeeded) : succeeded;
  };

  const bool saved = all_succeed(first,
                                 [&] {
                                   fs::create_directories(directory.parent_path());
                                   remove_temporaries(directory.parent_path());
                                   fs::create_directory(temporary);
                                 }) &&
                     all_succeed(true,
                                 [&] {
                                   write_shard(temporary / shard_name(options.rank, options.ranks),
                                               contents.buffers, contents.position_json);
                                 }) &&
                     all_succeed(first, [&] {
                       write_config_and_manifest(temporary, step, infos(contents.buffers),
                                                 contents.config_yaml, options.ranks);
                       publish(temporary, directory);
                     });

  if (!saved) {
    std::error_code ignored;
    if (first) fs::remove_all(temporary, ignored);
    throw DeviceError(text("checkpoint of step ", step, " was not saved: ", failure));
  }
  if (first) {
    try {
      remove_older(run, step, options.keep_last);
    } catch (const std::exception& error) {  // costs disk space, not the run
      spdlog::warn("an old checkpoint could not be removed: {}", error.what());
    }
  }
  return directory;
}

fs::path save_checkpoint_in_shards(const fs::path& run, std::int64_t step, int shards,
                                   const std::function<CheckpointContents(int)>& contents) {
  fs::path directory = run / "checkpoints" / step_name(step);
  fs::path temporary = directory;
  temporary += kTemporary;
  try {
    fs::create_directories(directory.parent_path());
    remove_temporaries(directory.parent_path());
    fs::create_directory(temporary);
    std::vector<BufferInfo> first;
    std::string config, position;
    for (int shard = 0; shard < shards; ++shard) {
      const CheckpointContents part = contents(shard);
      if (shard == 0) {
        first = infos(part.buffers);
        config = part.config_yaml;
        position = part.position_json;
      }
      write_shard(temporary / shard_name(shard, shards), part.buffers, position);
    }
    write_config_and_manifest(temporary, step, first, config, shards);
    publish(temporary, directory);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
  return directory;
}

Checkpoint::Checkpoint(fs::path directory, int rank, int ranks) : directory_(std::move(directory)) {
  const Manifest manifest = checked_manifest(directory_, rank, ranks);
  step_ = manifest.step;
  ranks_ = manifest.ranks;
  std::set<std::string> names;
  for (const Manifest::File& file : manifest.files) {
    bytes_ += file.bytes;
    names.insert(file.name);
  }
  check<DataError>(names.contains(kConfig), directory_.string(), ": its manifest lists no ",
                   kConfig);
  for (int part = 0; part < ranks_; ++part)
    check<DataError>(names.contains(shard_name(part, ranks_)), directory_.string(),
                     ": its manifest lists no ", shard_name(part, ranks_));
  config_yaml_ = read_file(directory_ / kConfig);
}

fs::path Checkpoint::shard(int rank) const {
  check<ConfigError>(rank < ranks_, directory_.string(), ": was saved by ", ranks_,
                     " ranks, has no part for rank ", rank);
  return directory_ / shard_name(rank, ranks_);
}

std::vector<std::vector<BufferInfo>> Checkpoint::parts() const {
  std::vector<std::vector<BufferInfo>> shards;
  for (int rank = 0; rank < ranks_; ++rank) shards.push_back(shard_buffers(shard(rank)));
  return shards;
}

std::vector<BufferInfo> Checkpoint::buffers() const { return wholes(parts()); }

std::string Checkpoint::position_json() const { return shard_position(shard(0)); }

void Checkpoint::read(std::span<const NamedBuffer> wanted) const {
  const std::vector<std::vector<BufferInfo>> shards = parts();
  const std::vector<BufferInfo> found = wholes(shards);
  for (const NamedBuffer& buffer : wanted) {
    const auto info = std::ranges::find(found, buffer.name, &BufferInfo::name);
    const std::vector<std::int64_t> whole = buffer.info().whole_shape();
    check<ConfigError>(info != found.end(), directory_.string(), ": has no ", buffer.name, " ",
                       type_text(buffer.dtype, whole),
                       ", which this model expects; it is a checkpoint of another model");
    check<ConfigError>(info->dtype == buffer.dtype && info->shape == whole, directory_.string(),
                       ": ", buffer.name, " is ", type_text(info->dtype, info->shape),
                       ", this model expects ", type_text(buffer.dtype, whole),
                       "; it is a checkpoint of another model");
  }
  std::map<std::string, std::int64_t> missing;  // elements
  for (const NamedBuffer& buffer : wanted) missing[buffer.name] = element_count(buffer.shape);
  for (int rank = 0; rank < ranks_; ++rank)
    read_from(shard(rank), shards[static_cast<std::size_t>(rank)], wanted, missing);
  for (const auto& [name, elements] : missing)
    check<DataError>(elements == 0, directory_.string(), ": ", elements, " elements of ", name,
                     " are in none of its ", ranks_, " shards");
}

void Checkpoint::read_all(std::span<const NamedBuffer> wanted,
                          const std::set<std::string>& others) const {
  for (const BufferInfo& info : buffers())
    check<ConfigError>(others.contains(info.name) ||
                           std::ranges::find(wanted, info.name, &NamedBuffer::name) != wanted.end(),
                       directory_.string(), ": holds ", info.name, " ",
                       type_text(info.dtype, info.shape),
                       ", which this run does not have; it is a checkpoint of another model or "
                       "optimizer");
  read(wanted);
}

std::vector<CheckpointPath> list_checkpoints(const fs::path& run) {
  std::vector<CheckpointPath> found;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", missing)) {
    long long step = 0;
    const std::string name = entry.path().filename();
    if (std::sscanf(name.c_str(), "step-%lld", &step) == 1 && name == step_name(step))
      found.push_back({step, entry.path()});
  }
  std::ranges::sort(found, {}, &CheckpointPath::step);
  return found;
}

std::optional<Checkpoint> find_latest(const fs::path& run, int rank, int ranks) {
  const std::vector<CheckpointPath> found = list_checkpoints(run);
  if (found.empty()) return std::nullopt;
  try {
    return Checkpoint(found.back().directory, rank, ranks);
  } catch (const DataError& error) {
    throw DataError(
        text(error.what(), "; ", newest_intact(std::span(found).first(found.size() - 1))));
  }
}

}  // namespace infini
