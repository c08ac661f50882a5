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

struct EventRow {
  uint64_t id = 0;  // given by the store when 0
  int64_t wall_us = 0;
  Event event;
};

// Changes. A put replaces the row with the same key or adds it; a drop or set of a row that is not
// there is refused (kState), and so is a change that leaves a reference to nothing: within a
// transaction a device or backing is put before what names it and dropped after.
// clang-format off: one change, one line
struct PutArray { ArrayRow row; };
struct PutDevice { DeviceRow row; };
struct DropDevice { DeviceId id; };          // its extents must be unmapped and scrubbed before
struct SetCleanExtents { DeviceId id; uint32_t clean_extents; };
struct SetLogSequence { DeviceId id; uint64_t log_sequence; };
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
// clang-format on

using Change = std::variant<PutArray, PutDevice, DropDevice, SetCleanExtents, SetLogSequence,
                            PutBacking, DropBacking, PutVolume, DropVolume, MapExtent, UnmapExtent,
                            Scrubbed, PutJob, DropJob, AddEvent>;

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
  bool operator==(const Snapshot&) const = default;
};

}  // namespace duplex::meta
