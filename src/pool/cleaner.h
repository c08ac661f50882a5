// Cleaner: makes the extents of one device ready to be handed out: zero, durably.
//
// Owner: the pool's member of the device. Thread: control core. One task, run().
// Two sources of work: extents that were released, and those above the watermark of the device
// (`clean_extents`) that were never used and may hold anything.
// A released extent is given to add() when its release is durable in the store and the last I/O
// that saw the old map has ended. From there (trace F33): release durable in the device's map
// log -> zeroed -> flushed -> Scrubbed committed -> free. A loss of the device's cache anywhere
// on the way starts it again. Above the watermark: zeroed -> flushed -> watermark committed ->
// free, kAhead extents ahead of need.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "pool/device.h"
#include "pool/device_space.h"
#include "pool/map_log.h"
#include "rt/wait.h"

namespace duplex::pool {

class Mapper;

class Cleaner {
 public:
  Cleaner(Device& device, DeviceSpace& space, MapLog& log, Mapper& mapper, rt::Core& control);

  void add(const std::vector<PhysicalExtent>& released);
  // Extents at and above this one were never cleaned. Until it is set none are.
  void set_watermark(uint32_t extents);
  // Looks for work again: extents were taken, or the device is back.
  void poke() { wake_.set(); }

  // A request waits for this many free extents.
  void want(uint64_t extents);

  // Ends after stop().
  rt::Task<> run();
  void stop();

 private:
  bool has_work() const;
  rt::Task<bool> scrub();
  rt::Task<bool> clean_ahead();
  rt::Task<bool> zero(std::vector<PhysicalExtent> extents);

  Device& device_;
  DeviceSpace& space_;
  MapLog& log_;
  Mapper& mapper_;
  rt::Core& control_;
  std::deque<PhysicalExtent> released_;
  uint32_t watermark_ = UINT32_MAX;
  uint64_t wanted_ = 0;
  bool stopping_ = false;
  rt::Event wake_;
};

}  // namespace duplex::pool
