// Any bytes as a pair file: parsed or refused, and what was parsed reads back as itself.
#include <fmt/format.h>

#include <cstdint>
#include <string>

#include "api/pair_file.h"
#include "base/assert.h"
#include "base/text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace duplex;
  const auto pairs = api::parse_pairs({reinterpret_cast<const char*>(data), size});
  if (!pairs) {
    ASSERT(pairs.error().code() == Code::kInvalid && !pairs.error().next().empty());
    return 0;
  }
  ASSERT(!pairs->empty());
  std::string text;
  for (const mirror::PairId& pair : *pairs)
    text += fmt::format("{}, {}\n{}, {}\n", format_id(pair.source_array), format_id(pair.source),
                        format_id(pair.target_array), format_id(pair.target));
  const auto again = api::parse_pairs(text);
  ASSERT(again && again->size() == pairs->size());
  for (size_t i = 0; i < pairs->size(); ++i) {
    const mirror::PairId& one = (*pairs)[i];
    const mirror::PairId& other = (*again)[i];
    ASSERT(one.source_array == other.source_array && one.source == other.source &&
           one.target_array == other.target_array && one.target == other.target);
  }
  const bool own = api::check_pairs(*pairs, (*pairs)[0].source_array).has_value();
  ASSERT(own || pairs->size() > 1 || (*pairs)[0].target_array != (*pairs)[0].source_array);
  return 0;
}
