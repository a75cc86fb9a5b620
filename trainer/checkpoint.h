// Checkpoints: <run>/checkpoints/step-00001000/ with one HDF5 shard per rank, config.yaml, and
// manifest.json, which holds size and xxh3 of every file and is written last.
//
// A directory of that name is always whole: it is written under a temporary name, brought to disk,
// read back, and then renamed. Reading checks every hash before HDF5 or YAML sees a byte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"
#include "trainer/checkpoint_shard.h"

namespace infini {

// What one rank saves. The buffers' memory is only read; it belongs to the caller or to `owners`.
struct CheckpointContents {
  std::vector<NamedBuffer> buffers;
  std::vector<Tensor> owners{};
  std::string position_json;  // where the run stands: step, sampler, seeds
  std::string config_yaml;    // the resolved configuration; rank 0's is kept
};

struct SaveOptions {
  int rank = 0;
  int ranks = 1;
  int keep_last = 0;  // checkpoints of this and earlier steps that stay; 0 keeps all
  std::function<bool(bool)> all_agree = {};  // World::all_agree; needed with several ranks
};

// Saves and returns the directory. All ranks call it. Throws DeviceError on every rank if any of
// them cannot write (disk full, say): then the temporary files are gone, earlier checkpoints are
// untouched, and the caller may train on. Older checkpoints go only after the new one stands.
std::filesystem::path save_checkpoint(const std::filesystem::path& run, std::int64_t step,
                                      const CheckpointContents& contents,
                                      const SaveOptions& options = {});

// The same by one process whose contents come shard by shard: contents(i) is called for each of
// `shards` in turn, and only one is held at a time. Position and configuration are the first one's.
std::filesystem::path save_checkpoint_in_shards(
    const std::filesystem::path& run, std::int64_t step, int shards,
    const std::function<CheckpointContents(int)>& contents);

// A checkpoint whose every byte was found as it was written. It may be read by any number of ranks,
// whatever number wrote it.
class Checkpoint {
 public:
  // Throws DataError naming the file that is missing, cut or changed. Of several ranks that open it
  // together each looks at a part of the files: they must wait for each other before they read.
  explicit Checkpoint(std::filesystem::path directory, int rank = 0, int ranks = 1);

  const std::filesystem::path& directory() const { return directory_; }
  std::int64_t step() const { return step_; }
  int ranks() const { return ranks_; }             // that wrote it
  std::uintmax_t bytes() const { return bytes_; }  // of all files
  const std::string& config_yaml() const { return config_yaml_; }
  std::vector<BufferInfo> buffers() const;  // of all ranks together, each whole
  std::string position_json() const;

  // Fills the buffers, which may be parts of what was saved and lie in parts in several shards.
  // Throws ConfigError when a buffer is absent or has another shape or type there: the checkpoint
  // is then of another model.
  void read(std::span<const NamedBuffer> buffers) const;
  // The same for resuming: the checkpoint must hold nothing else but what `others`, names of
  // buffers that other ranks keep, say.
  void read_all(std::span<const NamedBuffer> buffers,
                const std::set<std::string>& others = {}) const;

  std::filesystem::path shard(int rank) const;  // the file; see trainer/checkpoint_shard.h

 private:
  std::vector<std::vector<BufferInfo>> parts() const;  // by shard

  std::filesystem::path directory_;
  std::int64_t step_ = 0;
  int ranks_ = 1;
  std::uintmax_t bytes_ = 0;
  std::string config_yaml_;
};

struct CheckpointPath {
  std::int64_t step = 0;
  std::filesystem::path directory;
};

// The checkpoints of a run by step, unread.
std::vector<CheckpointPath> list_checkpoints(const std::filesystem::path& run);

// The newest checkpoint of a run, or none. Throws DataError when the newest is damaged, naming the
// newest one that is not. Several ranks look together, see Checkpoint.
std::optional<Checkpoint> find_latest(const std::filesystem::path& run, int rank = 0,
                                      int ranks = 1);

}  // namespace infini
