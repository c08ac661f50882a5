#include "volume/range_lock.h"

#include <gtest/gtest.h>

#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using testing::TestWorld;

struct Log {
  std::vector<int> got;
  std::vector<int> held;
};

// Takes the lock, notes it, keeps it until `end` is set.
rt::Task<bool> hold(RangeLock* lock, ByteRange range, int name, rt::Event* end, Log* log) {
  const RangeLock::Held held = co_await lock->lock(range);
  log->got.push_back(name);
  co_await end->wait();
  co_return true;
}

class RangeLockTest : public ::testing::Test {
 protected:
  void request(int name, ByteRange range) {
    world.start(world.reactor(0), hold(&lock, range, name, &ends[name], &log));
    world.run();
  }
  void end(int name) {
    world.reactor(0).inside([&] { ends[name].set(); });
    world.run();
  }
  TestWorld world;
  RangeLock lock;
  std::map<int, rt::Event> ends;
  Log log;
};

TEST_F(RangeLockTest, DisjointRangesAreHeldTogether) {
  request(1, {0, 10});
  request(2, {10, 10});
  EXPECT_EQ(log.got, (std::vector{1, 2}));
  end(1);
  end(2);
  EXPECT_EQ(lock.size(), 0u);
}

TEST_F(RangeLockTest, OverlappingRangesFollowOneAnotherInOrderOfArrival) {
  request(1, {0, 10});
  request(2, {5, 10});
  request(3, {0, 20});
  request(4, {9, 1});
  EXPECT_EQ(log.got, (std::vector{1}));
  end(1);
  EXPECT_EQ(log.got, (std::vector{1, 2}));
  end(2);
  EXPECT_EQ(log.got, (std::vector{1, 2, 3}));
  end(3);
  EXPECT_EQ(log.got, (std::vector{1, 2, 3, 4}));
  end(4);
}

TEST_F(RangeLockTest, AWaiterIsNotOvertakenByALaterRequestThatOnlyOverlapsTheWaiter) {
  request(1, {0, 10});
  request(2, {5, 10});   // waits for 1
  request(3, {12, 1});   // free now, but 2 was first
  request(4, {100, 1});  // touches nobody
  EXPECT_EQ(log.got, (std::vector{1, 4}));
  end(1);
  EXPECT_EQ(log.got, (std::vector{1, 4, 2}));
  end(2);
  EXPECT_EQ(log.got, (std::vector{1, 4, 2, 3}));
  end(3);
  end(4);
}

TEST_F(RangeLockTest, TheWholeVolumeWaitsForEverybodyAndEverybodyForIt) {
  request(1, {0, 1});
  request(2, {kMaxBytes - 1, 1});
  request(3, {0, kMaxBytes});
  request(4, {77, 1});
  end(2);
  EXPECT_EQ(log.got, (std::vector{1, 2}));
  end(1);
  EXPECT_EQ(log.got, (std::vector{1, 2, 3}));
  end(3);
  EXPECT_EQ(log.got, (std::vector{1, 2, 3, 4}));
  end(4);
}

TEST_F(RangeLockTest, ReleasingOneWakesAllThatOnlyWaitedForIt) {
  request(1, {0, 100});
  for (int i = 2; i < 10; ++i) request(i, {static_cast<uint64_t>(i), 1});
  end(1);
  EXPECT_EQ(log.got, (std::vector{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  for (int i = 2; i < 10; ++i) end(i);
}

rt::Task<bool> random_client(RangeLock* lock, uint64_t seed, std::vector<int>* cells, bool* clash) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 200; ++i) {
    const uint64_t from = random() % cells->size();
    const ByteRange range{from, 1 + random() % std::min<uint64_t>(8, cells->size() - from)};
    const RangeLock::Held held = co_await lock->lock(range);
    for (uint64_t c = range.offset; c < range.end(); ++c) *clash |= (*cells)[c]++ != 0;
    for (uint64_t turns = random() % 4; turns > 0; --turns) co_await rt::yield();
    for (uint64_t c = range.offset; c < range.end(); ++c) --(*cells)[c];
  }
  co_return true;
}

TEST_F(RangeLockTest, RandomClientsNeverHoldOneCellTogetherAndAllFinish) {
  std::vector<int> cells(32);
  bool clash = false;
  std::vector<std::shared_ptr<std::optional<bool>>> clients;
  for (uint64_t seed = 1; seed <= 64; ++seed) {
    clients.push_back(world.start(world.reactor(0), random_client(&lock, seed, &cells, &clash)));
  }
  world.run();
  for (const auto& client : clients) EXPECT_TRUE(client->has_value());
  EXPECT_FALSE(clash);
  EXPECT_EQ(lock.size(), 0u);
}

}  // namespace
}  // namespace duplex::volume
