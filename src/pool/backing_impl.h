// BackingImpl: a Backing on its reactor: the map, I/O, what has to be flushed.
//
// Owner: the pool, which closes it on its core before it is destroyed. Thread: its core, except
// where noted.
// - Reads and writes of mapped extents go straight to the port of this core: no hop, no
//   allocation.
// - *Map versions*: an I/O counts itself into the version of the map it saw (one of two counters).
//   After a release the version is turned over; when the old counter is zero the last I/O that
//   saw the old map has ended, and the extents go to the device's cleaner.
// - *Flush debt*, per device (DeviceUse): how many writes have ended and how many of them a good
//   flush has covered; and the loss count of the device as of which nothing unflushed could have
//   been lost. A flush succeeds only if the device still has that count when it ends.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "meta/rows.h"
#include "pool/backing.h"
#include "pool/device.h"
#include "pool/extent_map.h"
#include "pool/mapper.h"
#include "rt/task_group.h"
#include "rt/world.h"

namespace duplex::pool {

// What one backing keeps about a device it has, or had, extents on.
struct DeviceUse {
  DeviceUse(std::shared_ptr<Device> d, rt::Core& core)
      : device(std::move(d)), port(device->port(core)) {}

  bool is_clean() const { return in_flight == 0 && ended == flushed; }
  bool has_untold_loss() const { return ended != flushed && device->losses() != losses; }
  // Writes of an earlier run that nobody flushed count as one write that has ended. Attaching
  // flushes them; the loss count says whether that went well.
  void owe_earlier_run();
  // Returns the loss count to hand to end_write().
  uint64_t begin_write();
  void end_write(uint64_t losses_at_begin);
  // Map log records of this backing up to `sequence` wait to be written and flushed.
  void note_log(uint64_t sequence, uint64_t losses_before);

  std::shared_ptr<Device> device;
  DevicePort& port;
  uint32_t in_flight = 0;  // writes that have not ended
  uint64_t ended = 0;      // writes, zeroes and notes of log records that have ended
  uint64_t flushed = 0;    // how many of them are settled: flushed, or told to be lost
  uint64_t losses = 0;     // while not clean: the device's count before the oldest of them
  uint64_t later_losses = UINT64_MAX;  // the same for those that ended since the round began
  uint64_t log_sequence = 0;           // last record not known to be flushed; 0: none
  bool recheck_log = false;            // a loss may have taken records that were written

  // Flushes of one backing and device run one after the other, each for all who came before it.
  uint64_t rounds_started = 0;
  uint64_t rounds_ended = 0;
  uint64_t last_failed_round = 0;
  rt::Event round_ended;
};

class BackingImpl final : public Backing {
 public:
  // `devices`: those the map names.
  BackingImpl(rt::Core& control, rt::Core& core, Mapper& mapper, const meta::BackingRow& row,
              uint64_t extent_bytes, ExtentMap map,
              const std::vector<std::shared_ptr<Device>>& devices);

  BackingId id() const override { return id_; }
  const std::string& name() const override { return name_; }
  uint64_t size_bytes() const override { return size_bytes_.load(std::memory_order_acquire); }
  uint64_t extent_bytes() const override { return extent_bytes_; }
  bool has_untold_loss() const override;
  uint64_t allocated_bytes() const override {
    return allocated_bytes_.load(std::memory_order_relaxed);
  }
  bool is_mapped(ByteRange range) const override;
  bool is_hole(ByteRange range) const override;
  Run run_at(uint64_t offset) const override;
  rt::Task<Result<void>> allocate(ByteRange range) override;
  rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) override;
  rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from) override;
  rt::Task<Result<void>> zero(ByteRange range, ZeroMode mode) override;
  rt::Task<Result<void>> flush() override;
  std::vector<ExtentRun> extents() const override;

  // For the pool, before anybody else has the backing. A backing that was there before this run
  // owes the writes of that time; a new one owes the map log records of its extents.
  void owe_earlier_run();
  void note_touched(const MapRequest& request);

  // For the pool; on this core.
  rt::Core& core() { return core_; }
  // New size; what lies beyond a smaller one is released in the transaction of `request`, which
  // the caller has filled with its own changes.
  rt::Task<Result<void>> resize(uint64_t size_bytes, MapRequest& request);
  // The device leaves the pool; nothing of this backing is on it.
  void forget(DeviceId device);
  // Ends background work.
  rt::Task<> close();

 private:
  // Counts an I/O into the map version it sees.
  class Pin {
   public:
    explicit Pin(BackingImpl& b) : backing_(b), version_(b.version_) {
      ++backing_.pinned_[version_];
    }
    ~Pin() { backing_.unpin(version_); }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;

   private:
    BackingImpl& backing_;
    unsigned version_;
  };
  friend class IoBatch;

  void unpin(unsigned version);
  uint32_t first_extent(ByteRange range) const {
    return static_cast<uint32_t>(range.offset / extent_bytes_);
  }
  uint32_t end_extent(ByteRange range) const {
    return static_cast<uint32_t>(divide_up(range.end(), extent_bytes_));
  }
  // The extents that lie in `range` as a whole; the last extent of the backing may be a short one.
  ByteRange whole_extents(ByteRange range) const;
  DeviceUse& use_of(DeviceId device) { return *uses_[device.value()]; }
  void add_use(const std::shared_ptr<Device>& device);
  void update_allocated();

  rt::Task<Result<void>> transfer(rt::FileOp::Kind kind, ByteRange range, std::byte* data);
  rt::Task<Result<void>> submit(MapRequest& request);
  rt::Task<Result<void>> release(ByteRange whole);
  // Their release is in doubt.
  void doubt(const std::vector<meta::ExtentRow>& rows, const Error& why);
  bool is_in_doubt(ByteRange range) const;
  rt::Task<Result<void>> clear_tail();
  std::vector<meta::ExtentRow> mapped_rows(uint32_t from, uint32_t to, size_t limit) const;
  void unmap(const std::vector<meta::ExtentRow>& rows);
  rt::Task<> retire(std::vector<meta::ExtentRow> rows);

  struct FlushJoin;
  rt::Task<bool> flush_device(std::shared_ptr<DeviceUse> use);
  rt::Task<bool> flush_round(std::shared_ptr<DeviceUse> use);
  rt::Task<> flush_part(std::shared_ptr<DeviceUse> use, FlushJoin& join);

  rt::Core& control_;
  rt::Core& core_;
  Mapper& mapper_;
  const BackingId id_;
  const std::string name_;
  const uint64_t extent_bytes_;
  const bool thick_;
  const DeviceId only_device_;
  std::atomic<uint64_t> size_bytes_;
  std::atomic<uint64_t> allocated_bytes_{0};

  ExtentMap map_;
  rt::Event map_changed_;             // an allocation ended, well or not
  std::set<LogicalExtent> in_doubt_;  // the store may have released them, or not
  std::array<uint64_t, 2> pinned_{};
  unsigned version_ = 0;
  rt::Mutex turning_;  // one turn-over of the map version at a time
  rt::Event old_version_idle_;
  std::vector<std::shared_ptr<DeviceUse>> uses_;  // by device number
  rt::TaskGroup tasks_;
};

}  // namespace duplex::pool
