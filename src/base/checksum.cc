#include "base/checksum.h"

#include <isa-l.h>
#include <xxhash.h>

#include <algorithm>

namespace duplex {

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed) {
  // crc32_iscsi takes an int length and a non-const pointer, and does neither pre nor post
  // inversion; long buffers go in pieces.
  constexpr size_t kPiece = size_t{1} << 30;
  uint32_t crc = ~seed;
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kPiece));
    auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(piece.data()));
    crc = crc32_iscsi(data, static_cast<int>(piece.size()), crc);
    bytes = bytes.subspan(piece.size());
  }
  return ~crc;
}

uint64_t digest64(std::span<const std::byte> bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

bool is_zero(std::span<const std::byte> bytes) {
  if (bytes.empty()) return true;
  // One look at both ends answers for nearly all data before the full test starts.
  if (bytes.front() != std::byte{0} || bytes.back() != std::byte{0}) return false;
  return isal_zero_detect(const_cast<std::byte*>(bytes.data()), bytes.size()) == 0;
}

}  // namespace duplex
