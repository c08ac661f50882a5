// Mirrors: all mirrors, groups and cuts of an array; the verbs on them, and what faults do to them.
//
// Owner: the array. Thread: control core, all calls. What a verb may do in which state, and what
// follows, is in relation_table.h; this class keeps the states, does the actions of the rows and
// makes every change durable before it is seen (docs/ARCHITECTURE.md "Mirrors").
//
// Verbs and events take turns: one at a time changes anything. Each wait inside a turn has a
// deadline, so a device that hangs delays others and blocks nobody. Copies, restores and verifies
// are jobs: a verb starts them and returns.
//
// Errors: kNoName (no such mirror, group, cut), kNoVolume, kState, kSize, kBusy, kExists,
// kWriteProtected, kNoDevice, kTimeout (a drain or flush took too long; nothing was changed),
// kShutdown, and what the store says. Each refusal of a state is a row of the table.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/event.h"
#include "meta/marks.h"
#include "meta/rows.h"
#include "mirror/job_desk.h"
#include "mirror/relation.h"
#include "rt/task.h"
#include "rt/world.h"
#include "volume/volumes.h"

namespace duplex::mirror {

struct CreateMirror {
  std::string name;
  std::string source;  // NAME, 0xNUMBER or 0xARRAY,0xNUMBER
  std::string target;
  bool copy = true;        // false: the two are known to be equal (--copy none)
  bool overwrite = false;  // the target may hold data
  uint64_t rate = 0;       // of the copy, bytes per second; 0: no limit
};

// Row of the Copy Management Table (docs/REFERENCE.md) and what `mirror show` adds to it.
struct MirrorInfo {
  MirrorId id;
  std::string name;
  std::string source, target;
  VolumeNumber source_number, target_number;
  uint64_t size_bytes = 0;
  Relation state = Relation::kSimplex;
  std::string reason = {};  // why it is suspended
  bool read_only = false;   // what a split gave to the hosts of the target
  bool consistent = true;   // the target is a point in time
  bool source_consistent = true;
  bool attached = true;  // the target answers
  std::vector<std::string> groups = {};
  uint64_t cut = 0;     // it was split at; 0: none
  bool in_cut = false;  // the hold marker of the table
  // Per cent: of the copy or restore; of what is equal while it is suspended; else 100.
  double progress = 100;
  std::optional<uint32_t> job = {};
  std::string then = {};              // what follows a restore: "split" or "sync"
  uint64_t changed_bytes_source = 0;  // P map: P differs, "pending data" of P
  uint64_t changed_bytes_target = 0;  // S map
  uint64_t missing_bytes = 0;         // only the target holds them
  uint64_t changed_bytes() const { return changed_bytes_source + changed_bytes_target; }
  int64_t created_us = 0;
};

struct GroupInfo {
  std::string name;
  std::vector<std::string> mirrors;
};

// One entry of a pair file (Fig 7): P, then S.
struct PairId {
  ArrayId source_array;
  VolumeNumber source;
  ArrayId target_array;
  VolumeNumber target;
};

struct SplitRequest {
  std::vector<std::string> names;  // mirrors and groups; duplicates count once
  std::vector<PairId> pairs;
  bool read_only = false;                     // for the hosts of the targets
  rt::Micros lease = 250 * rt::kMillisecond;  // 1 ms .. 10 s
};

struct CutInfo {
  struct Member {
    std::string mirror = {};  // empty: deleted since
    std::string target = {};  // the same
    Relation state = Relation::kSimplex;
    VolumeNumber number;
    bool is_kept = true;  // the target still holds this cut
  };
  uint64_t id = 0;
  uint64_t epoch = 0;
  rt::Micros hold = 0;
  int64_t wall_us = 0;
  std::vector<Member> members;
};

// What a verb would do, for --plan and for the question before it.
struct Plan {
  std::vector<std::string> lines = {};  // each one sentence
  uint64_t bytes_overwritten = 0;       // of what
  std::string volume = {};
  bool destroys = false;  // needs --yes
};

class Mirrors {
 public:
  struct Parts {
    rt::World& world;
    ArrayId array;
    std::string array_name;
    meta::Store& store;
    meta::Marks& marks;
    volume::Volumes& volumes;
    EventSink& events;
    JobDesk& jobs;
  };
  // Brings back what `snapshot` and `found` hold, before hosts are served; copies and restores go
  // on by themselves. The parts outlive it.
  static rt::Task<Result<std::unique_ptr<Mirrors>>> open(Parts parts,
                                                         const meta::Snapshot& snapshot,
                                                         meta::Marks::Found found);
  virtual ~Mirrors() = default;
  // No host is connected. Ends the copies (they go on at the next start), flushes, and leaves no
  // mark behind: the next start finds SYNC what was SYNC. Before Volumes::stop().
  virtual rt::Task<> stop() = 0;

  // The same name with the same definition: success (created = false).
  struct Created {
    MirrorInfo info;
    bool created = false;
  };
  virtual rt::Task<Result<Created>> create(CreateMirror request) = 0;
  virtual rt::Task<std::vector<MirrorInfo>> list() = 0;  // by name
  virtual rt::Task<Result<MirrorInfo>> show(std::string name) = 0;

  // Of each mirror and each member of each group named: all of them in one transaction, or none.
  // `disconnect`: clients of the target are disconnected.
  struct Names {
    std::vector<std::string> names;
    bool disconnect = false;
  };
  virtual rt::Task<Result<std::vector<MirrorInfo>>> resync(Names which) = 0;
  struct Restore {
    std::vector<std::string> names;
    Then then = Then::kSplit;  // `resync --reverse` is a restore that goes on to SYNC
    bool online = false;       // although a client has the source open for writing
  };
  virtual rt::Task<Result<Plan>> plan_restore(Restore request) = 0;
  virtual rt::Task<Result<std::vector<MirrorInfo>>> restore(Restore request) = 0;
  // A job; the first difference it finds suspends a mirror in SYNC, and it goes on to the end.
  virtual rt::Task<Result<std::vector<MirrorInfo>>> verify(std::vector<std::string> names) = 0;
  virtual rt::Task<Result<Plan>> plan_remove(std::string name) = 0;
  // `confirmed`: regions that only the target holds may be lost.
  virtual rt::Task<Result<void>> remove(std::string name, bool confirmed) = 0;

  virtual rt::Task<Result<CutInfo>> split(SplitRequest request) = 0;
  virtual std::vector<CutInfo> cuts() const = 0;  // newest last, at most the last 1,000
  virtual Result<CutInfo> cut(uint64_t id) const = 0;

  // Groups: names for mirrors (Fig 8). A mirror may be in several; an emptied one stays.
  virtual rt::Task<Result<bool>> create_group(std::string name,
                                              std::vector<std::string> mirrors) = 0;
  virtual rt::Task<Result<GroupInfo>> add_to_group(std::string name,
                                                   std::vector<std::string> mirrors) = 0;
  virtual rt::Task<Result<GroupInfo>> remove_from_group(std::string name,
                                                        std::vector<std::string> mirrors) = 0;
  virtual rt::Task<Result<void>> delete_group(std::string name) = 0;
  virtual std::vector<GroupInfo> groups() const = 0;  // by name
  virtual Result<GroupInfo> group(const std::string& name) const = 0;
  // For volumes: no group may have the name of a volume, and the other way round.
  virtual bool is_group(const std::string& name) const = 0;
};

}  // namespace duplex::mirror
