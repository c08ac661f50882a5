// Member: one device of the pool with all that the control core keeps about it.
//
// Owner: the pool. Thread: control core. Its two tasks write the map log and clean extents.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "meta/rows.h"
#include "pool/cleaner.h"
#include "pool/device.h"
#include "pool/device_space.h"
#include "pool/map_log.h"
#include "rt/task_group.h"

namespace duplex::pool {

struct Member {
  Member(rt::World& world, const meta::DeviceRow& device_row, Mapper& mapper,
         MapLog::Contents contents)
      : device(std::make_shared<Device>(world, device_row.id, device_row.uuid, device_row.name,
                                        device_row.extent_bytes, device_row.data_offset)),
        row(device_row),
        space(device_row.extent_count),
        log(*device, world.control(), device_row.log_offset, device_row.log_bytes,
            std::move(contents)),
        cleaner(*device, space, log, mapper, world.control()),
        tasks(world.control()) {}

  void start() {
    tasks.spawn(log.run());
    tasks.spawn(cleaner.run());
  }
  // The log first drains; the device stays attached.
  rt::Task<> stop() {
    cleaner.stop();
    log.stop();
    co_await tasks.close();
  }
  bool takes_allocations() const { return ready && !device->is_absent(); }

  std::shared_ptr<Device> device;
  meta::DeviceRow row;
  DeviceSpace space;
  MapLog log;
  Cleaner cleaner;
  // Every label of the array names this device: only then it may hold extents (trace F35).
  bool ready = false;
  bool busy = false;            // being attached or detached
  uint64_t label_sequence = 0;  // of the label on it; 0: to be written
  std::vector<Uuid> named;      // the devices its label names, sorted
  std::string reason;           // why it is failing or absent
  rt::TaskGroup tasks;
};

using Members = std::map<DeviceId, std::unique_ptr<Member>>;

}  // namespace duplex::pool
