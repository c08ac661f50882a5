// Events: kept in order, handed to followers, bounded; and those that a pool and a device cause.
#include "control/events.h"

#include "control/test_array.h"

namespace duplex::control {
namespace {

class EventsTest : public testing::Test {
 protected:
  void SetUp() override { world.start(); }
  Events& events() { return world.array->events(); }
  void emit(int number, Severity severity = Severity::kInfo) {
    events().emit({.severity = severity,
                   .code = "test",
                   .subject = "array",
                   .text = fmt::format("event {}", number),
                   .next = {}});
  }
  using Rows = Result<std::vector<meta::EventRow>>;
  auto follow(uint64_t after, rt::Micros time) {
    return world.sim.start(world.box.control(), events().after(after, 100, world.sim.now() + time));
  }

  test::TestArray world;
};

TEST_F(EventsTest, EventsAreListedInTheirOrderWithRisingNumbers) {
  for (int i = 0; i < 5; ++i) emit(i);
  const auto rows = world.events();
  ASSERT_EQ(rows.size(), 5u);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].event.text, fmt::format("event {}", i));
    EXPECT_EQ(rows[i].id, rows[0].id + i);
    EXPECT_GT(rows[i].wall_us, 0);
  }
  EXPECT_EQ(world.events(rows[2].id).size(), 2u);
  EXPECT_EQ(world.events(rows[4].id).size(), 0u);
  EXPECT_EQ(world.events(rows[1].id, 1).front().event.text, "event 2") << "the oldest ones first";
  EXPECT_EQ(world.events(0, 2).front().event.text, "event 3") << "without a number the newest ones";
}

TEST_F(EventsTest, EventsOutliveAPowerCut) {
  emit(1);
  ASSERT_EQ(world.events().size(), 1u);
  const uint64_t id = world.events().front().id;
  world.crash();
  world.start();
  ASSERT_EQ(world.events().size(), 1u);
  emit(2);
  EXPECT_GT(world.events().back().id, id);
}

TEST_F(EventsTest, AFollowerWakesAtTheNextEvent) {
  emit(1);
  const uint64_t id = world.events().back().id;
  const auto following = follow(id, 60 * rt::kSecond);
  world.pass(5 * rt::kSecond);
  EXPECT_FALSE(following->done);
  emit(2);
  world.pass(rt::kSecond);
  ASSERT_TRUE(following->done);
  ASSERT_TRUE(*following->value);
  ASSERT_EQ((*following->value)->size(), 1u);
  EXPECT_EQ((*following->value)->front().event.text, "event 2");
}

TEST_F(EventsTest, AFollowerComesBackEmptyAtItsDeadline) {
  emit(1);
  const uint64_t id = world.events().back().id;
  const auto following = follow(id, 10 * rt::kSecond);
  world.pass(9 * rt::kSecond);
  EXPECT_FALSE(following->done);
  world.pass(2 * rt::kSecond);
  ASSERT_TRUE(following->done);
  ASSERT_TRUE(*following->value);
  EXPECT_TRUE((*following->value)->empty());
}

TEST_F(EventsTest, AFollowerComesBackWhenTheArrayStops) {
  emit(1);
  const auto following = follow(world.events().back().id, 3600 * rt::kSecond);
  world.pass(rt::kSecond);
  EXPECT_FALSE(following->done);
  world.array->release_waiters();
  world.pass(rt::kSecond);
  EXPECT_TRUE(following->done);
}

TEST_F(EventsTest, TheHistoryKeepsTheNewestTenThousand) {
  constexpr int kAll = 10'500;
  for (int i = 0; i < kAll; ++i) {
    emit(i);
    if (i % 500 == 499) world.pass(rt::kSecond);
  }
  const auto rows = world.events(1, 20'000);
  ASSERT_EQ(rows.size(), 10'000u);
  EXPECT_EQ(rows.back().event.text, fmt::format("event {}", kAll - 1));
  EXPECT_EQ(rows.front().event.text, fmt::format("event {}", kAll - 10'000));
}

TEST_F(EventsTest, AFloodIsBoundedAndTheLossIsTold) {
  for (size_t i = 0; i < Events::kMaxQueued + 50; ++i) emit(static_cast<int>(i));
  const auto rows = world.events(0, 2000);
  // The event about the loss takes the place of none that was kept for the store.
  EXPECT_LE(rows.size(), Events::kMaxQueued + 1);
  EXPECT_GE(rows.size(), Events::kMaxQueued);
  EXPECT_EQ(events().warnings(), 1u);
}

TEST_F(EventsTest, SeveritiesAreCounted) {
  emit(1, Severity::kError);
  emit(2, Severity::kWarning);
  emit(3, Severity::kWarning);
  world.pass(rt::kSecond);
  EXPECT_EQ(events().errors(), 1u);
  EXPECT_EQ(events().warnings(), 2u);
}

TEST_F(EventsTest, AFillingPoolWarnsAtEightyNinetyAndNinetyFivePercent) {
  world.add_device("/d1", 30 * kMiB);
  world.add_volume("db", 64 * kMiB);
  const uint64_t total = world.array->pool().usage().total_bytes;
  uint64_t written = 0;
  const auto fill_to = [&](uint64_t percent) {
    for (; written < total * percent / 100; written += test::TestArray::kExtent)
      ASSERT_TRUE(world.write("db", written, kBlockBytes));
  };
  fill_to(79);
  EXPECT_EQ(world.count_events("pool_80"), 0u);
  for (const uint64_t percent : {80, 90, 95}) {
    fill_to(percent + 1);
    EXPECT_EQ(world.count_events(fmt::format("pool_{}", percent)), 1u);
  }
  for (const meta::EventRow& row : world.events()) {
    if (!row.event.code.starts_with("pool_")) continue;
    EXPECT_EQ(row.event.severity,
              row.event.code == "pool_95" ? Severity::kError : Severity::kWarning);
    EXPECT_NE(row.event.next, "");
  }
}

TEST_F(EventsTest, ADeviceThatFailsIsToldOnce) {
  world.add_device("/d1");
  world.add_volume("db", kMiB);
  ASSERT_TRUE(world.write("db", 0, kBlockBytes));
  world.box.disk().find("/d1")->faults.write_error = 1;
  EXPECT_FALSE(world.write("db", 0, kBlockBytes));
  EXPECT_FALSE(world.write("db", 0, kBlockBytes));
  ASSERT_EQ(world.count_events("device_failing"), 1u);
  EXPECT_EQ(world.array->pool().device("d1")->state, pool::DeviceState::kFailing);
}

TEST_F(EventsTest, ADeviceThatIsGoneIsToldAndSoIsItsReturn) {
  world.add_device("/d1");
  world.add_volume("db", kMiB);
  ASSERT_TRUE(world.write("db", 0, kBlockBytes));
  world.box.disk().find("/d1")->faults.gone = true;
  EXPECT_FALSE(world.write("db", 0, kBlockBytes));
  world.pass(5 * rt::kSecond);
  EXPECT_EQ(world.count_events("device_absent"), 1u);
  world.box.disk().find("/d1")->faults.gone = false;
  world.pass(5 * rt::kSecond);
  EXPECT_EQ(world.count_events("device_back"), 1u);
}

}  // namespace
}  // namespace duplex::control
