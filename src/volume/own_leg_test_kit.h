// For tests of a volume whose own backing fails: its mirrors on the same core, and a store that
// keeps every record.
#pragma once

#include <gtest/gtest.h>

#include <map>

#include "volume/target_leg.h"
#include "volume/volume_impl.h"
#include "volume/volume_test_kit.h"

namespace duplex::volume::testing {

using Mode = TargetLeg::Mode;

inline constexpr uint64_t kExtent = 64 * kKiB;
inline constexpr uint64_t kSize = 64 * kExtent;
inline constexpr MapId kBits{1}, kMissing{2}, kBits2{3}, kMissing2{4}, kRecorded{5};

class WordStore final : public MarkStore {
 public:
  bool fails = false;
  std::map<uint32_t, std::map<uint64_t, uint64_t>> disk;  // by map and stretch
  size_t marks = 0;

  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override {
    marks += extents.size();
    co_return Result<void>();
  }
  rt::Task<Result<void>> cool(HotExtent extent, std::vector<format::MapWord> words) override {
    for (const auto& word : words) disk[word.map][extent.value()] = word.regions;
    co_return Result<void>();
  }
  rt::Task<Result<void>> write_words(MapId map, std::vector<ChangeMap::Word> words) override {
    if (fails) co_return fail(Code::kNoSpace);
    for (const auto& word : words) disk[map.value()][word.stretch.value()] = word.regions;
    co_return Result<void>();
  }
};

struct Mirror {
  Mirror(rt::Core& core, Tracker& tracker, MapId bits, MapId missing)
      : target("s", VolumeNumber(2), kSize, core, backing, Epoch(1)),
        leg(
            tracker, bits, missing, target, [this](const Error&) { ++lefts; },
            [this] { ++became_missing; }) {}
  FakeBacking backing{kSize, kExtent};
  int lefts = 0, became_missing = 0;
  VolumeImpl target;
  TargetLeg leg;
};

class OwnLegTest : public ::testing::Test {
 protected:
  OwnLegTest() {
    core().inside([&] {
      volume.set_tracker(tracker);
      join(one, kBits, kMissing);
    });
  }
  ~OwnLegTest() override {
    one.backing.release();
    backing.release();
    world.run();
    finish(testing::ended(tracker.close()));
  }
  void join(Mirror& mirror, MapId bits, MapId missing) {
    tracker.add_map(bits, MapKind::kCopyAway, ChangeMap(kSize));
    tracker.add_map(missing, MapKind::kMissing, ChangeMap(kSize));
    tracker.set_windows(bits, &volume.own_window(), &mirror.leg.window());
    tracker.set_windows(missing, nullptr, &volume.returned_window());
    tracker.add_debtor(mirror.leg);
    volume.add_leg(mirror.leg);
  }
  testing::TestCore& core() { return world.reactor(0); }
  template <class T>
  T finish(rt::Task<T> task) {
    return world.finish(core(), std::move(task));
  }
  std::span<std::byte> filled(size_t bytes, int value) {
    buffers.push_back(core().buffers().get(bytes));
    std::memset(buffers.back().data(), value, bytes);
    return buffers.back().span();
  }
  Result<void> write(uint64_t offset, size_t bytes, int value) {
    return finish(volume.write(offset, filled(bytes, value), false));
  }
  auto start_write(uint64_t offset, size_t bytes, int value) {
    auto written = world.start(core(), volume.write(offset, filled(bytes, value), false));
    world.run();
    return written;
  }
  int byte_at(pool::Backing& of, uint64_t offset) {
    const rt::Buffer block = core().buffers().get(kBlockBytes);
    EXPECT_TRUE(finish(of.read(round_down(offset, kBlockBytes), block.span())));
    return static_cast<int>(block.span()[offset % kBlockBytes]);
  }
  Result<void> read(uint64_t offset, int& value) {
    std::byte byte{};
    Result<void> done = finish(volume.read(offset, {&byte, 1}));
    value = static_cast<int>(byte);
    return done;
  }
  int here(uint64_t offset) {
    int value = -1;
    EXPECT_TRUE(read(offset, value));
    return value;
  }
  bool has_bit(uint64_t offset) { return one.leg.bits().any({offset, 1}); }
  bool is_missing(uint64_t offset) { return one.leg.is_missing({offset, 1}); }
  bool is_missing_on_disk(uint64_t region) {
    return (store.disk[kMissing.value()][0] >> region & 1) != 0;
  }
  void mode(Mode to) {
    core().inside([&] { one.leg.set_mode(to); });
  }
  void leave(Mirror& mirror) {
    core().inside([&] { mirror.leg.leave(Error(Code::kTimeout)); });
  }
  // A restore begins: only the target has it.
  void set_missing(uint64_t offset, uint64_t length) {
    core().inside([&] { tracker.set(kMissing, {offset, length}); });
    ASSERT_TRUE(finish(tracker.write_back(kMissing)));
  }
  // Both sides hold `value` there, flushed, in sync.
  void begin(uint64_t bytes = 4 * kExtent, int value = 1) {
    mode(Mode::kSend);
    ASSERT_TRUE(write(0, bytes, value));
    ASSERT_TRUE(finish(volume.flush()));
  }
  // Region 0 is missing, its first block is `value` at the target only.
  void lose_first(int value = 2) {
    backing.fail_write = Code::kMediumWrite;
    ASSERT_TRUE(write(0, 4096, value));
    backing.fail_write.reset();
    ASSERT_TRUE(is_missing(0));
  }

  TestWorld world{3};
  WordStore store;
  FakeBacking backing{kSize, kExtent};
  Tracker tracker{world.reactor(0), store, kSize};
  VolumeImpl volume{"p", VolumeNumber(1), kSize, world.reactor(0), backing, Epoch(1)};
  Mirror one{world.reactor(1), tracker, kBits, kMissing};
  Mirror two{world.reactor(2), tracker, kBits2, kMissing2};
  std::vector<rt::Buffer> buffers;
};

}  // namespace duplex::volume::testing
