#include "trainer/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <numeric>

#include "data/durable_file.h"
#include "tensor/error.h"
#include "tensor/random.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A folder of its own, removed at the end.
class Place {
 public:
  Place() {
    char name[] = "/tmp/infini-checkpoint-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Place() { fs::remove_all(path_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// A run's state whose every value follows from the step.
struct State {
  std::vector<double> f64;
  std::vector<float> f32;
  std::vector<std::uint16_t> bf16;
  std::vector<std::int64_t> i64;
  std::vector<std::uint8_t> u8;
  std::vector<float> empty;

  explicit State(int step) : f64(6), f32(3000), bf16(5), i64(1), u8(7) {
    std::iota(f64.begin(), f64.end(), step);
    std::iota(f32.begin(), f32.end(), static_cast<float>(step));
    std::iota(bf16.begin(), bf16.end(), static_cast<std::uint16_t>(step));
    std::iota(i64.begin(), i64.end(), step);
    std::iota(u8.begin(), u8.end(), static_cast<std::uint8_t>(step));
  }

  std::vector<NamedBuffer> buffers() {
    return {{"blocks.0.attention.query", "f64", {2, 3}, f64.data(), 48},
            {"embedding", "f32", {30, 100}, f32.data(), 12000},
            {"optimizer/embedding.moment", "bf16", {5}, bf16.data(), 10},
            {"step", "i64", {}, i64.data(), 8},
            {"flags", "u8", {7}, u8.data(), 7},
            {"nothing", "f32", {0, 4}, empty.data(), 0}};
  }
  CheckpointContents contents() {
    return {.buffers = buffers(),
            .position_json = "{\"sample\": " + std::to_string(i64[0]) + "}",
            .config_yaml = "run: x\n"};
  }
  bool operator==(const State&) const = default;
};

State load(const Checkpoint& checkpoint) {
  State state(-1);
  checkpoint.read_all(state.buffers());
  return state;
}

fs::path save(const fs::path& run, int step, int keep_last = 0) {
  SaveOptions options;
  options.keep_last = keep_last;
  return save_checkpoint(run, step, State(step).contents(), options);
}

template <class E, class Action>
std::string refusal(Action action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Checkpoint, WhatIsSavedLoadsAsTheSame) {
  const Place run;
  const fs::path directory = save(run.path(), 1000);
  EXPECT_EQ(directory.filename(), "step-00001000");
  const Checkpoint checkpoint(directory);
  EXPECT_EQ(checkpoint.step(), 1000);
  EXPECT_EQ(checkpoint.ranks(), 1);
  EXPECT_EQ(checkpoint.config_yaml(), "run: x\n");
  EXPECT_EQ(checkpoint.position_json(), "{\"sample\": 1000}");
  EXPECT_EQ(checkpoint.buffers().size(), 6u);
  EXPECT_TRUE(load(checkpoint) == State(1000));
}

TEST(Checkpoint, SavingTwiceGivesTheSameBytes) {
  const Place a, b;
  for (const char* file : {"shard-00000-of-00001.h5", "config.yaml", "manifest.json"})
    EXPECT_TRUE(read_file(save(a.path(), 3) / file) == read_file(save(b.path(), 3) / file)) << file;
}

TEST(Checkpoint, LatestIsTheOneWithTheHighestStep) {
  const Place run;
  EXPECT_FALSE(find_latest(run.path()).has_value());
  for (const int step : {20, 100'000'000, 3}) save(run.path(), step);
  EXPECT_EQ(find_latest(run.path())->step(), 100'000'000);
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  const Place run;
  save(run.path(), 5);
  State other(6);
  save_checkpoint(run.path(), 5, other.contents());
  EXPECT_TRUE(load(*find_latest(run.path())) == State(6));
  EXPECT_EQ(list_checkpoints(run.path()).size(), 1u);
}

TEST(Checkpoint, KeepsTheLastOnesAndLeavesLaterOnesAlone) {
  const Place run;
  for (const int step : {1, 2, 3, 9}) save(run.path(), step);
  save(run.path(), 4, 2);
  std::vector<std::int64_t> steps;
  for (const CheckpointPath& found : list_checkpoints(run.path())) steps.push_back(found.step);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{3, 4, 9}));
  int entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(run.path() / "checkpoints"))
    ++entries;
  EXPECT_EQ(entries, 3);
}

TEST(Checkpoint, EveryRankHasItsShard) {
  const Place run;
  // Both ranks in one process: rank 1 writes its part when rank 0 asks for the second time.
  State zero(10), one(11);
  const auto agree = [](bool mine) { return mine; };
  int asked = 0;
  const auto agree_after_rank_one = [&](bool mine) {
    if (++asked == 2)
      save_checkpoint(run.path(), 7, one.contents(),
                      {.rank = 1, .ranks = 2, .keep_last = 0, .all_agree = agree});
    return mine;
  };
  save_checkpoint(run.path(), 7, zero.contents(),
                  {.rank = 0, .ranks = 2, .keep_last = 0, .all_agree = agree_after_rank_one});
  const Checkpoint checkpoint(run.path() / "checkpoints" / "step-00000007");
  EXPECT_EQ(checkpoint.ranks(), 2);
  EXPECT_EQ(shard_position(checkpoint.shard(1)), "{\"sample\": 11}");
}

// A matrix [4, 6] of its own indices, of which a rank keeps rows [row, row + rows) and columns
// [column, column + columns).
struct Part {
  Part(std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns)
      : shape{rows, columns}, begin{row, column}, values(rows * columns, -1) {}
  static Part filled(std::int64_t row, std::int64_t rows, std::int64_t column,
                     std::int64_t columns) {
    Part part(row, rows, column, columns);
    part.values = part.expected();
    return part;
  }
  std::vector<float> expected() const {
    std::vector<float> result;
    for (std::int64_t r = 0; r < shape[0]; ++r)
      for (std::int64_t c = 0; c < shape[1]; ++c)
        result.push_back(static_cast<float>((begin[0] + r) * 6 + begin[1] + c));
    return result;
  }
  NamedBuffer buffer() {
    return {.name = "matrix",
            .dtype = "f32",
            .shape = shape,
            .data = values.data(),
            .bytes = values.size() * sizeof(float),
            .whole = {4, 6},
            .begin = begin};
  }
  CheckpointContents contents() {
    return {.buffers = {buffer()}, .position_json = "{}", .config_yaml = "run: x\n"};
  }
  std::vector<std::int64_t> shape, begin;
  std::vector<float> values;
};

TEST(Checkpoint, PartsOfABufferAreReadInOtherParts) {
  const Place run;
  Part left = Part::filled(0, 4, 0, 3), right = Part::filled(0, 4, 3, 3);
  const auto agree = [](bool mine) { return mine; };
  int asked = 0;
  const auto agree_after_rank_one = [&](bool mine) {
    if (++asked == 2)
      save_checkpoint(run.path(), 7, right.contents(),
                      {.rank = 1, .ranks = 2, .keep_last = 0, .all_agree = agree});
    return mine;
  };
  const fs::path directory =
      save_checkpoint(run.path(), 7, left.contents(),
                      {.rank = 0, .ranks = 2, .keep_last = 0, .all_agree = agree_after_rank_one});
  const Checkpoint checkpoint(directory);
  EXPECT_EQ(checkpoint.buffers().size(), 1u);
  EXPECT_EQ(checkpoint.buffers()[0].shape, (std::vector<std::int64_t>{4, 6}));
  for (Part part :
       {Part(0, 4, 0, 6), Part(0, 2, 0, 6), Part(1, 2, 2, 3), Part(3, 1, 5, 1), Part(0, 4, 3, 3)}) {
    const NamedBuffer buffer = part.buffer();
    checkpoint.read_all({&buffer, 1});
    EXPECT_EQ(part.values, part.expected());
  }
  EXPECT_THAT(refusal<ConfigError>([&] { checkpoint.read_all({}); }),
              HasSubstr("holds matrix f32 [4, 6], which this run does not have"));
  EXPECT_NO_THROW(checkpoint.read_all({}, {"matrix"}));
}

TEST(Checkpoint, FailureOfAnotherRankIsAFailureOfAll) {
  const Place run;
  const auto other_fails = [](bool) { return false; };
  EXPECT_THAT(refusal<DeviceError>([&] {
                save_checkpoint(run.path(), 7, State(7).contents(),
                                {.rank = 0, .ranks = 2, .keep_last = 0, .all_agree = other_fails});
              }),
              HasSubstr("checkpoint of step 7 was not saved: another rank"));
  EXPECT_TRUE(fs::is_empty(run.path() / "checkpoints"));
}

TEST(Checkpoint, AnotherModelIsRefusedByName) {
  const Place run;
  const Checkpoint checkpoint(save(run.path(), 1));
  State state(-1);
  auto buffers = state.buffers();

  buffers[0].shape = {3, 2};
  EXPECT_THAT(refusal<ConfigError>([&] { checkpoint.read(buffers); }),
              HasSubstr("blocks.0.attention.query is f64 [2, 3], this model expects f64 [3, 2]"));
  buffers = state.buffers();
  buffers[0].dtype = "f32";
  EXPECT_THAT(refusal<ConfigError>([&] { checkpoint.read(buffers); }),
              HasSubstr("is f64 [2, 3], this model expects f32 [2, 3]"));
  buffers = state.buffers();
  buffers[0].name = "blocks.1.attention.query";
  EXPECT_THAT(refusal<ConfigError>([&] { checkpoint.read(buffers); }),
              HasSubstr("has no blocks.1.attention.query f64 [2, 3], which this model expects"));
  buffers = state.buffers();
  buffers.erase(buffers.begin() + 2);
  EXPECT_NO_THROW(checkpoint.read(buffers));
  EXPECT_THAT(refusal<ConfigError>([&] { checkpoint.read_all(buffers); }),
              HasSubstr("holds optimizer/embedding.moment bf16 [5], which this run does not have"));
}

// Every position of small files, 300 positions of larger ones.
std::vector<std::size_t> positions(std::size_t size, std::uint64_t seed) {
  std::vector<std::size_t> chosen(std::min<std::size_t>(size, 300));
  const RandomKey key{.seed = seed};
  for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = size <= 300 ? i : key.below(i, size);
  return chosen;
}

TEST(Checkpoint, EveryCutAndEveryFlippedBitIsFound) {
  const Place run;
  const fs::path directory = save(run.path(), 1);
  for (const char* name : {"shard-00000-of-00001.h5", "config.yaml", "manifest.json"}) {
    const fs::path file = directory / name;
    const std::string good = read_file(file);
    const auto is_found = [&](const std::string& bad) {
      std::ofstream(file, std::ios::binary) << bad;
      return refusal<DataError>([&] { Checkpoint checkpoint(directory); }).find(name) !=
             std::string::npos;
    };
    for (const std::size_t at : positions(good.size(), 1)) {
      EXPECT_TRUE(is_found(good.substr(0, at))) << name << " cut at " << at;
      std::string flipped = good;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
      EXPECT_TRUE(is_found(flipped)) << name << " flipped at " << at;
    }
    EXPECT_TRUE(is_found(good + "x"));
    std::ofstream(file, std::ios::binary) << good;
    EXPECT_NO_THROW(Checkpoint{directory});

    fs::remove(file);
    EXPECT_THAT(refusal<DataError>([&] { Checkpoint checkpoint(directory); }), HasSubstr(name));
    std::ofstream(file, std::ios::binary) << good;
  }
}

TEST(Checkpoint, DamagedNewestNamesTheDamageAndOffersThePreviousOne) {
  const Place run;
  for (const int step : {1, 2, 3}) save(run.path(), step);
  const fs::path checkpoints = run.path() / "checkpoints";
  fs::resize_file(checkpoints / "step-00000003" / "shard-00000-of-00001.h5", 100);
  EXPECT_THAT(
      refusal<DataError>([&] { find_latest(run.path()); }),
      ::testing::AllOf(HasSubstr("step-00000003/shard-00000-of-00001.h5: is damaged, has 100"),
                       HasSubstr("is intact: " + (checkpoints / "step-00000002").string())));
  fs::remove(checkpoints / "step-00000002" / "manifest.json");
  EXPECT_THAT(refusal<DataError>([&] { find_latest(run.path()); }),
              HasSubstr("is intact: " + (checkpoints / "step-00000001").string()));
  fs::remove(checkpoints / "step-00000001" / "config.yaml");
  EXPECT_THAT(refusal<DataError>([&] { find_latest(run.path()); }),
              HasSubstr("no other checkpoint of this run is intact"));
}

// Runs `body` in a process of its own; its exit status, or minus the signal that ended it.
template <class Body>
int in_child(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Checkpoint, FileLimitWhileSavingLeavesTheOldCheckpointAndNothingElse) {
  const Place run;
  save(run.path(), 1);
  for (const rlim_t limit : {0, 10, 1000, 12000}) {
    EXPECT_EQ(in_child([&] {
                std::signal(SIGXFSZ, SIG_IGN);
                const rlimit bytes{limit, limit};
                setrlimit(RLIMIT_FSIZE, &bytes);
                const std::string said = refusal<DeviceError>([&] { save(run.path(), 2, 1); });
                return said.find("checkpoint of step 2 was not saved") == 0 ? 0 : 1;
              }),
              0)
        << limit;
    EXPECT_EQ(list_checkpoints(run.path()).size(), 1u);
    EXPECT_FALSE(fs::exists(run.path() / "checkpoints" / "step-00000002.tmp"));
    EXPECT_TRUE(load(*find_latest(run.path())) == State(1));
  }
}

struct Unmount {
  explicit Unmount(fs::path mounted) : path(std::move(mounted)) {}
  ~Unmount() { umount(path.c_str()); }
  fs::path path;
};

TEST(Checkpoint, FullDiskWhileSavingLeavesTheOldCheckpoint) {
  const Place disk;
  if (mount("tmpfs", disk.path().c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "a small disk can only be mounted by root";
  const Unmount at_end(disk.path());
  save(disk.path(), 1);
  std::string said;
  int step = 2;
  for (; step < 100 && said.empty(); ++step) {
    const std::string outcome = refusal<DeviceError>([&] { save(disk.path(), step); });
    if (outcome != "accepted") said = outcome;
  }
  EXPECT_THAT(said, HasSubstr("No space left on device"));
  const auto latest = find_latest(disk.path());
  ASSERT_TRUE(latest.has_value());
  EXPECT_EQ(latest->step(), step - 2);
  EXPECT_TRUE(load(*latest) == State(step - 2));

  fs::remove_all(disk.path() / "checkpoints" / "step-00000001");
  EXPECT_NO_THROW(save(disk.path(), step));  // with room again, saving works again
}

TEST(Checkpoint, KillingTheSavingProcessAtAnyMomentLeavesALoadableCheckpoint) {
  const Place run;
  save(run.path(), 1);
  const RandomKey key{.seed = 7};
  std::int64_t newest = 1;
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      for (int step = static_cast<int>(newest);; ++step) save(run.path(), step, 2);
    }
    usleep(static_cast<useconds_t>(1000 + key.below(round, 400'000)));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);

    const auto latest = find_latest(run.path());  // throws if the newest is damaged
    ASSERT_TRUE(latest.has_value());
    EXPECT_GE(latest->step(), newest);
    newest = latest->step();
    EXPECT_TRUE(load(*latest) == State(static_cast<int>(newest))) << newest;
    EXPECT_LE(list_checkpoints(run.path()).size(), 3u);
  }
  EXPECT_GT(newest, 1);
  save(run.path(), static_cast<int>(newest), 1);  // removes what the killed ones left behind
  for (const auto& entry : fs::directory_iterator(run.path() / "checkpoints"))
    EXPECT_NE(entry.path().extension(), ".tmp");
}

}  // namespace
}  // namespace infini
