// Any bytes as a device label: no crash, and what decodes encodes to the same bytes again.
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "format/device_label.h"
#include "format/fields.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace duplex;
  const auto raw = std::as_bytes(std::span(data, size));
  (void)format::recognise_content(raw);
  (void)format::decode_label(raw);

  // With magic and checksum put right, so that the fields behind them are reached.
  std::vector<std::byte> label(format::kLabelBytes);
  std::memcpy(label.data() + format::kSealedFrom, data,
              std::min(size, label.size() - format::kSealedFrom));
  std::memcpy(label.data(), "DUPLEXDV", format::kMagicBytes);
  format::seal(label);
  if (const auto decoded = format::decode_label(label)) {
    ASSERT(format::encode_label(*decoded) == label);
  }
  return 0;
}
