// The store under power cuts, failing disks and full file systems.
#include <gtest/gtest.h>

#include "base/log.h"
#include "meta/store.h"
#include "meta/test_world.h"

namespace duplex::meta {
namespace {

using test::Loss;
using test::Machine;
using test::MemoryFiles;

StoreOptions options() { return {"/state", ArrayId(1), "a"}; }

DeviceRow device_row() {
  DeviceRow row;
  row.id = DeviceId(1);
  row.uuid = Uuid::from_random(1, 1);
  row.name = "disk";
  row.extent_count = 100000;
  return row;
}

Transaction first_rows() {
  return {PutDevice{device_row()},
          PutBacking{{BackingId(1), Uuid::from_random(1, 2), "PD1", kGiB, false, {}}}};
}
// Transaction `i` maps one extent, releases an older one and notes it in several tables.
Transaction step_rows(uint32_t i) {
  const auto extent = [](uint32_t n) {
    return ExtentRow{BackingId(1), LogicalExtent(n), DeviceId(1),
                     PhysicalExtent(2'000'000 + n * 7919 % 100'000)};
  };
  Transaction rows = {MapExtent{extent(i)}, SetLogSequence{DeviceId(1), i}, AddEvent{{0, i, {}}}};
  if (i % 3 == 2) rows.push_back(UnmapExtent{extent(i - 1)});
  if (i % 3 == 0 && i > 3) rows.push_back(Scrubbed{{DeviceId(1), extent(i - 2).pe}});
  return rows;
}
// Large enough that SQLite's cache spills into the WAL before the commit.
Transaction large_rows(uint32_t from, uint32_t count) {
  Transaction rows;
  for (uint32_t i = from; i < from + count; ++i) {
    rows.push_back(MapExtent{
        {BackingId(1), LogicalExtent(i), DeviceId(1), PhysicalExtent(i * 7919 % 1000003)}});
  }
  return rows;
}

// One life of the array: opens, commits `count` transactions from `from` on, remembering what was
// acknowledged. Ends at the first failure, like a process whose machine loses power.
struct Life {
  MemoryFiles& files;
  Machine machine;
  std::unique_ptr<Store> store;

  explicit Life(MemoryFiles& f) : files(f) {
    set_log_sink([](LogLevel, std::string_view) {});  // failures are the subject here, not news
  }
  Result<void> open() {
    auto opened = machine.run(Store::open(files, machine.store, machine.rng, options()));
    if (!opened) return std::unexpected(opened.error());
    store = *std::move(opened);
    return {};
  }
  Result<void> commit(Transaction rows) { return machine.run(store->commit(std::move(rows))); }
  Result<Snapshot> load() { return machine.run(store->load()); }
  Result<void> close() { return machine.run(store->close()); }
};

constexpr uint32_t kSteps = 8;

// The work whose every call is cut: create, commit, close (which checkpoints), open, commit again.
// Returns how many transactions were acknowledged.
uint32_t work(MemoryFiles& files, const std::function<void(const Snapshot&)>& seen) {
  uint32_t acknowledged = 0;
  for (const bool second : {false, true}) {
    Life life(files);
    if (!life.open()) return acknowledged;
    for (uint32_t i = second ? kSteps / 2 : 0; i < (second ? kSteps : kSteps / 2); ++i) {
      if (!life.commit(i == 0 ? first_rows() : step_rows(i))) return acknowledged;
      ++acknowledged;
      if (seen) seen(*life.load());
    }
    if (!life.close()) return acknowledged;
  }
  return acknowledged;
}

// states[k]: what load() shows after k transactions.
std::vector<Snapshot> expected_states() {
  MemoryFiles files;
  std::vector<Snapshot> states;
  Life life(files);
  EXPECT_TRUE(life.open());
  states.push_back(*life.load());
  life.store.reset();
  EXPECT_EQ(work(files, [&](const Snapshot& s) { states.push_back(s); }), kSteps);
  return states;
}

// Opens with the power back: the state holds what was acknowledged, and at most the one in flight.
void expect_prefix(MemoryFiles& files, const std::vector<Snapshot>& states, uint32_t acknowledged) {
  Life life(files);
  const auto opened = life.open();
  ASSERT_TRUE(opened) << opened.error().describe();
  const auto state = life.load();
  ASSERT_TRUE(state) << state.error().describe();
  const bool exact = *state == states[acknowledged];
  const bool one_more = acknowledged + 1 < states.size() && *state == states[acknowledged + 1];
  ASSERT_TRUE(exact || one_more) << "acknowledged " << acknowledged << ", log sequence found "
                                 << (state->devices.empty() ? 0 : state->devices[0].log_sequence);
  ASSERT_TRUE(life.commit(acknowledged == 0 && state->devices.empty()
                              ? first_rows()
                              : Transaction{PutJob{{1, "import", "", "", "", "", 0, 0, 0, 0, 0}}}));
}

TEST(StoreCrash, APowerCutAtEveryCallLeavesAPrefixOfTheCommits) {
  const std::vector<Snapshot> states = expected_states();
  MemoryFiles whole;
  work(whole, nullptr);
  const uint64_t calls = whole.calls;
  ASSERT_GT(calls, 40u);
  for (uint64_t cut = 1; cut <= calls; ++cut) {
    for (const auto& [loss, seed] : {std::pair(Loss::kNothingKept, 0u),
                                     {Loss::kAllKept, 0u},
                                     {Loss::kMixed, 1u},
                                     {Loss::kMixed, 2u},
                                     {Loss::kMixed, 3u}}) {
      MemoryFiles files;
      files.faults.cut_at = cut;
      const uint32_t acknowledged = work(files, nullptr);
      files.restart(loss, seed);
      SCOPED_TRACE(testing::Message() << "cut at call " << cut << " of " << calls << ", loss "
                                      << static_cast<int>(loss) << "/" << seed);
      expect_prefix(files, states, acknowledged);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(StoreCrash, AnErrorAtEveryCallNeverLosesWhatWasAcknowledged) {
  const std::vector<Snapshot> states = expected_states();
  MemoryFiles whole;
  work(whole, nullptr);
  for (const int errnum : {EIO, ENOSPC}) {
    for (uint64_t at = 1; at <= whole.calls; ++at) {
      MemoryFiles files;
      files.faults.fail_at = at;
      files.faults.errnum = errnum;
      const uint32_t acknowledged = work(files, nullptr);
      files.restart(at % 2 == 0 ? Loss::kNothingKept : Loss::kMixed, static_cast<unsigned>(at));
      SCOPED_TRACE(testing::Message() << "errno " << errnum << " at call " << at);
      expect_prefix(files, states, acknowledged);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(StoreCrash, APowerCutInALargeTransactionOrItsCheckpointLeavesAllOrNothing) {
  constexpr uint32_t kRows =
      60'000;  // several MiB of pages: spills and is followed by a checkpoint
  const auto grow = [](MemoryFiles& files) {
    Life life(files);
    if (!life.open()) return uint32_t{0};
    if (!life.commit(first_rows())) return uint32_t{0};
    uint32_t acknowledged = 0;
    for (uint32_t i = 0; i < 3; ++i)
      acknowledged += life.commit(i == 0 ? large_rows(0, kRows) : large_rows(kRows + i, 1)) ? 1 : 0;
    return acknowledged;
  };
  MemoryFiles whole;
  ASSERT_EQ(grow(whole), 3u);
  // Early cuts are the subject of the test above; here every 41st call, and all around the end.
  for (uint64_t cut = 30; cut <= whole.calls; cut += cut + 12 < whole.calls ? 41 : 1) {
    MemoryFiles files;
    files.faults.cut_at = cut;
    const uint32_t acknowledged = grow(files);
    files.restart(Loss::kMixed, static_cast<unsigned>(cut));
    Life life(files);
    ASSERT_TRUE(life.open()) << cut;
    const auto state = life.load();
    ASSERT_TRUE(state) << cut;
    const size_t rows = state->extents.size();
    const auto after = [](uint32_t n) { return n == 0 ? 0 : kRows + n - 1; };
    ASSERT_TRUE(rows == after(acknowledged) || rows == after(acknowledged + 1))
        << "cut " << cut << " rows " << rows << " acknowledged " << acknowledged;
  }
}

TEST(StoreCrash, ObjectsLeftBehindByAPowerCutAreSafeToDestroy) {
  // Stop after each number of steps with commits queued and under way.
  for (int steps = 0; steps < 14; ++steps) {
    MemoryFiles files;
    auto life = std::make_unique<Life>(files);
    ASSERT_TRUE(life->open());
    ASSERT_TRUE(life->commit(first_rows()));
    std::optional<Result<void>> results[3];
    auto group = std::make_unique<rt::TaskGroup>(life->machine.control);
    life->machine.control.enter([&] {
      for (uint32_t i = 0; i < 3; ++i)
        group->spawn(test::store_result(life->store->commit(step_rows(i + 1)), results[i]));
    });
    for (int i = 0; i < steps; ++i) {
      if (!life->machine.control.run_one()) life->machine.store.run_one();
    }
    life->machine.control.abandon();
    life->machine.store.abandon();
    files.cut = true;
    if (steps % 2 == 0) {
      group.reset();
      life->store.reset();
    } else {
      life->store.reset();
      group.reset();
    }
  }
}

TEST(StoreFaults, CommitsThatWaitTogetherShareOneFlush) {
  MemoryFiles files;
  Life life(files);
  ASSERT_TRUE(life.open());
  ASSERT_TRUE(life.commit(first_rows()));
  ASSERT_TRUE(life.commit(step_rows(1)));  // the WAL exists by now
  const uint64_t syncs = files.syncs;
  const uint64_t writes = files.writes;
  std::optional<Result<void>> results[50];
  rt::TaskGroup group(life.machine.control);
  life.machine.control.enter([&] {
    for (uint32_t i = 0; i < 50; ++i) {
      // Every tenth contradicts the state; the others are not concerned.
      Transaction rows = i % 10 == 9
                             ? Transaction{DropJob{77}}
                             : Transaction{PutJob{{i, "import", "", "", "", "", 0, 0, 0, 0, 0}}};
      group.spawn(test::store_result(life.store->commit(std::move(rows)), results[i]));
    }
  });
  life.machine.run_until_idle();
  for (uint32_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(results[i].has_value());
    EXPECT_EQ(results[i]->has_value(), i % 10 != 9) << i;
    if (!*results[i]) EXPECT_EQ(results[i]->error().code(), Code::kState);
  }
  EXPECT_EQ(files.syncs - syncs, 1u);
  EXPECT_EQ(files.writes - writes, 1u);
  EXPECT_EQ(life.load()->jobs.size(), 45u);
}

TEST(StoreFaults, AFailedFlushEndsTheStoreForGood) {
  MemoryFiles files;
  Life life(files);
  ASSERT_TRUE(life.open());
  ASSERT_TRUE(life.commit(first_rows()));
  files.faults.fail_syncs_only = true;
  files.faults.fail_at = 1;
  const auto failed = life.commit(step_rows(1));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), Code::kInDoubt);
  EXPECT_NE(failed.error().message().find("flush /state/state.db-wal"), std::string_view::npos)
      << failed.error().message();
  // The disk works again, and nothing is committed or written all the same.
  const uint64_t writes = files.writes;
  const auto later = life.commit(step_rows(2));
  ASSERT_FALSE(later);
  EXPECT_TRUE(failed.error().message().starts_with(later.error().message()));
  EXPECT_FALSE(life.close());
  EXPECT_EQ(files.writes, writes);
  life.store.reset();
  EXPECT_EQ(files.writes, writes);

  files.restart(Loss::kNothingKept);
  Life next(files);
  ASSERT_TRUE(next.open());
  EXPECT_EQ(next.load()->extents.size(), 0u);
  EXPECT_TRUE(next.commit(step_rows(1)));
}

TEST(StoreFaults, AFlushThatReportsAFullDiskIsAFailedFlush) {
  MemoryFiles files;
  Life life(files);
  ASSERT_TRUE(life.open());
  files.faults.fail_syncs_only = true;
  files.faults.fail_at = 1;
  files.faults.errnum = ENOSPC;
  EXPECT_EQ(life.commit(first_rows()).error().code(), Code::kInDoubt);
  EXPECT_FALSE(life.commit(first_rows()));
}

TEST(StoreFaults, AFullFileSystemIsSurvivedAndNothingOfTheFailedCommitsRemains) {
  for (const uint64_t room : {uint64_t{0}, uint64_t{100}, uint64_t{5000}, uint64_t{20000}}) {
    MemoryFiles files;
    Life life(files);
    ASSERT_TRUE(life.open());
    ASSERT_TRUE(life.commit(first_rows()));
    ASSERT_TRUE(life.commit(step_rows(1)));
    uint64_t used = 0;
    for (const auto& [path, bytes] : files.image()) used += bytes.size();
    files.faults.capacity = used + room;
    uint32_t next = 2;
    while (life.commit(step_rows(next))) ++next;
    const auto full = life.commit(large_rows(500'000, 20'000));
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code(), Code::kNoSpace) << full.error().describe();
    EXPECT_EQ(life.load()->devices[0].log_sequence, next - 1);

    // A crash while it is full brings nothing back that was refused.
    if (room == 5000) {
      life.store.reset();
      files.restart(Loss::kAllKept);
      Life after(files);
      ASSERT_TRUE(after.open());
      EXPECT_EQ(after.load()->devices[0].log_sequence, next - 1);
      continue;
    }
    files.faults.capacity = UINT64_MAX;
    ASSERT_TRUE(life.commit(step_rows(next)));
    ASSERT_TRUE(life.commit(large_rows(500'000, 20'000)));
    EXPECT_EQ(life.load()->devices[0].log_sequence, next);
    ASSERT_TRUE(life.close());
  }
}

TEST(StoreFaults, ACheckpointThatFindsNoSpaceIsTriedAgainLater) {
  MemoryFiles files;
  Life life(files);
  ASSERT_TRUE(life.open());
  ASSERT_TRUE(life.commit(first_rows()));
  // Room for the WAL of one large commit, not for the database it belongs in.
  files.faults.capacity = 6'000'000;
  const auto large = life.commit(large_rows(500'000, 60'000));
  ASSERT_TRUE(large) << large.error().describe();
  uint32_t i = 1;
  while (i < 2000 && life.commit(step_rows(i))) ++i;
  EXPECT_EQ(life.commit(step_rows(i)).error().code(), Code::kNoSpace);
  files.faults.capacity = UINT64_MAX;
  for (const uint32_t end = i + 600; i < end; ++i) {
    const auto done = life.commit(step_rows(i));
    ASSERT_TRUE(done) << done.error().describe();
  }
  EXPECT_EQ(life.load()->devices[0].log_sequence, i - 1);
  EXPECT_LT(files.image().at("/state/state.db-wal").size(), 16u << 20);
}

TEST(StoreFaults, TheWalStaysSmallOverManyCommits) {
  MemoryFiles files;
  Life life(files);
  ASSERT_TRUE(life.open());
  ASSERT_TRUE(life.commit(first_rows()));
  for (uint32_t i = 1; i < 2000; ++i) ASSERT_TRUE(life.commit(step_rows(i)));
  EXPECT_LT(files.image().at("/state/state.db-wal").size(), 6u << 20);
  EXPECT_GT(files.image().at("/state/state.db").size(), 100u << 10) << "no checkpoint was made";
}

TEST(StoreFaults, TheSameRunWritesTheSameBytes) {
  const auto image = [] {
    MemoryFiles files;
    work(files, nullptr);
    Life life(files);
    EXPECT_TRUE(life.open());
    EXPECT_TRUE(life.commit(step_rows(100)));
    return files.image();
  };
  EXPECT_EQ(image(), image());
}

TEST(StoreFaults, NothingIsCommittedAfterClose) {
  MemoryFiles files;
  Life life(files);
  ASSERT_TRUE(life.open());
  ASSERT_TRUE(life.close());
  EXPECT_EQ(life.commit(first_rows()).error().code(), Code::kShutdown);
  EXPECT_EQ(life.load().error().code(), Code::kShutdown);
  EXPECT_TRUE(life.close());
}

}  // namespace
}  // namespace duplex::meta
