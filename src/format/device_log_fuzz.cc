// Any bytes as a half of a map log: no crash, and the run never reaches behind the bytes.
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "format/device_log.h"
#include "format/fields.h"

namespace {

using namespace duplex;

// A valid checkpoint, then one batch whose body is the input, with its length, chain and checksum
// put right so that the records behind them are reached.
void decode_batch_with_body(std::span<const std::byte> body) {
  format::LogCheckpoint checkpoint;
  checkpoint.generation = 7;
  std::vector<std::byte> half = format::encode_checkpoint(checkpoint);
  const format::LogRecord record = format::LogUnmap{};
  const auto head = format::encode_batch(
      std::span(&record, 1),
      {.generation = 7, .first_sequence = 1, .chain = format::end_chain(half)});
  constexpr size_t kLengthAt = format::kSealedFrom + 4 + 8 + 8;
  constexpr size_t kCountAt = kLengthAt + 4;
  std::vector<std::byte> batch(round_up(kCountAt + 4 + body.size(), kBlockBytes));
  std::memcpy(batch.data(), head.data(), kLengthAt);
  store_le<uint32_t>(batch.data() + kLengthAt, static_cast<uint32_t>(batch.size()));
  if (!body.empty()) {
    store_le<uint32_t>(batch.data() + kCountAt, static_cast<uint32_t>(body.front()) + 1);
    std::memcpy(batch.data() + kCountAt + 4, body.data() + 1, body.size() - 1);
  }
  format::seal(batch);
  half.insert(half.end(), batch.begin(), batch.end());
  const auto decoded = format::decode_half(half, Uuid{});
  ASSERT(decoded && decoded->used_bytes <= half.size());
}

void decode_checkpoint_with_body(std::span<const std::byte> body) {
  constexpr size_t kLengthAt = format::kSealedFrom + 4;
  std::vector<std::byte> half(round_up(kLengthAt + 8 + body.size() + 1, kBlockBytes));
  std::memcpy(half.data(), "DUPLEXCP", format::kMagicBytes);
  store_le<uint32_t>(half.data() + format::kSealedFrom, 1);
  store_le<uint64_t>(half.data() + kLengthAt, half.size());
  if (!body.empty()) std::memcpy(half.data() + kLengthAt + 8, body.data(), body.size());
  format::seal(half);
  const auto decoded = format::decode_half(half, Uuid{});
  ASSERT(!decoded || decoded->used_bytes <= half.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto raw = std::as_bytes(std::span(data, size));
  (void)format::decode_half(raw, Uuid{});
  decode_batch_with_body(raw);
  decode_checkpoint_with_body(raw);
  return 0;
}
