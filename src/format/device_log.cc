// The map log of a device, byte by byte. The layout stands in docs/FORMAT.md, "Map log".
#include "format/device_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/assert.h"
#include "base/bytes.h"
#include "format/fields.h"

namespace duplex::format {
namespace {

constexpr std::array kCheckpointMagic = magic_of("DUPLEXCP");
constexpr std::array kBatchMagic = magic_of("DUPLEXLB");
constexpr uint32_t kLogVersion = 1;

constexpr size_t kCheckpointHead = kSealedFrom + 4 + 8 + 16 + 8 + 8 + 4 + 4;
constexpr size_t kBatchHead = kSealedFrom + 4 + 8 + 8 + 8 + 4 + 4;
constexpr size_t kMapBytes = 4 + 4 + 4;
constexpr size_t kVolumeMax = 2 + 8 + 4 + 16 + 2 + 1 + 2 * (1 + kMaxNameBytes);

// Flags of a volume.
constexpr uint8_t kThick = 1;
constexpr uint8_t kDamaged = 2;

enum class Kind : uint8_t { kVolume = 1, kVolumeDrop = 2, kMap = 3, kUnmap = 4 };

void put(ByteWriter& out, const LogVolume& volume) {
  out.put<uint16_t>(volume.number.value());
  out.put<uint64_t>(volume.size_bytes);
  out.put<uint32_t>(volume.backing.value());
  put_uuid(out, volume.backing_uuid);
  out.put<uint16_t>(volume.only_device.value());
  out.put<uint8_t>((volume.thick ? kThick : 0) | (volume.damaged ? kDamaged : 0));
  put_name(out, volume.name);
  put_name(out, volume.backing_name);
}
void put(ByteWriter& out, const LogMap& map) {
  ASSERT(map.backing != BackingId{});
  out.put<uint32_t>(map.pe.value());
  out.put<uint32_t>(map.backing.value());
  out.put<uint32_t>(map.le.value());
}

struct PutRecord {
  ByteWriter& out;
  void kind(Kind kind) { out.put<uint8_t>(static_cast<uint8_t>(kind)); }
  void operator()(const LogVolume& volume) {
    kind(Kind::kVolume);
    put(out, volume);
  }
  void operator()(const LogVolumeDrop& drop) {
    kind(Kind::kVolumeDrop);
    out.put<uint16_t>(drop.number.value());
  }
  void operator()(const LogMap& map) {
    kind(Kind::kMap);
    put(out, map);
  }
  void operator()(const LogUnmap& unmap) {
    kind(Kind::kUnmap);
    out.put<uint32_t>(unmap.pe.value());
  }
};

// The take functions return false for bytes that no writer of ours produces.
bool take(ByteReader& in, LogVolume& volume) {
  volume.number = VolumeNumber(in.take<uint16_t>());
  volume.size_bytes = in.take<uint64_t>();
  volume.backing = BackingId(in.take<uint32_t>());
  volume.backing_uuid = take_uuid(in);
  volume.only_device = DeviceId(in.take<uint16_t>());
  const auto flags = in.take<uint8_t>();
  volume.thick = (flags & kThick) != 0;
  volume.damaged = (flags & kDamaged) != 0;
  volume.name = take_text(in);
  volume.backing_name = take_text(in);
  return in.ok() && flags <= (kThick | kDamaged) && volume.name.size() <= kMaxNameBytes &&
         volume.backing_name.size() <= kMaxNameBytes && volume.size_bytes <= kMaxBytes;
}
bool take(ByteReader& in, LogMap& map) {
  map.pe = PhysicalExtent(in.take<uint32_t>());
  map.backing = BackingId(in.take<uint32_t>());
  map.le = LogicalExtent(in.take<uint32_t>());
  return in.ok() && map.backing != BackingId{};
}
bool take(ByteReader& in, LogRecord& record) {
  switch (static_cast<Kind>(in.take<uint8_t>())) {
    case Kind::kVolume:
      return take(in, record.emplace<LogVolume>());
    case Kind::kVolumeDrop:
      record = LogVolumeDrop{VolumeNumber(in.take<uint16_t>())};
      return in.ok();
    case Kind::kMap:
      return take(in, record.emplace<LogMap>());
    case Kind::kUnmap:
      record = LogUnmap{PhysicalExtent(in.take<uint32_t>())};
      return in.ok();
  }
  return false;
}

bool begins_with(std::span<const std::byte> bytes, std::span<const std::byte> magic) {
  return bytes.size() >= magic.size() && std::ranges::equal(bytes.first(magic.size()), magic);
}

// What is left of a structure after its last field: less than one block, all zero.
bool only_padding(ByteReader& in) {
  return in.ok() && in.remaining() < kBlockBytes && is_zero(in.take_bytes(in.remaining()));
}

// Replays the records of a half. Maps are kept as a list of changes and sorted once at the end:
// a half of a million entries needs no tree of nodes.
class Replay {
 public:
  // False if the checkpoint names one volume or one extent twice.
  bool begin(const LogCheckpoint& checkpoint) {
    changes_.reserve(checkpoint.maps.size());
    for (const LogMap& map : checkpoint.maps) change(map);
    sort();
    if (std::ranges::adjacent_find(changes_, {}, &Change::pe) != changes_.end()) return false;
    for (const LogVolume& volume : checkpoint.volumes) {
      if (!volumes_.emplace(volume.number, volume).second) return false;
    }
    return true;
  }
  void operator()(LogVolume& volume) { volumes_[volume.number] = std::move(volume); }
  void operator()(LogVolumeDrop& drop) { volumes_.erase(drop.number); }
  void operator()(LogMap& map) { change(map); }
  void operator()(LogUnmap& unmap) { change({unmap.pe, kNone, {}}); }

  // The last change of each extent wins; unmapped ones go.
  void finish(LogCheckpoint& into) {
    sort();
    into.maps.clear();
    for (size_t i = 0; i < changes_.size(); ++i) {
      const Change& c = changes_[i];
      const bool last = i + 1 == changes_.size() || changes_[i + 1].pe() != c.pe();
      if (last && c.map.backing != kNone) into.maps.push_back(c.map);
    }
    into.volumes.clear();
    for (auto& [number, volume] : volumes_) into.volumes.push_back(std::move(volume));
  }

 private:
  static constexpr BackingId kNone{};
  struct Change {
    LogMap map;
    uint32_t order;
    PhysicalExtent pe() const { return map.pe; }
  };
  void change(const LogMap& map) {
    changes_.push_back({map, static_cast<uint32_t>(changes_.size())});
  }
  void sort() {
    std::ranges::sort(changes_, {}, [](const Change& c) { return std::pair(c.pe(), c.order); });
  }
  std::vector<Change> changes_;
  std::map<VolumeNumber, LogVolume> volumes_;
};

// The checkpoint at the head of `bytes`; *used is its length.
Result<LogCheckpoint> take_checkpoint(std::span<const std::byte> bytes, uint64_t* used) {
  const auto corrupt = [](std::string_view why) {
    return fail(Code::kCorrupt, fmt::format("map log has no valid checkpoint: {}", why));
  };
  if (!begins_with(bytes, kCheckpointMagic)) return corrupt("none was written here");
  ByteReader head(bytes.subspan(std::min(bytes.size(), kSealedFrom)));
  const auto version = head.take<uint32_t>();
  const auto length = head.take<uint64_t>();
  if (!head.ok() || length < kCheckpointHead || length > bytes.size())
    return corrupt("it is cut short");
  bytes = bytes.first(length);
  if (!sealed(bytes)) return corrupt("its checksum does not match");
  if (version > kLogVersion) {
    return fail(Code::kNotSupported, "the map log was written by a newer version of Duplex",
                "use the duplexd that wrote it, or a newer one");
  }
  if (version != kLogVersion || length % kBlockBytes != 0) return corrupt("unknown layout");

  ByteReader in(bytes.subspan(kSealedFrom + sizeof version + sizeof length));
  LogCheckpoint checkpoint;
  checkpoint.device = take_uuid(in);
  checkpoint.generation = in.take<uint64_t>();
  checkpoint.sequence = in.take<uint64_t>();
  const auto volumes = in.take<uint32_t>();
  const auto maps = in.take<uint32_t>();
  if (maps > in.remaining() / kMapBytes) return corrupt("its fields do not fit");
  for (uint32_t i = 0; i < volumes; ++i) {
    if (!take(in, checkpoint.volumes.emplace_back())) return corrupt("a volume does not fit");
  }
  checkpoint.maps.reserve(maps);
  for (uint32_t i = 0; i < maps; ++i) {
    if (!take(in, checkpoint.maps.emplace_back())) return corrupt("a map entry does not fit");
  }
  if (!only_padding(in)) return corrupt("its fields do not fit");
  *used = length;
  return checkpoint;
}

// The batch at the head of `bytes`, if it is the one that follows `sequence` and `chain`.
// Returns its length, or 0 at the first doubt.
uint64_t take_batch(std::span<const std::byte> bytes, uint64_t generation, uint64_t sequence,
                    uint32_t chain, std::vector<LogRecord>& records) {
  records.clear();
  if (bytes.size() < kBatchHead || !begins_with(bytes, kBatchMagic)) return 0;
  ByteReader head(bytes.subspan(kSealedFrom));
  const bool follows = head.take<uint32_t>() == chain;
  const bool same_generation = head.take<uint64_t>() == generation;
  const bool next = head.take<uint64_t>() == sequence + 1;
  head.take<uint64_t>();  // flushed
  const auto length = head.take<uint32_t>();
  const auto count = head.take<uint32_t>();
  if (!follows || !same_generation || !next || count == 0) return 0;
  if (length < kBatchHead || length > bytes.size() || length % kBlockBytes != 0) return 0;
  bytes = bytes.first(length);
  if (!sealed(bytes)) return 0;
  ByteReader in(bytes.subspan(kBatchHead));
  for (uint32_t i = 0; i < count; ++i) {
    if (!take(in, records.emplace_back())) return 0;
  }
  return only_padding(in) ? length : 0;
}

}  // namespace

std::vector<std::byte> encode_checkpoint(const LogCheckpoint& checkpoint) {
  ByteWriter out;
  out.put_bytes(kCheckpointMagic);
  out.put<uint32_t>(0);  // CRC, see seal()
  out.put<uint32_t>(kLogVersion);
  const size_t length_at = out.size();
  out.put<uint64_t>(0);
  put_uuid(out, checkpoint.device);
  out.put<uint64_t>(checkpoint.generation);
  out.put<uint64_t>(checkpoint.sequence);
  out.put<uint32_t>(static_cast<uint32_t>(checkpoint.volumes.size()));
  out.put<uint32_t>(static_cast<uint32_t>(checkpoint.maps.size()));
  ASSERT(out.size() == kCheckpointHead);
  for (const LogVolume& volume : checkpoint.volumes) put(out, volume);
  for (const LogMap& map : checkpoint.maps) put(out, map);
  out.pad_to(round_up(out.size(), kBlockBytes));
  store_le<uint64_t>(out.bytes().data() + length_at, out.size());
  seal(out.bytes());
  return std::move(out.bytes());
}

uint64_t checkpoint_bytes(uint64_t map_entries, uint64_t volumes) {
  return round_up(kCheckpointHead + map_entries * kMapBytes + volumes * kVolumeMax, kBlockBytes);
}

std::vector<std::byte> encode_batch(std::span<const LogRecord> records, const BatchPlace& place) {
  ASSERT(!records.empty());
  ByteWriter out;
  out.put_bytes(kBatchMagic);
  out.put<uint32_t>(0);  // CRC, see seal()
  out.put<uint32_t>(place.chain);
  out.put<uint64_t>(place.generation);
  out.put<uint64_t>(place.first_sequence);
  out.put<uint64_t>(place.flushed);
  const size_t length_at = out.size();
  out.put<uint32_t>(0);
  out.put<uint32_t>(static_cast<uint32_t>(records.size()));
  ASSERT(out.size() == kBatchHead);
  for (const LogRecord& record : records) std::visit(PutRecord{out}, record);
  out.pad_to(round_up(out.size(), kBlockBytes));
  ASSERT(out.size() <= UINT32_MAX);
  store_le<uint32_t>(out.bytes().data() + length_at, static_cast<uint32_t>(out.size()));
  seal(out.bytes());
  return std::move(out.bytes());
}

uint32_t end_chain(std::span<const std::byte> encoded) {
  ASSERT(encoded.size() >= kSealedFrom);
  return stored_seal(encoded);
}

LogPosition known_flushed(std::span<const std::byte> bytes) {
  LogPosition latest;
  for (; bytes.size() >= kBlockBytes; bytes = bytes.subspan(kBlockBytes)) {
    if (!begins_with(bytes, kBatchMagic)) continue;
    ByteReader head(bytes.subspan(kSealedFrom));
    head.take<uint32_t>();  // chain
    const auto generation = head.take<uint64_t>();
    head.take<uint64_t>();  // first sequence
    const auto flushed = head.take<uint64_t>();
    const auto length = head.take<uint32_t>();
    const bool whole = length >= kBatchHead && length <= bytes.size() && length % kBlockBytes == 0;
    if (!whole || !sealed(bytes.first(length))) continue;
    latest = std::max(latest, {generation, flushed});
  }
  return latest;
}

Result<LogHalf> decode_half(std::span<const std::byte> bytes, const Uuid& device) {
  LogHalf half;
  TRY_ASSIGN(half.checkpoint, take_checkpoint(bytes, &half.used_bytes));
  if (half.checkpoint.device != device) {
    return fail(Code::kCorrupt, "map log belongs to another device");
  }
  half.chain = stored_seal(bytes);
  Replay replay;
  if (!replay.begin(half.checkpoint)) {
    return fail(Code::kCorrupt, "map log has no valid checkpoint: an entry occurs twice");
  }
  std::vector<LogRecord> records;
  while (true) {
    const auto rest = bytes.subspan(half.used_bytes);
    const uint64_t length =
        take_batch(rest, half.checkpoint.generation, half.checkpoint.sequence, half.chain, records);
    if (length == 0) break;
    for (LogRecord& record : records) std::visit(replay, record);
    half.checkpoint.sequence += records.size();
    half.chain = stored_seal(rest);
    half.used_bytes += length;
  }
  replay.finish(half.checkpoint);
  return half;
}

}  // namespace duplex::format
