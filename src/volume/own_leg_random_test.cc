// Random writers, flushes, faults and repairs over a backing that loses its cache when a flush
// fails: what was answered is read, unless a FLUSH has said that it may be lost.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "volume/target_leg.h"
#include "volume/volume_impl.h"
#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using Mode = TargetLeg::Mode;
using testing::FakeBacking;
using testing::TestWorld;

constexpr uint64_t kExtent = 64 * kKiB;
constexpr uint64_t kSize = 8 * kExtent;
constexpr uint64_t kBlocks = kSize / kBlockBytes;
constexpr MapId kBits{1}, kMissing{2};

class NoStore final : public MarkStore {
 public:
  rt::Task<Result<void>> mark(std::span<const HotExtent> /*e*/) override {
    co_await rt::yield();
    co_return Result<void>();
  }
  rt::Task<Result<void>> cool(HotExtent /*e*/, std::vector<format::MapWord> /*w*/) override {
    co_return Result<void>();
  }
  rt::Task<Result<void>> write_words(MapId /*m*/, std::vector<ChangeMap::Word> /*w*/) override {
    co_await rt::yield();
    co_return Result<void>();
  }
};

// Its cache: each block written since the last good flush may fall back when one fails.
class LossyBacking final : public pool::Backing {
 public:
  explicit LossyBacking(std::mt19937_64& random) : random_(random) {}
  FakeBacking inner{kSize, kExtent};
  int fail_percent = 0;
  bool fails_flush = false;

  BackingId id() const override { return inner.id(); }
  const std::string& name() const override { return inner.name(); }
  uint64_t size_bytes() const override { return kSize; }
  bool has_untold_loss() const override { return false; }
  uint64_t extent_bytes() const override { return kExtent; }
  uint64_t allocated_bytes() const override { return inner.allocated_bytes(); }
  bool is_mapped(ByteRange range) const override { return inner.is_mapped(range); }
  bool is_hole(ByteRange range) const override { return inner.is_hole(range); }
  Run run_at(uint64_t offset) const override { return inner.run_at(offset); }
  std::vector<pool::ExtentRun> extents() const override { return inner.extents(); }
  rt::Task<Result<void>> allocate(ByteRange range) override { return inner.allocate(range); }
  rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) override {
    co_await turns();
    Result<void> done = co_await inner.read(offset, into);
    co_await turns();
    co_return done;
  }
  rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from) override {
    co_await turns();
    const bool fails = static_cast<int>(random_() % 100) < fail_percent;
    // One that fails may have stored some of it.
    const uint64_t stored = fails ? random_() % 2 * kBlockBytes : from.size();
    if (stored > 0) {
      co_await remember({offset, stored});
      CO_TRY(co_await inner.write(offset, from.first(stored)));
    }
    co_await turns();
    if (fails) co_return fail(Code::kMediumWrite);
    co_return Result<void>();
  }
  rt::Task<Result<void>> zero(ByteRange range, pool::ZeroMode /*mode*/) override {
    const rt::Buffer zeroes = rt::Executor::current().abandoned() ? rt::Buffer() : buffer(range);
    if (!inner.is_mapped(range)) CO_TRY(co_await inner.allocate(range));
    co_return co_await write(range.offset, zeroes.span());
  }
  rt::Task<Result<void>> flush() override {
    std::map<uint64_t, uint64_t> covered = number_;
    co_await turns();
    if (fails_flush) {
      fails_flush = false;
      for (const auto& [block, old] : old_) {
        if (random_() % 2 == 0) CO_TRY(co_await inner.write(block * kBlockBytes, old.span()));
      }
      old_.clear();
      number_.clear();
      co_return fail(Code::kFlushLost);
    }
    for (const auto& [block, number] : covered) {
      if (number_[block] != number) continue;
      old_.erase(block);
      number_.erase(block);
    }
    co_return Result<void>();
  }
  rt::Core* core = nullptr;

 private:
  rt::Buffer buffer(ByteRange range) const {
    rt::Buffer all = core->buffers().get(range.length);
    std::memset(all.data(), 0, range.length);
    return all;
  }
  rt::Task<> remember(ByteRange range) {
    for (uint64_t block = range.offset / kBlockBytes; block < range.end() / kBlockBytes; ++block) {
      number_[block] = ++last_;
      if (old_.contains(block)) continue;
      rt::Buffer old = core->buffers().get(kBlockBytes);
      EXPECT_TRUE(co_await inner.read(block * kBlockBytes, old.span()));
      old_.emplace(block, std::move(old));
    }
  }
  rt::Task<> turns() {
    for (uint64_t n = random_() % 4; n > 0; --n) co_await rt::yield();
  }
  std::mt19937_64& random_;
  std::map<uint64_t, rt::Buffer> old_;
  std::map<uint64_t, uint64_t> number_;
  uint64_t last_ = 0;
};

class Box {
 public:
  explicit Box(uint64_t seed) : random(seed) {
    backing.core = &core();
    for (uint64_t block = 0; block < kBlocks; ++block) {
      maybe[block] = since_flush[block] = rest_maybe[block] = rest_since[block] = {0};
    }
    target_backing.slow = true;
    core().inside([&] {
      tracker.add_map(kBits, MapKind::kCopyAway, ChangeMap(kSize));
      tracker.add_map(kMissing, MapKind::kMissing, ChangeMap(kSize));
      tracker.set_windows(kBits, &volume.own_window(), &leg.window());
      tracker.set_windows(kMissing, nullptr, &volume.returned_window());
      tracker.add_debtor(leg);
      volume.set_tracker(tracker);
      volume.add_leg(leg);
      leg.set_mode(Mode::kSend);
    });
  }
  ~Box() { world.finish(core(), testing::ended(tracker.close())); }
  testing::TestCore& core() { return world.reactor(0); }

  rt::Task<> write(uint64_t block, int value, bool is_part) {
    const rt::Buffer buffer = core().buffers().get(kBlockBytes);
    std::memset(buffer.data(), value, kBlockBytes);
    // The rest of a block written in part has to stay as it is.
    const uint64_t length = is_part ? 512 : kBlockBytes;
    maybe[block].insert(value);
    since_flush[block].insert(value);
    if (!is_part) rest_maybe[block].insert(value), rest_since[block].insert(value);
    const auto done =
        co_await volume.write(block * kBlockBytes, buffer.span().first(length), false);
    if (!done) co_return;
    maybe[block] = {value};
    if (!is_part) rest_maybe[block] = {value};
  }
  rt::Task<> flush() {
    if (!co_await volume.flush()) was_lost = true;
  }
  rt::Task<> copy(bool is_back) {
    for (uint64_t from = 0;;) {
      const auto step = is_back ? co_await volume.restore_step(leg, from)
                                : co_await volume.copy_step(leg, from, Epoch(1));
      if (!step || step->is_end) co_return;
      from = step->next;
    }
  }
  void start(rt::Task<> task) { world.start(core(), testing::ended(std::move(task))); }

  void round(int n) {
    backing.fail_percent = random() % 4 == 0 ? 30 : 0;
    backing.fails_flush = random() % 4 == 0;
    if (random() % 12 == 0) target_backing.fail_write = Code::kMediumWrite;
    if (random() % 12 == 0) target_backing.fail_flush = {Code::kFlushLost};
    if (leg.mode() == Mode::kMark && random() % 2 == 0) {
      core().inside([&] { leg.set_mode(Mode::kSendWhereClear); });
    }
    std::set<uint64_t> blocks;
    for (int w = 0; w < 8; ++w) blocks.insert(random() % kBlocks);
    for (const uint64_t block : blocks) {
      start(write(block, 1 + static_cast<int>(random() % 250), random() % 3 == 0));
      if (random() % 6 == 0) start(flush());
      if (random() % 8 == 0) start(copy(true));
      if (random() % 8 == 0 && leg.mode() == Mode::kSendWhereClear) start(copy(false));
    }
    world.run();
    target_backing.fail_write.reset();
    target_backing.fail_flush.clear();
    if (was_lost) {
      for (uint64_t block = 0; block < kBlocks; ++block) {
        maybe[block].merge(std::set<int>(since_flush[block]));
        rest_maybe[block].merge(std::set<int>(rest_since[block]));
      }
    }
    was_lost = false;
    check(n);
    if (leg.mode() == Mode::kSendWhereClear && leg.bits().empty()) {
      core().inside([&] { leg.set_mode(Mode::kSend); });
    }
  }
  void check(int n) {
    const rt::Buffer block = core().buffers().get(kBlockBytes);
    const rt::Buffer other = core().buffers().get(kBlockBytes);
    for (uint64_t at = 0; at < kBlocks; ++at) {
      const uint64_t offset = at * kBlockBytes;
      ASSERT_TRUE(world.finish(core(), volume.read(offset, block.span())));
      const int first = static_cast<int>(block.span()[0]),
                rest = static_cast<int>(block.span()[600]);
      ASSERT_TRUE(maybe[at].contains(first))
          << "round " << n << " block " << at << " reads " << first;
      ASSERT_TRUE(rest_maybe[at].contains(rest))
          << "round " << n << " block " << at << " reads " << rest << " behind its first sector";
      maybe[at] = {first};
      rest_maybe[at] = {rest};
      if (!leg.bits().any({offset, 1})) {
        ASSERT_TRUE(world.finish(core(), target.forward_read(offset, other.span())));
        ASSERT_EQ(std::memcmp(block.data(), other.data(), kBlockBytes), 0)
            << "round " << n << " block " << at << " differs without a bit";
      }
    }
    if (!world.finish(core(), volume.flush())) {
      was_lost = true;
      return;
    }
    for (uint64_t at = 0; at < kBlocks; ++at) {
      since_flush[at] = maybe[at];
      rest_since[at] = rest_maybe[at];
    }
  }

  std::mt19937_64 random;
  TestWorld world{2};
  NoStore store;
  LossyBacking backing{random};
  FakeBacking target_backing{kSize, kExtent};
  Tracker tracker{world.reactor(0), store, kSize};
  VolumeImpl volume{"p", VolumeNumber(1), kSize, world.reactor(0), backing, Epoch(1)};
  VolumeImpl target{"s", VolumeNumber(2), kSize, world.reactor(1), target_backing, Epoch(1)};
  size_t missing = 0;
  TargetLeg leg{tracker, kBits, kMissing, target, [](const Error&) {}, [this] { ++missing; }};
  // Of the first sector, and of the bytes behind it.
  std::map<uint64_t, std::set<int>> maybe, since_flush, rest_maybe, rest_since;
  bool was_lost = false;
};

// Mutations: bring_run_back() clears the bits first; verdict() ends with `own`; own_lost() does
// nothing, or knows of no origin; holds() does not look at bits.
TEST(OwnLegRandom, WhatWasAnsweredIsReadAndWhatDiffersHasABit) {
  size_t missing = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Box box(seed);
    for (int n = 0; n < 60; ++n) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      box.round(n);
      if (::testing::Test::HasFatalFailure()) return;
    }
    missing += box.missing;
  }
  EXPECT_GT(missing, 100u) << "the faults have to be met";
}

}  // namespace
}  // namespace duplex::volume
