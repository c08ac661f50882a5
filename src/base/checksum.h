// Checksums and the zero test (ISA-L, xxHash).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace duplex {

// CRC32C (Castagnoli) of `bytes`, continued from `seed` (0 for a new sum).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed = 0);

// 64-bit XXH3 of `bytes`: digests for verify and for the simulator's trace hash.
uint64_t digest64(std::span<const std::byte> bytes, uint64_t seed = 0);

bool is_zero(std::span<const std::byte> bytes);

}  // namespace duplex
