// The tracker, rule by rule. Any order of events, with power cuts: tracker_model_test.cc.
#include "volume/tracker.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using testing::TestWorld;

constexpr uint64_t kR = kRegionBytes;
constexpr MapId kAway(1), kMissing(2);

class NoteLog final : public MarkStore {
 public:
  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override {
    return note("mark " + std::to_string(extents[0].value()));
  }
  rt::Task<Result<void>> cool(HotExtent extent, std::vector<format::MapWord> words) override {
    std::string line = "cool " + std::to_string(extent.value());
    for (const auto& word : words) line += fmt::format(" {}:{:x}", word.map, word.regions);
    return note(std::move(line));
  }
  rt::Task<Result<void>> write_words(MapId map, std::vector<ChangeMap::Word> words) override {
    std::string line = fmt::format("words {}", map.value());
    for (const auto& w : words) line += fmt::format(" {}:{:x}", w.stretch.value(), w.regions);
    return note(std::move(line));
  }
  std::vector<std::string> lines;
  std::deque<Code> failures;  // one per record
  rt::Event* hold = nullptr;  // records that come now end with it

 private:
  rt::Task<Result<void>> note(std::string line) {
    lines.push_back(std::move(line));
    if (hold != nullptr) co_await hold->wait();
    if (failures.empty()) co_return Result<void>();
    const Code code = failures.front();
    failures.pop_front();
    co_return fail(code);
  }
};

struct FakeLeg final : Debtor {
  explicit FakeLeg(std::string n) : name(std::move(n)) {}
  Window& window() override { return debt; }
  rt::Task<Result<void>> flush() override {
    log->lines.push_back("flush " + name);
    if (hold != nullptr) co_await hold->wait();
    if (fails) co_return fail(Code::kFlushLost);
    co_return Result<void>();
  }
  void lost(const Error&) override {
    debt.lose([this](HotExtent e, uint64_t regions) { tracker->or_word(map, e, regions); });
  }
  void write(uint64_t region) { EXPECT_TRUE(debt.add({region * kR, kR}, debt.stamp())); }

  std::string name;
  NoteLog* log = nullptr;
  Tracker* tracker = nullptr;
  MapId map = kAway;
  Window debt;
  bool fails = false;
  rt::Event* hold = nullptr;
};

class TrackerTest : public ::testing::Test {
 protected:
  TrackerTest() {
    for (FakeLeg* leg : {&own, &target}) {
      leg->log = &log;
      leg->tracker = &tracker;
      tracker.add_debtor(*leg);
    }
    tracker.add_map(kAway, MapKind::kCopyAway, ChangeMap(kGiB));
    tracker.add_map(kMissing, MapKind::kMissing, ChangeMap(kGiB));
    tracker.set_windows(kAway, &own.debt, &target.debt);
  }
  void touch(uint64_t stretch) {
    auto use = world.finish(world.reactor(0), tracker.use({stretch * kHotBytes, 1}));
    EXPECT_TRUE(use.has_value());
    world.reactor(0).inside([&] { auto ended = std::move(use); });
    world.run();
  }
  // All slots of the hot set are taken; the next touch() of another stretch cools 0.
  void fill() {
    for (uint64_t e = 0; e < HotSet::kMaxPerRequest; ++e) touch(e);
    log.lines.clear();
  }
  Result<void> write_back(MapId id) {
    return world.finish(world.reactor(0), tracker.write_back(id));
  }
  Result<void> flush(FakeLeg& leg) { return world.finish(world.reactor(0), tracker.flush(leg)); }

  TestWorld world;
  NoteLog log;
  FakeLeg own{"own"}, target{"target"};
  Tracker tracker{world.reactor(0), log, kGiB, HotSet::kMaxPerRequest};
};
using Lines = std::vector<std::string>;

rt::Task<Result<void>> use_once(Tracker& tracker, uint64_t stretch) {
  const auto use = co_await tracker.use({stretch * kHotBytes, 1});
  if (!use) co_return fail(use.error().code());
  co_return Result<void>();
}

TEST_F(TrackerTest, AStretchCoolsAfterTheFlushesOfThoseWhoOweOneForIt) {
  fill();
  target.write(3);
  own.write(64);  // in another stretch
  touch(100);
  EXPECT_EQ(log.lines, (Lines{"flush target", "cool 0", "mark 100"}));
  EXPECT_TRUE(own.debt.owes());
  EXPECT_FALSE(target.debt.owes());
}

// Mutation seen to fail: words are taken before the flushes.
TEST_F(TrackerTest, WhatAFailedLegOwedLeavesInTheVeryRecordThatTakesTheMarkOff) {
  fill();
  target.write(3);
  target.write(70);
  target.fails = true;
  touch(100);
  EXPECT_EQ(log.lines, (Lines{"flush target", "cool 0 1:8", "mark 100"}));
  EXPECT_FALSE(tracker.is_pending(kAway, HotExtent(0)));
  EXPECT_TRUE(tracker.is_pending(kAway, HotExtent(1)));
}

TEST_F(TrackerTest, AFailedCoolingLeavesItsWordsPending) {
  fill();
  tracker.set(kAway, {0, kR});
  log.failures = {Code::kNoSpace};
  EXPECT_FALSE(world.finish(world.reactor(0), tracker.use({100 * kHotBytes, 1})).has_value());
  EXPECT_EQ(tracker.state(HotExtent(0)), HotSet::State::kHot);
  EXPECT_TRUE(tracker.is_pending(kAway, HotExtent(0)));
}

// Trace F3. Mutation seen to fail: every map is widened.
TEST_F(TrackerTest, ACrashWidensMapsToCopyAwayFromHereAndNeverThoseOfMissingRegions) {
  tracker.or_word(kMissing, HotExtent(5), 2);
  const std::array hot{HotExtent(5), HotExtent(1000)};  // the second is behind the end
  tracker.mark_in_maps_at_start(hot);
  EXPECT_EQ(tracker.map(kAway).word(HotExtent(5)), ~uint64_t{0});
  EXPECT_EQ(tracker.map(kAway).count(), 64u);
  EXPECT_EQ(tracker.map(kMissing).word(HotExtent(5)), 2u);
  EXPECT_TRUE(tracker.is_pending(kAway, HotExtent(5)));
}

// Traces F13 (b), F27. Mutations seen to fail: copying, or the window, does not hold the bit.
TEST_F(TrackerTest, AClearedBitStaysOnDiskUntilItsCopyIsFlushed) {
  tracker.set(kAway, {0, 2 * kR});
  EXPECT_TRUE(write_back(kAway));
  EXPECT_FALSE(tracker.is_pending(kAway));
  {
    Tracker::Copy copy = tracker.begin_copy(kAway, {0, kR});
    EXPECT_FALSE(tracker.map(kAway).any({0, kR}));
    EXPECT_TRUE(write_back(kAway));
    target.write(0);
    copy.done();
  }
  EXPECT_TRUE(write_back(kAway));
  EXPECT_TRUE(flush(target));
  EXPECT_TRUE(write_back(kAway));
  EXPECT_EQ(log.lines,
            (Lines{"words 1 0:3", "words 1 0:3", "words 1 0:3", "flush target", "words 1 0:2"}));
  EXPECT_FALSE(tracker.is_pending(kAway));
  target.write(0);  // a write forwarded to it brings no bit back
  tracker.set(kAway, {3 * kR, kR});
  EXPECT_TRUE(write_back(kAway));
  EXPECT_EQ(log.lines.back(), "words 1 0:a");
}

// A failed flush took the mark off with this bit; what was copied since may be in a cache alone.
// Mutation seen to fail: the window of the source does not hold the bit.
TEST_F(TrackerTest, AClearedBitStaysOnDiskWhileTheLegItWasReadFromOwesAFlush) {
  own.write(0);
  own.fails = true;
  EXPECT_FALSE(flush(own));
  EXPECT_TRUE(write_back(kAway));
  Tracker::Copy copy = tracker.begin_copy(kAway, {0, kR});
  target.write(0);
  copy.done();
  EXPECT_TRUE(flush(target));
  EXPECT_TRUE(write_back(kAway));
  EXPECT_EQ(log.lines.back(), "words 1 0:1");
  own.fails = false;
  EXPECT_TRUE(flush(own));
  EXPECT_TRUE(write_back(kAway));
  EXPECT_EQ(log.lines.back(), "words 1 0:0");
}

TEST_F(TrackerTest, ACopyThatIsNotDoneSetsItsBitsAgain) {
  tracker.set(kAway, {0, 2 * kR});
  {
    const Tracker::Copy copy = tracker.begin_copy(kAway, {0, 2 * kR});
  }
  EXPECT_TRUE(tracker.map(kAway).all({0, 2 * kR}));
}

// Mutation seen to fail: a record under way does not keep an earlier one from settling.
TEST_F(TrackerTest, OnlyTheLastRecordAskedForSettlesWhatIsPending) {
  rt::Event first, second;
  tracker.set(kAway, {0, kR});
  log.hold = &first;
  const auto a = world.start(world.reactor(0), tracker.write_back(kAway));
  tracker.set(kAway, {kR, kR});
  log.hold = &second;
  const auto b = world.start(world.reactor(0), tracker.write_back(kAway));
  EXPECT_EQ(log.lines, (Lines{"words 1 0:1", "words 1 0:3"}));
  tracker.begin_copy(kAway, {kR, kR}).done();  // memory is what the first one says again
  world.reactor(0).inside([&] { first.set(); });
  world.run();
  EXPECT_TRUE(a->has_value());
  EXPECT_TRUE(tracker.is_pending(kAway));
  world.reactor(0).inside([&] { second.set(); });
  world.run();
  EXPECT_TRUE(b->has_value());
  EXPECT_TRUE(tracker.is_pending(kAway));
  log.hold = nullptr;
  EXPECT_TRUE(write_back(kAway));
  EXPECT_FALSE(tracker.is_pending(kAway));
}

TEST_F(TrackerTest, AWholeMapSettlesWhenItsTransactionIsDurableAndKeepsWhatIsHeld) {
  tracker.set(kAway, {0, 2 * kR});
  Tracker::Copy copy = tracker.begin_copy(kAway, {0, kR});
  const Tracker::Whole lost = tracker.whole(kAway);
  EXPECT_EQ(lost.words, (std::vector<ChangeMap::Word>{{HotExtent(0), 3}}));
  tracker.ended(lost, false);
  EXPECT_TRUE(tracker.is_pending(kAway));
  target.write(0);
  copy.done();
  EXPECT_TRUE(flush(target));
  const Tracker::Whole whole = tracker.whole(kAway);
  EXPECT_EQ(whole.words, (std::vector<ChangeMap::Word>{{HotExtent(0), 2}}));
  tracker.ended(whole, true);
  EXPECT_FALSE(tracker.is_pending(kAway));
}

// Its words are older than those of a record asked for meanwhile, and reach the disk after them.
// Mutation seen to fail: cool() and write_back() do not wait for ended().
TEST_F(TrackerTest, NoRecordIsAskedForWhileATransactionHoldsAWholeMap) {
  fill();
  const Tracker::Whole whole = tracker.whole(kAway);
  tracker.set(kAway, {0, kR});
  const auto written = world.start(world.reactor(0), tracker.write_back(kAway));
  const auto cooled = world.start(world.reactor(0), use_once(tracker, 100));
  world.run();
  EXPECT_EQ(log.lines, Lines{});
  world.reactor(0).inside([&] { tracker.ended(whole, true); });
  world.run();
  EXPECT_TRUE(written->has_value());
  EXPECT_TRUE(cooled->has_value());
  EXPECT_EQ(log.lines.size(), 3u);
  EXPECT_FALSE(tracker.is_pending(kAway));
}

TEST_F(TrackerTest, AMapThatIsReplacedIsPendingWhereItDiffers) {
  tracker.set(kAway, {0, kR});
  EXPECT_TRUE(write_back(kAway));
  ChangeMap next(kGiB);
  next.set({kHotBytes, kR});
  tracker.replace(kAway, std::move(next));
  EXPECT_EQ(tracker.map(kAway).set_bytes(), kR);
  EXPECT_TRUE(tracker.is_pending(kAway, HotExtent(0)));
  EXPECT_TRUE(tracker.is_pending(kAway, HotExtent(1)));
  log.lines.clear();
  EXPECT_TRUE(write_back(kAway));
  EXPECT_EQ(log.lines, Lines{"words 1 0:0 1:1"});
}

TEST_F(TrackerTest, ALegIsRemovedWhenTheFlushInItHasEnded) {
  rt::Event end;
  target.hold = &end;
  const auto flushed = world.start(world.reactor(0), tracker.flush(target));
  const auto removed = world.start(world.reactor(0), testing::ended(tracker.remove_debtor(target)));
  world.run();
  EXPECT_FALSE(removed->has_value());
  world.reactor(0).inside([&] { end.set(); });
  world.run();
  EXPECT_TRUE(flushed->has_value());
  EXPECT_TRUE(removed->has_value());
}

}  // namespace
}  // namespace duplex::volume
