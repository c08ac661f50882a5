// Batches of the mark log, byte by byte. The layout stands in docs/FORMAT.md, "Mark log".
#include "format/mark_batch.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/bytes.h"
#include "format/fields.h"

namespace duplex::format {
namespace {

constexpr std::array kMagic = magic_of("DUPLEXMB");
constexpr size_t kHead = kSealedFrom + 4 + 8 + 8 + 4 + 4;
constexpr size_t kRecordHead = 1 + 2 + 4 + 1;
constexpr size_t kWordBytes = 4 + 8;

bool is_valid(const MarkRecord& record) {
  if (record.words.size() > kMaxMarkWords) return false;
  switch (record.kind) {
    case MarkRecord::Kind::kHot:
      return record.words.empty();
    case MarkRecord::Kind::kCool:
      return true;
    case MarkRecord::Kind::kWords:
      return !record.words.empty() && record.volume == VolumeNumber{};
  }
  return false;  // a number from outside
}

bool take(ByteReader& in, MarkRecord& record) {
  record.kind = static_cast<MarkRecord::Kind>(in.take<uint8_t>());
  record.volume = VolumeNumber(in.take<uint16_t>());
  record.extent = LogicalExtent(in.take<uint32_t>());
  const auto words = in.take<uint8_t>();
  for (size_t i = 0; i < words && in.ok(); ++i) {
    MapWord& word = record.words.emplace_back();
    word.map = in.take<uint32_t>();
    word.regions = in.take<uint64_t>();
  }
  return in.ok() && is_valid(record);
}

}  // namespace

size_t mark_record_bytes(const MarkRecord& record) {
  return kRecordHead + record.words.size() * kWordBytes;
}

uint64_t mark_batch_bytes(size_t record_bytes) {
  return round_up(kHead + record_bytes, kBlockBytes);
}

std::vector<std::byte> encode_mark_batch(std::span<const MarkRecord> records, uint64_t lap,
                                         uint64_t position, uint32_t chain) {
  ASSERT(!records.empty());
  ByteWriter out;
  out.put_bytes(kMagic);
  out.put<uint32_t>(0);  // CRC, see seal()
  out.put<uint32_t>(chain);
  out.put<uint64_t>(lap);
  out.put<uint64_t>(position);
  const size_t length_at = out.size();
  out.put<uint32_t>(0);
  out.put<uint32_t>(static_cast<uint32_t>(records.size()));
  ASSERT(out.size() == kHead);
  for (const MarkRecord& record : records) {
    ASSERT(is_valid(record));
    out.put<uint8_t>(static_cast<uint8_t>(record.kind));
    out.put<uint16_t>(record.volume.value());
    out.put<uint32_t>(record.extent.value());
    out.put<uint8_t>(static_cast<uint8_t>(record.words.size()));
    for (const MapWord& word : record.words) {
      out.put<uint32_t>(word.map);
      out.put<uint64_t>(word.regions);
    }
  }
  out.pad_to(round_up(out.size(), kBlockBytes));
  store_le<uint32_t>(out.bytes().data() + length_at, static_cast<uint32_t>(out.size()));
  seal(out.bytes());
  return std::move(out.bytes());
}

Result<MarkBatch> decode_mark_batch(std::span<const std::byte> bytes, uint32_t* before) {
  if (bytes.size() < kHead || !std::ranges::equal(bytes.first(kMagic.size()), kMagic)) {
    return fail(Code::kCorrupt);
  }
  ByteReader head(bytes.subspan(kSealedFrom));
  *before = head.take<uint32_t>();
  MarkBatch batch;
  batch.lap = head.take<uint64_t>();
  batch.position = head.take<uint64_t>();
  batch.bytes = head.take<uint32_t>();
  const auto count = head.take<uint32_t>();
  if (batch.bytes < kHead || batch.bytes > bytes.size() || batch.bytes % kBlockBytes != 0) {
    return fail(Code::kCorrupt);
  }
  bytes = bytes.first(batch.bytes);
  if (!sealed(bytes) || count == 0) return fail(Code::kCorrupt);
  batch.chain = stored_seal(bytes);
  ByteReader in(bytes.subspan(kHead));
  for (uint32_t i = 0; i < count; ++i) {
    if (!take(in, batch.records.emplace_back())) return fail(Code::kCorrupt);
  }
  if (in.remaining() >= kBlockBytes || !is_zero(in.take_bytes(in.remaining()))) {
    return fail(Code::kCorrupt);
  }
  return batch;
}

}  // namespace duplex::format
