// Any text where a person writes a size, a number, an id or a name: no crash, and what is
// understood is written and understood again as the same.
#include <cstdint>

#include "base/assert.h"
#include "base/text.h"
#include "base/uuid.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace duplex;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto bytes = parse_size(text)) {
    ASSERT(*bytes <= kMaxBytes);
    ASSERT(*parse_size(format_size(*bytes)) == *bytes);
    ASSERT(format_size_rounded(*bytes).size() <= 8);
  }
  if (const auto number = parse_number(text)) {
    ASSERT(*parse_number(std::to_string(*number)) == *number);
  }
  if (const auto id = parse_array_id(text))
    ASSERT(parse_array_id(format_id(*id))->value() == id->value());
  if (const auto number = parse_volume_number(text)) {
    ASSERT(parse_volume_number(format_id(*number))->value() == number->value());
  }
  if (check_name(text, "volume")) {
    ASSERT(!text.empty() && text.size() <= 63 && text.find('/') == text.npos);
    ASSERT(!parse_volume_number(text) || text.find_first_not_of("0123456789") == text.npos);
  }
  if (const auto uuid = Uuid::parse(text)) ASSERT(*Uuid::parse(uuid->to_string()) == *uuid);
  if (size >= sizeof(int64_t)) {
    int64_t time = 0;
    std::copy_n(data, sizeof time, reinterpret_cast<uint8_t*>(&time));
    ASSERT(format_time(time).ends_with('Z'));
  }
  return 0;
}
