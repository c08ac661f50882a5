#include "api/pair_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

namespace duplex::api {
namespace {

constexpr ArrayId kOwn(0x400104);

std::string sample() {
  std::ifstream file(std::string(DUPLEX_TEST_DATA) + "/fig7.pairs");
  return {std::istreambuf_iterator<char>(file), {}};
}

void expect_wrong(std::string_view text, std::string_view message) {
  const auto pairs = parse_pairs(text);
  ASSERT_FALSE(pairs) << text;
  EXPECT_EQ(pairs.error().code(), Code::kInvalid);
  EXPECT_EQ(pairs.error().message(), message) << text;
  EXPECT_NE(pairs.error().next(), "");
}

// Mutation: label and array id are parted at the first blank instead of the last one.
TEST(PairFile, TheSampleOfFigureSevenIsRead) {
  const auto pairs = parse_pairs(sample());
  ASSERT_TRUE(pairs) << pairs.error().describe();
  ASSERT_EQ(pairs->size(), 2u);
  EXPECT_EQ((*pairs)[0].source_array, kOwn);
  EXPECT_EQ((*pairs)[0].source, VolumeNumber(1));
  EXPECT_EQ((*pairs)[0].target_array, kOwn);
  EXPECT_EQ((*pairs)[0].target, VolumeNumber(2));
  EXPECT_EQ((*pairs)[1].source, VolumeNumber(4));
  EXPECT_EQ((*pairs)[1].target_array, ArrayId(0x421014));
  EXPECT_EQ((*pairs)[1].target, VolumeNumber(5));
}

// Mutation: check_pairs() looks at the sources only.
TEST(PairFile, TheEntryOfTheSampleThatLiesInAnotherArrayIsNamed) {
  const auto checked = check_pairs(*parse_pairs(sample()), kOwn);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code(), Code::kNoName);
  EXPECT_EQ(checked.error().message(),
            "entry 2 of the pairs: its target 0x421014,0x0005 is in another array; none is linked "
            "to 0x400104");
  const auto other = check_pairs(*parse_pairs("0x1,0x1\n0x400104,0x2"), kOwn);
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message().find("entry 1 of the pairs: its source 0x000001,0x0001"),
            std::string_view::npos)
      << other.error().message();
  EXPECT_TRUE(check_pairs(*parse_pairs("0x400104,0x1\n0x400104,0x2"), kOwn));
}

// Mutation: the text from a # on is kept.
TEST(PairFile, LabelsBlankLinesCommentsAndLineEndsOfOtherSystemsDoNotMatter) {
  const auto pairs = parse_pairs(
      "\n# both\r\n  pvol\t0x400104,0x0001 # P\r\n\r\nthe copy of it, 0x400104 ,\t0x0002\n\n"
      "0x400104, 0x0003\nSVOL ID2 0x400104, 0x0004");
  ASSERT_TRUE(pairs) << pairs.error().describe();
  ASSERT_EQ(pairs->size(), 2u);
  EXPECT_EQ((*pairs)[0].target, VolumeNumber(2));
  EXPECT_EQ((*pairs)[1].source, VolumeNumber(3));
  EXPECT_EQ((*pairs)[1].target, VolumeNumber(4));
}

// Mutation: comments and blank lines are not counted as lines.
TEST(PairFile, AMistakeIsToldWithTheNumberOfItsLine) {
  expect_wrong("", "the pairs are empty");
  expect_wrong("# nothing\n", "the pairs are empty");
  expect_wrong("0x400104, 0x0001\n",
               "line 1 of the pairs is the last one, and the target of its pair is missing");
  for (const char* id : {"db", "0x400104", "0x400104, ", ", 0x0001", "0x400104 0x0001",
                         "0x400104, 0x0001 700", "0x400104, 0x10000", "0x0, 0x0001",
                         "0x400104, 0x0000", "0x1000000, 0x0001", "0x400104, db", "...\t..."}) {
    expect_wrong(std::string("\n#\n") + id, "line 3 of the pairs is no id of a volume");
  }
  expect_wrong("SVOL ID 1 0x400104, 0x0002\nPVOL ID 1 0x400104, 0x0001",
               "line 1 of the pairs must be a source");
  expect_wrong("PVOL ID 1 0x400104, 0x0001\npvol ID 2 0x400104, 0x0003",
               "line 2 of the pairs must be the target of the pair");
}

}  // namespace
}  // namespace duplex::api
