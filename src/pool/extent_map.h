// ExtentMap: where each logical extent of one backing lies (LE -> device, PE), in memory.
//
// Owner: a backing; used on one core only. Two levels: leaves of 1,024 entries of 8 bytes, made
// when the first entry in them is set. So an empty volume of 1 TiB (262,144 extents of 4 MiB)
// costs a root of 2 KiB, a fully mapped one 2 MiB more.
//
// An entry is a hole, mapped, or a hole that is being allocated (*pending*): readers take a
// pending one for a hole, a second allocation of it waits for the first.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/units.h"

namespace duplex::pool {

// A physical extent of a device. Device 0: nowhere.
struct Location {
  DeviceId device;
  PhysicalExtent pe;
  constexpr bool is_mapped() const { return device != DeviceId{}; }
  constexpr bool operator==(const Location&) const = default;
};

class ExtentMap {
 public:
  ExtentMap() = default;
  explicit ExtentMap(uint32_t extents) { resize(extents); }

  uint32_t size() const { return size_; }
  uint32_t mapped() const { return mapped_; }
  // le < size() in every call.
  Location at(LogicalExtent le) const;
  bool is_pending(LogicalExtent le) const;

  // A hole, pending or not, becomes mapped.
  void map(LogicalExtent le, Location location);
  // A mapped entry becomes a hole; returns where it was.
  Location unmap(LogicalExtent le);
  void set_pending(LogicalExtent le);
  // Nothing when it was mapped meanwhile.
  void clear_pending(LogicalExtent le);

  // First extent at or after `le` that differs from it in being mapped; size() if none.
  uint32_t run_end(LogicalExtent le) const;
  // First mapped extent at or after `from`; size() if none.
  uint32_t next_mapped(uint32_t from) const;

  // What lies beyond a smaller size must be unmapped.
  void resize(uint32_t extents);

 private:
  static constexpr uint32_t kLeafEntries = 1024;
  static constexpr uint64_t kPending = uint64_t{1} << 63;
  using Leaf = std::array<uint64_t, kLeafEntries>;

  uint64_t entry(uint32_t le) const;
  uint64_t& entry_for_change(uint32_t le);

  std::vector<std::unique_ptr<Leaf>> leaves_;
  uint32_t size_ = 0;
  uint32_t mapped_ = 0;
};

}  // namespace duplex::pool
