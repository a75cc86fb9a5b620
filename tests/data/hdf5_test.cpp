#include "data/hdf5.h"

#include <thread>

#include "tensor/error.h"
#include "tests/data/fixtures.h"

namespace infini {
namespace {

using testing::HasSubstr;

TEST(Hdf5, ReturnsWhatWasWrittenInEveryType) {
  const TempFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  const auto round_trip = [&]<class T>(const std::string& name, std::vector<T> values) {
    file.write<T>(name, values, {2, 3}, {.checksum = true, .deflate = 3, .shuffle = true});
    const auto back = file.read_all<T>(name);
    EXPECT_EQ(back.values, values) << name;
    EXPECT_EQ(back.dims, (std::vector<std::int64_t>{2, 3})) << name;
  };
  round_trip("group/double", std::vector<double>{1.5, -2, 3e300, 0, 5, 6});
  round_trip("group/float", std::vector<float>{1.5f, -2, 3e30f, 0, 5, 6});
  round_trip("group/int32", std::vector<std::int32_t>{-1, 2, 3, 4, 5, 2147483647});
  round_trip("group/int64", std::vector<std::int64_t>{-1, 2, 3, 4, 5, std::int64_t{1} << 60});
  round_trip("group/uint8", std::vector<std::uint8_t>{0, 2, 3, 4, 5, 255});
  round_trip("group/uint16", std::vector<std::uint16_t>{0, 2, 3, 4, 5, 65535});
  round_trip("group/uint32", std::vector<std::uint32_t>{0, 2, 3, 4, 5, 4294967295u});
  round_trip("deep/er/uint64", std::vector<std::uint64_t>{0, 2, 3, 4, 5, ~std::uint64_t{0}});
  EXPECT_EQ(file.list("/"), (std::vector<std::string>{"deep", "group"}));
  EXPECT_EQ(file.list("group").size(), 7u);
  EXPECT_EQ(file.datasets().front(), "deep/er/uint64");
  EXPECT_TRUE(file.is_group("deep/er"));
  EXPECT_FALSE(file.contains("deep/er/nothing/at/all"));
}

TEST(Hdf5, ConvertsNumbersAndKnowsScalars) {
  const TempFolder folder;
  {
    Hdf5File file = Hdf5File::create(folder / "a.h5");
    const double pi = 3.25;
    file.write<double>("pi", std::span(&pi, 1), {});
    file.write<std::int32_t>("whole", std::vector<std::int32_t>{1, 2, 3});
    file.write<float>("none", std::vector<float>{});
    file.close();
  }
  const Hdf5File file = Hdf5File::open(folder / "a.h5");
  EXPECT_TRUE(file.dataset("pi").dims().empty());
  EXPECT_EQ(file.read_scalar<float>("pi"), 3.25f);
  EXPECT_EQ(file.read_all<double>("whole").values, (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(file.read_all<std::int64_t>("whole").values, (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_TRUE(file.read_all<float>("none").values.empty());
}

TEST(Hdf5, KeepsTextsAndNumbersAsAttributes) {
  const TempFolder folder;
  const std::string long_text(200000, 'x');  // beyond what a compact attribute holds
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.set_attribute("/", "config", "{\"layers\": 2}");
  file.set_attribute("/", "long", long_text);
  file.set_attribute("", "step", std::int64_t{12});
  file.set_attribute("/", "rate", 0.5);
  file.write_strings("names", {"a", "", "b c"});
  EXPECT_EQ(file.text_attribute("/", "config"), "{\"layers\": 2}");
  EXPECT_EQ(file.text_attribute("/", "long"), long_text);
  EXPECT_EQ(file.attribute<std::int64_t>("/", "step"), 12);
  EXPECT_EQ(file.attribute<float>("/", "rate"), 0.5f);
  EXPECT_EQ(file.read_strings("names"), (std::vector<std::string>{"a", "", "b c"}));
  EXPECT_FALSE(file.has_attribute("/", "other"));
}

TEST(Hdf5, ReadsAndWritesRangesAndGrows) {
  const TempFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  const std::int64_t empty = 0;
  auto data = file.create_dataset<std::uint16_t>("tokens", std::span(&empty, 1),
                                                 {.chunk_elements = 100, .extendable = true});
  std::vector<std::int32_t> values(1000);
  std::iota(values.begin(), values.end(), 0);
  data.append(std::span<const std::int32_t>(values).first(333));
  data.append(std::span<const std::int32_t>(values).subspan(333));
  std::vector<std::int32_t> part(250);
  data.read_range(90, std::span(part));
  EXPECT_EQ(part.front(), 90);
  EXPECT_EQ(part.back(), 339);
  const std::vector<std::int32_t> changed = {7, 8};
  data.write_range(99, std::span<const std::int32_t>(changed));
  data.read_range(98, std::span(part).first(4));
  EXPECT_EQ(part[1], 7);
  EXPECT_EQ(part[3], 101);
  EXPECT_THAT(message_of<DataError>([&] { data.read_range(900, std::span(part)); }),
              HasSubstr("tokens: range [900, 1150) asked, the dataset has rank 1 and 1000 values"));
}

TEST(Hdf5, NamesFileAndDatasetWhenItRefuses) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  EXPECT_EQ(message_of<DataError>([&] { Hdf5File::open(path); }), path + ": no such file");
  put_file(path, "not HDF5 at all");
  EXPECT_THAT(message_of<DataError>([&] { Hdf5File::open(path); }),
              HasSubstr(path + ": cannot be opened as HDF5"));
  Hdf5File file = Hdf5File::create(path);
  file.write_strings("names", {"a"});
  EXPECT_EQ(message_of<DataError>([&] { file.read_all<float>("x/y"); }),
            path + ": x/y: is not in the file");
  EXPECT_THAT(message_of<DataError>([&] { file.read_all<float>("names"); }),
              HasSubstr("names: expected numbers, found another type"));
  EXPECT_THAT(message_of<DataError>([&] { file.text_attribute("/", "config"); }),
              HasSubstr("has no attribute config"));
  EXPECT_THAT(message_of<DeviceError>([&] { Hdf5File::create(folder / "no/such/a.h5"); }),
              HasSubstr("cannot be created"));
}

TEST(Hdf5, FindsAFlippedBitByChecksum) {
  const TempFolder folder;
  const auto path = folder / "a.h5";
  {
    Hdf5File file = Hdf5File::create(path);
    file.write("x", std::vector<std::int32_t>(5000, 0x5A5A5A5A));
    file.close();
  }
  std::fstream raw(path, std::ios::binary | std::ios::in | std::ios::out);
  const std::string bytes((std::istreambuf_iterator<char>(raw)), {});
  raw.clear();
  raw.seekp(static_cast<std::streamoff>(bytes.find(std::string(64, 'Z')) + 10));
  raw.put('[');
  raw.close();
  const Hdf5File file = Hdf5File::open(path);
  EXPECT_THAT(message_of<DataError>([&] { file.read_all<std::int32_t>("x"); }),
              HasSubstr("x: cannot be read"));
}

TEST(Hdf5, MayBeUsedFromSeveralThreads) {
  const TempFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write("x", std::vector<std::int32_t>(10000, 3));
  const auto data = file.dataset("x");
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      std::vector<std::int32_t> part(100);
      for (int k = 0; k < 50; ++k) {
        data.read_range(k * 100, std::span(part));
        EXPECT_EQ(part[50], 3);
      }
    });
}

}  // namespace
}  // namespace infini
