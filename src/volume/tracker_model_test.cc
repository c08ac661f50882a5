// The tracker under a modelled pair: source P and target S with volatile caches, and a log that
// loses its tail. After every step of every run the judge asks what a power cut at this instant
// would leave: each region that might then read differently on the two sides has to be marked, or
// set in a durable word. Runs go through lost legs, failed flushes, full logs and real power cuts.
//
// The judge is shown to notice: the same runs with one rule broken from outside have to fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "volume/tracker.h"
#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using testing::TestWorld;

constexpr uint64_t kStretches = 20;  // more than the hot set holds
constexpr size_t kCells = kStretches * 2;
constexpr uint64_t kVolumeBytes = kStretches * kHotBytes;
constexpr MapId kMap(7);

// Two regions of each stretch are written to.
uint64_t region_of(size_t cell) { return cell / 2 * kRegionsPerWord + cell % 2 * 5; }
ByteRange range_of(size_t cell) { return {region_of(cell) * kRegionBytes, kRegionBytes}; }
std::optional<size_t> cell_at(uint64_t offset) {
  const uint64_t region = offset / kRegionBytes;
  const uint64_t bit = region % kRegionsPerWord;
  if (bit != 0 && bit != 5) return std::nullopt;
  return region / kRegionsPerWord * 2 + bit / 5;
}

enum class Broken : uint8_t {
  kNothing,
  kMarkOffBeforeFlush,     // cooling does not wait for the target
  kUseEndsBeforeItsWrite,  // so a stretch cools while a write is in it
  kWindowDroppedAtBegin,   // of a flush, not at its success
  kBitOffBeforeFlush,      // a copied region's bit leaves the disk at once
  kUnderWayNotCounted,     // a write that was under way when its leg was lost counts as stored
};

// A device with a cache: for each cell the writes that it may hold after a power cut.
struct Device {
  struct Written {
    int value = 0;
    int write = 0;  // each has its own number
    bool operator==(const Written&) const = default;
  };
  struct Cell {
    std::vector<Written> maybe{{}};  // the last is what it reads now
    Written ended;                   // the last write that has ended
  };
  std::array<Cell, kCells> cells;
  int session = 0;

  void lose_cache(std::mt19937_64& random) {
    ++session;
    for (Cell& cell : cells) {
      cell.ended = cell.maybe[random() % cell.maybe.size()];
      cell.maybe = {cell.ended};
    }
  }
  std::array<Written, kCells> all_ended() const {
    std::array<Written, kCells> writes;
    for (size_t c = 0; c < kCells; ++c) writes[c] = cells[c].ended;
    return writes;
  }
  void flushed(const std::array<Written, kCells>& writes) {
    for (size_t c = 0; c < kCells; ++c) {
      auto& maybe = cells[c].maybe;
      const auto at = std::ranges::find(maybe, writes[c]);
      // A flush that began later may have ended first.
      if (at != maybe.end()) maybe.erase(maybe.begin(), at);
    }
  }
};

// What the store has.
struct Disk {
  std::map<uint64_t, uint64_t> words;
  std::set<uint64_t> hot;
  bool covers(size_t cell) const {
    const auto word = words.find(cell / 2);
    return hot.contains(cell / 2) ||
           (word != words.end() && (word->second >> region_of(cell) % 64 & 1) != 0);
  }
};

rt::Task<> pause(std::mt19937_64* random) {
  for (uint64_t turns = (*random)() % 6; turns > 0; --turns) co_await rt::yield();
}

// Records take effect in order; their callers learn of it later, in any order.
class Log final : public MarkStore {
 public:
  struct Record {
    std::vector<uint64_t> marked;
    std::optional<uint64_t> cooled;
    std::vector<std::pair<uint64_t, uint64_t>> words;
    bool fails = false;
    void apply(Disk& disk) const {
      if (fails) return;
      for (const uint64_t e : marked) disk.hot.insert(e);
      for (const auto& [stretch, word] : words) disk.words[stretch] = word;
      if (cooled) disk.hot.erase(*cooled);
    }
  };
  Log(Disk& disk, std::mt19937_64& random) : disk_(disk), random_(random) {}

  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override {
    Record record;
    for (const HotExtent e : extents) record.marked.push_back(e.value());
    return append(std::move(record));
  }
  rt::Task<Result<void>> cool(HotExtent extent, std::vector<format::MapWord> words) override {
    ++coolings;
    Record record{.marked = {}, .cooled = extent.value(), .words = {}};
    for (const format::MapWord& word : words) {
      EXPECT_EQ(word.map, kMap.value());
      record.words.emplace_back(extent.value(), word.regions);
    }
    return append(std::move(record));
  }
  rt::Task<Result<void>> write_words(MapId, std::vector<ChangeMap::Word> words) override {
    Record record;
    for (const auto& word : words) record.words.emplace_back(word.stretch.value(), word.regions);
    return append(std::move(record));
  }
  // f(disk) for each disk that a power cut may leave now.
  template <class F>
  void each_future(F f) const {
    Disk disk = disk_;
    f(disk);
    for (size_t i = applied_; i < records_.size(); ++i) {
      records_[i].apply(disk);
      f(disk);
    }
  }
  void cut_power() {
    for (uint64_t n = random_() % (records_.size() - applied_ + 1); n > 0; --n) {
      records_[applied_++].apply(disk_);
    }
  }
  uint64_t coolings = 0;

 private:
  rt::Task<Result<void>> append(Record record) {
    record.fails = random_() % 30 == 0;
    const size_t mine = records_.size();
    records_.push_back(std::move(record));
    co_await pause(&random_);
    while (applied_ <= mine) records_[applied_++].apply(disk_);
    co_await pause(&random_);
    if (records_[mine].fails) co_return fail(Code::kNoSpace);
    co_return Result<void>();
  }
  Disk& disk_;
  std::mt19937_64& random_;
  std::deque<Record> records_;
  size_t applied_ = 0;
};

class Pair;
struct Leg final : Debtor {
  Leg(Pair& p, Device& d) : pair(p), device(d) {}
  Window& window() override { return debt; }
  rt::Task<Result<void>> flush() override;
  void lost(const Error& why) override;
  Pair& pair;
  Device& device;
  Window debt;
  int under_way = 0;  // writes and flushes
  uint64_t failures_to_come = 0;
};

enum class State : uint8_t { kSync, kCopying, kSuspended };

class Pair {
 public:
  Pair(uint64_t seed, Broken broken) : random_(seed), broken_(broken) { boot(); }
  ~Pair() { life_->world.cut_power(); }

  // Empty, or what a power cut would have lost.
  std::string run(int steps) {
    for (int i = 0; i < steps && wrong_.empty(); ++i) {
      if (random_() % 300 == 0) {
        cut_power();
      } else {
        life_->core().inside([&] { event(); });
      }
      for (uint64_t n = random_() % 4; n > 0 && wrong_.empty(); --n) {
        if (!life_->core().step()) break;
        judge();
      }
    }
    if (wrong_.empty()) settle();
    return wrong_;
  }

  struct Counts {
    uint64_t coolings = 0, cuts = 0, losses = 0, copies = 0, syncs = 0, failed_flushes = 0;
  };
  Counts counts;

 private:
  friend struct Leg;
  struct Life {
    Life(Pair& pair, Disk& disk)
        : log(disk, pair.random_),
          tracker(world.reactor(0), log, kVolumeBytes, HotSet::kMaxPerRequest),
          p(pair, pair.p_),
          s(pair, pair.s_) {}
    testing::TestCore& core() { return world.reactor(0); }
    TestWorld world;
    Log log;
    Tracker tracker;
    Leg p, s;
    std::set<size_t> locked;
  };
  Tracker& tracker() { return life_->tracker; }

  void boot() {
    life_ = std::make_unique<Life>(*this, disk_);
    ChangeMap durable(kVolumeBytes);
    for (const auto& [stretch, word] : disk_.words) durable.set_word(HotExtent(stretch), word);
    tracker().add_map(kMap, MapKind::kCopyAway, std::move(durable));
    std::vector<HotExtent> hot;
    for (const uint64_t e : disk_.hot) hot.emplace_back(e);
    tracker().mark_in_maps_at_start(hot);
    const Tracker::Whole whole = tracker().whole(kMap);
    disk_ = {};
    for (const auto& word : whole.words) disk_.words[word.stretch.value()] = word.regions;
    tracker().ended(whole, true);
    EXPECT_FALSE(tracker().is_pending(kMap));
    tracker().add_debtor(life_->p);
    if (is_s_known()) tracker().add_debtor(life_->s);
    start_copying();
  }
  void cut_power() {
    ++counts.cuts;
    counts.coolings += life_->log.coolings;
    life_->log.cut_power();
    life_->world.cut_power();
    life_.reset();
    p_.lose_cache(random_);
    s_.lose_cache(random_);
    boot();
    judge();
  }
  bool is_s_known() const { return broken_ != Broken::kMarkOffBeforeFlush; }
  void start_copying() {
    state_ = State::kCopying;
    tracker().set_windows(kMap, &life_->p.debt,
                          broken_ != Broken::kBitOffBeforeFlush ? &life_->s.debt : nullptr);
  }

  void event() {
    switch (random_() % 16) {
      case 0:
        return spawn(flush(&life_->p));
      case 1:
        if (is_s_known() && state_ != State::kSuspended) spawn(flush(&life_->s));
        return;
      case 2:
        if (random_() % 10 == 0 && state_ != State::kSuspended) leave();
        return;
      case 3:
        if (state_ == State::kSuspended && life_->s.under_way == 0) start_copying();
        return;
      case 4:
        return spawn(write_back());
      case 5:
        return spawn(try_sync());
      case 6:
      case 7:
      case 8:
        if (state_ == State::kCopying) spawn(copy(random_() % kVolumeBytes));
        return;
      default:
        // Half of the writes go to few places.
        const size_t cell = random_() % (random_() % 2 == 0 ? 6 : kCells);
        if (life_->locked.insert(cell).second) spawn(write(cell));
    }
  }
  void spawn(rt::Task<> task) {
    life_->world.start(life_->core(), testing::ended(std::move(task)));
  }

  rt::Task<> write(size_t cell) {
    const ByteRange range = range_of(cell);
    std::optional<Result<HotSet::Use>> use;
    use.emplace(co_await tracker().use(range));
    if (use->has_value()) {
      if (broken_ == Broken::kUseEndsBeforeItsWrite) use.reset();
      const bool to_s =
          state_ == State::kSync || (state_ == State::kCopying && !tracker().map(kMap).any(range));
      if (!to_s) tracker().set(kMap, range);
      const int value = ++last_write_;
      // The legs end one after the other, in either order.
      const bool s_first = random_() % 2 == 0;
      const Window::Stamp p_stamp = life_->p.debt.stamp();
      const Window::Stamp s_stamp = life_->s.debt.stamp();
      const Device::Written written{value, value};
      begin(p_, cell, written);
      if (to_s) begin(s_, cell, written);
      life_->s.under_way += to_s;
      co_await pause(&random_);
      if (to_s && s_first) end(life_->s, cell, written, s_stamp);
      co_await pause(&random_);
      end(life_->p, cell, written, p_stamp);
      co_await pause(&random_);
      if (to_s && !s_first) end(life_->s, cell, written, s_stamp);
    }
    life_->locked.erase(cell);
  }
  static void begin(Device& device, size_t cell, Device::Written written) {
    device.cells[cell].maybe.push_back(written);
  }
  void end(Leg& leg, size_t cell, Device::Written written, Window::Stamp stamp) {
    Device::Cell& at = leg.device.cells[cell];
    const bool is_there = at.maybe.back() == written;
    if (is_there) at.ended = written;
    // What the old session had not done yet may still happen.
    if (!is_there && random_() % 2 == 0) {
      at.maybe.push_back(written);
      at.ended = written;
    }
    const bool counts_it = leg.debt.add(range_of(cell), stamp);
    if (&leg == &life_->s) --leg.under_way;
    if (counts_it || broken_ == Broken::kUnderWayNotCounted) return;
    tracker().set(kMap, range_of(cell));
    if (state_ == State::kSync) start_copying();
  }

  rt::Task<> copy(uint64_t from) {
    const ByteRange run = tracker().map(kMap).next_run(from, kRegionBytes);
    if (run.empty()) co_return;
    const std::optional<size_t> cell = cell_at(run.offset);
    if (!cell) {  // set by a mark alone: both sides have what they always had
      tracker().begin_copy(kMap, run).done();
      co_return;
    }
    if (!life_->locked.insert(*cell).second) co_return;
    {
      Tracker::Copy copy = tracker().begin_copy(kMap, run);
      co_await pause(&random_);
      if (state_ == State::kCopying) {
        const Device::Written written{p_.cells[*cell].maybe.back().value, ++last_write_};
        const Window::Stamp stamp = life_->s.debt.stamp();
        begin(s_, *cell, written);
        ++life_->s.under_way;
        co_await pause(&random_);
        Device::Cell& at = s_.cells[*cell];
        at.ended = at.maybe.back();
        --life_->s.under_way;
        ++counts.copies;
        // While it ran P may have lost what was copied; then its bit is set again by P's leg.
        if (life_->s.debt.add(run, stamp)) copy.done();
      }
    }
    life_->locked.erase(*cell);
  }

  rt::Task<> flush(Leg* leg) { (void)co_await tracker().flush(*leg); }
  rt::Task<> write_back() { (void)co_await tracker().write_back(kMap); }
  rt::Task<> try_sync() {
    if (state_ != State::kCopying || !tracker().map(kMap).empty()) co_return;
    if (is_s_known()) (void)co_await tracker().flush(life_->s);
    (void)co_await tracker().write_back(kMap);
    if (state_ != State::kCopying || tracker().is_pending(kMap)) co_return;
    if (!tracker().map(kMap).empty()) co_return;
    state_ = State::kSync;
    ++counts.syncs;
  }
  // The target is gone, and comes back without its cache.
  void leave() {
    ++counts.losses;
    s_.lose_cache(random_);
    take_window(life_->s);
    state_ = State::kSuspended;
  }
  void take_window(Leg& leg) {
    leg.debt.lose(
        [&](HotExtent stretch, uint64_t regions) { tracker().or_word(kMap, stretch, regions); });
  }

  void judge() {
    life_->log.each_future([&](const Disk& disk) {
      for (size_t c = 0; c < kCells; ++c) {
        const auto& p = p_.cells[c].maybe;
        const auto& s = s_.cells[c].maybe;
        const auto is_same = [&](const Device::Written& w) { return w.value == p[0].value; };
        const bool are_equal = std::ranges::all_of(p, is_same) && std::ranges::all_of(s, is_same);
        if (!are_equal && !disk.covers(c)) {
          wrong_ = "cell " + std::to_string(c) + " may differ without bit or mark";
        }
      }
    });
  }
  // Everything ends, and the pair comes to SYNC with nothing set on disk: no bit is for ever.
  void settle() {
    const auto is_settled = [&] { return state_ == State::kSync && !tracker().is_pending(kMap); };
    for (int i = 0; i < 20000 && !is_settled() && wrong_.empty(); ++i) {
      life_->core().inside([&] {
        if (state_ == State::kSuspended && life_->s.under_way == 0) start_copying();
        if (state_ == State::kCopying) spawn(copy(0));
        if (i % 64 == 0) spawn(flush(&life_->p));
        if (i % 64 == 32) spawn(try_sync());
        if (i % 64 == 63) spawn(write_back());
      });
      while (wrong_.empty() && life_->core().step()) judge();
    }
    while (wrong_.empty() && life_->core().step()) judge();
    counts.coolings += life_->log.coolings;
    if (!wrong_.empty()) return;
    if (!is_settled()) wrong_ = "never came to rest in SYNC";
    for (const auto& [stretch, word] : disk_.words) {
      if (word != 0) wrong_ = "a bit stays on disk for ever";
    }
  }

  std::mt19937_64 random_;
  const Broken broken_;
  Device p_, s_;
  Disk disk_;
  State state_ = State::kCopying;
  int last_write_ = 0;
  std::string wrong_;
  std::unique_ptr<Life> life_;
};

rt::Task<Result<void>> Leg::flush() {
  ++under_way;
  const auto writes = device.all_ended();
  const int session = device.session;
  if (pair.broken_ == Broken::kWindowDroppedAtBegin) debt.end(debt.begin());
  co_await pause(&pair.random_);
  if (pair.random_() % 40 == 0) failures_to_come = pair.random_() % 40;
  const bool fails = failures_to_come > 0;
  failures_to_come -= fails;
  --under_way;
  // The cache is lost, or goes on being all that holds what it returns.
  if (fails && device.session == session && pair.random_() % 8 == 0) {
    device.lose_cache(pair.random_);
  }
  if (fails || device.session != session) co_return fail(Code::kFlushLost);
  device.flushed(writes);
  co_return Result<void>();
}

void Leg::lost(const Error& why) {
  EXPECT_EQ(why.code(), Code::kFlushLost);
  ++pair.counts.failed_flushes;
  pair.take_window(*this);
  if (this == &pair.life_->s) {
    pair.state_ = State::kSuspended;
  } else if (pair.state_ == State::kSync) {
    pair.start_copying();
  }
}

TEST(TrackerModel, APowerCutAtAnyStepLeavesEachDifferenceMarkedOrSet) {
  Pair::Counts sum;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    Pair pair(seed, Broken::kNothing);
    ASSERT_EQ(pair.run(2000), "") << "seed " << seed;
    sum.coolings += pair.counts.coolings;
    sum.cuts += pair.counts.cuts;
    sum.losses += pair.counts.losses;
    sum.copies += pair.counts.copies;
    sum.syncs += pair.counts.syncs;
    sum.failed_flushes += pair.counts.failed_flushes;
  }
  // The rare things did happen.
  EXPECT_GT(sum.coolings, 1000u);
  EXPECT_GT(sum.cuts, 500u);
  EXPECT_GT(sum.losses, 500u);
  EXPECT_GT(sum.copies, 5000u);
  EXPECT_GT(sum.syncs, 200u);
  EXPECT_GT(sum.failed_flushes, 500u);
}

class TrackerBroken : public ::testing::TestWithParam<Broken> {};
INSTANTIATE_TEST_SUITE_P(Rules, TrackerBroken,
                         ::testing::Values(Broken::kMarkOffBeforeFlush,
                                           Broken::kUseEndsBeforeItsWrite,
                                           Broken::kWindowDroppedAtBegin,
                                           Broken::kBitOffBeforeFlush,
                                           Broken::kUnderWayNotCounted));
TEST_P(TrackerBroken, IsNoticed) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Pair pair(seed, GetParam());
    if (pair.run(2000).find("may differ") != std::string::npos) return;
  }
  FAIL() << "400 runs with a broken rule went well";
}

}  // namespace
}  // namespace duplex::volume
