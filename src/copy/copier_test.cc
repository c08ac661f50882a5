// The copier over real volumes, legs and trackers; time is virtual.
#include "copy/copier.h"

#include <bit>
#include <random>
#include <utility>

#include "copy/copier_test_kit.h"
#include "mirror/job_state.h"

namespace duplex::copy {
namespace {

using testing::kBits;
using testing::kExtent;
using testing::Pair;
using Mode = volume::TargetLeg::Mode;
using End = Copier::End;
using State = Copier::State;

// A host that writes one block after the other, far apart, until `over`.
rt::Task<bool> write_on(Pair* pair, const bool* over, rt::Micros pause, uint64_t* written) {
  for (uint64_t n = 0; !*over; ++n) {
    const uint64_t offset = n * 7 * kExtent % pair->size;
    const auto done = co_await pair->write_task(offset, kBlockBytes, static_cast<int>(1 + n % 200));
    EXPECT_TRUE(done);
    *written += kBlockBytes;
    co_await rt::sleep_for(pair->world.source.clock(), pause);
  }
  co_return true;
}
rt::Task<bool> read_on(Pair* pair, const bool* over, rt::Micros pause) {
  const rt::Buffer buffer = pair->world.source.buffers().get(kBlockBytes);
  while (!*over) {
    EXPECT_TRUE(co_await pair->source.read(pair->size - kBlockBytes, buffer.span()));
    co_await rt::sleep_for(pair->world.source.clock(), pause);
  }
  co_return true;
}

// Mutations: run() does not flush before it is done; or does not write words back.
TEST(Copier, MovesWhatDiffersAndNothingElse) {
  Pair pair;
  pair.write(0, 3 * kExtent, 1);
  pair.write(100 * kExtent, kExtent, 2);
  pair.write(511 * kExtent, kExtent, 3);
  pair.begin();
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.p.read_bytes, 5 * kExtent);
  EXPECT_EQ(pair.s.written_bytes, 5 * kExtent);
  pair.expect_equal();
  EXPECT_TRUE(pair.leg.bits().empty());
  EXPECT_FALSE(pair.tracker.is_pending(kBits));
  EXPECT_FALSE(pair.leg.window().owes());
  for (const auto& [stretch, word] : pair.store.disk.words) EXPECT_EQ(word, 0u) << stretch;
  const auto progress = pair.copier->progress();
  EXPECT_EQ(progress.total_bytes, 5 * kExtent);
  EXPECT_EQ(progress.done_bytes, 5 * kExtent);
  EXPECT_EQ(progress.moved_bytes, 5 * kExtent);
  EXPECT_EQ(progress.skipped_bytes, 0u);
}

// Mutation: send_copy() writes zeroes as they are.
TEST(Copier, HolesAndZeroesAreNotMoved) {
  Pair pair;
  pair.write(0, 32 * kExtent, 1);
  ASSERT_TRUE(pair.world.finish(pair.source.zero({2 * kExtent, kExtent}, {.no_hole = true})));
  pair.write(500 * kExtent, kExtent, 9);
  ASSERT_TRUE(pair.world.finish(pair.source.trim({500 * kExtent, kExtent}, false)));
  pair.set({0, pair.size});
  pair.begin();
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.s.written_bytes, 31 * kExtent);
  EXPECT_EQ(pair.s.allocated_bytes(), 31 * kExtent);
  EXPECT_LE(pair.p.reads, 2u) << "holes are not read";
  EXPECT_EQ(pair.copier->progress().done_bytes, pair.size);
  EXPECT_EQ(pair.copier->progress().moved_bytes, 31 * kExtent);
  pair.expect_equal();
}

// Mutation: a step over a hole takes kCopyBytes at most.
TEST(Copier, AnEmptyVolumeTakesFewSteps) {
  Pair pair(16 * kGiB, 4 * kMiB);
  pair.set({0, pair.size});
  pair.world.source.inside([&] {
    pair.leg.set_mode(Mode::kSendWhereClear);
    pair.copier.emplace(
        pair.source, pair.leg, pair.tracker, [] { return Epoch(1); }, Copier::Start{});
  });
  pair.ended = pair.world.start(pair.copier->run());
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.p.reads, 0u);
  EXPECT_EQ(pair.s.inner.count("zero"), 16 * kGiB / (64 * kMiB));
}

TEST(Copier, EndsBesideAHostThatNeverStopsWritingAndMovesNoMoreThanItMust) {
  Pair pair;
  pair.write(0, 16 * kMiB, 1);
  pair.p.read_time = 1000;
  pair.begin();
  bool over = false;
  uint64_t written = 0;
  const auto host = pair.world.start(write_on(&pair, &over, 300, &written));
  EXPECT_EQ(pair.finish(), End::kDone);
  over = true;
  pair.world.finish(host);
  EXPECT_EQ(pair.copier->progress().moved_bytes, 16 * kMiB);
  EXPECT_GE(pair.s.written_bytes, 16 * kMiB);
  EXPECT_LE(pair.s.written_bytes, 16 * kMiB + written);
  EXPECT_GT(written, 0u);
  pair.expect_equal();
}

// Mutations: may_start() does not look at the state; is_checkpoint_due() has no time.
TEST(Copier, PauseStopsReadsWithinOneStep) {
  Pair pair;
  pair.write(0, 32 * kMiB, 1);
  pair.p.read_time = 1000;
  pair.begin();
  pair.world.run_for(2500);
  const uint64_t before = pair.p.reads;
  EXPECT_GT(before, 0u);
  pair.tell([](Copier& copier) { copier.pause(); });
  pair.world.run_for(rt::kSecond * 60);
  EXPECT_EQ(pair.p.reads, before) << "those in flight had begun";
  EXPECT_EQ(pair.copier->state(), State::kPaused);
  EXPECT_EQ(pair.p.read_bytes, before * kMiB);
  EXPECT_FALSE(pair.leg.window().owes()) << "what is copied leaves the disk's map all the same";
  EXPECT_FALSE(pair.ended->has_value());
  pair.tell([](Copier& copier) { copier.resume(); });
  EXPECT_EQ(pair.finish(), End::kDone);
  pair.expect_equal();
}

TEST(Copier, ACopyThatIsAllDoneWhilePausedWaitsForTheOperator) {
  Pair pair;
  pair.write(0, kMiB, 1);
  pair.begin({.is_paused = true});
  pair.world.run_for(rt::kSecond);
  EXPECT_EQ(pair.p.reads, 0u);
  pair.p.read_time = 1000;
  pair.tell([](Copier& copier) { copier.resume(); });
  pair.world.run_for(500);
  pair.tell([](Copier& copier) { copier.pause(); });
  pair.world.run_for(rt::kSecond);
  EXPECT_TRUE(pair.leg.bits().empty());
  EXPECT_FALSE(pair.ended->has_value());
  pair.tell([](Copier& copier) { copier.resume(); });
  EXPECT_EQ(pair.finish(), End::kDone);
}

// Mutation: step() charges nothing.
TEST(Copier, TheRateHoldsOverTime) {
  Pair pair;
  pair.write(0, 32 * kMiB, 1);
  pair.begin({.rate = 4 * kMiB});
  for (uint64_t second = 1; second <= 4; ++second) {
    pair.world.run_for(rt::kSecond);
    EXPECT_LE(pair.p.read_bytes, second * 4 * kMiB + kMiB);
    EXPECT_GE(pair.p.read_bytes, second * 4 * kMiB - kMiB);
  }
  const auto progress = pair.copier->progress();
  EXPECT_NEAR(static_cast<double>(progress.rate), 4.0 * kMiB, 1.1 * kMiB);
  EXPECT_NEAR(static_cast<double>(progress.eta_seconds.value_or(0)), 4, 1);
  pair.tell([](Copier& copier) { copier.set_rate(0); });
  pair.world.run_for(rt::kSecond / 10);
  EXPECT_EQ(pair.finish(), End::kDone);
}

TEST(Copier, ZeroesCostNoRate) {
  Pair pair;
  pair.write(0, kMiB, 1);
  pair.set({0, pair.size});
  pair.begin({.rate = kMiB});
  const rt::Micros began = pair.world.now;
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_LE(pair.world.now - began, 2 * rt::kSecond);
}

// Mutations: rest() returns at once; kMostRestTurns is a million (seen by the next test).
TEST(Copier, YieldsToABusyHostAndKeepsOneTwentieth) {
  constexpr rt::Micros kReadTime = 10 * rt::kMillisecond;
  const auto moved_in_4_seconds = [](std::optional<rt::Micros> host) {
    Pair pair(256 * kMiB, 4 * kMiB);
    pair.write(0, 16 * kMiB, 1);
    for (uint64_t at = 16 * kMiB; at < 240 * kMiB; at += 16 * kMiB) pair.write(at, 16 * kMiB, 1);
    pair.begin({.is_paused = true});
    bool over = false;
    std::shared_ptr<std::optional<bool>> reader;
    if (host) reader = pair.world.start(read_on(&pair, &over, *host));
    pair.p.read_time = kReadTime;
    pair.tell([](Copier& copier) { copier.resume(); });
    pair.world.run_for(400 * rt::kMillisecond);
    const uint64_t moved = pair.copier->progress().moved_bytes;
    over = true;
    return moved;
  };
  // The host's own reads cost 10 ms: with a pause of 90 ms it has a request every 100 ms.
  const uint64_t alone = moved_in_4_seconds(std::nullopt);
  EXPECT_GE(alone, 150 * kMiB);
  const uint64_t light = moved_in_4_seconds(90 * rt::kMillisecond);
  EXPECT_GE(light, alone * 3 / 4);
  const uint64_t busy = moved_in_4_seconds(1);
  EXPECT_GE(busy, alone / 20);
  EXPECT_LE(busy, alone * 2 / 3);
}

TEST(Copier, ABurstOfHostRequestsLeavesTheCopyOneTwentiethAndNotMuchMore) {
  Pair pair(128 * kMiB, 4 * kMiB);
  for (uint64_t at = 0; at < 112 * kMiB; at += 16 * kMiB) pair.write(at, 16 * kMiB, 1);
  pair.begin({.is_paused = true});
  bool over = false;
  std::vector<std::shared_ptr<std::optional<bool>>> hosts;
  pair.p.read_time = 1000;
  for (int n = 0; n < 50; ++n) hosts.push_back(pair.world.start(read_on(&pair, &over, 1)));
  pair.tell([](Copier& copier) { copier.resume(); });
  pair.world.run_for(200 * rt::kMillisecond);
  const uint64_t full = 200 * Copier::kSteps * kMiB;
  EXPECT_GE(pair.copier->progress().moved_bytes, full / 20);
  EXPECT_LE(pair.copier->progress().moved_bytes, full / 15);
  over = true;
  pair.world.run_for(rt::kSecond);
}

// Mutations: failed() puts a run into bad_ at once; stall() does not wait.
TEST(Copier, AReadErrorStallsLastNamesTheRegionTriesEverySecondAndGoesOn) {
  Pair pair;
  pair.write(0, 4 * kMiB, 1);
  pair.p.bad = {17, 40};
  pair.begin();
  pair.world.run_for(rt::kMillisecond);
  EXPECT_EQ(pair.copier->state(), State::kStalled);
  EXPECT_EQ(pair.leg.bits().count(), 2u) << "all others are copied";
  const std::string reason = pair.copier->progress().reason;
  EXPECT_NE(reason.find("volume p cannot be read at 2621440"), std::string::npos) << reason;
  const uint64_t reads = pair.p.reads;
  pair.world.run_for(10 * rt::kSecond);
  EXPECT_EQ(pair.p.reads, reads + 20) << "two regions, once a second";
  EXPECT_EQ(pair.leg.mode(), Mode::kSendWhereClear);
  pair.p.bad = {40};
  pair.world.run_for(rt::kSecond);
  EXPECT_EQ(pair.leg.bits().count(), 1u);
  pair.p.bad.clear();
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.copier->progress().moved_bytes, 4 * kMiB);
  pair.expect_equal();
}

// Mutations: failures in a row are not counted; try_again() takes bad_ back while there are
// suspects.
TEST(Copier, ASourceThatIsGoneIsAskedAFewTimesASecondAndTheCopyGoesOnWhenItIsBack) {
  Pair pair;
  pair.write(0, 32 * kMiB, 1);
  pair.p.fails_all_reads = true;
  pair.begin();
  pair.world.run_for(20 * rt::kSecond + 1);
  EXPECT_EQ(pair.copier->state(), State::kStalled);
  EXPECT_LE(pair.p.reads, 21 * (Copier::kFailuresInRow + Copier::kSteps));
  pair.p.fails_all_reads = false;
  pair.world.run_for(2 * rt::kSecond);
  EXPECT_EQ(pair.finish(), End::kDone);
  pair.expect_equal();
}

TEST(Copier, ManyBadRegionsDoNotKeepAGoodOneWaitingForEver) {
  Pair pair;
  pair.write(0, 32 * kMiB, 1);
  for (uint64_t region = 0; region < 511; ++region) pair.p.bad.insert(region);
  pair.begin();
  pair.world.run_for(60 * rt::kSecond);
  EXPECT_FALSE(pair.leg.bits().any({511 * kExtent, 1}));
}

// Mutation: checkpoint() takes an error of the store for success.
TEST(Copier, WordsThatCannotBeWrittenStallTheCopyAndAreWrittenLater) {
  Pair pair;
  pair.write(0, kMiB, 1);
  pair.begin({.is_paused = true});
  pair.store.fails = true;
  pair.tell([](Copier& copier) { copier.resume(); });
  pair.world.run_for(3 * rt::kSecond);
  EXPECT_EQ(pair.copier->state(), State::kStalled);
  EXPECT_NE(pair.copier->progress().reason.find("change map"), std::string::npos);
  EXPECT_FALSE(pair.ended->has_value());
  pair.store.fails = false;
  EXPECT_EQ(pair.finish(), End::kDone);
  EXPECT_EQ(pair.copier->state(), State::kRunning);
  EXPECT_FALSE(pair.tracker.is_pending(kBits));
}

TEST(Copier, ATargetThatFailsItsFlushEndsTheCopyWithTheBitsBack) {
  Pair pair;
  pair.write(0, 4 * kMiB, 1);
  pair.begin({.is_paused = true});
  pair.s.inner.fail_flush = {Code::kFlushLost};
  pair.tell([](Copier& copier) { copier.resume(); });
  EXPECT_EQ(pair.finish(), End::kLeft);
  EXPECT_EQ(pair.lefts, 1);
  EXPECT_EQ(pair.leg.bits().count(), 64u);
}

// Mutation: is_checkpoint_due() without bytes.
TEST(Copier, ACrashCopiesAgainNoMoreThanTheBound) {
  Pair pair(kGiB, 4 * kMiB);
  for (uint64_t at = 0; at < 544 * kMiB; at += 16 * kMiB) pair.write(at, 16 * kMiB, 1);
  pair.begin({.is_paused = true});
  pair.p.read_time = 1000;
  pair.tell([](Copier& copier) { copier.resume(); });
  const auto on_disk = [&] {
    uint64_t regions = 0;
    for (const auto& [stretch, word] : pair.store.disk.words) {
      regions += static_cast<uint64_t>(std::popcount(word));
    }
    return regions * kRegionBytes;
  };
  uint64_t most = 0, reads = 0;
  while (!pair.ended->has_value() && pair.world.step(pair.world.now + rt::kSecond)) {
    if (pair.p.reads == std::exchange(reads, pair.p.reads)) continue;
    most = std::max(most, on_disk() - pair.leg.bits().set_bytes());
  }
  ASSERT_EQ(pair.finish(), End::kDone);
  EXPECT_LE(most, Copier::kMostOwedBytes + Copier::kSteps * kMiB);
  EXPECT_GE(most, Copier::kCheckpointBytes) << "a flush for every little thing";
  EXPECT_EQ(pair.s.flushes, 3u);
}

// Mutation: may_start() without the bound.
TEST(Copier, ATargetThatDoesNotEndItsFlushHoldsTheCopyAtTheBound) {
  Pair pair(kGiB, 4 * kMiB);
  for (uint64_t at = 0; at < 640 * kMiB; at += 16 * kMiB) pair.write(at, 16 * kMiB, 1);
  pair.begin({.is_paused = true});
  pair.s.inner.hold_reads = true;  // flushes wait as reads do
  pair.tell([](Copier& copier) { copier.resume(); });
  pair.world.run_for(rt::kSecond);
  const uint64_t moved = pair.copier->progress().moved_bytes;
  EXPECT_GE(moved, Copier::kMostOwedBytes);
  EXPECT_LE(moved, Copier::kMostOwedBytes + Copier::kSteps * kMiB);
  pair.world.target.inside([&] { pair.s.inner.release(); });
  EXPECT_EQ(pair.finish(), End::kDone);
}

// Mutation: end_with() does not wake.
TEST(Copier, StopEndsACopyThatWaitsForAnythingAtOnce) {
  for (const bool is_paused : {true, false}) {
    for (const bool is_bad : {true, false}) {
      Pair pair;
      pair.write(0, 8 * kMiB, 1);
      pair.p.fails_all_reads = is_bad;
      pair.begin({.rate = is_bad ? 0 : kRegionBytes, .is_paused = is_paused});
      pair.world.run_for(10 * rt::kMillisecond);
      const rt::Micros now = pair.world.now;
      pair.tell([](Copier& copier) { copier.stop(); });
      EXPECT_EQ(pair.finish(), End::kStopped);
      EXPECT_EQ(pair.world.now, now);
    }
  }
}

// The owner broke it off after n steps of the machine; then nothing is lost, and a second copy
// brings the rest. Mutation: work() does not look at is_over().
TEST(Copier, CancelStopAndLeaveAtEverySuspensionPointLeaveEachDifferenceABit) {
  for (const End end : {End::kCancelled, End::kStopped, End::kLeft}) {
    bool is_through = false;
    for (int steps = 0; !is_through; ++steps) {
      Pair pair;
      pair.write(0, 3 * kMiB, 1);
      pair.write(8 * kMiB, kExtent, 2);
      pair.set({16 * kMiB, 2 * kMiB});
      pair.p.read_time = 10;
      pair.begin();
      for (int n = 0; n < steps && !pair.ended->has_value(); ++n) {
        ASSERT_TRUE(pair.world.step(pair.world.now + rt::kSecond));
      }
      is_through = pair.ended->has_value();
      const uint64_t reads = pair.p.reads;
      pair.tell([&](Copier& copier) {
        if (end == End::kCancelled) copier.cancel();
        if (end == End::kStopped) copier.stop();
        if (end == End::kLeft) pair.leg.leave(Error(Code::kTimeout));
      });
      const uint64_t written = pair.s.written_bytes;
      ASSERT_EQ(pair.finish(), is_through ? End::kDone : end);
      ASSERT_EQ(pair.p.reads, reads) << "no step begins";
      if (end == End::kLeft) {
        ASSERT_LE(pair.s.written_bytes, written + Copier::kSteps * kMiB);
      } else {
        pair.tell([&](Copier&) { pair.leg.leave(Error(Code::kTimeout)); });
      }
      ASSERT_TRUE(pair.world.finish(volume::testing::ended(pair.leg.drained())));
      pair.expect_differences_have_bits("after " + std::to_string(steps));
      pair.begin();
      ASSERT_EQ(pair.finish(), End::kDone);
      pair.expect_equal();
    }
  }
}

// Trace F25: a target that has left may be somebody else's by the time the source has been read.
// Mutation: send_copy() does not ask for the mode.
TEST(Copier, AStepWhoseSourceIsStillReadWhenTheLegLeavesSendsNothing) {
  Pair pair;
  pair.write(0, kMiB, 1);
  pair.begin({.is_paused = true});
  pair.p.inner.hold_reads = true;
  pair.tell([](Copier& copier) { copier.resume(); });
  pair.world.run_for(10);
  pair.tell([&](Copier&) { pair.leg.leave(Error(Code::kTimeout)); });
  EXPECT_TRUE(pair.world.finish(volume::testing::ended(pair.leg.drained())));
  pair.world.source.inside([&] { pair.p.inner.release(); });
  EXPECT_EQ(pair.finish(), End::kLeft);
  EXPECT_EQ(pair.s.written_bytes, 0u);
  pair.expect_differences_have_bits("left while reading");
}

// Each cell of the job table that a copier can be in. A restart is a new Copier, see begin().
TEST(Copier, ItsStatesAreThoseOfTheJobTable) {
  using mirror::JobEvent;
  for (size_t s = 0; s < mirror::kJobStates; ++s) {
    for (const JobEvent event : {JobEvent::kPause, JobEvent::kResume, JobEvent::kFault,
                                 JobEvent::kCauseGone, JobEvent::kCancel}) {
      const auto state = static_cast<mirror::JobState>(s);
      const mirror::JobOutcome& outcome = mirror::next(state, event);
      if (outcome.kind == mirror::JobOutcome::Kind::kNever) continue;
      SCOPED_TRACE(::testing::Message()
                   << mirror::state_name(state) << ", " << mirror::event_name(event));
      Pair pair;
      pair.write(0, 2 * kExtent, 1);
      pair.write(3 * kMiB, kMiB, 1);
      const bool is_bad = state == mirror::JobState::kStalled || event == JobEvent::kCauseGone ||
                          event == JobEvent::kFault;
      if (is_bad) pair.p.bad = {1};
      pair.begin({.is_paused = true});
      if (!is_bad) pair.p.inner.hold_reads = true;  // a step stays in flight
      if (event == JobEvent::kFault) pair.p.inner.hold_reads = true;
      pair.tell([](Copier& copier) { copier.resume(); });
      pair.world.run_for(rt::kMillisecond);
      if (state == mirror::JobState::kPaused) pair.tell([](Copier& c) { c.pause(); });
      if (event == JobEvent::kFault && state == mirror::JobState::kStalled) {
        pair.world.source.inside([&] { pair.p.inner.release(); });
        pair.world.run_for(rt::kMillisecond);
      }
      ASSERT_EQ(static_cast<size_t>(pair.copier->state()), s);
      if (event == JobEvent::kPause) pair.tell([](Copier& c) { c.pause(); });
      if (event == JobEvent::kResume) pair.tell([](Copier& c) { c.resume(); });
      if (event == JobEvent::kCancel) pair.tell([](Copier& c) { c.cancel(); });
      if (event == JobEvent::kFault) pair.world.source.inside([&] { pair.p.inner.release(); });
      if (event == JobEvent::kCauseGone) pair.p.bad.clear();
      if (event == JobEvent::kCancel) {
        pair.world.source.inside([&] { pair.p.inner.release(); });
        EXPECT_EQ(pair.finish(), End::kCancelled);
        continue;
      }
      const bool tried_at_once = event == JobEvent::kResume && outcome.tries_again;
      const uint64_t reads = pair.p.reads;
      const State now = pair.copier->state();
      pair.world.run_for(event == JobEvent::kCauseGone || event == JobEvent::kFault
                             ? 2 * rt::kSecond
                             : rt::kMillisecond);
      const auto to = outcome.kind == mirror::JobOutcome::Kind::kGoes ? outcome.to : state;
      if (tried_at_once) {
        EXPECT_EQ(static_cast<size_t>(now), static_cast<size_t>(to));
        EXPECT_TRUE(pair.p.reads > reads || pair.ended->has_value() ||
                    state == mirror::JobState::kPaused);
      } else {
        EXPECT_EQ(static_cast<size_t>(pair.copier->state()), static_cast<size_t>(to));
      }
      if (event == JobEvent::kCauseGone && to == mirror::JobState::kRunning) {
        EXPECT_EQ(pair.finish(), End::kDone);
      }
      pair.world.source.inside([&] { pair.p.inner.release(); });
    }
  }
}

// Hosts write, devices and the store fail, the operator interferes, power goes: whatever may then
// differ is marked or set in a durable word, and without the power cut has a bit or is equal.
TEST(Copier, APowerCutInTheMiddleOfAnythingLosesNoDifference) {
  uint64_t done = 0, left = 0, stalls = 0, cuts = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    std::mt19937_64 random(seed);
    Pair pair(24 * Pair::kHotBytes);  // more stretches than can be hot
    pair.p.has_cache = false;         // the own backing is no debtor of this tracker
    const auto place = [&] {
      return random() % 24 * Pair::kHotBytes + random() % 6 * 11 * kBlockBytes;
    };
    for (int n = 0; n < 60; ++n) {
      pair.write(place(), (1 + random() % 20) * kBlockBytes, 1 + static_cast<int>(random() % 250));
    }
    pair.p.inner.slow = pair.s.inner.slow = true;
    pair.p.read_time = 20;
    pair.begin();
    for (int round = 0; round < 150; ++round) {
      switch (random() % 12) {
        case 0:
          pair.p.bad = {place() / kRegionBytes};
          break;
        case 1:
          pair.p.bad.clear();
          break;
        case 2:
          pair.store.fails = random() % 3 == 0;
          break;
        case 3:
          if (random() % 8 == 0) pair.s.inner.fail_write = Code::kMediumWrite;
          break;
        case 4:
          if (random() % 4 == 0) pair.s.inner.fail_flush = {Code::kFlushLost};
          break;
        case 5:
          pair.tell([](Copier& copier) { copier.pause(); });
          break;
        case 6:
          pair.tell([](Copier& copier) { copier.resume(); });
          break;
        case 7:
          if (random() % 20 == 0) pair.tell([](Copier& copier) { copier.cancel(); });
          break;
        default:
          pair.world.start(pair.write_task(place(), (1 + random() % 20) * kBlockBytes,
                                           1 + static_cast<int>(random() % 250)));
      }
      for (uint64_t n = random() % 25; n > 0; --n) {
        if (!pair.world.step(pair.world.now + 2 * rt::kSecond)) break;
      }
      stalls += pair.copier->state() == State::kStalled;
      if (random() % 3 == 0) {
        ++cuts;
        ASSERT_EQ(pair.power_cut_would_lose(), "") << "seed " << seed << ", round " << round;
      }
      if (pair.ended->has_value()) break;
    }
    pair.p.bad.clear();
    pair.store.fails = false;
    pair.tell([](Copier& copier) { copier.resume(); });
    const End end = pair.finish();
    ASSERT_EQ(pair.power_cut_would_lose(), "") << "seed " << seed << " at the end";
    done += end == End::kDone;
    left += end == End::kLeft;
    if (end == End::kDone) EXPECT_TRUE(pair.leg.bits().empty());
    pair.world.run_for(rt::kSecond);  // writes end
    pair.expect_differences_have_bits("seed " + std::to_string(seed));
  }
  // The rare things did happen.
  EXPECT_GT(done, 20u);
  EXPECT_GT(left, 20u);
  EXPECT_GT(stalls, 40u);
  EXPECT_GT(cuts, 1000u);
}

}  // namespace
}  // namespace duplex::copy
