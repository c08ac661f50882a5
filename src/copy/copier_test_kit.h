// What the tests of this room stand on: two cores in one thread with virtual time, devices with a
// volatile cache that count, take time and fail by region, and a store that a power cut can catch
// anywhere.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "copy/copier.h"
#include "volume/volume_test_kit.h"

namespace duplex::copy::testing {

using volume::ChangeMap;
using volume::HotExtent;
using volume::MapId;
using volume::TargetLeg;
using volume::Tracker;
using volume::VolumeImpl;

inline constexpr uint64_t kExtent = 64 * kKiB;
inline constexpr MapId kBits{1}, kMissing{2};

class TimedCore final : public rt::Core, rt::Clock, rt::Rng {
 public:
  TimedCore(size_t index, rt::Micros& now) : index_(index), now_(now) {}

  void post(rt::Work& work) override {
    if (!is_dark) ready_.push_back(&work);
  }
  void defer(rt::Work& work) override { ready_.push_back(&work); }
  rt::Clock& clock() override { return *this; }
  rt::Rng& rng() override { return *this; }
  rt::Files& files() override { std::abort(); }
  rt::Net& net() override { std::abort(); }
  rt::BufferPool& buffers() override { return buffers_; }
  size_t index() const override { return index_; }
  rt::Micros now() const override { return now_; }
  int64_t wall_us() const override { return 0; }
  void arm(rt::Timer& timer, rt::Micros deadline) override {
    timer.deadline = std::max(deadline, now_);
    timer.timer_slot = ++last_slot_;
    timers_[{timer.deadline, timer.timer_slot}] = &timer;
  }
  void cancel(rt::Timer& timer) override { timers_.erase({timer.deadline, timer.timer_slot}); }
  uint64_t next() override { return ++last_slot_; }
  bool abandoned() const override { return is_dark; }
  bool is_dark = false;

  bool step() {
    if (ready_.empty()) return false;
    rt::Work& work = *ready_.front();
    ready_.pop_front();
    const Scope scope(*this);
    work.run(work);
    return true;
  }
  std::optional<rt::Micros> next_timer() const {
    if (timers_.empty()) return std::nullopt;
    return timers_.begin()->first.first;
  }
  void fire() {
    rt::Timer* timer = timers_.begin()->second;
    timers_.erase(timers_.begin());
    timer->timer_slot = 0;
    const Scope scope(*this);
    timer->fire(*timer);
  }
  template <class F>
  void inside(F f) {
    const Scope scope(*this);
    f();
  }

 private:
  size_t index_;
  rt::Micros& now_;
  uint64_t last_slot_ = 0;
  std::deque<rt::Work*> ready_;
  std::map<std::pair<rt::Micros, uint64_t>, rt::Timer*> timers_;
  rt::BufferPool buffers_{0};
};

class TimedWorld {
 public:
  rt::Micros now = rt::kSecond;
  TimedCore source{1, now}, target{2, now};

  // One step, of work or, when there is none, of time. False: nothing to do up to `until`.
  bool step(rt::Micros until) {
    if (source.step() || target.step()) return true;
    TimedCore* first = nullptr;
    for (TimedCore* core : {&source, &target}) {
      if (core->next_timer() && (!first || *core->next_timer() < *first->next_timer())) {
        first = core;
      }
    }
    if (first == nullptr || *first->next_timer() > until) return false;
    now = std::max(now, *first->next_timer());
    first->fire();
    return true;
  }
  void run_for(rt::Micros time) {
    const rt::Micros until = now + time;
    while (step(until)) {
    }
    now = until;
  }
  template <class T>
  std::shared_ptr<std::optional<T>> start(rt::Task<T> task) {
    auto result = std::make_shared<std::optional<T>>();
    source.inside([&] { group_->spawn(keep(std::move(task), result)); });
    return result;
  }
  // Until it has ended, at most an hour.
  template <class T>
  T finish(std::shared_ptr<std::optional<T>> result) {
    const rt::Micros until = now + 3600 * rt::kSecond;
    while (!result->has_value() && step(until)) {
    }
    if (!result->has_value()) {
      ADD_FAILURE() << "the task has not ended";
      std::abort();
    }
    return *std::move(*result);
  }
  template <class T>
  T finish(rt::Task<T> task) {
    return finish(start(std::move(task)));
  }
  void cut_power() {
    source.is_dark = target.is_dark = true;
    group_.reset();
  }

 private:
  template <class T>
  static rt::Task<> keep(rt::Task<T> task, std::shared_ptr<std::optional<T>> result) {
    result->emplace(co_await std::move(task));
  }
  std::unique_ptr<rt::TaskGroup> group_ = std::make_unique<rt::TaskGroup>(source);
};

// A FakeBacking with a cache: for each block, what it may hold after a power cut.
class TestDisk final : public pool::Backing {
 public:
  TestDisk(uint64_t size_bytes, uint64_t extent_bytes, TimedCore& core)
      : inner(size_bytes, extent_bytes), core_(core) {}

  volume::testing::FakeBacking inner;
  std::set<uint64_t> bad;  // regions, by number, that cannot be read
  bool fails_all_reads = false;
  bool has_cache = true;  // without one, a write that has ended is durable
  rt::Micros read_time = 0;
  uint64_t reads = 0, read_bytes = 0, written_bytes = 0, flushes = 0;

  // Of the block, the last is what it reads now.
  std::vector<int> maybe(uint64_t block) const {
    const auto found = cells_.find(block);
    if (found == cells_.end()) return {0};
    std::vector<int> values;
    for (const Written& written : found->second) values.push_back(written.value);
    return values;
  }
  int value(uint64_t block) const { return maybe(block).back(); }

  BackingId id() const override { return inner.id(); }
  const std::string& name() const override { return inner.name(); }
  uint64_t size_bytes() const override { return inner.size_bytes(); }
  bool has_untold_loss() const override { return false; }
  uint64_t extent_bytes() const override { return inner.extent_bytes(); }
  uint64_t allocated_bytes() const override { return inner.allocated_bytes(); }
  bool is_mapped(ByteRange range) const override { return inner.is_mapped(range); }
  bool is_hole(ByteRange range) const override { return inner.is_hole(range); }
  Run run_at(uint64_t offset) const override { return inner.run_at(offset); }
  rt::Task<Result<void>> allocate(ByteRange range) override { return inner.allocate(range); }
  std::vector<pool::ExtentRun> extents() const override { return inner.extents(); }

  rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) override {
    ++reads;
    if (read_time > 0) co_await rt::sleep_for(core_.clock(), read_time);
    const auto first = bad.lower_bound(offset / kRegionBytes);
    const bool is_bad = first != bad.end() && *first * kRegionBytes < offset + into.size();
    CO_TRY(co_await inner.read(offset, into));
    if (is_bad || fails_all_reads) co_return fail(Code::kMediumRead);
    read_bytes += into.size();
    co_return Result<void>();
  }
  rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from) override {
    const uint64_t number = begin({offset, from.size()}, from.data());
    Result<void> done = co_await inner.write(offset, from);
    if (done) written_bytes += from.size();
    end({offset, from.size()}, number);
    co_return done;
  }
  rt::Task<Result<void>> zero(ByteRange range, pool::ZeroMode mode) override {
    const uint64_t number = begin(range, nullptr);
    Result<void> done = co_await inner.zero(range, mode);
    end(range, number);
    co_return done;
  }
  rt::Task<Result<void>> flush() override {
    ++flushes;
    std::map<uint64_t, uint64_t> ended;
    for (const auto& [block, cell] : cells_) ended[block] = ended_[block];
    CO_TRY(co_await inner.flush());
    for (const auto& [block, number] : ended) {
      auto& cell = cells_[block];
      const auto at = std::ranges::find(cell, number, &Written::number);
      if (at != cell.end()) cell.erase(cell.begin(), at);
    }
    co_return Result<void>();
  }

 private:
  struct Written {
    int value;
    uint64_t number;
  };
  uint64_t begin(ByteRange range, const std::byte* from) {
    const uint64_t number = ++last_;
    for (uint64_t at = range.offset; at < range.end(); at += kBlockBytes) {
      const int value = from == nullptr ? 0 : static_cast<int>(from[at - range.offset]);
      const uint64_t block = at / kBlockBytes;
      if (value == 0 && !cells_.contains(block)) continue;
      auto& cell = cells_[block];
      if (cell.empty()) cell.push_back({0, 0});
      cell.push_back({value, number});
    }
    return number;
  }
  void end(ByteRange range, uint64_t number) {
    const auto until = cells_.lower_bound(range.end() / kBlockBytes);
    for (auto cell = cells_.lower_bound(range.offset / kBlockBytes); cell != until; ++cell) {
      if (cell->second.back().number != number) continue;
      ended_[cell->first] = number;
      if (!has_cache) cell->second.erase(cell->second.begin(), std::prev(cell->second.end()));
    }
  }
  TimedCore& core_;
  std::map<uint64_t, std::vector<Written>> cells_;
  std::map<uint64_t, uint64_t> ended_;
  uint64_t last_ = 0;
};

// Records take effect in order; a power cut leaves those before some point.
class WordStore final : public volume::MarkStore {
 public:
  struct Disk {
    std::map<uint64_t, uint64_t> words, missing;  // of kBits and of kMissing
    std::set<uint64_t> hot;
    bool covers(uint64_t region) const {
      const auto word = words.find(region / 64);
      return hot.contains(region / 64) ||
             (word != words.end() && (word->second >> region % 64 & 1) != 0);
    }
  };
  explicit WordStore(TimedCore& core) : core_(core) {}
  bool fails = false;
  Disk disk;  // the records that were acknowledged

  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override {
    Record record;
    for (const HotExtent extent : extents) record.marked.push_back(extent.value());
    return append(std::move(record));
  }
  rt::Task<Result<void>> cool(HotExtent extent, std::vector<format::MapWord> words) override {
    Record record{.marked = {}, .cooled = extent.value(), .words = {}};
    for (const auto& word : words) {
      record.words.push_back({MapId(word.map), extent.value(), word.regions});
    }
    return append(std::move(record));
  }
  rt::Task<Result<void>> write_words(MapId map, std::vector<ChangeMap::Word> words) override {
    Record record;
    for (const auto& word : words) {
      record.words.push_back({map, word.stretch.value(), word.regions});
    }
    return append(std::move(record));
  }
  // f(disk) for each disk that a power cut may leave now.
  template <class F>
  void each_future(F f) const {
    Disk future = disk;
    f(future);
    for (size_t i = applied_; i < records_.size(); ++i) {
      records_[i].apply(future);
      f(future);
    }
  }

 private:
  struct Record {
    std::vector<uint64_t> marked;
    std::optional<uint64_t> cooled;
    struct Word {
      MapId map;
      uint64_t stretch, regions;
    };
    std::vector<Word> words;
    void apply(Disk& to) const {
      for (const uint64_t stretch : marked) to.hot.insert(stretch);
      for (const auto& [map, stretch, regions] : words) {
        (map == kBits ? to.words : to.missing)[stretch] = regions;
      }
      if (cooled) to.hot.erase(*cooled);
    }
  };
  rt::Task<Result<void>> append(Record record) {
    if (fails) co_return fail(Code::kNoSpace);
    const size_t mine = records_.size();
    records_.push_back(std::move(record));
    co_await rt::sleep_for(core_.clock(), 50);
    while (applied_ <= mine) records_[applied_++].apply(disk);
    co_return Result<void>();
  }
  TimedCore& core_;
  std::deque<Record> records_;
  size_t applied_ = 0;
};

// A source, a target, the leg between them, and a copier when it has been started.
class Pair {
 public:
  explicit Pair(uint64_t size_bytes = 8 * kHotBytes, uint64_t extent_bytes = kExtent)
      : size(size_bytes), extent(extent_bytes) {
    world.source.inside([&] {
      tracker.add_map(kBits, volume::MapKind::kCopyAway, ChangeMap(size));
      tracker.add_map(kMissing, volume::MapKind::kMissing, ChangeMap(size));
      tracker.set_windows(kBits, &source.own_window(), &leg.window());
      tracker.set_windows(kMissing, nullptr, &source.returned_window());
      tracker.add_debtor(leg);
      source.set_tracker(tracker);
      source.add_leg(leg);
    });
  }
  ~Pair() { world.cut_power(); }
  static constexpr uint64_t kHotBytes = volume::kHotBytes;

  rt::Task<Result<void>> write_task(uint64_t offset, size_t bytes, int value) {
    const rt::Buffer buffer = world.source.buffers().get(bytes);
    std::memset(buffer.data(), value, bytes);
    co_return co_await source.write(offset, buffer.span(), false);
  }
  void write(uint64_t offset, size_t bytes, int value) {
    ASSERT_TRUE(world.finish(write_task(offset, bytes, value)));
  }
  void set(ByteRange range) {
    world.source.inside([&] { tracker.set(kBits, range); });
  }
  // The bits are durable, what was counted so far does not count.
  void begin(Copier::Start start = {}) {
    ASSERT_TRUE(world.finish(source.flush()));
    ASSERT_TRUE(world.finish(tracker.write_back(kBits)));
    p.reads = p.read_bytes = s.written_bytes = s.flushes = 0;
    world.source.inside([&] {
      leg.set_mode(TargetLeg::Mode::kSendWhereClear);
      copier.emplace(source, leg, tracker, [] { return Epoch(1); }, start);
    });
    ended = world.start(copier->run());
  }
  Copier::End finish() { return world.finish(ended); }
  template <class F>
  void tell(F f) {
    world.source.inside([&] { f(*copier); });
  }
  bool differs(uint64_t region) const {
    constexpr uint64_t kBlocks = kRegionBytes / kBlockBytes;
    for (uint64_t block = region * kBlocks; block < (region + 1) * kBlocks; ++block) {
      if (p.value(block) != s.value(block)) return true;
    }
    return false;
  }
  uint64_t regions() const { return size / kRegionBytes; }
  // Nothing is on its way.
  void expect_differences_have_bits(const std::string& where) const {
    for (uint64_t region = 0; region < regions(); ++region) {
      if (!differs(region)) continue;
      ASSERT_TRUE(leg.bits().any({region * kRegionBytes, 1})) << where << ", region " << region;
    }
  }
  void expect_equal() const {
    for (uint64_t region = 0; region < regions(); ++region) {
      ASSERT_FALSE(differs(region)) << "region " << region;
    }
  }
  // What a power cut at this instant would leave: empty, or the region it would forget.
  std::string power_cut_would_lose() const {
    constexpr uint64_t kBlocks = kRegionBytes / kBlockBytes;
    std::string lost;
    for (uint64_t region = 0; region < regions(); ++region) {
      bool may_differ = false;
      for (uint64_t block = region * kBlocks; block < (region + 1) * kBlocks; ++block) {
        const auto here = p.maybe(block);
        const auto there = s.maybe(block);
        const auto is_same = [&](int value) { return value == here[0]; };
        may_differ |= !std::ranges::all_of(here, is_same) || !std::ranges::all_of(there, is_same);
      }
      if (!may_differ) continue;
      store.each_future([&](const WordStore::Disk& disk) {
        if (!disk.covers(region)) lost = "region " + std::to_string(region);
      });
    }
    return lost;
  }

  const uint64_t size;
  const uint64_t extent;
  TimedWorld world;
  WordStore store{world.source};
  TestDisk p{size, extent, world.source}, s{size, extent, world.target};
  Tracker tracker{world.source, store, size, volume::HotSet::kMaxPerRequest};
  VolumeImpl source{"p", VolumeNumber(1), size, world.source, p, Epoch(1)};
  VolumeImpl target{"s", VolumeNumber(2), size, world.target, s, Epoch(1)};
  int lefts = 0;
  std::optional<Copier> copier;
  TargetLeg leg{tracker,
                kBits,
                kMissing,
                target,
                [this](const Error&) {
                  ++lefts;
                  if (copier) copier->left();
                },
                [] {}};
  std::shared_ptr<std::optional<Copier::End>> ended;
};

}  // namespace duplex::copy::testing
