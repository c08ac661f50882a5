// Traces about the marks of a volume with a mirror below: F13, F20, F32, F34 (table:
// scenarios_test.cc). There are no mirrors yet, so the second leg is a plain file here; hot set and
// mark log are the real ones, on simulated disks.
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "base/log.h"
#include "meta/mark_log.h"
#include "sim/machine.h"
#include "sim/simulation.h"
#include "volume/hot_set.h"

namespace duplex::simtest {
namespace {

using volume::HotExtent;
using volume::HotSet;
using volume::kHotBytes;
using Marks = std::set<uint64_t>;

constexpr uint64_t kExtents = 24;
constexpr uint64_t kWriters = 6;
constexpr const char* kLegs[] = {"/p", "/s"};
constexpr const char* kCopies[] = {"/state/marks-1", "/state/marks-2"};

// Marks, mark log and two legs over several lives of one machine.
class TwoLegs : public meta::MarkLogKeeper, public volume::MarkSink {
 public:
  explicit TwoLegs(uint64_t seed)
      : simulation(seed), machine(simulation.add_machine("box", {})), dice_(simulation.dice(1)) {
    set_log_sink([](LogLevel, std::string_view) {});
    machine.disk().make_directory("/state");
    for (const char* path : kLegs) machine.add_device(path, kExtents * kHotBytes, true);
    start();
  }
  ~TwoLegs() override {
    crash(true);
    set_log_sink({});
  }

  // Reads the marks that are durable; true when the log trusts itself.
  bool start() {
    if (!machine.running()) machine.power_on({});
    const auto opened = simulation.run(machine.control(), open(*this));
    EXPECT_TRUE(opened) << "the start never ends";
    return opened && *opened;
  }
  void crash(bool power) {
    if (machine.running()) power ? machine.power_cut() : machine.kill();
    simulation.sweep();
    hot.reset();
    log.reset();
    files_ = {};
  }
  // Writers that never stop, until a cut or for `limit` requests each.
  bool run_writers(uint64_t limit, size_t most_extents) {
    std::vector<std::shared_ptr<sim::detail::Outcome<void>>> running;
    for (uint64_t i = 0; i < kWriters; ++i) {
      running.push_back(
          simulation.start(machine.reactor(0), writer(*this, i, limit, most_extents)));
    }
    for (const auto& one : running) {
      if (!simulation.finish(*one)) return false;
    }
    return true;
  }
  // An extent in which the legs differ and which has no mark: what a crash must never leave.
  std::optional<uint64_t> unmarked_difference() {
    for (uint64_t extent = 0; extent < kExtents; ++extent) {
      std::array<std::vector<std::byte>, 2> seen;
      for (size_t leg = 0; leg < 2; ++leg) {
        seen[leg].resize(kWriters * kBlockBytes);
        machine.disk().find(kLegs[leg])->read(extent * kHotBytes, seen[leg]);
      }
      if (seen[0] == seen[1]) continue;
      ++differences;
      if (!found.contains(extent)) return extent;
    }
    return std::nullopt;
  }
  rt::Task<Result<void>> use_once(uint64_t extent) {
    co_await rt::hop(machine.reactor(0));
    const auto held = co_await hot->use({extent * kHotBytes, kBlockBytes});
    if (!held) co_return std::unexpected(held.error());
    co_return Result<void>();
  }

  // MarkSink: on the reactor.
  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override {
    std::vector<format::MarkRecord> records;
    for (const HotExtent extent : extents) {
      records.push_back(record(format::MarkRecord::Kind::kHot, extent));
      marked_.insert(extent.value());
    }
    CO_TRY(co_await log->append(std::move(records)));
    co_return Result<void>();
  }
  rt::Task<Result<void>> cool(HotExtent extent) override {
    for (const auto& file : files_) {
      if (!cools_early && co_await file->flush() != 0) co_return fail(Code::kFlushLost);
    }
    std::vector<format::MarkRecord> records;
    records.push_back(record(format::MarkRecord::Kind::kCool, extent));
    CO_TRY(co_await log->append(std::move(records)));
    marked_.erase(extent.value());
    ++cooled;
    co_return Result<void>();
  }
  // MarkLogKeeper: the store, whose transactions are not the subject here.
  rt::Task<Result<void>> checkpoint(meta::MarkLogState state) override {
    saved_ = state;
    saved_marks_ = marked_;
    co_return Result<void>();
  }
  rt::Task<Result<void>> record_out(meta::MarkLogState state) override {
    saved_ = state;
    co_return Result<void>();
  }

  sim::Simulation simulation;
  sim::Machine& machine;
  std::unique_ptr<meta::MarkLog> log;
  std::unique_ptr<HotSet> hot;
  Marks found;               // by the last start
  bool cools_early = false;  // the mistake of the trace, to see that it is noticed
  uint64_t cooled = 0;
  uint64_t differences = 0;
  uint64_t requests = 0;

 private:
  static format::MarkRecord record(format::MarkRecord::Kind kind, HotExtent extent) {
    return {kind, VolumeNumber(1), LogicalExtent(static_cast<uint32_t>(extent.value())), {}};
  }
  static rt::Task<bool> open(TwoLegs& self) {
    auto opened = co_await meta::MarkLog::open(self.machine.sync_files(), self.machine.store(),
                                               self.machine.control().rng(), self, self.saved_,
                                               {.directory = "/state", .bytes = 64 * kKiB});
    self.log = std::move(opened.log);
    self.found = self.saved_marks_;
    for (const format::MarkBatch& batch : opened.batches) {
      for (const format::MarkRecord& r : batch.records) {
        if (r.kind == format::MarkRecord::Kind::kHot) self.found.insert(r.extent.value());
        if (r.kind == format::MarkRecord::Kind::kCool) self.found.erase(r.extent.value());
      }
    }
    self.marked_ = self.found;
    if (!opened.trusted) co_return false;
    if (!co_await self.log->checkpoint()) co_return false;
    co_await rt::hop(self.machine.reactor(0));
    for (size_t leg = 0; leg < 2; ++leg) {
      auto file = co_await self.machine.reactor(0).files().open(kLegs[leg], {.write = true});
      if (file) self.files_[leg] = std::move(*file);
    }
    self.hot = std::make_unique<HotSet>(self.machine.reactor(0), self, HotSet::kMaxPerRequest);
    co_await rt::hop(self.machine.control());
    co_return true;
  }
  // Marks, then writes its own block of each extent, to one leg after the other. No two writers
  // touch the same block, so none of them needs a range lock.
  static rt::Task<> writer(TwoLegs& self, uint64_t which, uint64_t limit, size_t most_extents) {
    const rt::Buffer buffer = self.machine.reactor(0).buffers().get(kBlockBytes);
    for (uint64_t i = 0; i < limit; ++i) {
      const uint64_t count = self.dice_.between(1, most_extents);
      const uint64_t first = self.dice_.below(kExtents - count + 1);
      const ByteRange range{first * kHotBytes, count * kHotBytes};
      const auto held = co_await self.hot->use(range);
      EXPECT_TRUE(held) << held.error().describe();
      ++self.requests;
      std::fill_n(buffer.data(), kBlockBytes, static_cast<std::byte>(self.dice_.next()));
      for (uint64_t extent = first; extent < first + count; ++extent) {
        for (const auto& file : self.files_) {
          EXPECT_EQ(co_await file->write(extent * kHotBytes + which * kBlockBytes, buffer.span()),
                    0);
        }
      }
    }
  }

  sim::Dice dice_;
  std::array<std::unique_ptr<rt::File>, 2> files_;
  meta::MarkLogState saved_;  // what the store has
  Marks saved_marks_;
  Marks marked_;  // what it would be given now
};

// Writers on more extents than there are slots, so that extents cool all the time, some of them
// with writes waiting; cut at any step, with or without the caches.
uint64_t cut_writers(uint64_t seed, bool power, bool cools_early, std::optional<uint64_t>& lost) {
  TwoLegs world(seed);
  world.cools_early = cools_early;
  auto dice = world.simulation.dice(2);
  world.simulation.cut_after_steps(world.machine, dice.between(1, 6000), !power);
  EXPECT_FALSE(world.run_writers(1'000'000, 3));
  world.crash(power);
  EXPECT_TRUE(world.start());
  lost = world.unmarked_difference();
  return world.differences;
}

TEST(Traces, F13_AfterACutAnywhereWhatDiffersBetweenTwoLegsIsMarked) {
  uint64_t differences = 0;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    std::optional<uint64_t> lost;
    differences += cut_writers(seed, seed % 3 != 0, false, lost);
    ASSERT_FALSE(lost) << "the legs differ in extent " << *lost << " and nobody knows";
  }
  EXPECT_GT(differences, 100u);
}

TEST(Traces, F13_AMarkTakenOffBeforeTheLegsHaveFlushedWouldBeNoticed) {
  int noticed = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    std::optional<uint64_t> lost;
    cut_writers(seed, true, true, lost);
    if (lost) ++noticed;
  }
  EXPECT_GT(noticed, 3);
}

TEST(Traces, F20_AMarkIsMadeOnAFullFileSystem) {
  TwoLegs world(1);
  for (const char* path : kCopies) world.machine.disk().find(path)->faults.full = true;
  EXPECT_TRUE(world.run_writers(500, 3));
  EXPECT_GT(world.cooled, 500u) << "many laps of the log";
}

TEST(Traces, F20_WithoutAMarkLogHotExtentsAreWrittenAndColdOnesRefused) {
  TwoLegs world(2);
  const auto use = [&world](uint64_t extent) {
    const auto result = world.simulation.run(world.machine.control(), world.use_once(extent));
    return result && *result;
  };
  ASSERT_TRUE(use(0));
  for (const char* path : kCopies) world.machine.disk().find(path)->faults.flush_error = 1;
  EXPECT_FALSE(use(1));
  EXPECT_TRUE(use(0)) << "it has its mark";
  for (const char* path : kCopies) world.machine.disk().find(path)->faults.flush_error = 0;
  EXPECT_FALSE(use(1)) << "a log that failed a flush is not trusted again";
  world.crash(true);
  ASSERT_TRUE(world.start());
  EXPECT_TRUE(world.found.contains(0));
}

TEST(Traces, F32_RequestsThatCrossWithFewSlotsAllGetTheirExtents) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    TwoLegs world(seed);
    // Spans of up to all 16 slots beside single extents.
    ASSERT_TRUE(world.run_writers(60, HotSet::kMaxPerRequest)) << "they wait for each other";
    EXPECT_EQ(world.requests, kWriters * 60);
    EXPECT_LE(world.hot->slots_used(), HotSet::kMaxPerRequest);
    EXPECT_GT(world.cooled, 100u);
  }
}

// The log alone: numbered marks, one after the other.
struct Numbered {
  TwoLegs world;
  uint64_t asked = 0;
  uint64_t acknowledged = 0;

  explicit Numbered(uint64_t seed) : world(seed) {}
  static rt::Task<> append(Numbered& self, uint64_t count) {
    co_await rt::hop(self.world.machine.reactor(0));
    for (uint64_t i = 0; i < count; ++i) {
      const HotExtent extent(++self.asked);
      if (!co_await self.world.mark(std::span(&extent, 1))) co_return;
      self.acknowledged = self.asked;
    }
  }
  bool append(uint64_t count) {
    return world.simulation.run(world.machine.control(), append(*this, count));
  }
  // After the start: all that was acknowledged, and at most one more, that was under way.
  void check() const {
    for (uint64_t n = 1; n <= acknowledged; ++n) ASSERT_TRUE(world.found.contains(n)) << n;
    EXPECT_LE(world.found.size(), asked);
  }
};

constexpr uint64_t kMarks = 40;  // several laps of 16 blocks

TEST(Traces, F34_ACutAtEveryCallOfTheMarkLogLosesNoMark) {
  for (uint64_t cut = 1;; ++cut) {
    SCOPED_TRACE(cut);
    bool ended = false;
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      Numbered marks(cut * 8 + seed);
      marks.world.machine.cut_at_sync_io(cut);
      ended = marks.append(kMarks);
      marks.world.crash(true);
      ASSERT_TRUE(marks.world.start()) << "a crash is not rot";
      marks.check();
      if (testing::Test::HasFailure()) return;
    }
    if (!ended) continue;
    EXPECT_GT(cut, 4 * kMarks) << "two writes and two flushes a mark";
    return;
  }
}

// One copy fails for a while and comes back with what it had: it must not win over the other.
TEST(Traces, F34_ACopyThatFailedForAWhileIsNotBelievedAfterwards) {
  uint64_t acknowledged = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    Numbered marks(seed);
    auto dice = marks.world.simulation.dice(3);
    ASSERT_TRUE(marks.append(dice.between(1, 20)));
    sim::DiskFaults& faults = marks.world.machine.disk().find(kCopies[seed % 2])->faults;
    (seed % 4 < 2 ? faults.write_error : faults.flush_error) = 1;
    ASSERT_TRUE(marks.append(dice.between(1, 20)));
    faults.write_error = faults.flush_error = 0;
    marks.world.machine.cut_at_sync_io(dice.between(1, 60));
    const bool ended = marks.append(kMarks);
    if (ended) EXPECT_EQ(marks.acknowledged, marks.asked) << "one copy is enough";
    acknowledged += marks.acknowledged;
    marks.world.crash(true);
    ASSERT_TRUE(marks.world.start());
    marks.check();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(acknowledged, 40u * 20);
}

TEST(Traces, F34_AWholeMarkBehindAGapInBothCopiesMeansThatNoRunIsTrusted) {
  for (const size_t rotten : {1u, 2u}) {
    Numbered marks(9);
    ASSERT_TRUE(marks.append(5));
    ASSERT_EQ(marks.acknowledged, 5u);
    marks.world.crash(true);
    for (size_t copy = 0; copy < rotten; ++copy) {
      marks.world.machine.disk()
          .find(kCopies[copy])
          ->plant(2 * kBlockBytes + 40, std::array{std::byte{0xee}});
    }
    EXPECT_EQ(marks.world.start(), rotten == 1) << "rot in one copy costs nothing, in both all";
    if (rotten == 1) marks.check();
  }
}

}  // namespace
}  // namespace duplex::simtest
