// Volumes: all volumes of an array by name and number; creates, resizes, deletes, opens them.
//
// Owner: the array. Thread: control core. Each volume is placed on the reactor with the fewest
// volumes. Every change is one store transaction (promise P8).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/event.h"
#include "meta/marks.h"
#include "meta/rows.h"
#include "pool/pool.h"
#include "rt/task.h"
#include "rt/world.h"
#include "volume/members.h"
#include "volume/volume.h"

namespace duplex::volume {

struct CreateVolume {
  std::string name;
  uint64_t size_bytes = 0;  // rounded up to whole blocks
  VolumeNumber number;      // 0: the lowest free one
  std::string backing;      // empty: "PD<id>"
  std::string device;       // empty: any
  bool thick = false;
};

struct VolumeInfo {
  VolumeNumber number;
  std::string name;
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;
  std::string backing;
  std::string device;  // restriction, or empty
  bool thick = false;
  bool damaged = false;
  bool consistent = true;            // false: it holds part of a copy
  std::vector<std::string> mirrors;  // it is in
  int64_t created_us = 0;
  size_t core = 0;  // index of its reactor
  std::vector<std::string> clients;
  VolumeStats stats;
};

class Volumes : public Exports {
 public:
  using Exports::open;
  // `marks`: for the trackers of members. All arguments but the snapshot outlive it.
  static rt::Task<Result<std::unique_ptr<Volumes>>> open(rt::World& world, pool::Pool& pool,
                                                         EventSink& events, meta::Marks& marks,
                                                         const meta::Snapshot& snapshot);
  // Disconnects clients and waits for their requests; nothing is opened any more. Every member
  // has left.
  virtual rt::Task<> stop() = 0;

  // Same name and same definition again: success (created = false). Different: kExists.
  struct Created {
    VolumeInfo info;
    bool created;
  };
  virtual rt::Task<Result<Created>> create(CreateVolume request) = 0;
  // kBusy with the clients, unless `disconnect`: then they are disconnected first. This and
  // resize(): kState for a volume in mirrors.
  virtual rt::Task<Result<void>> remove(std::string name, bool disconnect) = 0;
  // Growing is online. Shrinking below data that is allocated is refused (kState, naming the
  // bytes that would be lost) unless `discard`.
  virtual rt::Task<Result<VolumeInfo>> resize(std::string name, uint64_t size_bytes,
                                              bool discard) = 0;

  virtual std::vector<VolumeInfo> infos() const = 0;
  // `name`: NAME, 0xNUMBER.
  virtual Result<VolumeInfo> info(const std::string& name) const = 0;
  virtual rt::Task<Result<std::vector<pool::ExtentRun>>> extents(std::string name) = 0;

  // members.h. The volume belongs to `mirror` as well, from now on. kNoVolume; kBusy while it is
  // created, resized or deleted; kSize above kMaxMemberBytes.
  virtual rt::Task<Result<Member*>> join(VolumeNumber number, std::string mirror) = 0;
  // Ends one join of `mirror`; after the last one the member is gone. No leg is on the volume then,
  // no copy, flush or disconnect() of this mirror runs, and nobody keeps the gate closed. The
  // marks stay on disk until a Marks::commit() drops them.
  virtual rt::Task<> leave(Member& member, std::string mirror) = 0;
  // Is every device there that holds a byte of the volume? False also when it is no volume.
  virtual rt::Task<bool> is_attached(VolumeNumber number) = 0;
  // After a simulated crash: what is under way between members is dropped, before the legs it uses.
  virtual void abandon() = 0;
};

}  // namespace duplex::volume
