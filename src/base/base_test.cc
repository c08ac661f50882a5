#include <gtest/gtest.h>

#include <vector>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/units.h"
#include "base/uuid.h"

namespace duplex {
namespace {

TEST(Error, ABareCodeSaysWhatItMeans) {
  const Error error(Code::kNoVolume);
  EXPECT_EQ(code_name(error.code()), "e_novol");
  EXPECT_EQ(error.message(), "no such volume");
  EXPECT_EQ(error.next(), "");
}

TEST(Error, TheNextStepIsPartOfTheDescription) {
  const Error error(Code::kBusy, "volume db is open", "close the client");
  EXPECT_EQ(error.describe(), "volume db is open (next: close the client)");
}

Result<int> halve(int value) {
  if (value % 2 != 0) return fail(Code::kInvalid, "odd");
  return value / 2;
}
Result<int> quarter(int value) {
  TRY_ASSIGN(const int half, halve(value));
  TRY(halve(half));
  return half / 2;
}

TEST(Error, TryHandsTheFirstErrorOn) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).error().message(), "odd");
}

TEST(Error, SystemErrorsKeepTheirKind) {
  EXPECT_EQ(system_error(ENOSPC, "write x").code(), Code::kNoSpace);
  EXPECT_EQ(system_error(ENOENT, "open x").code(), Code::kNoDevice);
  EXPECT_EQ(system_error(EACCES, "open x").message(), "open x: Permission denied");
}

TEST(ByteRange, WidensAndNarrowsToWholeUnits) {
  const ByteRange range{4000, 5000};  // 4000..9000
  EXPECT_EQ(range.widened(4096), (ByteRange{0, 12288}));
  EXPECT_EQ(range.narrowed(4096), (ByteRange{4096, 4096}));
  EXPECT_TRUE((ByteRange{1, 4000}.narrowed(4096).empty()));
}

TEST(ByteRange, FittingNeverWraps) {
  EXPECT_TRUE(range_fits(10, 0, 10));
  EXPECT_FALSE(range_fits(11, 0, 10));
  EXPECT_FALSE(range_fits(1, UINT64_MAX, 10));
  EXPECT_FALSE(range_fits(UINT64_MAX, 2, UINT64_MAX));
}

TEST(ByteReader, AShortBufferTurnsItBadAndReadsZero) {
  const std::array<std::byte, 3> bytes = {std::byte{1}, std::byte{2}, std::byte{3}};
  ByteReader reader(bytes, std::endian::big);
  EXPECT_EQ(reader.take<uint16_t>(), 0x0102u);
  EXPECT_EQ(reader.take<uint32_t>(), 0u);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.take<uint8_t>(), 0u);
}

TEST(ByteWriter, WhatIsWrittenIsReadBackInBothOrders) {
  for (const std::endian order : {std::endian::little, std::endian::big}) {
    ByteWriter writer(order);
    writer.put(uint64_t{0x0123456789abcdef});
    writer.put_string("duplex");
    writer.pad_to(20);
    ByteReader reader(writer.bytes(), order);
    EXPECT_EQ(reader.take<uint64_t>(), 0x0123456789abcdefu);
    EXPECT_EQ(reader.take_string(6), "duplex");
    EXPECT_EQ(reader.remaining(), 6u);
  }
}

TEST(Checksum, Crc32cHasTheKnownValue) {
  // The check value of CRC-32C for "123456789" (RFC 3720 appendix B.4 uses the same polynomial).
  const std::string_view text = "123456789";
  const auto bytes = std::as_bytes(std::span(text));
  EXPECT_EQ(crc32c(bytes), 0xe3069283u);
  EXPECT_EQ(crc32c(bytes.subspan(4), crc32c(bytes.first(4))), 0xe3069283u);
}

TEST(Checksum, OneByteThatIsNotZeroIsFoundAnywhere) {
  std::vector<std::byte> block(4096);
  EXPECT_TRUE(is_zero(block));
  for (size_t at : {size_t{0}, size_t{1}, size_t{2047}, size_t{4095}}) {
    block[at] = std::byte{1};
    EXPECT_FALSE(is_zero(block)) << at;
    block[at] = std::byte{0};
  }
}

TEST(Uuid, TextAndBackIsTheSame) {
  const Uuid uuid = Uuid::from_random(0x0123456789abcdef, 0xfedcba9876543210);
  EXPECT_EQ(uuid.to_string(), "01234567-89ab-4def-bedc-ba9876543210");
  EXPECT_EQ(*Uuid::parse(uuid.to_string()), uuid);
  EXPECT_FALSE(Uuid::parse("01234567-89ab-4def-bedc-ba987654321"));
  EXPECT_FALSE(Uuid::parse("01234567x89ab-4def-bedc-ba9876543210"));
  EXPECT_FALSE(Uuid::parse("g1234567-89ab-4def-bedc-ba9876543210"));
}

}  // namespace
}  // namespace duplex
