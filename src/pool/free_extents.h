// FreeExtents: the extents of one device that may be handed out: zero on the device, durably.
//
// Owner: DeviceSpace, control core. A bitmap, searched from where the last search ended (next
// fit), so that volumes that grow together do not share every stripe of the device and released
// extents rest as long as possible.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/units.h"

namespace duplex::pool {

class FreeExtents {
 public:
  // Nothing is free at first. Growing keeps what is there.
  void resize(uint32_t extents);

  uint32_t size() const { return size_; }
  uint32_t count() const { return count_; }
  bool contains(PhysicalExtent pe) const;
  // It was not free.
  void add(PhysicalExtent pe);
  // It was free.
  void remove(PhysicalExtent pe);
  // `wish` if it is free, else the next free one after the last search. Empty when none is.
  std::optional<PhysicalExtent> take(std::optional<PhysicalExtent> wish);

 private:
  std::optional<uint32_t> find(uint32_t from, uint32_t to) const;

  std::vector<uint64_t> words_;  // bit set: free
  uint32_t size_ = 0;
  uint32_t count_ = 0;
  uint32_t cursor_ = 0;
};

}  // namespace duplex::pool
