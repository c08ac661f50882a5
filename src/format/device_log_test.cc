#include "format/device_log.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/bytes.h"
#include "format/fields.h"

namespace duplex::format {
namespace {

using Bytes = std::vector<std::byte>;

const Uuid kDevice = Uuid::from_random(1, 2);

LogVolume volume_of(uint16_t n) {
  return {.number = VolumeNumber(n),
          .name = "vol" + std::to_string(n),
          .size_bytes = n * kMiB,
          .backing = BackingId(n),
          .backing_name = "PD" + std::to_string(n),
          .backing_uuid = Uuid::from_random(n, n),
          .only_device = DeviceId(n % 3),
          .thick = n % 2 == 1,
          .damaged = n % 5 == 1};
}
LogMap map_of(uint32_t pe, uint32_t backing, uint32_t le) {
  return {PhysicalExtent(pe), BackingId(backing), LogicalExtent(le)};
}

LogCheckpoint sample(uint32_t maps, uint16_t volumes) {
  LogCheckpoint c;
  c.device = kDevice;
  c.generation = 9;
  c.sequence = 1000;
  for (uint16_t v = 1; v <= volumes; ++v) c.volumes.push_back(volume_of(v));
  for (uint32_t pe = 0; pe < maps; ++pe) c.maps.push_back(map_of(pe * 3, 1 + pe % 5, pe));
  return c;
}

// Builds a half the way the pool does: checkpoint, then batches that follow each other.
struct HalfWriter {
  LogCheckpoint checkpoint;
  Bytes bytes;
  uint32_t chain;
  uint64_t next;
  std::vector<size_t> ends;  // of the checkpoint and of each batch

  explicit HalfWriter(LogCheckpoint c)
      : checkpoint(std::move(c)), bytes(encode_checkpoint(checkpoint)) {
    chain = end_chain(bytes);
    next = checkpoint.sequence + 1;
    ends.push_back(bytes.size());
  }
  void batch(const std::vector<LogRecord>& records) {
    batch(records, next, checkpoint.generation, chain);
  }
  void batch(const std::vector<LogRecord>& records, uint64_t first, uint64_t generation,
             uint32_t after) {
    const Bytes encoded = encode_batch(
        records,
        {.generation = generation, .first_sequence = first, .flushed = first - 1, .chain = after});
    ASSERT_EQ(encoded.size() % kBlockBytes, 0u);
    bytes.insert(bytes.end(), encoded.begin(), encoded.end());
    chain = end_chain(encoded);
    next = first + records.size();
    ends.push_back(bytes.size());
  }
  // As it stands on the device: old bytes behind it.
  Result<LogHalf> decode(std::byte behind = std::byte{0}) const {
    Bytes half = bytes;
    half.resize(half.size() + 16 * kKiB, behind);
    return decode_half(half, kDevice);
  }
};

TEST(DeviceLog, ACheckpointDecodesToTheSame) {
  for (const auto& [maps, volumes] : {std::pair(0u, 0), {1u, 1}, {5000u, 3}, {3u, 300}}) {
    const LogCheckpoint checkpoint = sample(maps, static_cast<uint16_t>(volumes));
    const HalfWriter half(checkpoint);
    EXPECT_LE(half.bytes.size(), checkpoint_bytes(maps, static_cast<uint64_t>(volumes)));
    const auto decoded = half.decode();
    ASSERT_TRUE(decoded) << decoded.error().describe();
    EXPECT_EQ(decoded->checkpoint, checkpoint);
    EXPECT_EQ(decoded->used_bytes, half.bytes.size());
    EXPECT_EQ(decoded->chain, half.chain);
  }
}

TEST(DeviceLog, TheLargestNamesStayWithinTheBound) {
  LogCheckpoint c = sample(10, 0);
  for (uint16_t v = 1; v <= 200; ++v) {
    c.volumes.push_back(volume_of(v));
    c.volumes.back().name = std::string(kMaxNameBytes, 'v');
    c.volumes.back().backing_name = std::string(kMaxNameBytes, 'b');
  }
  EXPECT_LE(encode_checkpoint(c).size(), checkpoint_bytes(10, 200));
}

TEST(DeviceLog, RecordsChangeTheCheckpoint) {
  HalfWriter half(sample(2, 2));  // extents 0 and 3
  half.batch({map_of(7, 2, 70), LogUnmap{PhysicalExtent(3)}, volume_of(9)});
  half.batch({LogVolumeDrop{VolumeNumber(1)}, LogUnmap{PhysicalExtent(7)}, map_of(7, 4, 71)});
  const auto decoded = half.decode();
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->checkpoint.sequence, 1006u);
  EXPECT_EQ(decoded->checkpoint.maps, (std::vector{map_of(0, 1, 0), map_of(7, 4, 71)}));
  EXPECT_EQ(decoded->checkpoint.volumes, (std::vector{volume_of(2), volume_of(9)}));
  EXPECT_EQ(decoded->used_bytes, half.bytes.size());
  EXPECT_EQ(decoded->chain, half.chain);
}

TEST(DeviceLog, ManyRandomRecordsEqualAPlainMap) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    HalfWriter half(sample(0, 0));
    std::map<PhysicalExtent, LogMap> maps;
    std::map<VolumeNumber, LogVolume> volumes;
    for (int batch = 0; batch < 12; ++batch) {
      std::vector<LogRecord> records;
      for (size_t i = 1 + random() % 400; i > 0; --i) {
        const uint32_t pe = random() % 500;
        const uint16_t v = static_cast<uint16_t>(1 + random() % 20);
        switch (random() % 6) {
          case 0:
            records.push_back(LogUnmap{PhysicalExtent(pe)});
            maps.erase(PhysicalExtent(pe));
            break;
          case 1:
            records.push_back(volume_of(v));
            volumes[VolumeNumber(v)] = volume_of(v);
            break;
          case 2:
            records.push_back(LogVolumeDrop{VolumeNumber(v)});
            volumes.erase(VolumeNumber(v));
            break;
          default: {
            const LogMap map = map_of(pe, 1 + random() % 9, random());
            records.push_back(map);
            maps[map.pe] = map;
          }
        }
      }
      half.batch(records);
    }
    const auto decoded = half.decode();
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->checkpoint.sequence, half.next - 1);
    ASSERT_EQ(decoded->checkpoint.maps.size(), maps.size());
    size_t i = 0;
    for (const auto& [pe, map] : maps) EXPECT_EQ(decoded->checkpoint.maps[i++], map);
    ASSERT_EQ(decoded->checkpoint.volumes.size(), volumes.size());
    i = 0;
    for (const auto& [number, volume] : volumes)
      EXPECT_EQ(decoded->checkpoint.volumes[i++], volume);
  }
}

TEST(DeviceLog, AFlippedByteInTheCheckpointIsDetected) {
  const HalfWriter half(sample(100, 3));
  Bytes bytes = half.bytes;
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int mask : {0x01, 0x80, 0xff}) {
      bytes[at] ^= static_cast<std::byte>(mask);
      const auto decoded = decode_half(bytes, kDevice);
      ASSERT_FALSE(decoded) << at;
      ASSERT_EQ(decoded.error().code(), Code::kCorrupt) << at;
      bytes[at] ^= static_cast<std::byte>(mask);
    }
  }
}

TEST(DeviceLog, AFlippedByteInABatchEndsTheRunBeforeIt) {
  HalfWriter half(sample(10, 1));
  half.batch({map_of(50, 1, 50)});
  half.batch({map_of(51, 1, 51), volume_of(8)});
  half.batch({map_of(52, 1, 52)});
  Bytes bytes = half.bytes;
  for (size_t at = half.ends[1]; at < half.ends[2]; ++at) {
    for (const int mask : {0x01, 0x80, 0xff}) {
      bytes[at] ^= static_cast<std::byte>(mask);
      const auto decoded = decode_half(bytes, kDevice);
      ASSERT_TRUE(decoded);
      ASSERT_EQ(decoded->used_bytes, half.ends[1]) << at;
      ASSERT_EQ(decoded->checkpoint.sequence, 1001u);
      bytes[at] ^= static_cast<std::byte>(mask);
    }
  }
}

TEST(DeviceLog, AHalfCutAtAnyLengthDecodesToWholeBatchesOnly) {
  HalfWriter half(sample(10, 1));
  for (uint32_t i = 0; i < 4; ++i) half.batch({map_of(50 + i, 1, 50 + i)});
  for (size_t length = 0; length <= half.bytes.size(); length += 7) {
    const auto decoded = decode_half(std::span(half.bytes).first(length), kDevice);
    const auto whole = std::ranges::upper_bound(half.ends, length) - half.ends.begin();
    ASSERT_EQ(decoded.has_value(), whole > 0) << length;
    if (decoded) {
      EXPECT_EQ(decoded->used_bytes, half.ends[static_cast<size_t>(whole - 1)]);
      EXPECT_EQ(decoded->checkpoint.sequence, 1000u + static_cast<uint64_t>(whole - 1));
    }
  }
}

TEST(DeviceLog, ATornLastBatchEndsTheRun) {
  HalfWriter half(sample(1, 1));
  half.batch({map_of(50, 1, 50)});
  const size_t before = half.bytes.size();
  std::vector<LogRecord> large;
  for (uint32_t i = 0; i < 2000; ++i) large.push_back(map_of(100 + i, 2, i));
  half.batch(large);
  // Each block of the last batch is on the device or not; only all of them count.
  const size_t blocks = (half.bytes.size() - before) / kBlockBytes;
  ASSERT_GE(blocks, 3u);
  for (uint32_t present = 0; present < 1u << blocks; ++present) {
    Bytes bytes = half.bytes;
    for (size_t b = 0; b < blocks; ++b) {
      if ((present >> b & 1) == 0)
        std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(before + b * kBlockBytes), kBlockBytes,
                    std::byte{0});
    }
    const auto decoded = decode_half(bytes, kDevice);
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->used_bytes == half.bytes.size(), present + 1 == 1u << blocks);
  }
}

TEST(DeviceLog, ABatchOfAnotherGenerationDoesNotFollow) {
  HalfWriter half(sample(1, 1));
  half.batch({map_of(50, 1, 50)}, half.next, half.checkpoint.generation - 1, half.chain);
  const auto decoded = half.decode();
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->checkpoint.sequence, 1000u);
}

TEST(DeviceLog, ABatchWithAGapOrARepeatDoesNotFollow) {
  for (const uint64_t first : {uint64_t{1000}, uint64_t{1002}, uint64_t{0}, UINT64_MAX}) {
    HalfWriter half(sample(1, 1));
    half.batch({map_of(50, 1, 50)}, first, half.checkpoint.generation, half.chain);
    EXPECT_EQ(half.decode()->checkpoint.sequence, 1000u) << first;
  }
}

TEST(DeviceLog, ABatchThatNamesAnotherPredecessorDoesNotFollow) {
  HalfWriter half(sample(1, 1));
  half.batch({map_of(50, 1, 50)}, half.next, half.checkpoint.generation, half.chain ^ 1);
  EXPECT_EQ(half.decode()->checkpoint.sequence, 1000u);
}

// The run of an earlier life stands behind the place where the log went on.
TEST(DeviceLog, TheOldTailBehindANewBatchDoesNotFollow) {
  HalfWriter old_life(sample(1, 1));
  old_life.batch({map_of(50, 1, 50)});
  old_life.batch({map_of(51, 1, 51)});
  HalfWriter new_life(sample(1, 1));
  new_life.batch({map_of(60, 1, 60)});
  Bytes bytes = old_life.bytes;
  std::ranges::copy(new_life.bytes, bytes.begin());
  const auto decoded = decode_half(bytes, kDevice);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->checkpoint.sequence, 1001u);
  EXPECT_EQ(decoded->used_bytes, new_life.bytes.size());
}

TEST(DeviceLog, TheLogOfAnotherDeviceIsRefused) {
  const HalfWriter half(sample(1, 1));
  const auto decoded = decode_half(half.bytes, Uuid::from_random(3, 4));
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code(), Code::kCorrupt);
}

TEST(DeviceLog, ACheckpointThatNamesAnExtentTwiceIsRefused) {
  LogCheckpoint checkpoint = sample(2, 0);
  checkpoint.maps.push_back(map_of(3, 1, 99));
  EXPECT_FALSE(HalfWriter(checkpoint).decode());
  checkpoint = sample(0, 2);
  checkpoint.volumes.push_back(volume_of(1));
  EXPECT_FALSE(HalfWriter(checkpoint).decode());
}

TEST(DeviceLog, AnEmptyHalfHasNoCheckpoint) {
  EXPECT_FALSE(decode_half({}, kDevice));
  EXPECT_FALSE(decode_half(Bytes(64 * kKiB), kDevice));
  EXPECT_FALSE(decode_half(Bytes(64 * kKiB, std::byte{0xff}), kDevice));
}

}  // namespace
}  // namespace duplex::format
