// The change map beside a plain set of region numbers, its memory, and its edges by name.
#include "volume/change_map.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace duplex::volume {
namespace {

constexpr uint64_t kR = kRegionBytes;

TEST(ChangeMap, AnEmptyMapOfATebibyteCostsFourKiBAndAFullOneTwoMiBMore) {
  ChangeMap map(kTiB);
  EXPECT_LE(map.memory_bytes(), 4 * kKiB);
  EXPECT_FALSE(map.any({0, kTiB}));
  map.set({0, kTiB});
  EXPECT_EQ(map.count(), kTiB / kR);
  EXPECT_EQ(map.set_bytes(), kTiB);
  EXPECT_TRUE(map.all({0, kTiB}));
  EXPECT_LE(map.memory_bytes(), 2 * kMiB + 16 * kKiB);
  map.clear_all();
  EXPECT_LE(map.memory_bytes(), 4 * kKiB);
  EXPECT_TRUE(map.empty());
}

TEST(ChangeMap, OneBitCostsOnePageAndItsMemoryStaysUntilItIsReleased) {
  ChangeMap map(kTiB);
  const uint64_t empty = map.memory_bytes();
  map.set({kTiB / 2, 1});
  const uint64_t with_page = map.memory_bytes();
  EXPECT_LE(with_page, empty + 5 * kKiB);
  map.clear({kTiB / 2, kR});
  EXPECT_EQ(map.memory_bytes(), with_page);
  map.release_empty();
  EXPECT_EQ(map.memory_bytes(), empty);
}

TEST(ChangeMap, SettingWidensToRegionsAndClearingNarrowsToThem) {
  ChangeMap map(16 * kMiB);
  map.set({kR - 1, 2});
  EXPECT_EQ(map.count(), 2u);
  map.clear({1, 2 * kR - 1});
  EXPECT_EQ(map.next_run(0, kMiB), (ByteRange{0, kR}));
  map.set({5, 0});
  EXPECT_EQ(map.count(), 1u);
}

TEST(ChangeMap, TheLastRegionEndsWhereTheVolumeDoes) {
  const uint64_t size = 3 * kR + 4096;
  ChangeMap map(size);
  map.set({0, size});
  EXPECT_EQ(map.count(), 4u);
  EXPECT_EQ(map.set_bytes(), size);
  EXPECT_EQ(map.next_run(3 * kR + 1, kMiB), (ByteRange{3 * kR, 4096}));
  // A walk from run to run ends there. Mutation: next_run() does not ask for the end.
  EXPECT_TRUE(map.next_run(map.volume_bytes(), kMiB).empty());
  map.clear({3 * kR, 4096});
  EXPECT_EQ(map.count(), 3u);
  EXPECT_EQ(map.set_bytes(), 3 * kR);
  map.set({3 * kR, 1});
  map.resize(4 * kR);
  EXPECT_EQ(map.set_bytes(), 4 * kR);
  map.clear({3 * kR, 4096});
  EXPECT_EQ(map.count(), 4u);  // the region is longer now
}

TEST(ChangeMap, WordsFromADiskSetNothingBehindTheEnd) {
  ChangeMap map(64 * kR + 2 * kR);
  map.set_word(HotExtent(1), ~uint64_t{0});
  EXPECT_EQ(map.word(HotExtent(1)), 3u);
  EXPECT_EQ(map.count(), 2u);
  map.or_word(HotExtent(2), 1);
  map.set_word(HotExtent(~uint64_t{0}), 1);
  EXPECT_EQ(map.word(HotExtent(2)), 0u);
  EXPECT_EQ(map.count(), 2u);
  EXPECT_EQ(map.next_word(HotExtent(2)), std::nullopt);
}

TEST(ChangeMap, ARunIsCutToTheLimitAndFoundAcrossPages) {
  ChangeMap map(kTiB);
  const ByteRange run{2 * kGiB - 3 * kR, 6 * kR};  // a page covers 2 GiB
  map.set(run);
  EXPECT_EQ(map.next_run(0, kGiB), run);
  EXPECT_EQ(map.next_run(0, 2 * kR + 1), (ByteRange{run.offset, 2 * kR}));
  EXPECT_EQ(map.next_run(run.offset + 4 * kR, kGiB), (ByteRange{run.offset + 4 * kR, 2 * kR}));
  EXPECT_TRUE(map.next_run(run.end(), kGiB).empty());
  EXPECT_TRUE(map.next_run(kTiB, kGiB).empty());
}

TEST(ChangeMap, AMovedFromMapIsAnEmptyVolume) {
  ChangeMap map(kGiB);
  map.set({0, kR});
  ChangeMap other = std::move(map);
  EXPECT_EQ(other.count(), 1u);
  map = ChangeMap(kMiB);
  map.set({kR, kR});
  map.swap(other);
  EXPECT_EQ(map.volume_bytes(), kGiB);
  EXPECT_EQ(other.next_run(0, kMiB), (ByteRange{kR, kR}));
}

// Against std::set: sizes that end inside a page, a word and a region.
class Beside {
 public:
  Beside(uint64_t seed, uint64_t size) : random_(seed), size_(size), map_(size) {}

  void step() {
    const ByteRange range = some_range();
    const uint64_t first = range.offset / kR;
    const uint64_t end = divide_up(range.end(), kR);
    switch (random_() % 7) {
      case 0:
      case 1:
        map_.set(range);
        for (uint64_t r = first; r < end && !range.empty(); ++r) set_.insert(r);
        break;
      case 2:
        map_.clear(range);
        std::erase_if(set_, [&](uint64_t r) {
          return range.contains({r * kR, std::min(kR, size_ - r * kR)});
        });
        break;
      case 3: {
        const HotExtent stretch(random_() % (size_ / kHotBytes + 2));
        const uint64_t regions = random_() & random_();
        const bool is_or = random_() % 2 == 0;
        if (is_or) {
          map_.or_word(stretch, regions);
        } else {
          map_.set_word(stretch, regions);
        }
        for (uint64_t i = 0; i < 64; ++i) {
          const uint64_t r = stretch.value() * 64 + i;
          if (r * kR >= size_) continue;
          if ((regions >> i & 1) != 0) {
            set_.insert(r);
          } else if (!is_or) {
            set_.erase(r);
          }
        }
        break;
      }
      case 4: {
        ChangeMap other(size_);
        other.set(range);
        map_.unite(other);
        for (uint64_t r = first; r < end && !range.empty(); ++r) set_.insert(r);
        break;
      }
      case 5:
        map_.release_empty();
        break;
      default:
        size_ += random_() % (8 * kMiB) / 512 * 512;
        map_.resize(size_);
    }
  }
  void check() {
    ASSERT_EQ(map_.count(), set_.size());
    const ByteRange range = some_range();
    size_t in = 0;
    size_t touched = 0;
    for (uint64_t r = range.offset / kR; r * kR < range.end() && !range.empty(); ++r) {
      ++touched;
      in += set_.count(r);
    }
    ASSERT_EQ(map_.any(range), in > 0);
    ASSERT_EQ(map_.all(range), in == touched);
    const uint64_t limit = kR + random_() % (4 * kMiB);
    const ByteRange run = map_.next_run(range.offset, limit);
    auto at = range.offset < size_ ? set_.lower_bound(range.offset / kR) : set_.end();
    ASSERT_EQ(run.empty(), at == set_.end());
    if (!run.empty()) {
      ASSERT_EQ(run.offset, *at * kR);
      uint64_t n = 0;
      for (; at != set_.end() && *at == run.offset / kR + n && n < limit / kR; ++at) ++n;
      ASSERT_EQ(run.length, std::min(run.offset + n * kR, size_) - run.offset);
    }
    std::set<uint64_t> by_words;
    map_.each_set_word([&](ChangeMap::Word word) {
      ASSERT_EQ(word.regions, map_.word(word.stretch));
      for (uint64_t i = 0; i < 64; ++i) {
        if ((word.regions >> i & 1) != 0) by_words.insert(word.stretch.value() * 64 + i);
      }
    });
    ASSERT_EQ(by_words, set_);
  }

 private:
  ByteRange some_range() {
    const uint64_t from = random_() % size_;
    const uint64_t most = random_() % 4 == 0 ? size_ - from : std::min(size_ - from, 3 * kR);
    return {from, random_() % (most + 1)};
  }

  std::mt19937_64 random_;
  uint64_t size_;
  ChangeMap map_;
  std::set<uint64_t> set_;
};

// Mutation seen to fail: the run goes on over the limit; a clear that widens; a count that forgets
// bits which were set before.
TEST(ChangeMap, AgreesWithAPlainSetOfRegions) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Beside beside(seed, 1 + seed * 777 * 512 + (seed % 4 == 0 ? 2 * kGiB : 0));
    for (int i = 0; i < 60; ++i) {
      beside.step();
      beside.check();
      if (::testing::Test::HasFatalFailure()) FAIL() << "seed " << seed << " step " << i;
    }
  }
}

}  // namespace
}  // namespace duplex::volume
