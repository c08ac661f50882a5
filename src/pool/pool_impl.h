// PoolImpl: the devices and backings of an array, and the verbs that change them.
//
// Owner: the array, through pool.h. Thread: control core. What is done where:
//   pool_open.cc       start, stop, the tables of the store loaded into memory
//   pool_devices.cc    add, remove, resize a device
//   pool_attach.cc     labels checked and rewritten, devices lost and found again
//   pool_backings.cc   create, drop, resize a backing; lists
//   mapper.cc          extents change hands
//   rebuild.cc         a new store from the devices
// Invariants: 1. a device takes allocations (Member::ready) only while every attached label names
// it, so that a rebuild notices when a device with extents is missing (trace F35); 2. a life is in
// the store's row of a device before it is in that device's label, so only an old copy of the store
// finds a label ahead of its row (trace F17).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "format/device_label.h"
#include "pool/backing_impl.h"
#include "pool/mapper.h"
#include "pool/member.h"
#include "pool/pool.h"
#include "rt/task_group.h"

namespace duplex::pool {

// What the map logs say about a volume.
format::LogVolume log_volume(const meta::VolumeRow& volume, const meta::BackingRow& backing);

class PoolImpl final : public Pool {
 public:
  PoolImpl(rt::World& world, meta::Store& store, EventSink& events, meta::ArrayRow array);
  // kStale, kCorrupt; then close() and give up.
  rt::Task<Result<void>> start(meta::Snapshot snapshot);

  rt::Task<> close() override;
  rt::Task<Result<AddedDevice>> add_device(AddDevice request) override;
  rt::Task<Result<void>> remove_device(std::string name) override;
  rt::Task<Result<DeviceInfo>> resize_device(std::string name) override;
  std::vector<DeviceInfo> devices() const override;
  Result<DeviceInfo> device(const std::string& name) const override;
  rt::Task<Result<std::vector<PhysicalRun>>> device_map(std::string name) override;
  PoolUsage usage() const override;
  rt::Task<Result<Backing*>> create_backing(BackingSpec spec, rt::Core& core,
                                            meta::VolumeRow volume) override;
  rt::Task<Result<void>> drop_backing(BackingId id, VolumeNumber volume) override;
  rt::Task<Result<void>> resize_backing(BackingId id, meta::VolumeRow volume) override;
  rt::Task<Result<Backing*>> attach_backing(BackingId id, rt::Core& core) override;
  std::vector<BackingInfo> backings() const override;

 private:
  struct Container {
    meta::BackingRow row;
    std::string volume;  // name of the volume that points here
    ExtentMap map;       // until attached
    std::unique_ptr<BackingImpl> backing;
  };
  using Containers = std::map<BackingId, Container>;
  struct NewDevice;

  // pool_open.cc
  Member& add_member(const meta::DeviceRow& row);
  Result<void> load(const meta::Snapshot& snapshot);
  Result<void> load_extents(const meta::Snapshot& snapshot);
  format::LogCheckpoint checkpoint_contents(DeviceId id);
  uint64_t extent_bytes() const;

  // pool_attach.cc
  rt::Task<Result<void>> attach_at_start(Member& member);
  rt::Task<Result<void>> attach(Member& member);
  Result<void> check_label(const Member& member, const format::DeviceLabel& label) const;
  rt::Task<Result<void>> begin_life();
  rt::Task<Result<void>> store_life(std::vector<DeviceId> devices);
  rt::Task<Result<void>> renew_label(Member& member, rt::File& file, format::DeviceLabel& label);
  void on_trouble(DeviceId id);
  rt::Task<> detach_lost(DeviceId id);
  rt::Task<> attach_loop();
  rt::Task<> try_attach(DeviceId id);
  format::DeviceLabel make_label(const Member& member) const;
  rt::Task<> refresh_labels();
  void update_ready();
  void set_absent(Member& member, std::string reason);

  // pool_devices.cc
  Member* find_member(const std::string& name) const;
  Member* find_member_at(const std::string& path) const;
  Result<AddedDevice> added_before(const Member& member, const AddDevice& request) const;
  Result<void> check_new_device(const AddDevice& request) const;
  rt::Task<Result<NewDevice>> open_new_device(AddDevice request);
  rt::Task<Result<void>> prepare_new_device(NewDevice& fresh);
  rt::Task<> undo_new_device(NewDevice& fresh);
  rt::Task<Result<void>> join(NewDevice& fresh);
  std::vector<std::string> volumes_on(const Member& member) const;
  rt::Task<Result<std::unique_ptr<Member>>> commit_removal(DeviceId id);
  DeviceInfo info_of(const Member& member) const;

  // pool_backings.cc
  Result<void> check_log_room(size_t volumes) const;
  Result<void> check_size(uint64_t size_bytes, bool thick) const;
  Result<std::string> choose_backing_name(std::string wanted);
  std::unique_ptr<BackingImpl> make_backing(const meta::BackingRow& row, rt::Core& core,
                                            ExtentMap map);

  rt::World& world_;
  meta::Store& store_;
  EventSink& events_;
  const meta::ArrayRow array_;
  Members members_;
  Containers containers_;
  Mapper mapper_;
  uint32_t last_backing_ = 0;
  uint64_t label_sequence_ = 0;  // of the last set of labels
  uint64_t life_ = 0;            // of this start; 0: the devices are still being looked at
  rt::Mutex device_verbs_;       // one change of the set of devices at a time
  rt::Mutex backing_verbs_;      // while held no backing is destroyed
  rt::Mutex labels_;             // one rewrite of labels at a time
  bool stopping_ = false;
  rt::Event stop_;
  rt::TaskGroup tasks_;
};

}  // namespace duplex::pool
