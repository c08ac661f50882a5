// The window: what a lost cache costs, by name; and beside a list of writes and flushes.
#include "volume/window.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace duplex::volume {
namespace {

constexpr uint64_t kR = kRegionBytes;

std::set<uint64_t> take(Window& window) {
  std::set<uint64_t> regions;
  window.lose([&](HotExtent stretch, uint64_t word) {
    for (uint64_t i = 0; i < 64; ++i) {
      if ((word >> i & 1) != 0) regions.insert(stretch.value() * 64 + i);
    }
  });
  return regions;
}
void write(Window& window, uint64_t region, uint64_t count = 1) {
  EXPECT_TRUE(window.add({region * kR, count * kR}, window.stamp()));
}

TEST(Window, AFlushDropsWhatWasAddedBeforeItBeganAndNothingElse) {
  Window window;
  EXPECT_FALSE(window.owes());
  write(window, 3);
  write(window, 60, 10);
  const Window::Token token = window.begin();
  write(window, 4);
  EXPECT_EQ(window.word(HotExtent(1)), 0x3fu);
  window.end(token);
  EXPECT_TRUE(window.owes());
  EXPECT_EQ(window.word(HotExtent(1)), 0u);
  EXPECT_EQ(take(window), (std::set<uint64_t>{4}));
}

// Mutation seen to fail: dropped at begin() instead of at success.
TEST(Window, AFlushThatFailsOrNeverEndsDropsNothing) {
  Window window;
  write(window, 3);
  (void)window.begin();
  EXPECT_EQ(window.word(HotExtent(0)), 8u);
  EXPECT_EQ(take(window), (std::set<uint64_t>{3}));
}

TEST(Window, ARegionWrittenAgainDuringAFlushStays) {
  Window window;
  write(window, 3);
  const Window::Token token = window.begin();
  write(window, 3);
  window.end(token);
  EXPECT_EQ(take(window), (std::set<uint64_t>{3}));
}

// The device told one flush that the cache is lost. A second one that was under way says nothing
// about what was written since.
TEST(Window, AFlushOfBeforeALossDoesNotCountAfterIt) {
  Window window;
  write(window, 1);
  const Window::Token token = window.begin();
  EXPECT_EQ(take(window), (std::set<uint64_t>{1}));
  write(window, 2);
  window.end(token);
  EXPECT_EQ(take(window), (std::set<uint64_t>{1, 2}));
  window.end(window.begin());
  EXPECT_FALSE(window.owes());
}

// Mutation seen to fail: the stamp is not compared.
TEST(Window, AWriteUnderWayAtALossLearnsOfItWhenItEnds) {
  Window window;
  const Window::Stamp started = window.stamp();
  EXPECT_TRUE(take(window).empty());
  EXPECT_FALSE(window.add({0, kR}, started));
  EXPECT_TRUE(window.add({kR, kR}, window.stamp()));
  EXPECT_EQ(take(window), (std::set<uint64_t>{0, 1}));
}

TEST(Window, FlushesThatOverlapForEverStillDropWhatIsOld) {
  Window window;
  std::vector<Window::Token> open;
  for (uint64_t i = 0; i < 100; ++i) {
    write(window, i % 64);
    open.push_back(window.begin());
    if (open.size() > 4) {
      window.end(open.front());
      open.erase(open.begin());
    }
  }
  // Five flushes are open at a time and a region comes again after 64 turns, so all but a few of
  // the 64 are flushed; those of the newer generation may be late by as many turns again.
  EXPECT_LE(take(window).size(), 12u);
}

TEST(Window, TheLastFlushToBeginLeavesNothing) {
  Window window;
  std::vector<Window::Token> open;
  for (uint64_t i = 0; i < 10; ++i) {
    write(window, i);
    open.push_back(window.begin());
  }
  window.end(open.back());
  EXPECT_FALSE(window.owes());
  EXPECT_TRUE(take(window).empty());
}

TEST(Window, StorageStopsGrowingAndIsUsedAgain) {
  Window window;
  uint64_t bytes = 0;
  for (uint64_t round = 0; round < 50; ++round) {
    for (uint64_t i = 0; i < 1024; ++i) write(window, (round * 700 + i) * 64);
    window.end(window.begin());
    if (round == 2) bytes = window.memory_bytes();
  }
  EXPECT_EQ(window.memory_bytes(), bytes);
  EXPECT_LE(bytes, 160 * kKiB);
}

// Mutation: an exact window merges like the other kind.
TEST(Window, AnExactOneLetsEveryFlushThatOverlapsDropWhatItCovers) {
  Window window(Window::Kind::kExact);
  std::vector<Window::Token> open;
  for (uint64_t i = 0; i < 4; ++i) {
    write(window, i);
    open.push_back(window.begin());
  }
  window.end(open[2]);
  EXPECT_EQ(window.word(HotExtent(0)), 8u);
  EXPECT_EQ(take(window), (std::set<uint64_t>{3}));
}

// Writes take time, flushes overlap, some fail. `owed` is what a leg with a cache would have to
// lose: each region with the time of its last write; a flush covers what had ended at its start.
// Mutations seen to fail: a third generation replaces the newer one; end() drops what was added
// up to then; an exact window merges like the other kind; end() leaves all that is between.
TEST(Window, HoldsWhatNoFlushHasConfirmed) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    const size_t most_flushes = 1 + seed % 4;
    const bool is_exact = seed / 4 % 2 != 0;
    Window window(is_exact ? Window::Kind::kExact : Window::Kind::kTwoGenerations);
    std::map<uint64_t, uint64_t> owed;
    std::vector<std::pair<Window::Token, uint64_t>> flushes;
    std::vector<std::pair<Window::Stamp, uint64_t>> writes;
    for (uint64_t now = 1; now < 400; ++now) {
      switch (random() % 6) {
        case 0:
        case 1:
          writes.emplace_back(window.stamp(), random() % 12 * 13);
          break;
        case 2: {
          if (writes.empty()) break;
          const auto at = writes.begin() + static_cast<int64_t>(random() % writes.size());
          (void)window.add({at->second * kR, 1}, at->first);
          owed[at->second] = now;
          writes.erase(at);
          break;
        }
        case 3:
          if (flushes.size() < most_flushes) flushes.emplace_back(window.begin(), now);
          break;
        case 4: {
          if (flushes.empty()) break;
          const auto at = flushes.begin() + static_cast<int64_t>(random() % flushes.size());
          window.end(at->first);
          std::erase_if(owed, [&](const auto& item) { return item.second < at->second; });
          flushes.erase(at);
          break;
        }
        default: {
          if (random() % 8 != 0) break;
          const std::set<uint64_t> taken = take(window);
          for (const auto& [region, time] : owed) ASSERT_TRUE(taken.contains(region)) << seed;
          if (most_flushes == 1 || is_exact) {
            ASSERT_EQ(taken.size(), owed.size()) << seed;
          }
          // A flush that goes on covers nothing any more.
          for (auto& flush : flushes) flush.second = 0;
        }
      }
    }
    window.end(window.begin());
    EXPECT_FALSE(window.owes());
    EXPECT_TRUE(take(window).empty());
  }
}

}  // namespace
}  // namespace duplex::volume
