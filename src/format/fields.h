// Fields that the device formats share: magic and checksum at the head, names, UUIDs.
//
// Every sealed structure begins the same in every version:
//   0  8  magic
//   8  4  CRC32C of the whole structure, with this field taken as zero
//   12 .. the rest
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "base/uuid.h"

namespace duplex::format {

inline constexpr size_t kMagicBytes = 8;
inline constexpr size_t kCrcOffset = kMagicBytes;
inline constexpr size_t kSealedFrom = kCrcOffset + sizeof(uint32_t);
// Names follow check_name(): at most 63 bytes.
inline constexpr size_t kMaxNameBytes = 63;

constexpr std::array<std::byte, kMagicBytes> magic_of(std::string_view text) {
  std::array<std::byte, kMagicBytes> magic{};
  for (size_t i = 0; i < kMagicBytes; ++i) magic[i] = static_cast<std::byte>(text[i]);
  return magic;
}

// The checksum of a structure: its own field counts as zero.
inline uint32_t seal_of(std::span<const std::byte> bytes) {
  constexpr std::array<std::byte, sizeof(uint32_t)> kZero{};
  const uint32_t head = crc32c(kZero, crc32c(bytes.first(kCrcOffset)));
  return crc32c(bytes.subspan(kSealedFrom), head);
}
inline uint32_t stored_seal(std::span<const std::byte> bytes) {
  return load_le<uint32_t>(bytes.data() + kCrcOffset);
}
inline void seal(std::span<std::byte> bytes) {
  store_le<uint32_t>(bytes.data() + kCrcOffset, seal_of(bytes));
}
inline bool sealed(std::span<const std::byte> bytes) {
  return bytes.size() >= kSealedFrom && stored_seal(bytes) == seal_of(bytes);
}

inline void put_uuid(ByteWriter& out, const Uuid& uuid) {
  out.put_bytes(std::as_bytes(std::span(uuid.bytes)));
}
inline Uuid take_uuid(ByteReader& in) {
  Uuid uuid;
  const auto bytes = in.take_bytes(uuid.bytes.size());
  if (!bytes.empty()) std::memcpy(uuid.bytes.data(), bytes.data(), bytes.size());
  return uuid;
}

// One byte of length, then the text.
inline void put_text(ByteWriter& out, std::string_view text) {
  ASSERT(text.size() <= 255);
  out.put<uint8_t>(static_cast<uint8_t>(text.size()));
  out.put_string(text);
}
inline void put_name(ByteWriter& out, std::string_view name) {
  ASSERT(name.size() <= kMaxNameBytes);
  put_text(out, name);
}
inline std::string take_text(ByteReader& in) { return in.take_string(in.take<uint8_t>()); }

}  // namespace duplex::format
