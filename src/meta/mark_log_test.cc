#include "meta/mark_log.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/log.h"
#include "format/fields.h"
#include "meta/test_world.h"

namespace duplex::meta {
namespace {

using format::MarkRecord;
using test::Loss;
using test::Machine;
using test::MemoryFiles;

// The store's side: what is durable, and a disk of its own that loses power with the others.
struct Keeper final : MarkLogKeeper {
  explicit Keeper(MemoryFiles& f) : files(f) {}
  rt::Task<Result<void>> checkpoint(MarkLogState state) override {
    CO_TRY(save(state));
    included = asked;
    ++checkpoints;
    co_return Result<void>{};
  }
  rt::Task<Result<void>> record_out(MarkLogState state) override { co_return save(state); }
  Result<void> save(MarkLogState state) {
    if (full) return fail(Code::kNoSpace);
    if (files.sync_directory("/") != 0) return fail(Code::kSystem);  // a call that can be cut
    saved = state;
    return {};
  }
  MemoryFiles& files;
  MarkLogState saved;
  uint32_t included = 0;  // the highest change in the store
  uint32_t asked = 0;     // the highest change append() was called with
  int checkpoints = 0;
  bool full = false;
};

MarkRecord change(uint32_t n) {
  return {MarkRecord::Kind::kHot, VolumeNumber(1), LogicalExtent(n), {}};
}

// A machine whose changes are numbered 1, 2, 3, ...: what a start finds is one number.
struct World {
  MemoryFiles files;
  Keeper keeper{files};
  uint32_t acknowledged = 0;

  struct Life {
    World& world;
    Machine machine;
    std::unique_ptr<MarkLog> log;
    bool trusted = true;
    uint32_t found = 0;

    explicit Life(World& w) : world(w) {
      set_log_sink([](LogLevel, std::string_view) {});
      auto opened = machine.run(MarkLog::open(w.files, machine.store, machine.rng, w.keeper,
                                              w.keeper.saved, {"/state", MarkLog::kMaxBatchBytes}));
      log = std::move(opened.log);
      trusted = opened.trusted;
      found = opened.batches.empty() ? w.keeper.included
                                     : opened.batches.back().records.back().extent.value();
    }
    Result<void> checkpoint() { return machine.run(log->checkpoint()); }
    bool append() {
      const uint32_t n = ++world.keeper.asked;
      const auto done = machine.run(log->append({change(n)}));
      if (done) world.acknowledged = n;
      return done.has_value();
    }
  };

  World() { files.make_directories("/state"); }
  // Opens, takes over what is found, and appends until something fails. Returns what was found.
  std::optional<uint32_t> live(int appends) {
    Life life(*this);
    if (!life.trusted) return std::nullopt;
    keeper.asked = life.found;
    if (!life.checkpoint()) return life.found;
    for (int i = 0; i < appends && life.append(); ++i) {
    }
    return life.found;
  }
};

constexpr int kAppends = 6;  // one more than a lap of 4 blocks and part of the next
constexpr std::pair<Loss, unsigned> kLosses[] = {{Loss::kNothingKept, 0},
                                                 {Loss::kAllKept, 0},
                                                 {Loss::kMixed, 1},
                                                 {Loss::kMixed, 2},
                                                 {Loss::kMixed, 3}};

uint64_t calls_of_two_lives() {
  World world;
  world.live(kAppends);
  world.live(kAppends);
  EXPECT_EQ(world.acknowledged, 2u * kAppends);
  EXPECT_GE(world.keeper.checkpoints, 4);
  return world.files.calls;
}

#define EXPECT_FOUND(found, least, most)                          \
  ASSERT_TRUE((found).has_value()) << "no run was trusted";       \
  ASSERT_GE(*(found), least) << "an acknowledged change is lost"; \
  ASSERT_LE(*(found), most) << "a change nobody asked for"

TEST(MarkLog, TwoPowerCutsAtAnyCallsLoseNothingAcknowledged) {
  const uint64_t calls = calls_of_two_lives();
  for (uint64_t first = 1; first <= calls; ++first) {
    for (const auto& [loss, seed] : kLosses) {
      for (uint64_t second = 1; second <= calls / 2; ++second) {
        World world;
        world.files.faults.cut_at = first;
        world.live(kAppends);
        if (!world.files.cut) world.live(kAppends);
        world.files.restart(loss, seed);
        const uint32_t before = world.acknowledged;
        const uint32_t asked = world.keeper.asked;
        world.files.faults.cut_at = second;
        const auto found = world.live(kAppends);
        EXPECT_FOUND(found, before, asked);
        world.files.restart(loss, seed + static_cast<unsigned>(second));
        const uint32_t then = std::max(world.acknowledged, before);
        const uint32_t most = std::max(world.keeper.asked, asked);
        const auto again = world.live(1);
        EXPECT_FOUND(again, then, most);
      }
    }
  }
}

// The store is told before anything is acknowledged on one copy alone: the other is stale.
TEST(MarkLog, AFailingCopyAndAPowerCutLoseNothingAcknowledged) {
  const uint64_t calls = calls_of_two_lives();
  for (uint64_t failing = 1; failing <= calls; ++failing) {
    for (uint64_t cut = 1; cut <= calls; ++cut) {
      for (const auto& [loss, seed] : kLosses) {
        World world;
        world.files.faults.fail_at = failing;
        world.files.faults.cut_at = cut;
        world.live(kAppends);
        if (!world.files.cut) world.live(kAppends);
        world.files.restart(loss, seed);
        const uint32_t least = world.acknowledged;
        const uint32_t most = world.keeper.asked;
        const auto found = world.live(1);
        EXPECT_FOUND(found, least, most);
      }
    }
  }
}

struct MarkLogTest : testing::Test {
  World world;
  std::vector<std::byte>& copy(int n) {
    return world.files.content("/state/marks-" + std::to_string(n));
  }
  void rot(int n, size_t block) { copy(n)[block * kBlockBytes + 40] ^= std::byte{1}; }
  std::unique_ptr<World::Life> begin() {
    auto life = std::make_unique<World::Life>(world);
    EXPECT_TRUE(life->checkpoint());
    return life;
  }
};

TEST_F(MarkLogTest, RecordsComeBackInOrder) {
  auto life = begin();
  const MarkRecord cool{
      MarkRecord::Kind::kCool, VolumeNumber(7), LogicalExtent(9), {{1, 0xff}, {2, UINT64_MAX}}};
  ASSERT_EQ(life->machine.run(life->log->append({change(1), cool})), 1u);
  ASSERT_EQ(life->machine.run(life->log->append({change(3)})), 2u);
  Machine machine;
  const auto opened =
      machine.run(MarkLog::open(world.files, machine.store, machine.rng, world.keeper,
                                world.keeper.saved, {"/state", MarkLog::kMaxBatchBytes}));
  EXPECT_TRUE(opened.trusted);
  ASSERT_EQ(opened.batches.size(), 2u);
  EXPECT_EQ(opened.batches[0].records, (std::vector{change(1), cool}));
  EXPECT_EQ(opened.batches[1].records, (std::vector{change(3)}));
  EXPECT_EQ(opened.batches[1].position, 2u);
}

TEST_F(MarkLogTest, AppendsThatWaitTogetherShareTheirFlushes) {
  auto life = begin();
  const uint64_t syncs = world.files.syncs;
  std::optional<Result<uint64_t>> results[100];
  rt::TaskGroup group(life->machine.control);
  life->machine.control.enter([&] {
    for (uint32_t i = 0; i < 100; ++i)
      group.spawn(test::store_result(life->log->append({change(i)}), results[i]));
  });
  life->machine.run_until_idle();
  for (const auto& result : results) EXPECT_EQ(**result, 1u);
  EXPECT_EQ(world.files.syncs - syncs, 2u);
}

TEST_F(MarkLogTest, MoreThanOneBatchCanWaitAndNoneIsForgotten) {
  auto life = begin();
  std::optional<Result<uint64_t>> results[20];
  rt::TaskGroup group(life->machine.control);
  life->machine.control.enter([&] {
    for (auto& result : results) {
      group.spawn(test::store_result(life->log->append(std::vector(1000, change(1))), result));
    }
  });
  life->machine.run_until_idle();
  uint64_t before = 0;
  for (const auto& result : results) {
    ASSERT_TRUE(result.has_value() && result->has_value());
    EXPECT_GE(**result, before);
    before = **result;
  }
  EXPECT_GT(before, 5u);
}

TEST_F(MarkLogTest, ABlockThatRotsInOneCopyIsReadFromTheOther) {
  auto life = begin();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(life->append());
  rot(1, 0);
  rot(2, 1);
  rot(1, 2);
  const auto found = world.live(0);
  EXPECT_FOUND(found, 3u, 3u);
}

TEST_F(MarkLogTest, RotInBothCopiesIsNotTakenForTheEnd) {
  auto life = begin();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(life->append());
  rot(1, 1);
  rot(2, 1);
  EXPECT_FALSE(world.live(0).has_value());
}

TEST_F(MarkLogTest, BothCopiesGoneIsNotTakenForAnEmptyLog) {
  auto life = begin();
  ASSERT_TRUE(life->append());
  world.files.remove("/state/marks-1");
  ASSERT_TRUE(World::Life(world).trusted);
  world.files.remove("/state/marks-2");
  EXPECT_FALSE(World::Life(world).trusted);
}

TEST_F(MarkLogTest, BatchesOfAnotherLapDoNotCount) {
  ASSERT_TRUE(begin()->append());
  ASSERT_EQ(World::Life(world).found, 1u);
  ++world.keeper.saved.lap;
  EXPECT_EQ(World::Life(world).found, 0u);
}

TEST_F(MarkLogTest, ABatchThatNamesAnotherPredecessorEndsTheRun) {
  ASSERT_TRUE(begin()->append());
  const uint32_t chain = load_le<uint32_t>(copy(1).data() + 8);
  const uint64_t lap = world.keeper.saved.lap;
  for (const uint32_t named : {chain, chain + 1}) {
    const auto next = format::encode_mark_batch(std::vector{change(2)}, lap, 2, named);
    for (const int n : {1, 2}) std::ranges::copy(next, copy(n).begin() + kBlockBytes);
    EXPECT_EQ(World::Life(world).found, named == chain ? 2u : 1u);
  }
}

TEST_F(MarkLogTest, ACopyThatIsOutIsNotRead) {
  auto life = begin();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(life->append());
  rot(2, 1);
  EXPECT_TRUE(World::Life(world).trusted);
  world.keeper.saved.out = {true, false};
  EXPECT_FALSE(World::Life(world).trusted) << "the other copy shows a gap";
}

TEST_F(MarkLogTest, ACopyThatFailsIsLeftOutAndComesBackWithTheNextLife) {
  auto life = begin();
  ASSERT_TRUE(life->append());
  world.files.faults.fail_syncs_only = true;
  world.files.faults.fail_at = 1;
  ASSERT_TRUE(life->append());
  EXPECT_EQ(world.keeper.saved.out, (std::array{true, false}));
  ASSERT_TRUE(life->append());
  EXPECT_EQ(World::Life(world).found, 3u);
  ASSERT_TRUE(begin()->append());
  EXPECT_EQ(world.keeper.saved.out, (std::array{false, false}));
}

TEST_F(MarkLogTest, WhenBothCopiesFailEveryAppendFails) {
  auto life = begin();
  world.files.faults.fail_syncs_only = true;
  world.files.faults.fail_at = 1;
  ASSERT_TRUE(life->append());
  world.files.faults.fail_at = 1;
  EXPECT_FALSE(life->append());
  EXPECT_FALSE(life->append());
  EXPECT_FALSE(life->checkpoint());
}

TEST_F(MarkLogTest, AMarkNeedsNoSpaceUntilTheLapIsFull) {
  auto life = begin();
  world.files.faults.capacity = 0;
  world.keeper.full = true;
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(life->append()) << i;
  EXPECT_FALSE(life->append());
  world.keeper.full = false;
  EXPECT_TRUE(life->append()) << "lack of space breaks nothing";
}

TEST_F(MarkLogTest, ObjectsLeftBehindByAPowerCutAreSafeToDestroy) {
  for (int steps = 0; steps < 16; ++steps) {
    auto life = begin();
    std::optional<Result<uint64_t>> results[4];
    auto group = std::make_unique<rt::TaskGroup>(life->machine.control);
    life->machine.control.enter([&] {
      for (auto& result : results)
        group->spawn(test::store_result(life->log->append(std::vector(1500, change(1))), result));
    });
    for (int i = 0; i < steps; ++i) {
      if (!life->machine.control.run_one()) life->machine.store.run_one();
    }
    life->machine.control.abandon();
    life->machine.store.abandon();
    if (steps % 2 == 0) group.reset();
    life->log.reset();
    group.reset();
  }
}

// Mutation: is_valid() of mark_batch.cc accepts everything.
TEST(MarkBatch, RecordsThatMeanNothingAreRefused) {
  const MarkRecord words{MarkRecord::Kind::kWords, {}, LogicalExtent(9), {{1, 0xff}}};
  const auto whole = format::encode_mark_batch(std::vector{words}, 5, 6, 0);
  constexpr size_t kFirst = format::kSealedFrom + 28;  // kind 1, volume 2, extent 4, words 1
  const auto with = [&](size_t offset, uint8_t value) {
    auto bytes = whole;
    bytes[kFirst + offset] = std::byte{value};
    format::seal(bytes);
    uint32_t before = 0;
    return format::decode_mark_batch(bytes, &before).has_value();
  };
  EXPECT_TRUE(with(0, 3));
  EXPECT_TRUE(with(0, 2)) << "cool";
  EXPECT_FALSE(with(0, 1)) << "hot with words";
  EXPECT_FALSE(with(0, 0));
  EXPECT_FALSE(with(0, 4)) << "no such kind";
  EXPECT_FALSE(with(1, 1)) << "words of a volume";
  auto empty = words;
  empty.kind = MarkRecord::Kind::kCool;
  empty.words.clear();
  auto bytes = format::encode_mark_batch(std::vector{empty}, 5, 6, 0);
  bytes[kFirst] = std::byte{3};
  format::seal(bytes);
  uint32_t before = 0;
  EXPECT_FALSE(format::decode_mark_batch(bytes, &before)) << "no words at all";
}

TEST(MarkBatch, EveryFlippedBitAndEveryShorterLengthIsDetected) {
  const MarkRecord cool{MarkRecord::Kind::kCool, VolumeNumber(7), LogicalExtent(9), {{1, 0xff}}};
  const MarkRecord words{MarkRecord::Kind::kWords, {}, LogicalExtent(9), {{1, 3}, {2, 0}}};
  auto bytes = format::encode_mark_batch(std::vector{change(1), cool, words}, 5, 6, 7);
  uint32_t before = 0;
  const auto whole = format::decode_mark_batch(bytes, &before);
  ASSERT_TRUE(whole);
  EXPECT_EQ(before, 7u);
  EXPECT_EQ(whole->records, (std::vector{change(1), cool, words}));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1u << bit % 8);
    bytes[bit / 8] ^= mask;
    ASSERT_FALSE(format::decode_mark_batch(bytes, &before)) << bit;
    bytes[bit / 8] ^= mask;
  }
  for (size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_FALSE(format::decode_mark_batch(std::span(bytes).first(length), &before));
  }
}

}  // namespace
}  // namespace duplex::meta
