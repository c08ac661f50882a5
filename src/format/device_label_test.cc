#include "format/device_label.h"

#include <gtest/gtest.h>

#include <random>

#include "base/bytes.h"
#include "format/fields.h"

namespace duplex::format {
namespace {

Uuid uuid_of(uint64_t n) { return Uuid::from_random(n * 0x9e3779b97f4a7c15, n); }

DeviceLabel sample(size_t devices, size_t name_bytes = 4, size_t path_bytes = 12) {
  DeviceLabel label;
  label.sequence = 42;
  label.array_id = ArrayId(0x400104);
  label.array_name = std::string(name_bytes, 'a');
  label.array_uuid = uuid_of(1);
  label.incarnation = uuid_of(2);
  label.id = DeviceId(3);
  label.uuid = uuid_of(3);
  label.name = std::string(name_bytes, 'd');
  label.extent_bytes = kDefaultExtentBytes;
  label.extent_count = 262144;
  label.log_offset = 128 * kKiB;
  label.log_bytes = 16 * kMiB;
  label.data_offset = 20 * kMiB;
  label.life = 0x1122334455667788;
  for (size_t i = 0; i < devices; ++i) {
    label.devices.push_back({DeviceId(static_cast<uint16_t>(i + 1)), uuid_of(100 + i),
                             std::string(name_bytes, 'n'), std::string(path_bytes, '/')});
  }
  return label;
}

TEST(DeviceLabel, WhatIsEncodedDecodesToTheSame) {
  for (const size_t devices : {size_t{0}, size_t{1}, size_t{2}, kMaxDevices}) {
    const DeviceLabel label = sample(devices, kMaxNameBytes, 255);
    const auto bytes = encode_label(label);
    ASSERT_EQ(bytes.size(), kLabelBytes);
    EXPECT_TRUE(looks_like_label(bytes));
    const auto decoded = decode_label(bytes);
    ASSERT_TRUE(decoded) << decoded.error().describe();
    EXPECT_EQ(*decoded, label);
  }
}

// Version 1 had no life, and all else at the same place. Mutation: it is read in any version.
TEST(DeviceLabel, ALabelOfVersion1IsReadAndHasNoLife) {
  constexpr size_t kLifeAt = kSealedFrom + 4 + 8 + 4 + size_t{3} * 16 + 2 + 8 + 4 + size_t{3} * 8;
  DeviceLabel label = sample(3);
  auto bytes = encode_label(label);
  EXPECT_EQ(load_le<uint64_t>(bytes.data() + kLifeAt), label.life);
  bytes.erase(bytes.begin() + kLifeAt, bytes.begin() + kLifeAt + 8);
  bytes.resize(kLabelBytes);
  store_le<uint32_t>(bytes.data() + kSealedFrom, 1);
  seal(bytes);
  const auto decoded = decode_label(bytes);
  ASSERT_TRUE(decoded) << decoded.error().describe();
  label.life = 0;
  EXPECT_EQ(*decoded, label);
}

TEST(DeviceLabel, ALongPathIsCutNotRefused) {
  DeviceLabel label = sample(1, 4, 4000);
  const auto decoded = decode_label(encode_label(label));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->devices[0].path.size(), 255u);
}

TEST(DeviceLabel, EveryFlippedBitIsDetected) {
  auto bytes = encode_label(sample(3));
  for (size_t at = 0; at < bytes.size(); ++at) {
    // All bits where the fields are; of the padding one bit each, so that the test stays short.
    const unsigned bits = at < kBlockBytes ? 8 : 1;
    for (unsigned bit = 0; bit < bits; ++bit) {
      const auto mask = static_cast<std::byte>(1u << (at + bit) % 8);
      bytes[at] ^= mask;
      const auto decoded = decode_label(bytes);
      ASSERT_FALSE(decoded) << "byte " << at << " bit " << bit;
      ASSERT_EQ(decoded.error().code(), Code::kCorrupt) << "byte " << at;
      bytes[at] ^= mask;
    }
  }
  EXPECT_TRUE(decode_label(bytes));
}

TEST(DeviceLabel, ALabelCutShortAtAnyLengthIsDetected) {
  const auto bytes = encode_label(sample(3));
  for (size_t length = 0; length < bytes.size(); length += length < 2048 ? 1 : 511) {
    const auto decoded = decode_label(std::span(bytes).first(length));
    ASSERT_FALSE(decoded);
    EXPECT_EQ(decoded.error().code(), Code::kCorrupt);
  }
}

TEST(DeviceLabel, ANewerVersionIsRefusedWithItsReason) {
  auto bytes = encode_label(sample(1));
  store_le<uint32_t>(bytes.data() + kSealedFrom, kLabelVersion + 1);
  seal(bytes);
  const auto decoded = decode_label(bytes);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code(), Code::kNotSupported);
  EXPECT_NE(decoded.error().message().find("newer version"), std::string_view::npos);
  EXPECT_FALSE(decoded.error().next().empty());
}

TEST(DeviceLabel, NumbersThatCannotBeADeviceAreCorrupt) {
  const auto refused = [](auto change) {
    DeviceLabel label = sample(1);
    change(label);
    const auto decoded = decode_label(encode_label(label));
    return !decoded && decoded.error().code() == Code::kCorrupt;
  };
  EXPECT_FALSE(refused([](DeviceLabel&) {}));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.extent_bytes = 0; }));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.extent_bytes = 1000; }));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.extent_bytes = 3 * kBlockBytes; }));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.log_offset = 0; }));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.log_offset = kLabelBytes; }));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.log_bytes = kBlockBytes; }));
  EXPECT_TRUE(
      refused([](DeviceLabel& l) { l.log_bytes = UINT64_MAX - UINT64_MAX % (2 * kBlockBytes); }));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.data_offset = l.log_offset; }));
  EXPECT_TRUE(
      refused([](DeviceLabel& l) { l.data_offset = UINT64_MAX - UINT64_MAX % kBlockBytes; }));
  EXPECT_TRUE(refused([](DeviceLabel& l) { l.extent_bytes = uint64_t{1} << 60; }));
}

TEST(DeviceLabel, RandomBytesBehindAValidHeadNeverCrash) {
  std::mt19937_64 random(1);
  std::vector<std::byte> bytes(kLabelBytes);
  for (int round = 0; round < 200; ++round) {
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    std::memcpy(bytes.data(), "DUPLEXDV", 8);
    store_le<uint32_t>(bytes.data() + kSealedFrom, kLabelVersion);
    seal(bytes);
    const auto decoded = decode_label(bytes);
    EXPECT_FALSE(decoded);
  }
}

// --- recognise_content

struct Disk {
  std::vector<std::byte> bytes = std::vector<std::byte>(1 * kMiB);
  Disk& put(size_t offset, std::string_view text) {
    std::memcpy(bytes.data() + offset, text.data(), text.size());
    return *this;
  }
  template <class T>
  Disk& number(size_t offset, T value) {
    store_le<T>(bytes.data() + offset, value);
    return *this;
  }
  std::string seen() const { return recognise_content(bytes); }
};

TEST(DeviceContent, AnEmptyDiskIsUnusedAtAnyLength) {
  const Disk disk;
  for (const size_t length :
       {size_t{0}, size_t{1}, size_t{511}, size_t{512}, size_t{4096}, disk.bytes.size()}) {
    EXPECT_EQ(recognise_content(std::span(disk.bytes).first(length)), "");
  }
}

TEST(DeviceContent, FileSystemsAreNamed) {
  EXPECT_EQ(Disk().number<uint16_t>(1080, 0xef53).seen(), "ext2 file system");
  EXPECT_EQ(Disk().number<uint16_t>(1080, 0xef53).number<uint32_t>(1116, 4).seen(),
            "ext3 file system");
  EXPECT_EQ(Disk()
                .number<uint16_t>(1080, 0xef53)
                .number<uint32_t>(1116, 4)
                .number<uint32_t>(1120, 0x40)
                .seen(),
            "ext4 file system");
  EXPECT_EQ(Disk().put(0, "XFSB").seen(), "XFS file system");
  EXPECT_EQ(Disk().put(65600, "_BHRfS_M").seen(), "btrfs file system");
  EXPECT_EQ(Disk().put(3, "NTFS    ").number<uint16_t>(510, 0xaa55).seen(), "NTFS file system");
  EXPECT_EQ(Disk().put(82, "FAT32   ").number<uint16_t>(510, 0xaa55).seen(), "FAT file system");
  EXPECT_EQ(Disk().put(32769, "CD001").seen(), "ISO 9660 file system");
  EXPECT_EQ(Disk().put(4086, "SWAPSPACE2").seen(), "swap space");
  EXPECT_EQ(Disk().put(65526, "SWAPSPACE2").seen(), "swap space");
}

TEST(DeviceContent, VolumeManagersAndImagesAreNamed) {
  EXPECT_EQ(Disk().put(512, "LABELONE").put(536, "LVM2 001").seen(), "LVM2 physical volume");
  EXPECT_EQ(Disk().number<uint32_t>(4096, 0xa92b4efc).seen(), "Linux RAID member");
  EXPECT_EQ(Disk().put(0, "LUKS\xba\xbe").seen(), "LUKS encrypted volume");
  EXPECT_EQ(Disk().number<uint64_t>(128 * kKiB + 4096, 0x00bab10c).seen(), "ZFS member");
  EXPECT_EQ(Disk().put(0, "QFI\xfb").seen(), "qcow2 image");
  EXPECT_EQ(Disk().put(0, "bluestore block device").seen(), "Ceph BlueStore device");
}

TEST(DeviceContent, PartitionTablesNeedABelievableEntry) {
  EXPECT_EQ(Disk().put(512, "EFI PART").number<uint16_t>(510, 0xaa55).seen(),
            "GPT partition table");
  Disk boot;
  boot.number<uint16_t>(510, 0xaa55);
  EXPECT_EQ(boot.seen(), "");
  boot.number<uint8_t>(446 + 4, 0x83)
      .number<uint32_t>(446 + 8, 2048)
      .number<uint32_t>(446 + 12, 100000);
  EXPECT_EQ(boot.seen(), "MBR partition table");
  boot.number<uint8_t>(446 + 16, 0x77);
  EXPECT_EQ(boot.seen(), "") << "a status byte no partition table has";
}

TEST(DeviceContent, AFileSystemWinsOverTheBootSectorItContains) {
  Disk disk;
  disk.number<uint16_t>(510, 0xaa55)
      .number<uint8_t>(450, 0x83)
      .number<uint32_t>(454, 1)
      .number<uint32_t>(458, 1);
  EXPECT_EQ(disk.number<uint16_t>(1080, 0xef53).seen(), "ext2 file system");
}

TEST(DeviceContent, ASignatureThatIsCutOffIsNotRead) {
  Disk disk;
  disk.put(65600, "_BHRfS_M");
  for (size_t length = 65590; length < 65608; ++length) {
    EXPECT_EQ(recognise_content(std::span(disk.bytes).first(length)), "");
  }
  EXPECT_EQ(recognise_content(std::span(disk.bytes).first(65608)), "btrfs file system");
}

}  // namespace
}  // namespace duplex::format
