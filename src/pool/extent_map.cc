#include "pool/extent_map.h"

#include <algorithm>

namespace duplex::pool {
namespace {

// Device in bits 32..47, PE in bits 0..31; device numbers start at 1, so 0 is a hole.
uint64_t pack(Location location) {
  return uint64_t{location.device.value()} << 32 | location.pe.value();
}
Location unpack(uint64_t entry) {
  return {DeviceId(static_cast<uint16_t>(entry >> 32 & 0xffff)),
          PhysicalExtent(static_cast<uint32_t>(entry))};
}

}  // namespace

uint64_t ExtentMap::entry(uint32_t le) const {
  ASSERT(le < size_);
  const Leaf* leaf = leaves_[le / kLeafEntries].get();
  return leaf != nullptr ? (*leaf)[le % kLeafEntries] : 0;
}

uint64_t& ExtentMap::entry_for_change(uint32_t le) {
  ASSERT(le < size_);
  std::unique_ptr<Leaf>& leaf = leaves_[le / kLeafEntries];
  if (!leaf) leaf = std::make_unique<Leaf>();
  return (*leaf)[le % kLeafEntries];
}

Location ExtentMap::at(LogicalExtent le) const {
  const uint64_t value = entry(le.value());
  return value == kPending ? Location{} : unpack(value);
}

bool ExtentMap::is_pending(LogicalExtent le) const { return entry(le.value()) == kPending; }

void ExtentMap::map(LogicalExtent le, Location location) {
  ASSERT(location.is_mapped());
  uint64_t& value = entry_for_change(le.value());
  ASSERT(value == 0 || value == kPending);
  value = pack(location);
  ++mapped_;
}

Location ExtentMap::unmap(LogicalExtent le) {
  uint64_t& value = entry_for_change(le.value());
  ASSERT(value != 0 && value != kPending);
  const Location was = unpack(value);
  value = 0;
  --mapped_;
  return was;
}

void ExtentMap::set_pending(LogicalExtent le) {
  uint64_t& value = entry_for_change(le.value());
  ASSERT(value == 0);
  value = kPending;
}

void ExtentMap::clear_pending(LogicalExtent le) {
  uint64_t& value = entry_for_change(le.value());
  if (value == kPending) value = 0;
}

uint32_t ExtentMap::run_end(LogicalExtent le) const {
  if (!at(le).is_mapped()) return next_mapped(le.value());
  uint32_t end = le.value() + 1;
  while (end < size_ && at(LogicalExtent(end)).is_mapped()) ++end;
  return end;
}

uint32_t ExtentMap::next_mapped(uint32_t from) const {
  uint64_t le = from;  // 64 bits: the step over a leaf may pass the largest number
  while (le < size_) {
    if (!leaves_[le / kLeafEntries]) {
      le = round_down(le, kLeafEntries) + kLeafEntries;
    } else if (at(LogicalExtent(static_cast<uint32_t>(le))).is_mapped()) {
      return static_cast<uint32_t>(le);
    } else {
      ++le;
    }
  }
  return size_;
}

void ExtentMap::resize(uint32_t extents) {
  ASSERT(extents >= size_ || next_mapped(extents) == size_);
  for (uint64_t le = extents; le < size_; ++le) {
    if (leaves_[le / kLeafEntries]) (*leaves_[le / kLeafEntries])[le % kLeafEntries] = 0;
  }
  leaves_.resize(divide_up(extents, kLeafEntries));
  size_ = extents;
}

}  // namespace duplex::pool
