// How a transfer of any alignment is cut into parts that whole-block I/O can do.
//
// A *direct* part consists of whole blocks at an aligned memory address and goes to the backing
// without a copy. Everything else goes through a bounce buffer of at most kBounceBytes, so that a
// request of 32 MiB at an odd address needs 1 MiB and not 32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace duplex::volume {

inline constexpr uint64_t kBounceBytes = kMiB;

struct Piece {
  uint64_t length;
  bool direct;
};

// The first part of `length` bytes (at least 1) at `offset` of the volume and `memory`.
inline Piece first_piece(uint64_t offset, const std::byte* memory, uint64_t length) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  const uint64_t head = round_up(offset, kBlockBytes) - offset;  // bytes before a whole block
  if (head == 0 && address % kBlockBytes == 0 && length >= kBlockBytes) {
    return {round_down(length, kBlockBytes), true};
  }
  if (head != 0 && head < length && (address + head) % kBlockBytes == 0) return {head, false};
  const uint64_t most = round_down(offset, kBlockBytes) + kBounceBytes - offset;
  return {length < most ? length : most, false};
}

}  // namespace duplex::volume
