// Machine: one simulated computer, the World an array gets in the simulator.
//
// Owner: the Simulation. The disk lives as long as the machine; cores live from one power_on() to
// the next. Order around a crash: power_cut() or kill(), then the test destroys every object that
// used the machine, then power_on().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "rt/world.h"
#include "sim/disk.h"
#include "sim/net.h"
#include "sim/simulation.h"

namespace duplex::sim {

class SimCore;
class StoreExecutor;
class SimSyncFiles;

class Machine : public rt::World {
 public:
  Machine(Simulation& simulation, std::string name, size_t index, MachineOptions options);
  ~Machine() override;

  rt::Core& control() override;
  size_t reactor_count() const override { return options_.reactors; }
  rt::Core& reactor(size_t i) override;
  rt::Executor& store() override;
  rt::SyncFiles& sync_files() override;

  // Nothing of this machine runs any more; the run in progress ends with kPowerCut. Disk caches
  // and connections are lost. Safe from inside the machine's own code (a sync I/O).
  void power_cut();
  // kill -9: the same, but what was written stays in the machine's caches.
  void kill();
  // Cuts power at the n-th blocking I/O from now: 1 is the next. 0 disarms. Reaches the inside of
  // a commit of the store.
  void cut_at_sync_io(uint64_t n) { sync_cut_ = n; }
  void power_on(MachineOptions options);
  bool running() const { return running_; }

  Disk& disk() { return disk_; }
  Simulation& simulation() { return simulation_; }
  const std::string& name() const { return name_; }
  // A file or block device that is there before the array starts.
  DiskFile& add_device(const std::string& path, uint64_t bytes, bool block_device) {
    DiskFile& file = disk_.create(path, bytes, block_device);
    file.entry_durable = true;
    return file;
  }

  // For the blocking door: counts one I/O; true when the power is gone (now or before).
  bool sync_io();

 private:
  void stop_running(bool power);

  Simulation& simulation_;
  const std::string name_;
  const size_t index_;
  MachineOptions options_;
  Disk disk_;
  std::unique_ptr<SimSyncFiles> sync_files_;
  std::vector<std::unique_ptr<SimCore>> cores_;
  std::unique_ptr<StoreExecutor> store_;
  uint64_t sync_cut_ = 0;
  uint64_t life_ = 0;
  bool running_ = false;
};

}  // namespace duplex::sim
