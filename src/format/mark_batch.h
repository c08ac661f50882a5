// Batches of the mark log: which extents may have writes in flight, and what cooling them leaves.
// docs/FORMAT.md, "Mark log".
//
// Encode and decode only; no I/O here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace duplex::format {

// The regions of one extent that are set in one change map: bit i is region i of the extent.
struct MapWord {
  uint32_t map = 0;
  uint64_t regions = 0;
  bool operator==(const MapWord&) const = default;
};

struct MarkRecord {
  enum class Kind : uint8_t {
    kHot = 1,    // writes may be in flight from now on
    kCool = 2,   // none is; `words` are what those maps hold of this extent
    kWords = 3,  // what those maps hold of this extent; the mark stays as it is
  };
  Kind kind = Kind::kHot;
  VolumeNumber volume;  // kWords: 0, the maps say whose they are
  LogicalExtent extent;
  std::vector<MapWord> words;  // kCool; kWords: at least one; at most kMaxMarkWords
  bool operator==(const MarkRecord&) const = default;
};

inline constexpr size_t kMaxMarkWords = 255;

struct MarkBatch {
  uint64_t lap = 0;       // which use of the file it belongs to: random, named by the store
  uint64_t position = 0;  // rises by one with each batch, over all laps
  std::vector<MarkRecord> records;
  uint64_t bytes = 0;  // encoded length
  uint32_t chain = 0;  // its own CRC, which the next batch names
};

// Bytes a record takes.
size_t mark_record_bytes(const MarkRecord& record);
// Whole blocks that hold records of this many bytes together.
uint64_t mark_batch_bytes(size_t record_bytes);

// `chain`: the CRC of the batch before it, 0 for the first of a lap.
std::vector<std::byte> encode_mark_batch(std::span<const MarkRecord> records, uint64_t lap,
                                         uint64_t position, uint32_t chain);
// The whole batch that begins at `bytes`, whichever it is; *before is the CRC it names. kCorrupt
// when there is none.
Result<MarkBatch> decode_mark_batch(std::span<const std::byte> bytes, uint32_t* before);

}  // namespace duplex::format
