// DeviceSpace: who has each physical extent of a device.
//
// Owner: the pool's member of the device. Thread: control core. 9 bytes an extent; the inverse
// (table 410) of what the backings' maps say together.
//
//   state      meaning                                             leaves it by
//   unclean    never cleaned (above the watermark)                 add_free
//   free       zero on the device, durably; may be handed out      take
//   taken      handed out, its map is not durable yet              own, add_free (commit refused)
//   used       mapped by a backing, in the store                   release
//   released   not mapped any more, in the store's scrub table     add_free
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "format/device_log.h"
#include "pool/free_extents.h"

namespace duplex::pool {

class DeviceSpace {
 public:
  enum class State : uint8_t { kUnclean, kFree, kTaken, kUsed, kReleased };
  struct Owner {
    BackingId backing;  // 0: nobody
    LogicalExtent le;
  };

  // All unclean.
  explicit DeviceSpace(uint32_t extents) { resize(extents); }

  uint32_t size() const { return static_cast<uint32_t>(owners_.size()); }
  uint32_t used() const { return used_; }
  uint32_t free() const { return free_.count(); }
  // Neither used nor free.
  uint32_t resting() const { return size() - used_ - free_.count(); }
  // pe < size() in every call.
  State state(PhysicalExtent pe) const { return states_[pe.value()]; }
  Owner owner(PhysicalExtent pe) const { return owners_[pe.value()]; }

  // `wish` if it is free, else any; empty when none is.
  std::optional<PhysicalExtent> take(std::optional<PhysicalExtent> wish);
  void own(PhysicalExtent pe, Owner owner);
  void release(PhysicalExtent pe);
  void add_free(PhysicalExtent pe);
  void resize(uint32_t extents);

  // At start, from the store, on unclean extents.
  void load_used(PhysicalExtent pe, Owner owner);
  void load_released(PhysicalExtent pe);

  // All used extents, as a checkpoint of the map log lists them.
  std::vector<format::LogMap> maps() const;
  std::vector<PhysicalExtent> in_state(State state) const;

 private:
  State& at(PhysicalExtent pe, State expected);

  std::vector<Owner> owners_;
  std::vector<State> states_;
  FreeExtents free_;
  uint32_t used_ = 0;
};

}  // namespace duplex::pool
