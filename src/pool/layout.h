// Layout: where label, map log and extents lie on a device of a given size. Fixed when the device
// is added, except that the number of extents may grow.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "base/units.h"

namespace duplex::pool {

inline constexpr uint64_t kMinExtentBytes = kRegionBytes;
inline constexpr uint64_t kMaxExtentBytes = 64 * kMiB;
inline constexpr uint64_t kLogOffset = kMiB;

struct Layout {
  uint64_t log_offset = kLogOffset;
  uint64_t log_bytes = 0;  // both halves
  uint64_t data_offset = 0;
  uint32_t extent_count = 0;
};

// kSize: the extent size is no power of two of 64 KiB..64 MiB, or the device is too small.
Result<Layout> make_layout(uint64_t device_bytes, uint64_t extent_bytes);

// Most extents a log of this size can describe beside `volumes` volumes.
uint64_t log_capacity(uint64_t log_bytes, uint64_t volumes);

}  // namespace duplex::pool
