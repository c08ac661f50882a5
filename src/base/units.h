// Sizes, ranges and the strong number types that must not be mixed up.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>

#include "base/assert.h"

namespace duplex {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;

// Unit of change tracking and of TRIM rounding (docs/GLOSSARY.md "region").
inline constexpr uint64_t kRegionBytes = 64 * kKiB;
// Unit of allocation unless a device label says otherwise (docs/GLOSSARY.md "extent").
inline constexpr uint64_t kDefaultExtentBytes = 4 * kMiB;
// Alignment of every device I/O; requests that are not aligned are widened by the volume.
inline constexpr uint64_t kBlockBytes = 4 * kKiB;
// Largest size of a volume or a device: offsets stay below 2^63 (a signed 64-bit file offset).
inline constexpr uint64_t kMaxBytes = (uint64_t{1} << 63) - kGiB;

constexpr uint64_t round_down(uint64_t value, uint64_t unit) { return value - value % unit; }
// `value` is at most kMaxBytes, so this cannot overflow.
constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return round_down(value + unit - 1, unit);
}
constexpr uint64_t divide_up(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit != 0);
}

// A half-open range of bytes of a volume or device. Never wraps: offset + length <= 2^63.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;

  constexpr uint64_t end() const { return offset + length; }
  constexpr bool empty() const { return length == 0; }
  constexpr bool overlaps(ByteRange o) const { return offset < o.end() && o.offset < end(); }
  constexpr bool contains(ByteRange o) const { return offset <= o.offset && o.end() <= end(); }
  // Smallest range of whole units that contains this one, and largest inside it.
  constexpr ByteRange widened(uint64_t unit) const {
    const uint64_t from = round_down(offset, unit);
    return {from, round_up(end(), unit) - from};
  }
  constexpr ByteRange narrowed(uint64_t unit) const {
    const uint64_t from = round_up(offset, unit);
    const uint64_t to = round_down(end(), unit);
    return {from, to > from ? to - from : 0};
  }
  constexpr bool operator==(const ByteRange&) const = default;
};

// True if offset + length lies inside `size`, whatever the numbers (no overflow).
constexpr bool range_fits(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

// A number of one kind. Different tags do not mix; arithmetic goes through value().
template <class Tag, class Rep>
class Tagged {
 public:
  using rep = Rep;
  constexpr Tagged() = default;
  constexpr explicit Tagged(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  constexpr auto operator<=>(const Tagged&) const = default;

 private:
  Rep value_ = 0;
};

using ArrayId = Tagged<struct ArrayIdTag, uint32_t>;            // 24 bits, e.g. 0x400104
using VolumeNumber = Tagged<struct VolumeNumberTag, uint16_t>;  // 0x0001..0xffff inside an array
using DeviceId = Tagged<struct DeviceIdTag, uint16_t>;          // 1..0xfffe inside an array
using BackingId = Tagged<struct BackingIdTag, uint32_t>;        // 1.. inside an array, never reused
using MirrorId = Tagged<struct MirrorIdTag, uint32_t>;          // 1.. inside an array, never reused
using LogicalExtent = Tagged<struct LogicalExtentTag, uint32_t>;    // LE: index inside a backing
using PhysicalExtent = Tagged<struct PhysicalExtentTag, uint32_t>;  // PE: index inside a device
// Point of the write order of an array; rises by one with each cut, never falls.
using Epoch = Tagged<struct EpochTag, uint64_t>;

}  // namespace duplex

template <class Tag, class Rep>
struct std::hash<duplex::Tagged<Tag, Rep>> {
  size_t operator()(duplex::Tagged<Tag, Rep> v) const noexcept {
    return std::hash<Rep>{}(v.value());
  }
};
