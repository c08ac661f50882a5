// The array and its marks: what a start finds of them is kept for whoever owns the mirrors.
#include "control/test_array.h"

namespace duplex::control {
namespace {

class ArrayMarksTest : public testing::Test {
 protected:
  void SetUp() override {
    world.start();
    world.add_device();
    world.add_volume("db", 8 * kMiB);
  }
  bool has_log() { return world.box.disk().find("/state/marks-1") != nullptr; }
  volume::Member& join() {
    return *world.run(world.array->volumes().join(VolumeNumber(1), "m1")).value();
  }

  test::TestArray world;
};

TEST_F(ArrayMarksTest, AnArrayWithoutMirrorsMakesNoLogAndFindsNothing) {
  ASSERT_TRUE(world.write("db", 0, kBlockBytes));
  world.stop();
  world.start();
  EXPECT_FALSE(has_log());
  const meta::Marks::Found found = world.array->take_found_marks();
  EXPECT_TRUE(found.hot.empty() && found.maps.empty() && found.trusted);
}

// Mutation: Array::start() drops what Marks::open() found.
TEST_F(ArrayMarksTest, AfterAPowerCutTheHotExtentsOfAMemberAreFoundOnceAndAgainAtTheNextStart) {
  for (const bool power : {false, true}) {
    join();
    ASSERT_TRUE(world.write("db", 4 * kMiB, kBlockBytes));
    EXPECT_TRUE(has_log());
    world.crash(power);
    world.start();
    const meta::Marks::Found found = world.array->take_found_marks();
    ASSERT_EQ(found.hot.size(), 1u);
    EXPECT_EQ(found.hot[0].volume, VolumeNumber(1));
    EXPECT_EQ(found.hot[0].extents, std::vector<LogicalExtent>{LogicalExtent(1)});
    EXPECT_TRUE(found.trusted);
    EXPECT_TRUE(world.array->take_found_marks().hot.empty()) << "taken";
  }
}

// Mutation: Marks::open() is left out of the start.
TEST_F(ArrayMarksTest, AStopAfterTheMemberHasLeftKeepsTheMarksUntilACommitDropsThem) {
  volume::Member& member = join();
  ASSERT_TRUE(world.write("db", 0, kBlockBytes));
  world.sim.run(world.box.control(), world.array->volumes().leave(member, "m1"));
  world.stop();
  world.start();
  EXPECT_EQ(world.array->take_found_marks().hot.size(), 1u);
  ASSERT_TRUE(world.run(world.array->marks().commit({}, {}, {VolumeNumber(1)})));
  world.stop();
  world.start();
  EXPECT_TRUE(world.array->take_found_marks().hot.empty());
}

}  // namespace
}  // namespace duplex::control
