#include "volume/change_map.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace duplex::volume {

uint64_t ChangeMap::set_bytes() const {
  if (count_ == 0) return 0;
  const uint64_t last = regions() - 1;
  const bool last_is_set = (peek(last / kRegionsPerWord) >> last % kRegionsPerWord & 1) != 0;
  return count_ * kRegionBytes - (last_is_set ? regions() * kRegionBytes - volume_bytes_ : 0);
}

uint64_t ChangeMap::memory_bytes() const {
  uint64_t bytes = pages_.capacity() * sizeof(pages_[0]);
  for (const auto& page : pages_) bytes += page != nullptr ? sizeof(Page) : 0;
  return bytes;
}

void ChangeMap::set(ByteRange range) {
  ASSERT(range_fits(range.offset, range.length, volume_bytes_));
  each_word(range, [this](HotExtent stretch, uint64_t regions) {
    poke(stretch.value(), peek(stretch.value()) | regions);
  });
}

void ChangeMap::clear(ByteRange range) {
  ASSERT(range_fits(range.offset, range.length, volume_bytes_));
  if (count_ == 0) return;
  // The last region ends where the volume does.
  if (range.end() == volume_bytes_) range.length = regions() * kRegionBytes - range.offset;
  each_word(range.narrowed(kRegionBytes), [this](HotExtent stretch, uint64_t regions) {
    poke(stretch.value(), peek(stretch.value()) & ~regions);
  });
}

bool ChangeMap::any_slow(ByteRange range) const {
  ASSERT(range_fits(range.offset, range.length, volume_bytes_));
  bool found = false;
  each_word(range, [&](HotExtent stretch, uint64_t regions) {
    found |= (peek(stretch.value()) & regions) != 0;
  });
  return found;
}

bool ChangeMap::all(ByteRange range) const {
  ASSERT(range_fits(range.offset, range.length, volume_bytes_));
  bool found = true;
  each_word(range, [&](HotExtent stretch, uint64_t regions) {
    found &= (~peek(stretch.value()) & regions) == 0;
  });
  return found;
}

ByteRange ChangeMap::next_run(uint64_t offset, uint64_t limit_bytes) const {
  ASSERT(limit_bytes >= kRegionBytes);
  // The end of the volume lies inside a short last region, and no run ends behind it.
  if (offset >= volume_bytes_) return {};
  const uint64_t end = regions();
  const uint64_t first = find(offset / kRegionBytes, end, true);
  if (first == end) return {};
  const uint64_t most = std::min(end, first + limit_bytes / kRegionBytes);
  const uint64_t from = first * kRegionBytes;
  const uint64_t to = std::min(find(first, most, false) * kRegionBytes, volume_bytes_);
  return {from, to - from};
}

uint64_t ChangeMap::find(uint64_t from, uint64_t until, bool is_set) const {
  if (count_ == 0 && is_set) return until;
  while (from < until) {
    const uint64_t word = from / kRegionsPerWord;
    const Page* page = pages_[word / kWordsPerPage].get();
    if (page == nullptr || page->count == 0) {
      if (!is_set) return from;
      from = (word / kWordsPerPage + 1) * kWordsPerPage * kRegionsPerWord;
      continue;
    }
    const uint64_t regions = page->words[word % kWordsPerPage];
    const uint64_t wanted = (is_set ? regions : ~regions) & ~uint64_t{0} << from % kRegionsPerWord;
    if (wanted != 0) {
      const uint64_t at = word * kRegionsPerWord + static_cast<uint64_t>(std::countr_zero(wanted));
      return std::min(at, until);
    }
    from = (word + 1) * kRegionsPerWord;
  }
  return until;
}

uint64_t ChangeMap::word(HotExtent stretch) const {
  return stretch.value() < words() ? peek(stretch.value()) : 0;
}

void ChangeMap::set_word(HotExtent stretch, uint64_t regions) {
  if (stretch.value() >= words()) return;
  const uint64_t there = this->regions() - stretch.value() * kRegionsPerWord;
  if (there < kRegionsPerWord) regions &= ~(~uint64_t{0} << there);
  poke(stretch.value(), regions);
}

void ChangeMap::or_word(HotExtent stretch, uint64_t regions) {
  set_word(stretch, word(stretch) | regions);
}

std::optional<ChangeMap::Word> ChangeMap::next_word(HotExtent from) const {
  const uint64_t end = regions();
  if (from.value() >= words()) return std::nullopt;
  const uint64_t at = find(from.value() * kRegionsPerWord, end, true);
  if (at == end) return std::nullopt;
  return Word{HotExtent(at / kRegionsPerWord), peek(at / kRegionsPerWord)};
}

void ChangeMap::unite(const ChangeMap& other) {
  ASSERT(other.volume_bytes_ <= volume_bytes_);
  for (auto at = other.next_word(HotExtent(0)); at;
       at = other.next_word(HotExtent(at->stretch.value() + 1))) {
    or_word(at->stretch, at->regions);
  }
}

void ChangeMap::clear_all() {
  for (auto& page : pages_) page.reset();
  count_ = 0;
}

void ChangeMap::release_empty() {
  for (auto& page : pages_) {
    if (page != nullptr && page->count == 0) page.reset();
  }
}

void ChangeMap::resize(uint64_t volume_bytes) {
  ASSERT(volume_bytes >= volume_bytes_ && volume_bytes <= kMaxBytes);
  volume_bytes_ = volume_bytes;
  pages_.resize(divide_up(words(), kWordsPerPage));
}

void ChangeMap::poke(uint64_t word, uint64_t regions) {
  std::unique_ptr<Page>& page = pages_[word / kWordsPerPage];
  if (page == nullptr) {
    if (regions == 0) return;
    page = std::make_unique<Page>();
  }
  uint64_t& at = page->words[word % kWordsPerPage];
  const auto before = static_cast<uint32_t>(std::popcount(at));
  const auto after = static_cast<uint32_t>(std::popcount(regions));
  at = regions;
  page->count += after - before;  // modulo 2^32: the sum is never negative
  count_ += after;
  count_ -= before;
}

}  // namespace duplex::volume
