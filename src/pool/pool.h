// Pool: the devices of an array and the backings on them. Table 400/410 of docs/REFERENCE.md.
//
// Owner: the array. Thread: the control core, unless a call says otherwise. It owns every Device
// (label, map log, free extents, one open file per core) and every Backing (owned here, used on
// its reactor). All changes go: store commit -> device map log -> memory others may act on.
//
// Devices come and go: an absent or failing device makes I/O to its extents fail and nothing
// else; the pool tries to re-attach absent devices every second (label and uuid must match) and
// tells by events.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/event.h"
#include "base/units.h"
#include "base/uuid.h"
#include "meta/store.h"
#include "pool/backing.h"
#include "rt/task.h"
#include "rt/world.h"

namespace duplex::pool {

enum class DeviceState : uint8_t {
  kOnline,
  kFailing,  // online, but it has answered a read, write or flush with an error since attached
  kAbsent,   // cannot be opened, or what is there is another device
};

struct DeviceInfo {
  DeviceId id;
  std::string name;
  std::string path;
  Uuid uuid;
  DeviceState state = DeviceState::kOnline;
  std::string reason;  // why it is failing or absent
  uint64_t size_bytes = 0;
  uint64_t extent_bytes = 0;
  uint32_t extent_count = 0;
  uint32_t used_extents = 0;       // mapped
  uint32_t scrubbing_extents = 0;  // released or not yet cleaned: not free, not used
  uint64_t read_errors = 0, write_errors = 0, flush_errors = 0;
  bool is_direct = false;
  std::string engine;
};

// A run of physical extents and its owner; table 410.
struct PhysicalRun {
  PhysicalExtent pe;
  std::string backing;  // empty: free
  LogicalExtent le;
  uint32_t count = 0;
};

struct AddDevice {
  std::string path;
  std::string name;           // empty: from the file name
  uint64_t create_bytes = 0;  // 0: the path must exist
  uint64_t extent_bytes = 0;  // 0: as the other devices, or kDefaultExtentBytes for the first one
  bool overwrite = false;     // take it although it carries something (the refusal names what)
};

struct BackingSpec {
  std::string name;  // empty: "PD<id>"
  uint64_t size_bytes = 0;
  bool thick = false;
  std::string device;  // empty: any
};

struct PoolUsage {
  uint64_t total_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t free_bytes = 0;       // ready for allocation
  uint64_t scrubbing_bytes = 0;  // will become free
  uint64_t promised_bytes = 0;   // sum of backing sizes (thin: may exceed total)
};

// What a rebuild found on the devices.
struct RebuildReport {
  std::vector<std::string> devices;
  std::vector<std::string> volumes;
  std::vector<std::string> missing_devices;
  std::vector<std::string> damaged_volumes;
};

class Pool {
 public:
  // Attaches the devices of `snapshot`, checks their labels, brings lagging map logs up, scrubs
  // what was released before the stop. kStale: a device's label or map log is ahead of this
  // store (an old copy of the state directory); the message names the device and `--rebuild`.
  static rt::Task<Result<std::unique_ptr<Pool>>> open(rt::World& world, meta::Store& store,
                                                      EventSink& events,
                                                      const meta::Snapshot& snapshot);
  // Writes a new store from the labels and map logs of `paths` (and of every device those labels
  // name that is still at its path). Refuses when a device is missing unless `accept_missing`:
  // then volumes that may have extents there are marked damaged.
  static rt::Task<Result<RebuildReport>> rebuild(rt::World& world, meta::Store& store,
                                                 std::vector<std::string> paths,
                                                 bool accept_missing);
  virtual ~Pool() = default;
  // Stops background work, flushes logs, closes the devices.
  virtual rt::Task<> close() = 0;

  // Its path again with nothing that contradicts it: success (created = false). Otherwise kExists.
  struct AddedDevice {
    DeviceInfo info;
    bool created;
  };
  virtual rt::Task<Result<AddedDevice>> add_device(AddDevice request) = 0;
  // kBusy with the volumes that use it.
  virtual rt::Task<Result<void>> remove_device(std::string name) = 0;
  // Takes the new size of a grown file or disk into use.
  virtual rt::Task<Result<DeviceInfo>> resize_device(std::string name) = 0;
  virtual std::vector<DeviceInfo> devices() const = 0;
  virtual Result<DeviceInfo> device(const std::string& name) const = 0;
  virtual rt::Task<Result<std::vector<PhysicalRun>>> device_map(std::string name) = 0;
  virtual PoolUsage usage() const = 0;

  // The volume's row goes into the same transaction as its backing: a verb is atomic. `core` is
  // the reactor the backing will live on. A thick one gets all its extents first (kNoSpace).
  virtual rt::Task<Result<Backing*>> create_backing(BackingSpec spec, rt::Core& core,
                                                    meta::VolumeRow volume) = 0;
  // Drops volume and backing in one transaction and releases all extents. No I/O is running.
  virtual rt::Task<Result<void>> drop_backing(BackingId id, VolumeNumber volume) = 0;
  // New size of backing and volume in one transaction. Shrinking releases what lies beyond.
  virtual rt::Task<Result<void>> resize_backing(BackingId id, meta::VolumeRow volume) = 0;
  // Makes the backings of the snapshot usable on the given cores (at start, once per backing).
  virtual rt::Task<Result<Backing*>> attach_backing(BackingId id, rt::Core& core) = 0;

  struct BackingInfo {
    BackingId id;
    std::string name;
    uint64_t size_bytes;
    uint64_t allocated_bytes;
    bool thick;
    std::string device;
  };
  virtual std::vector<BackingInfo> backings() const = 0;
};

}  // namespace duplex::pool
