// Mapper: the one place where extents change hands.
//
// Owner: the pool. Thread: control core; requests of reactors hop here. All requests that wait
// share one store transaction (verbs commit alone, so that their refusal is theirs); one
// transaction is under way at a time, so the sequence numbers of a device's map log rise in the
// order of commits.
// Invariants: 1. memory and map logs change after the store did, all in one step; 2. an extent
// given to a request whose commit failed is not given to anybody again until the next start,
// unless the store says that nothing was changed; 3. a change of the volume list gets the same
// sequence number on every device, above all numbers given before: the device whose log has the
// highest sequence knows all volumes (rebuild.cc). A request that finds no free extent waits while
// released extents are being cleaned, at most kSpaceWait after the last one became free.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/event.h"
#include "format/device_log.h"
#include "meta/store.h"
#include "pool/extent_map.h"
#include "pool/member.h"
#include "rt/task.h"
#include "rt/wait.h"

namespace duplex::pool {

// What to change, in one transaction, and what came of it. Lives in the frame of the asker.
struct MapRequest {
  // Asked:
  BackingId backing;               // whose extents `map` are
  DeviceId only;                   // 0: from any device
  std::optional<Location> after;   // where the extent before map[0] lies
  std::vector<LogicalExtent> map;  // holes to map, ascending
  std::vector<meta::ExtentRow> unmap;
  std::vector<meta::ScrubRow> scrubbed;
  struct Clean {
    DeviceId device;  // 0: none
    uint32_t from = 0;
    uint32_t to = 0;
  } clean;                 // the watermark of a device rises
  meta::Transaction with;  // of the same transaction, before the above; commits alone
  meta::Transaction then;  // and after it
  std::vector<format::LogRecord> volumes;  // LogVolume and LogVolumeDrop, for all devices

  // Answered, in the order of `map`:
  std::vector<Location> placed;
  struct Touched {
    std::shared_ptr<Device> device;
    uint64_t sequence;  // of the last record in the device's map log
    uint64_t losses;    // of the device before that record could be written
  };
  std::vector<Touched> touched;

  // The mapper's:
  Result<void> result;
  rt::Micros asked_at = 0;
  rt::Event done;
};

class Mapper {
 public:
  Mapper(rt::Core& control, meta::Store& store, EventSink& events, Members& members);

  // kNoSpace, or the store's error; then nothing has changed in memory.
  rt::Task<Result<void>> submit(MapRequest& request);
  // The last I/O that saw these extents mapped has ended, their release is durable in the store.
  void clean(DeviceId device, const std::vector<PhysicalExtent>& released);
  // Returns when the map log of a device is written up to `sequence` (MapLog::written).
  rt::Task<Result<void>> log_written(DeviceId device, uint64_t sequence);
  // While held nothing is committed: for changes of the set of devices.
  rt::Mutex::Lock lock() { return committing_.lock(); }
  // Looks again at requests that wait for space.
  void poke() { wake_.set(); }

  std::map<VolumeNumber, format::LogVolume>& volumes() { return volumes_; }

  // Ends after stop(), when the queue is empty.
  rt::Task<> run();
  void stop();

 private:
  struct DeviceChange {
    Member* member = nullptr;
    std::vector<format::LogRecord> records;
    uint64_t first = 0;         // number of records[0]
    uint64_t sequence() const;  // of the last one
  };
  using DeviceChanges = std::map<DeviceId, DeviceChange>;

  std::vector<MapRequest*> take_batch();
  bool knows_devices(const MapRequest& request) const;
  bool place(MapRequest& request);
  void unplace(MapRequest& request);
  Member* choose(const MapRequest& request, Member* before);
  bool may_get_space(const MapRequest& request) const;
  rt::Micros deadline(const MapRequest& request) const;
  rt::Task<> wait_for_space();
  rt::Task<> commit(std::vector<MapRequest*> batch);
  void add_changes(const MapRequest& request, meta::Transaction& transaction,
                   DeviceChanges& devices);
  void apply(MapRequest& request, const DeviceChanges& devices);
  void apply_volumes(const std::vector<format::LogRecord>& records);
  void watch_usage();

  rt::Core& control_;
  meta::Store& store_;
  EventSink& events_;
  Members& members_;
  std::map<VolumeNumber, format::LogVolume> volumes_;
  std::deque<MapRequest*> queue_;
  rt::Micros last_freed_ = 0;
  size_t warned_ = 0;  // thresholds of watch_usage() that have been told
  bool stopping_ = false;
  rt::Mutex committing_;
  rt::Event wake_;
};

}  // namespace duplex::pool
