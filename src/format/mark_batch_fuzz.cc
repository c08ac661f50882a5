// Any bytes as a batch of the mark log: no crash, and what decodes encodes to the same bytes again.
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "format/fields.h"
#include "format/mark_batch.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace duplex;
  uint32_t before = 0;
  (void)format::decode_mark_batch(std::as_bytes(std::span(data, size)), &before);

  // With magic, length and checksum put right, so that the records behind them are reached.
  constexpr size_t kLengthAt = format::kSealedFrom + 4 + 8 + 8;
  std::vector<std::byte> batch(round_up(format::kSealedFrom + size + 64, kBlockBytes));
  if (size != 0) std::memcpy(batch.data() + format::kSealedFrom, data, size);
  std::memcpy(batch.data(), "DUPLEXMB", format::kMagicBytes);
  store_le<uint32_t>(batch.data() + kLengthAt, static_cast<uint32_t>(batch.size()));
  format::seal(batch);
  if (const auto decoded = format::decode_mark_batch(batch, &before)) {
    ASSERT(format::encode_mark_batch(decoded->records, decoded->lap, decoded->position, before) ==
           batch);
  }
  return 0;
}
