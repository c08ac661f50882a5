// The map log of a device: enough to rebuild the volumes when the state directory is lost.
// docs/FORMAT.md, "Map log".
//
// Two halves. The live half begins with a checkpoint (all maps of this device, all volumes of the
// array), followed by batches of records. When a half is full the next checkpoint goes to the
// other half. Each batch starts on a new block, names the CRC of what stands before it and the
// generation of its checkpoint, so a reader follows the unbroken run and stops at the first
// doubt. The log may lag behind the store, never lead it: a record is appended only after the
// store made the same change durable, and carries the store's sequence number for this device.
// Encode and decode only; no I/O here.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "base/uuid.h"

namespace duplex::format {

// A volume and the backing it points at, as far as a rebuild needs them.
struct LogVolume {
  VolumeNumber number;
  std::string name;
  uint64_t size_bytes = 0;
  BackingId backing;
  std::string backing_name;
  Uuid backing_uuid;
  DeviceId only_device;  // 0: any
  bool thick = false;
  bool damaged = false;
  bool operator==(const LogVolume&) const = default;
};
struct LogVolumeDrop {
  VolumeNumber number;
  bool operator==(const LogVolumeDrop&) const = default;
};
// This device's extent `pe` holds extent `le` of `backing`.
struct LogMap {
  PhysicalExtent pe;
  BackingId backing;
  LogicalExtent le;
  bool operator==(const LogMap&) const = default;
};
struct LogUnmap {
  PhysicalExtent pe;
  bool operator==(const LogUnmap&) const = default;
};
using LogRecord = std::variant<LogVolume, LogVolumeDrop, LogMap, LogUnmap>;

struct LogCheckpoint {
  Uuid device;
  uint64_t generation = 0;  // rises with each checkpoint of the device
  uint64_t sequence = 0;    // all records up to this one are included
  std::vector<LogVolume> volumes;
  std::vector<LogMap> maps;
  bool operator==(const LogCheckpoint&) const = default;
};

// A whole number of blocks (kBlockBytes).
std::vector<std::byte> encode_checkpoint(const LogCheckpoint& checkpoint);
// Bytes an encoded checkpoint with this many entries takes at most.
uint64_t checkpoint_bytes(uint64_t map_entries, uint64_t volumes);

// Records of one generation of a log, up to one of them.
struct LogPosition {
  uint64_t generation = 0;
  uint64_t sequence = 0;
  auto operator<=>(const LogPosition&) const = default;
};
struct BatchPlace {
  uint64_t generation = 0;
  uint64_t first_sequence = 0;  // records: first_sequence .. first_sequence + count - 1
  uint64_t flushed = 0;         // the device holds all up to this one since before the batch
  uint32_t chain = 0;           // what end_chain() of the checkpoint or batch before returned
};
// One batch of whole blocks.
std::vector<std::byte> encode_batch(std::span<const LogRecord> records, const BatchPlace& place);
// CRC the next batch has to name.
uint32_t end_chain(std::span<const std::byte> encoded);

// One half, decoded as far as it can be trusted.
struct LogHalf {
  LogCheckpoint checkpoint;  // with the batches applied: volumes, maps and sequence are current
  uint64_t used_bytes = 0;   // where the next batch goes
  uint32_t chain = 0;
};
// What the latest valid batch anywhere in a half, whatever stands before it, says to be flushed;
// {0, 0}: there is none. A log that ends earlier than this has a hole.
LogPosition known_flushed(std::span<const std::byte> bytes);

// kCorrupt when there is no valid checkpoint. A torn or foreign batch ends the run silently: that
// is how a log ends.
Result<LogHalf> decode_half(std::span<const std::byte> bytes, const Uuid& device);

}  // namespace duplex::format
