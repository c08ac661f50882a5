// What duplexd is told: every key, by the file and by flags, and what is refused.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "duplexd/options.h"

namespace duplex {
namespace {

class ConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "duplex-config-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory); }

  Result<DaemonOptions> read(const std::string& text) {
    std::ofstream(path()) << text;
    DaemonOptions options;
    TRY(read_config(path(), options));
    return options;
  }
  Result<DaemonOptions> with_flags(const std::string& text, Flags flags) {
    std::ofstream(path()) << text;
    flags.config = path();
    return combine(std::move(flags));
  }
  // The text is refused, naming `line` and `what`, with a next step that holds `next`.
  void refused(const std::string& text, int line, const std::string& what,
               const std::string& next = "docs/CONFIG.md") {
    const auto result = read(text);
    ASSERT_FALSE(result) << text;
    EXPECT_EQ(result.error().code(), Code::kInvalid);
    EXPECT_NE(result.error().message().find(fmt::format("line {}:", line)), std::string_view::npos)
        << result.error().describe();
    EXPECT_NE(result.error().message().find(what), std::string_view::npos)
        << result.error().describe();
    EXPECT_NE(result.error().next().find(next), std::string_view::npos)
        << result.error().describe();
  }
  std::string path() const { return directory + "/duplexd.toml"; }

  std::string directory;
};

constexpr const char* kWhole = R"(
name = "a1"
id = "0x400104"
state = "/var/lib/duplex"
nbd = ["unix:/run/duplex/nbd.sock", "tcp:127.0.0.1:10809"]
api = "unix:/run/duplex/api.sock"
reactors = 3
engine = "threads"
log_level = "debug"
insecure = true
)";

std::vector<std::string> texts(const std::vector<rt::Address>& addresses) {
  std::vector<std::string> all;
  for (const rt::Address& address : addresses) all.push_back(address.to_string());
  return all;
}

TEST_F(ConfigTest, EveryKeyOfTheFileIsTaken) {
  const auto options = read(kWhole);
  ASSERT_TRUE(options) << options.error().describe();
  EXPECT_EQ(options->name, "a1");
  EXPECT_EQ(options->id, ArrayId(0x400104));
  EXPECT_EQ(options->state, "/var/lib/duplex");
  EXPECT_EQ(texts(options->nbd),
            (std::vector<std::string>{"unix:/run/duplex/nbd.sock", "tcp:127.0.0.1:10809"}));
  EXPECT_EQ(texts(options->api), std::vector<std::string>{"unix:/run/duplex/api.sock"});
  EXPECT_EQ(options->reactors, 3u);
  EXPECT_EQ(options->engine, os::EngineChoice::kThreads);
  EXPECT_EQ(options->log_level, LogLevel::kDebug);
  EXPECT_TRUE(options->insecure);
}

TEST_F(ConfigTest, AnIdMayBeAPlainNumber) {
  for (const char* id : {"0x400104", "4194564", "\"0x400104\"", "\"4194564\""}) {
    const auto options = read(fmt::format("id = {}", id));
    ASSERT_TRUE(options) << options.error().describe();
    EXPECT_EQ(options->id, ArrayId(0x400104));
  }
}

TEST_F(ConfigTest, AnUnknownKeyIsRefusedWithTheNearestOne) {
  refused("name = \"a\"\nstaet = \"/s\"\n", 2, "'staet'", "'state'");
  refused("log_levle = \"info\"", 1, "'log_levle'", "'log_level'");
  refused("nbds = []", 1, "'nbds'", "'nbd'");
  refused("Name = \"a\"", 1, "'Name'", "'name'");
  refused("\n\n[server]\nname = \"a\"", 3, "'server'");
}

TEST_F(ConfigTest, AValueOfTheWrongKindIsRefused) {
  for (const char* key : {"name", "state", "engine", "log_level"}) {
    for (const char* value : {"5", "true", "1.5", "[]", "[\"a\"]", "{}", "2026-11-21"})
      refused(fmt::format("{} = {}", key, value), 1, fmt::format("'{}' must be text", key));
  }
  for (const char* value : {"true", "1.5", "[1]", "{}"})
    refused(fmt::format("id = {}", value), 1, "'id'");
  for (const char* key : {"nbd", "api"}) {
    for (const char* value : {"5", "true", "[5]", "[\"unix:/a\", 5]", "[[\"unix:/a\"]]", "{}"})
      refused(fmt::format("{} = {}", key, value), 1, fmt::format("'{}' must be text", key));
  }
  for (const char* value : {"\"4\"", "true", "4.0", "[4]"})
    refused(fmt::format("reactors = {}", value), 1, "'reactors' must be a number");
  for (const char* value : {"\"true\"", "1", "[true]"})
    refused(fmt::format("insecure = {}", value), 1, "'insecure' must be true or false");
}

TEST_F(ConfigTest, AValueThatIsNotPossibleIsRefused) {
  refused("name = \"\"", 1, "name", "");
  refused("name = \"0x1\"", 1, "0x", "");
  refused("name = \"a b\"", 1, "a b", "");
  refused("id = 0", 1, "array id", "0x400104");
  refused("id = 0x1000000", 1, "array id", "0x400104");
  refused("id = -1", 1, "array id", "0x400104");
  refused("reactors = 0", 1, "1 to 64");
  refused("reactors = 65", 1, "1 to 64");
  refused("reactors = -1", 1, "-1");
  refused("engine = \"fast\"", 1, "fast", "io_uring");
  refused("log_level = \"loud\"", 1, "loud", "warning");
  refused("nbd = \"somewhere\"", 1, "somewhere", "");
  refused("api = [\"unix:/a\", \"tcp:localhost\"]", 1, "localhost", "");
}

TEST_F(ConfigTest, WhatIsNoTomlIsRefusedWithItsLine) {
  refused("name = \"a\"\nid = \n", 2, path());
  refused("name = \"a\"\nname = \"b\"\n", 2, path());
  refused("name = \"\xff\xfe\"", 1, path());
}

TEST_F(ConfigTest, AFileThatIsNotThereIsRefused) {
  Flags flags;
  flags.config = path();
  const auto result = combine(flags);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find(path()), std::string_view::npos);
  EXPECT_EQ(result.error().message().find("line"), std::string_view::npos)
      << result.error().describe();
  EXPECT_NE(result.error().message().find("No such file"), std::string_view::npos);
  EXPECT_NE(result.error().next().find("--config"), std::string_view::npos);
}

TEST_F(ConfigTest, WhatIsNoFileOrTooLongIsRefused) {
  Flags flags;
  for (const std::string& no_file : {directory, std::string("/dev/zero")}) {
    flags.config = no_file;
    const auto result = combine(flags);
    ASSERT_FALSE(result);
    EXPECT_TRUE(result.error().message().starts_with(no_file)) << result.error().describe();
    EXPECT_NE(result.error().message().find("cannot be read"), std::string_view::npos);
  }
}

TEST_F(ConfigTest, AFlagWinsOverTheFile) {
  Flags flags;
  flags.settings = {{"name", "b2"},      {"id", "0x2"},          {"state", "/other"},
                    {"reactors", "7"},   {"engine", "io_uring"}, {"log_level", "error"},
                    {"nbd", "unix:/n1"}, {"nbd", "unix:/n2"},    {"api", "unix:/a1"}};
  const auto options = with_flags(kWhole, flags);
  ASSERT_TRUE(options) << options.error().describe();
  EXPECT_EQ(options->name, "b2");
  EXPECT_EQ(options->id, ArrayId(2));
  EXPECT_EQ(options->state, "/other");
  EXPECT_EQ(options->reactors, 7u);
  EXPECT_EQ(options->engine, os::EngineChoice::kUring);
  EXPECT_EQ(options->log_level, LogLevel::kError);
  EXPECT_EQ(texts(options->nbd), (std::vector<std::string>{"unix:/n1", "unix:/n2"}));
  EXPECT_EQ(texts(options->api), std::vector<std::string>{"unix:/a1"});
}

TEST_F(ConfigTest, WhatNoFlagSaysStaysAsInTheFile) {
  Flags flags;
  flags.settings = {{"nbd", "unix:/n1"}};
  const auto options = with_flags(kWhole, flags);
  ASSERT_TRUE(options);
  EXPECT_EQ(texts(options->api), std::vector<std::string>{"unix:/run/duplex/api.sock"});
  EXPECT_EQ(options->name, "a1");
  EXPECT_TRUE(options->insecure);
}

TEST_F(ConfigTest, NameIdAndStateAreNeeded) {
  for (const char* missing : {"name", "id", "state"}) {
    Flags flags;
    for (const auto& [key, value] : {std::pair("name", "a"), {"id", "0x1"}, {"state", "/s"}}) {
      if (std::string_view(key) != missing) flags.settings.emplace_back(key, value);
    }
    const auto result = combine(flags);
    ASSERT_FALSE(result) << missing;
    EXPECT_NE(result.error().message().find(missing), std::string_view::npos);
    EXPECT_NE(result.error().next(), "");
  }
}

TEST_F(ConfigTest, FlagsOfARebuildMeanNothingWithoutItAndItNeedsADevice) {
  const auto with = [](bool rebuild, std::vector<std::string> devices, bool accept_missing) {
    Flags flags;
    flags.settings = {{"name", "a"}, {"id", "0x1"}, {"state", "/s"}};
    flags.direct.rebuild = rebuild;
    flags.direct.devices = std::move(devices);
    flags.direct.accept_missing = accept_missing;
    return combine(std::move(flags));
  };
  const auto expect_refused = [](const Result<DaemonOptions>& result, std::string_view names) {
    ASSERT_FALSE(result);
    EXPECT_TRUE(result.error().message().starts_with(names)) << result.error().describe();
    EXPECT_NE(result.error().next().find("--device PATH"), std::string_view::npos);
  };
  EXPECT_TRUE(with(true, {"/d"}, false));
  EXPECT_TRUE(with(true, {"/d"}, true));
  EXPECT_TRUE(with(false, {}, false));
  expect_refused(with(true, {}, false), "--rebuild needs a device");
  expect_refused(with(false, {"/d"}, false), "--device");
  expect_refused(with(false, {"/d"}, true), "--device");
  expect_refused(with(false, {}, true), "--accept-missing");
}

TEST_F(ConfigTest, WithoutANumberThereIsAReactorPerProcessor) {
  Flags flags;
  flags.settings = {{"name", "a"}, {"id", "0x1"}, {"state", "/s"}};
  const auto options = combine(flags);
  ASSERT_TRUE(options);
  EXPECT_GE(options->reactors, 1u);
  EXPECT_LE(options->reactors, 64u);
  EXPECT_FALSE(options->insecure);
}

}  // namespace
}  // namespace duplex
