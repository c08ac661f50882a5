// What the store holds: one struct per table, and Transaction, the only way to change it.
//
// The lists only grow; docs/FORMAT.md "State directory" describes the tables as SQL.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/event.h"
#include "base/units.h"
#include "base/uuid.h"

namespace duplex::meta {

struct ArrayRow {
  ArrayId id;
  std::string name;
  Uuid uuid;
  Uuid incarnation;           // of this store; new after a rebuild
  uint64_t epoch = 1;         // highest epoch ever handed out (cuts)
  uint32_t last_backing = 0;  // highest number ever used: they are not reused; PutBacking raises it
  uint32_t last_job = 0;      // nor are job numbers
  uint32_t last_mirror = 0;   // nor are mirror numbers; PutMirror raises it
  uint64_t last_cut = 0;      // nor are cut numbers; PutCut raises it, and epoch
  bool clean_stop = false;    // the last stop was clean
  bool operator==(const ArrayRow&) const = default;
};

struct DeviceRow {
  DeviceId id;
  Uuid uuid;
  std::string name;
  std::string path;
  uint64_t size_bytes = 0;
  uint64_t extent_bytes = 0;
  uint32_t extent_count = 0;
  uint64_t log_offset = 0;
  uint64_t log_bytes = 0;
  uint64_t data_offset = 0;
  // Extents at and above this one were never used and may hold old bytes: they are zeroed and
  // flushed before this number rises past them. extent_count: all are clean or in use.
  uint32_t clean_extents = 0;
  uint64_t log_sequence = 0;  // of the last change that concerns this device's map log
  // The latest start that used the device. It stands here before it stands in the label, so a
  // label with a higher one tells that this store is an old copy. 0: none since version 2.
  uint64_t life = 0;
  bool operator==(const DeviceRow&) const = default;
};

struct BackingRow {
  BackingId id;
  Uuid uuid;
  std::string name;  // "PD1"
  uint64_t size_bytes = 0;
  bool thick = false;
  DeviceId device;  // extents come from here only; 0: from any
  bool operator==(const BackingRow&) const = default;
};

struct VolumeRow {
  VolumeNumber number;
  std::string name;
  uint64_t size_bytes = 0;
  BackingId backing;
  Uuid content_id;
  bool damaged = false;  // a rebuild without all devices: reads of it cannot be trusted
  int64_t created_us = 0;
  // False: what it holds is no point in time (a copy into it has not ended). Outlives the mirror.
  bool consistent = true;
  bool operator==(const VolumeRow&) const = default;
};

// Extent `le` of `backing` lies at `pe` of `device`.
struct ExtentRow {
  BackingId backing;
  LogicalExtent le;
  DeviceId device;
  PhysicalExtent pe;
  bool operator==(const ExtentRow&) const = default;
};

// An extent that was released and may hold its old owner's bytes: not free yet.
struct ScrubRow {
  DeviceId device;
  PhysicalExtent pe;
  bool operator==(const ScrubRow&) const = default;
};

struct JobRow {
  uint32_t id = 0;
  std::string kind;    // "import"
  std::string target;  // volume name
  std::string source;  // for people and for going on after a restart
  std::string state;   // "running", "paused", "done", "failed", "cancelled"
  std::string error;
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  uint64_t rate = 0;  // bytes per second, 0: no limit
  int64_t started_us = 0;
  int64_t ended_us = 0;
  bool operator==(const JobRow&) const = default;
};

// A pair of volumes. The words for the numbers of state are those of the room `mirror`.
struct MirrorRow {
  MirrorId id;
  std::string name;
  VolumeNumber source;
  VolumeNumber target;  // of one mirror only
  uint8_t relation = 0;
  uint8_t access = 0;  // what hosts may do with the target after a split: refused, read, write
  uint8_t then = 0;    // what follows a reverse copy: split or sync
  uint8_t reason = 0;  // why it is suspended
  uint64_t cut = 0;    // the cut it was split at; 0: none
  int64_t created_us = 0;
  bool operator==(const MirrorRow&) const = default;
};

struct GroupRow {
  std::string name;
  std::vector<MirrorId> mirrors;  // in order of id, each once
  bool operator==(const GroupRow&) const = default;
};

// A member as it was at the cut: mirror and volume may be gone by now.
struct CutMember {
  MirrorId mirror;
  VolumeNumber volume;  // the target
  Uuid content_id;      // of the target, from the cut on
  bool operator==(const CutMember&) const = default;
};

struct CutRow {
  uint64_t id = 0;
  Epoch epoch;
  int64_t wall_us = 0;
  uint64_t hold_us = 0;  // how long the gates were closed
  uint8_t state = 0;
  std::vector<CutMember> members;  // in order of mirror, each once
  bool operator==(const CutRow&) const = default;
};

// The regions of an extent that are set in a change map: bit i is region i of the extent.
struct ExtentWord {
  uint32_t extent = 0;
  uint64_t regions = 0;
  bool operator==(const ExtentWord&) const = default;
};

// A change map: every record of the mark log up to `position` is in it (meta/marks.h).
struct MapRow {
  uint32_t map = 0;
  uint64_t position = 0;
  std::vector<ExtentWord> words;  // extents rise; no word is 0
  bool operator==(const MapRow&) const = default;
};

// The hot extents of a volume, as of MarkLogRow::hot_position. They may outlive the volume.
struct HotMarksRow {
  VolumeNumber volume;
  std::vector<LogicalExtent> extents;  // rising, at least one
  bool operator==(const HotMarksRow&) const = default;
};

// What the store knows of the mark log (meta/mark_log.h).
struct MarkLogRow {
  uint64_t lap = 0;       // 0: the log was never used
  uint64_t position = 0;  // batches up to this one are included in the store
  bool out_1 = false;     // copies that count no more
  bool out_2 = false;
  uint64_t hot_position = 0;  // records up to this one are included in the hot marks
  bool operator==(const MarkLogRow&) const = default;
};

struct EventRow {
  uint64_t id = 0;  // given by the store when 0
  int64_t wall_us = 0;
  Event event;
};

// Changes. A put replaces the row with the same key or adds it; a drop or set of a row that is not
// there is refused (kState), and so is a change that leaves a reference to nothing: within a
// transaction a device, backing, volume or mirror is put before what names it and dropped after.
// So a volume in a mirror and a mirror in a group cannot be dropped; cuts name what may be gone.
// clang-format off: one change, one line
struct PutArray { ArrayRow row; };
struct PutDevice { DeviceRow row; };
struct DropDevice { DeviceId id; };          // its extents must be unmapped and scrubbed before
struct SetCleanExtents { DeviceId id; uint32_t clean_extents; };
struct SetLogSequence { DeviceId id; uint64_t log_sequence; };
struct SetLife { DeviceId id; uint64_t life; };
struct PutBacking { BackingRow row; };
struct DropBacking { BackingId id; };
struct PutVolume { VolumeRow row; };
struct DropVolume { VolumeNumber number; };
struct MapExtent { ExtentRow row; };
struct UnmapExtent { ExtentRow row; };       // moves the extent to the scrub table
struct Scrubbed { ScrubRow row; };           // zeroed and flushed: free again
struct PutJob { JobRow row; };
struct DropJob { uint32_t id; };
struct AddEvent { EventRow row; };
struct PutMirror { MirrorRow row; };
struct DropMirror { MirrorId id; };
struct PutGroup { GroupRow row; };           // with all its members
struct DropGroup { std::string name; };
struct PutCut { CutRow row; };               // with all its members
struct DropCut { uint64_t id; };
// The five below are for Marks alone.
struct PutMap { MapRow row; };
struct DropMap { uint32_t map; };
struct PutHotMarks { HotMarksRow row; };     // all those of the volume
struct DropHotMarks { VolumeNumber volume; };
struct PutMarkLog { MarkLogRow row; };
// clang-format on

using Change =
    std::variant<PutArray, PutDevice, DropDevice, SetCleanExtents, SetLogSequence, SetLife,
                 PutBacking, DropBacking, PutVolume, DropVolume, MapExtent, UnmapExtent, Scrubbed,
                 PutJob, DropJob, AddEvent, PutMirror, DropMirror, PutGroup, DropGroup, PutCut,
                 DropCut, PutMap, DropMap, PutHotMarks, DropHotMarks, PutMarkLog>;

// All or nothing, durable before the commit returns.
using Transaction = std::vector<Change>;

// Everything a start needs, in key order.
struct Snapshot {
  ArrayRow array;
  std::vector<DeviceRow> devices;
  std::vector<BackingRow> backings;
  std::vector<VolumeRow> volumes;
  std::vector<ExtentRow> extents;  // by backing, then le
  std::vector<ScrubRow> scrub;
  std::vector<JobRow> jobs;
  std::vector<MirrorRow> mirrors;
  std::vector<GroupRow> groups;
  std::vector<CutRow> cuts;
  std::vector<MapRow> maps;
  std::vector<HotMarksRow> hot_marks;
  MarkLogRow mark_log;
  bool operator==(const Snapshot&) const = default;
};

}  // namespace duplex::meta
