// An array whose state directory takes no changes says so, until it does again.
#include "control/store_watch.h"

#include "control/test_array.h"

namespace duplex::control {
namespace {

class StoreWatchTest : public testing::Test {
 protected:
  void SetUp() override {
    world.start();
    world.add_device();
    world.add_volume("db", kMiB);
  }
  sim::DiskFile& file(const std::string& name) { return *world.box.disk().find("/state/" + name); }
  void fill_up(bool full) {
    for (const char* name : {"state.db", "state.db-wal"}) file(name).faults.full = full;
  }
  Result<void> create(const std::string& name) {
    const auto made = world.run(world.array->volumes().create(world.volume_of(name, kMiB)));
    return made ? Result<void>() : std::unexpected(made.error());
  }
  // Creates volumes until one is refused: a full disk may have a little room in its files.
  void create_until_refused() {
    for (int i = 0; i < 1000; ++i) {
      if (!create("v" + std::to_string(i))) return;
    }
    FAIL() << "nothing is refused";
  }
  // The trouble as status shows it; empty: none.
  std::string trouble() {
    const auto& error = world.array->store_trouble();
    if (error) EXPECT_NE(error->next(), "");
    return error ? std::string(error->message()) : "";
  }

  test::TestArray world;
};

TEST_F(StoreWatchTest, AFullStateDirectoryIsToldUntilAChangeIsStored) {
  EXPECT_EQ(trouble(), "");
  fill_up(true);
  create_until_refused();
  EXPECT_TRUE(trouble().starts_with("changes are not stored: ")) << trouble();
  EXPECT_NE(trouble().find("state directory /state"), std::string::npos) << trouble();
  ASSERT_TRUE(world.array->store_trouble());
  EXPECT_EQ(world.array->store_trouble()->code(), Code::kNoSpace);
  const uint64_t errors = world.array->events().errors();
  EXPECT_GE(errors, 1u);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(create("still"));
  world.pass(rt::kSecond);
  EXPECT_EQ(world.array->events().errors(), errors) << "told once";
  fill_up(false);
  EXPECT_NE(trouble(), "") << "nothing has been stored yet";
  EXPECT_TRUE(create("now"));
  EXPECT_EQ(trouble(), "");
  world.pass(rt::kSecond);
  EXPECT_EQ(world.count_events("state_writable"), 1u);
}

TEST_F(StoreWatchTest, AFailedFlushIsToldUntilTheRestart) {
  file("state.db-wal").faults.flush_error = 1;
  EXPECT_FALSE(create("a"));
  file("state.db-wal").faults.flush_error = 0;
  EXPECT_FALSE(create("b"));
  EXPECT_NE(trouble().find("flush /state/state.db-wal"), std::string::npos) << trouble();
  ASSERT_TRUE(world.array->store_trouble());
  EXPECT_NE(world.array->store_trouble()->next().find("start duplexd again"),
            std::string_view::npos);
  world.crash(false);
  world.start();
  EXPECT_TRUE(create("c"));
  EXPECT_EQ(trouble(), "");
}

TEST_F(StoreWatchTest, AStateThatWasDeletedIsTrouble) {
  world.box.disk().remove("/state/state.db");
  EXPECT_FALSE(create("a"));
  EXPECT_NE(trouble().find("/state/state.db is gone"), std::string::npos) << trouble();
  ASSERT_TRUE(world.array->store_trouble());
  EXPECT_NE(world.array->store_trouble()->next().find("--rebuild"), std::string_view::npos);
  EXPECT_FALSE(create("b"));
}

TEST_F(StoreWatchTest, ARefusedCommandIsNoTrouble) {
  EXPECT_FALSE(world.run(world.array->volumes().create(world.volume_of("db", 2 * kMiB))));
  EXPECT_FALSE(world.run(world.array->volumes().create(world.volume_of("x", 0))));
  EXPECT_EQ(trouble(), "");
}

TEST_F(StoreWatchTest, AnArrayWhoseStateIsInTroubleStopsAllTheSame) {
  fill_up(true);
  create_until_refused();
  world.stop();
  fill_up(false);
  world.start();
  EXPECT_EQ(trouble(), "");
  EXPECT_TRUE(create("after"));
}

// Mutation: commit() leaves its caller on the control core, where it takes its note.
TEST_F(StoreWatchTest, ACommitComesBackToTheExecutorItWasAskedForOn) {
  struct Local {
    static rt::Task<bool> commit(rt::World& world, Events& events) {
      auto store = co_await meta::Store::open(
          world.sync_files(), world.store(), world.control().rng(),
          {.directory = "/other", .array_id = ArrayId(1), .array_name = "other"});
      StoreWatch watch(*std::move(store), world.control(), events);
      co_await rt::hop(world.store());
      const auto done = co_await watch.commit({meta::PutGroup{{"empty", {}}}});
      const bool is_there = world.store().is_current();
      co_await rt::hop(world.control());
      co_return done&& is_there&& co_await watch.close();
    }
  };
  EXPECT_TRUE(world.run(Local::commit(world.box, world.array->events())));
}

// Mutation: the marks get a store of their own, past the watch.
TEST_F(StoreWatchTest, ACommitOfTheMarkLogEndsATroubleAsAnyOther) {
  const std::vector<meta::MarkedExtent> extents = {{VolumeNumber(1), LogicalExtent(0)}};
  fill_up(true);
  create_until_refused();
  fill_up(false);
  EXPECT_NE(trouble(), "");
  EXPECT_TRUE(world.run(world.array->marks().mark(extents))) << "the log begins with a commit";
  EXPECT_EQ(trouble(), "");
}

}  // namespace
}  // namespace duplex::control
