#include "volume/mark_store.h"

#include <limits>
#include <utility>

#include "base/assert.h"
#include "volume/members.h"

namespace duplex::volume {
namespace {

static_assert(kMaxMemberBytes / kHotBytes <= std::numeric_limits<uint32_t>::max());

uint32_t narrow(HotExtent extent) {
  ASSERT(extent.value() < kMaxMemberBytes / kHotBytes);
  return static_cast<uint32_t>(extent.value());
}

}  // namespace

// Marks copies the extents before its first suspension, so the list may end with this frame.
rt::Task<Result<void>> MarksOfVolume::mark(std::span<const HotExtent> extents) {
  std::vector<meta::MarkedExtent> marked;
  marked.reserve(extents.size());
  for (const HotExtent extent : extents) marked.push_back({volume_, LogicalExtent(narrow(extent))});
  co_return co_await marks_.mark(marked);
}

rt::Task<Result<void>> MarksOfVolume::cool(HotExtent extent, std::vector<format::MapWord> words) {
  return marks_.cool(volume_, LogicalExtent(narrow(extent)), std::move(words));
}

rt::Task<Result<void>> MarksOfVolume::write_words(MapId map, std::vector<ChangeMap::Word> words) {
  std::vector<meta::ExtentWord> narrowed;
  narrowed.reserve(words.size());
  for (const ChangeMap::Word& word : words) {
    narrowed.push_back({narrow(word.stretch), word.regions});
  }
  return marks_.write_words(map.value(), std::move(narrowed));
}

}  // namespace duplex::volume
