#include "base/text.h"

#include <gtest/gtest.h>

namespace duplex {
namespace {

TEST(Text, SizesAreReadWithEverySuffixAndPrintedBack) {
  EXPECT_EQ(*parse_size("10G"), 10 * kGiB);
  EXPECT_EQ(*parse_size("4KiB"), 4 * kKiB);
  EXPECT_EQ(*parse_size("1.5T"), kTiB + kTiB / 2);
  EXPECT_EQ(*parse_size("512"), 512u);
  for (uint64_t bytes : {uint64_t{0}, uint64_t{513}, 3 * kMiB, 10 * kTiB, kMaxBytes}) {
    EXPECT_EQ(*parse_size(format_size(bytes)), bytes);
  }
}

TEST(Text, SizesThatMakeNoSenseAreRefused) {
  for (const char* text : {"", "G", "-1", "1Q", "10 G", "1.0000001K", "99999999P", "1..2", "0x10",
                           "18446744073709551616"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

TEST(Text, NamesFollowTheContract) {
  EXPECT_TRUE(check_name("db-1_x.y", "volume"));
  EXPECT_TRUE(check_name(std::string(63, 'a'), "volume"));
  for (const std::string& name :
       {std::string(), std::string("-a"), std::string("a/b"), std::string("0xab"),
        std::string("0XAB"), std::string(64, 'a'), std::string("a b"), std::string("a\0b", 3)}) {
    EXPECT_FALSE(check_name(name, "volume")) << name;
  }
}

TEST(Text, IdsHaveTheirRange) {
  EXPECT_EQ(parse_array_id("0x400104")->value(), 0x400104u);
  EXPECT_EQ(format_id(ArrayId(0x400104)), "0x400104");
  EXPECT_FALSE(parse_array_id("0x1000000"));
  EXPECT_FALSE(parse_array_id("0"));
  EXPECT_EQ(format_id(*parse_volume_number("0x0001")), "0x0001");
  EXPECT_FALSE(parse_volume_number("0x10000"));
  EXPECT_FALSE(parse_volume_number("1x"));
}

TEST(Text, TimesAreIsoUtc) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(format_time(1795231809123456), "2026-11-21T03:30:09.123Z");
  EXPECT_EQ(format_time(-1), "1969-12-31T23:59:59.999Z");
}

}  // namespace
}  // namespace duplex
