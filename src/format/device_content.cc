// recognise_content(): whose bytes stand at the start of a device, by the signatures that
// file systems, volume managers and disk image formats put there.
//
// The list is of what people lose when a used disk is taken for an empty one. Unknown bytes
// without a signature count as unused, as for pvcreate and wipefs.
#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/bytes.h"
#include "format/device_label.h"

namespace duplex::format {
namespace {

using Bytes = std::span<const std::byte>;
using std::string_view_literals::operator""sv;

bool text_at(Bytes bytes, uint64_t offset, std::string_view text) {
  return range_fits(offset, text.size(), bytes.size()) &&
         std::memcmp(bytes.data() + offset, text.data(), text.size()) == 0;
}

template <class T>
T number_at(Bytes bytes, uint64_t offset) {
  return range_fits(offset, sizeof(T), bytes.size()) ? load_le<T>(bytes.data() + offset) : T{0};
}

struct Signature {
  uint64_t offset;
  std::string_view text;
  std::string_view name;
};

// Order matters where one thing contains another: image formats and containers first, file
// systems next; partition tables are looked for last because boot sectors of file systems end
// like one.
constexpr Signature kSignatures[] = {
    {0, "QFI\xfb"sv, "qcow2 image"},
    {0, "KDMV"sv, "VMDK image"},
    {0, "vhdxfile"sv, "VHDX image"},
    {0, "LUKS\xba\xbe"sv, "LUKS encrypted volume"},
    {0, "\xfc\x4e\x2b\xa9"sv, "Linux RAID member"},
    {4 * kKiB, "\xfc\x4e\x2b\xa9"sv, "Linux RAID member"},
    {4 * kKiB + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"sv,
     "bcache device"},
    {0, "bluestore block device"sv, "Ceph BlueStore device"},
    {0, "XFSB"sv, "XFS file system"},
    {64 * kKiB + 64, "_BHRfS_M"sv, "btrfs file system"},
    {1024, "\x10\x20\xf5\xf2"sv, "F2FS file system"},
    {32, "NXSB"sv, "APFS container"},
    {1024, "H+\0\x04"sv, "HFS+ file system"},
    {3, "NTFS    "sv, "NTFS file system"},
    {3, "EXFAT   "sv, "exFAT file system"},
    {3, "-FVE-FS-"sv, "BitLocker volume"},
    {54, "FAT12   "sv, "FAT file system"},
    {54, "FAT16   "sv, "FAT file system"},
    {82, "FAT32   "sv, "FAT file system"},
    {32 * kKiB + 1, "CD001"sv, "ISO 9660 file system"},
    {32 * kKiB + 1, "BEA01"sv, "UDF file system"},
    {512, "EFI PART"sv, "GPT partition table"},
    {4 * kKiB, "EFI PART"sv, "GPT partition table"},
};

std::string_view recognise_signature(Bytes bytes) {
  for (const Signature& s : kSignatures) {
    if (text_at(bytes, s.offset, s.text)) return s.name;
  }
  return {};
}

// The superblock stands at 1024; the feature words tell the three apart (ext4: extents, 64-bit or
// flexible groups; ext3: a journal).
std::string_view recognise_ext(Bytes bytes) {
  constexpr uint64_t kSuper = 1024;
  if (number_at<uint16_t>(bytes, kSuper + 56) != 0xef53) return {};
  constexpr uint32_t kExt4Incompat = 0x40 | 0x80 | 0x200;
  if (number_at<uint32_t>(bytes, kSuper + 96) & kExt4Incompat) return "ext4 file system";
  return number_at<uint32_t>(bytes, kSuper + 92) & 0x4 ? "ext3 file system" : "ext2 file system";
}

// The last ten bytes of the first page, whatever size pages had where it was made.
std::string_view recognise_swap(Bytes bytes) {
  for (uint64_t page = 4 * kKiB; page <= 64 * kKiB; page *= 2) {
    if (text_at(bytes, page - 10, "SWAPSPACE2") || text_at(bytes, page - 10, "SWAP-SPACE")) {
      return "swap space";
    }
  }
  return {};
}

// The label may stand in any of the first four sectors.
std::string_view recognise_lvm(Bytes bytes) {
  for (uint64_t sector = 0; sector < uint64_t{4} * 512; sector += 512) {
    if (text_at(bytes, sector, "LABELONE") && text_at(bytes, sector + 24, "LVM2 001")) {
      return "LVM2 physical volume";
    }
  }
  return {};
}

// Uberblocks fill the second half of the first label, in 1 KiB steps, in either byte order.
std::string_view recognise_zfs(Bytes bytes) {
  for (uint64_t at = 128 * kKiB; at < 256 * kKiB; at += kKiB) {
    const auto magic = number_at<uint64_t>(bytes, at);
    if (magic == 0x00bab10c || magic == std::byteswap(uint64_t{0x00bab10c})) return "ZFS member";
  }
  return {};
}

// 0x55aa alone ends every boot sector, so a believable entry is asked for as well: status byte
// 0x00 or 0x80, a type, a start and a length.
std::string_view recognise_mbr(Bytes bytes) {
  if (number_at<uint16_t>(bytes, 510) != 0xaa55) return {};
  bool found = false;
  for (uint64_t at = 446; at < 510; at += 16) {
    const auto status = number_at<uint8_t>(bytes, at);
    const auto type = number_at<uint8_t>(bytes, at + 4);
    if (status != 0 && status != 0x80) return {};
    found |= type != 0 && number_at<uint32_t>(bytes, at + 8) != 0 &&
             number_at<uint32_t>(bytes, at + 12) != 0;
  }
  return found ? "MBR partition table" : ""sv;
}

}  // namespace

std::string recognise_content(std::span<const std::byte> bytes) {
  constexpr std::string_view (*kTests[])(Bytes) = {recognise_lvm, recognise_signature,
                                                   recognise_ext, recognise_swap,
                                                   recognise_zfs, recognise_mbr};
  for (const auto test : kTests) {
    if (const std::string_view found = test(bytes); !found.empty()) return std::string(found);
  }
  return {};
}

}  // namespace duplex::format
