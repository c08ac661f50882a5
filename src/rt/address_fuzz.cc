// Any text as an address: no crash, and what is understood is written and understood again as the
// same.
#include <cstdint>

#include "base/assert.h"
#include "rt/net.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace duplex;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto address = rt::Address::parse(text);
  if (!address) return 0;
  const auto again = rt::Address::parse(address->to_string());
  ASSERT(again);
  ASSERT(again->kind == address->kind && again->host == address->host &&
         again->port == address->port);
  ASSERT(again->is_local() == address->is_local());
  return 0;
}
