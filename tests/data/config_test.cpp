#include "data/config.h"

#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

TEST(DataConfig, MakesTheSourceItDescribes) {
  const TempFolder folder;
  small_store(folder / "train.h5", {70, 33, 5, 120});
  DataConfig config{
      .source = DataKind::kStore, .store = folder.path(), .row_tokens = 16, .batch_rows = 2};
  EXPECT_THAT(make_source(config, 8, 1, 100)->description(), HasSubstr("crops of 16 tokens"));
  config.sampler = Sampler::kLanes;
  const auto lanes = make_source(config, 8, 1, 100);
  EXPECT_THAT(lanes->description(), HasSubstr("2 lanes through 4 documents"));
  EXPECT_TRUE(lanes->carries_memory());
  EXPECT_EQ(make_source(config, 8, 1, 100, open_store(config))->batch(3), lanes->batch(3));
  EXPECT_NE(make_source(config, 8, 2, 100)->batch(0), lanes->batch(0));
  EXPECT_THAT(make_source({}, 64, 1, 100)->description(),
              HasSubstr("passkey prompts (words), 5 digits, 128, 256, 512 tokens"));
}

TEST(DataConfig, RefusesValuesOutOfRange) {
  EXPECT_THAT(message_of<ConfigError>([] { DataConfig{.batch_rows = 0}.validate(); }),
              HasSubstr("data.batch_rows must be at least 1, got 0"));
  EXPECT_THAT(message_of<ConfigError>([] { DataConfig{.source = DataKind::kStore}.validate(); }),
              HasSubstr("data.store must name the folder of a prepared corpus"));
  EXPECT_THAT(message_of<ConfigError>([] { PasskeyConfig{.row_segments = {}}.validate(); }),
              HasSubstr("must name at least one length"));
  EXPECT_THAT(message_of<ConfigError>([] { PasskeyConfig{.ends_share = 1.5}.validate(); }),
              HasSubstr("data.passkey.ends_share must be in 0..1, got 1.5"));
  EXPECT_THAT(message_of<ConfigError>([] {
                make_source({.source = DataKind::kStore, .store = "/no/such/folder"}, 8, 1, 100);
              }),
              HasSubstr("/no/such/folder/train.h5 does not exist; `infini prepare` makes it"));
}

}  // namespace
}  // namespace infini
