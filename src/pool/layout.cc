#include "pool/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/text.h"
#include "format/device_log.h"

namespace duplex::pool {
namespace {

// Room for batches behind a checkpoint: each fills at least one block, so this is at least 64
// changes of the map between two checkpoints.
constexpr uint64_t kMinBatchBytes = 256 * kKiB;
// Volumes a log has room for, whatever the device (all volumes of the array are listed on every
// device), and one more for each 8 extents.
constexpr uint64_t kMinVolumes = 256;
constexpr uint64_t kMaxVolumes = 65535;

// A half holds a checkpoint of twice the extents (the device may grow) and as much again of
// batches, so that the cost of checkpoints stays in proportion to the changes.
uint64_t half_bytes(uint64_t extents) {
  const uint64_t volumes = std::min(kMaxVolumes, kMinVolumes + extents / 8);
  const uint64_t checkpoint = format::checkpoint_bytes(2 * extents, volumes);
  return round_up(checkpoint + std::max(kMinBatchBytes, checkpoint / 2), 64 * kKiB);
}

}  // namespace

Result<Layout> make_layout(uint64_t device_bytes, uint64_t extent_bytes) {
  if (!std::has_single_bit(extent_bytes) || extent_bytes < kMinExtentBytes ||
      extent_bytes > kMaxExtentBytes) {
    return fail(Code::kSize, fmt::format("extent size {} is not a power of two from 64K to 64M",
                                         format_size(extent_bytes)));
  }
  const uint64_t whole = device_bytes / extent_bytes;
  if (device_bytes > kMaxBytes || whole > UINT32_MAX / 2) {
    return fail(Code::kSize,
                fmt::format("a device of {} has more extents of {} than can be numbered",
                            format_size(device_bytes), format_size(extent_bytes)));
  }
  Layout layout;
  layout.log_bytes = 2 * half_bytes(whole);
  layout.data_offset = round_up(layout.log_offset + layout.log_bytes, std::max(extent_bytes, kMiB));
  const uint64_t smallest =
      round_up(kLogOffset + 2 * half_bytes(1), std::max(extent_bytes, kMiB)) + extent_bytes;
  if (device_bytes < layout.data_offset + extent_bytes) {
    return fail(Code::kSize,
                fmt::format("{} is too small for a device with extents of {}",
                            format_size(device_bytes), format_size(extent_bytes)),
                fmt::format("use at least {}",
                            format_size(std::max(smallest, layout.data_offset + extent_bytes))));
  }
  layout.extent_count = static_cast<uint32_t>((device_bytes - layout.data_offset) / extent_bytes);
  return layout;
}

uint64_t log_capacity(uint64_t log_bytes, uint64_t volumes) {
  const uint64_t room = log_bytes / 2 - std::min(log_bytes / 2, kMinBatchBytes / 4);
  const uint64_t empty = format::checkpoint_bytes(0, volumes) + kBlockBytes;
  const uint64_t per_thousand = format::checkpoint_bytes(1'000'000, 0) / 1000;
  return room > empty ? (room - empty) * 1000 / (per_thousand + 1) : 0;
}

}  // namespace duplex::pool
