// ChangeMap: which regions (64 KiB) of a volume are set; what "set" means is its user's.
//
// A mirror has one for each side ("this side may be newer: copy away from here") and one of the
// regions that only its target holds ("missing"); docs/ARCHITECTURE.md "Change tracking".
//
// Owner: the tracker of the volume, or a copy. Thread: the volume's core.
// Storage: one bit a region, in pages of 4 KiB that cover 2 GiB each, beside an index of 8 bytes
// a page. A page comes with the first bit in it, so an empty map of 1 TiB costs 4 KiB and a full
// one 2 MiB more. It stays when its last bit goes: a region that is set and cleared over and over
// allocates nothing. release_empty() and clear_all() give pages back.
//
// Invariants:
// 1. No bit behind the end of the volume is set.
// 2. A page's count is that of its bits, the map's count the sum of its pages'.
// 3. Widening is always to the safe side of set(): a range sets every region it touches, and
//    clears only those that lie in it wholly.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/units.h"
#include "volume/hot_set.h"

namespace duplex::volume {

// One word of a map is what one mark covers: bit i is region i of the stretch.
inline constexpr uint64_t kRegionsPerWord = 64;
static_assert(kHotBytes == kRegionsPerWord * kRegionBytes);

// f(stretch, regions) for each word that `range` touches, with the regions it touches there.
template <class F>
void each_word(ByteRange range, F f) {
  if (range.empty()) return;
  const uint64_t first = range.offset / kRegionBytes;
  const uint64_t last = (range.end() - 1) / kRegionBytes;
  for (uint64_t word = first / kRegionsPerWord; word <= last / kRegionsPerWord; ++word) {
    uint64_t regions = ~uint64_t{0};
    if (word == first / kRegionsPerWord) regions &= ~uint64_t{0} << first % kRegionsPerWord;
    if (word == last / kRegionsPerWord) regions &= ~uint64_t{0} >> (63 - last % kRegionsPerWord);
    f(HotExtent(word), regions);
  }
}

class ChangeMap {
 public:
  explicit ChangeMap(uint64_t volume_bytes = 0) { resize(volume_bytes); }
  ChangeMap(ChangeMap&& other) noexcept { swap(other); }
  ChangeMap& operator=(ChangeMap&& other) noexcept {
    ChangeMap taken(std::move(other));
    swap(taken);
    return *this;
  }

  uint64_t volume_bytes() const { return volume_bytes_; }
  // Set regions.
  uint64_t count() const { return count_; }
  bool empty() const { return count_ == 0; }
  // Bytes of the volume that are set; the last region may be a short one.
  uint64_t set_bytes() const;
  // What the map occupies in memory.
  uint64_t memory_bytes() const;

  // Ranges lie inside the volume.
  void set(ByteRange range);
  void clear(ByteRange range);
  // Is any, or is every, region touched by `range` set? Of an empty range: no, and yes.
  bool any(ByteRange range) const { return count_ != 0 && any_slow(range); }
  bool all(ByteRange range) const;
  // The first run of set regions that ends behind `offset`, cut to `limit_bytes` (at least a
  // region); begins with the region of `offset` if that is set. Empty when there is none.
  ByteRange next_run(uint64_t offset, uint64_t limit_bytes) const;

  // Whole words. Bits and stretches behind the end of the volume do not exist: they read 0 and
  // are not set, so words may come from a disk.
  uint64_t word(HotExtent stretch) const;
  void set_word(HotExtent stretch, uint64_t regions);
  void or_word(HotExtent stretch, uint64_t regions);
  struct Word {
    HotExtent stretch;
    uint64_t regions;
    bool operator==(const Word&) const = default;
  };
  // The first word from `from` on that is not 0. The map may change between two calls.
  std::optional<Word> next_word(HotExtent from) const;

  // f(Word) for each word that is not 0, in order.
  template <class F>
  void each_set_word(F f) const {
    for (auto word = next_word(HotExtent(0)); word;
         word = next_word(HotExtent(word->stretch.value() + 1))) {
      f(*word);
    }
  }

  // Every bit of `other`, whose volume is not larger.
  void unite(const ChangeMap& other);
  void swap(ChangeMap& other) noexcept {
    std::swap(volume_bytes_, other.volume_bytes_);
    std::swap(count_, other.count_);
    pages_.swap(other.pages_);
  }
  void clear_all();
  void release_empty();
  // Grows only; new regions are not set.
  void resize(uint64_t volume_bytes);

 private:
  static constexpr uint64_t kWordsPerPage = 512;
  struct Page {
    std::array<uint64_t, kWordsPerPage> words{};
    uint32_t count = 0;
  };
  uint64_t regions() const { return divide_up(volume_bytes_, kRegionBytes); }
  uint64_t words() const { return divide_up(regions(), kRegionsPerWord); }
  bool any_slow(ByteRange range) const;
  uint64_t peek(uint64_t word) const {
    const Page* page = pages_[word / kWordsPerPage].get();
    return page == nullptr ? 0 : page->words[word % kWordsPerPage];
  }
  void poke(uint64_t word, uint64_t regions);
  // The first region of [from, until) that is set, or that is not; `until` when there is none.
  uint64_t find(uint64_t from, uint64_t until, bool is_set) const;

  uint64_t volume_bytes_ = 0;
  uint64_t count_ = 0;
  std::vector<std::unique_ptr<Page>> pages_;
};

}  // namespace duplex::volume
