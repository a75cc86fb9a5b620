// The house stays in order: includes run downwards, nothing else lies at the top, files stay short.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace infini {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"tensor", {"tensor"}},
    {"model", {"model", "tensor"}},
    {"optim", {"optim", "tensor"}},
    {"distributed", {"distributed", "tensor"}},
    {"data", {"data"}},  // and the two files below
    {"trainer", {"trainer", "model", "optim", "distributed", "data", "tensor"}},
};
const std::set<std::string> kForData = {"tensor/error.h", "tensor/random.h"};

const std::set<std::string> kTop = {
    "CMakeLists.txt", "CMakePresets.json", "README.md", "LICENSE",    "infini",
    "tensor",         "trainer",           "model",     "data",       "optim",
    "configs",        "distributed",       "tests",     "experiments"};

constexpr int kMaxLines = 400;

std::vector<std::string> lines_of(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<fs::path> sources(const fs::path& folder) {
  static const std::set<std::string> kEndings = {".h", ".cpp", ".cu", ".cuh"};
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && kEndings.contains(entry.path().extension()))
      files.push_back(entry.path());
  return files;
}

// What an #include "..." of a file in `folder` does wrong; empty if nothing.
std::string fault(const std::string& folder, const std::string& included) {
  const std::string target = included.substr(0, included.find('/'));
  if (target == included || !kMayInclude.contains(target))
    return "includes are written \"folder/file.h\" from the root";
  if (kMayInclude.at(folder).contains(target)) return "";
  if (folder == "data" && kForData.contains(included)) return "";
  return folder + " may not depend on " + included;
}

// Names at the top of the repository: what git tracks, or what lies there in a bare copy.
std::set<std::string> top_level(const fs::path& root) {
  std::set<std::string> names;
  const std::string command = "git -C '" + root.string() + "' ls-files 2>/dev/null";
  if (FILE* git = popen(command.c_str(), "r")) {
    char line[4096];
    while (std::fgets(line, sizeof line, git)) {
      const std::string name(line);
      names.insert(name.substr(0, name.find_first_of("/\n")));
    }
    pclose(git);
  }
  if (names.empty())
    for (const auto& entry : fs::directory_iterator(root))
      if (const std::string name = entry.path().filename(); name != "build" && name != "runs")
        names.insert(name);
  return names;
}

TEST(House, RulesTellRightFromWrong) {
  EXPECT_EQ(fault("trainer", "model/attention.h"), "");
  EXPECT_EQ(fault("data", "tensor/error.h"), "");
  EXPECT_EQ(fault("data", "tensor/tensor.h"), "data may not depend on tensor/tensor.h");
  EXPECT_EQ(fault("tensor", "model/attention.h"), "tensor may not depend on model/attention.h");
  EXPECT_EQ(fault("model", "optim/adamw.h"), "model may not depend on optim/adamw.h");
  EXPECT_NE(fault("model", "attention.h"), "");
}

TEST(House, IncludesRunDownwards) {
  const std::regex include(R"re(^\s*#\s*include\s*"([^"]+)")re");
  for (const auto& [folder, allowed] : kMayInclude)
    for (const fs::path& file : sources(fs::path(INFINI_SOURCE_DIR) / folder))
      for (const std::string& line : lines_of(file)) {
        std::smatch match;
        if (!std::regex_search(line, match, include)) continue;
        EXPECT_EQ(fault(folder, match[1]), "") << file << ": " << line;
      }
}

TEST(House, NothingElseLiesAtTheTop) {
  for (const std::string& name : top_level(INFINI_SOURCE_DIR))
    EXPECT_TRUE(name.starts_with('.') || kTop.contains(name)) << name;
}

TEST(House, LongFilesSayWhy) {
  std::vector<std::string> folders = {"tests"};
  for (const auto& [folder, allowed] : kMayInclude) folders.push_back(folder);
  for (const std::string& folder : folders)
    for (const fs::path& file : sources(fs::path(INFINI_SOURCE_DIR) / folder)) {
      const std::vector<std::string> lines = lines_of(file);
      if (lines.size() <= kMaxLines) continue;
      std::string beginning;
      for (int i = 0; i < 20; ++i) beginning += lines[i];
      EXPECT_THAT(beginning, ::testing::HasSubstr("400 lines"))
          << file << " has " << lines.size()
          << " lines; split it, or say near its top why it is over 400 lines";
    }
}

// googletest refuses the tests of the second of two fixtures of one name, but only when they run.
TEST(House, FixturesOfAProgramHaveNamesOfTheirOwn) {
  const std::regex fixture(R"(^(?:class|struct|using) (\w+)\b.*[: ]\w*Test\b.*[{;]$)");
  std::map<std::string, fs::path> first;  // where "folder/Fixture" is
  for (const fs::path& file : sources(fs::path(INFINI_SOURCE_DIR) / "tests"))
    for (const std::string& line : lines_of(file)) {
      std::smatch match;
      if (!std::regex_search(line, match, fixture)) continue;
      const auto [there, added] = first.emplace(file.parent_path() / match[1].str(), file);
      EXPECT_TRUE(added) << match[1] << " is in " << there->second << " and in " << file;
    }
  EXPECT_GT(first.size(), 20u);
}

}  // namespace
}  // namespace infini
