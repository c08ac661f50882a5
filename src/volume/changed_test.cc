// What clients are told of change maps, and when they are told that everything has changed.
#include "volume/own_leg_test_kit.h"

namespace duplex::volume {
namespace {

using namespace testing;

class ChangedTest : public OwnLegTest {
 protected:
  ContextId offer(MapId map) {
    ContextId id;
    core().inside([&] { id = volume.offer(map); });
    return id;
  }
  // "+" for changed, "-" for not, with the length in KiB.
  std::string told(ContextId id, ByteRange range = {0, kSize}, size_t limit = 100) {
    std::string text;
    for (const ChangedRun& run : volume.changed(id, range, limit)) {
      text += (run.changed ? "+" : "-") + std::to_string(run.length / kKiB);
    }
    return text;
  }
  const std::string everything = "+" + std::to_string(kSize / kKiB);
};

// Mutation: changed() does not cut its runs to the range.
TEST_F(ChangedTest, RunsCoverTheRangeFromItsStartAndNoMoreThanAsked) {
  const ContextId id = offer(kBits);
  EXPECT_EQ(told(id), "-4096");
  ASSERT_TRUE(write(kExtent, 2 * kExtent, 1));
  ASSERT_TRUE(write(5 * kExtent + 4096, 512, 1));
  EXPECT_EQ(told(id), "-64+128-128+64-3712");
  EXPECT_EQ(told(id, {kExtent + 4096, kExtent}), "+64");
  EXPECT_EQ(told(id, {2 * kExtent, 2 * kExtent}), "+64-64");
  EXPECT_EQ(told(id, {512, 1024}), "-1");
  EXPECT_EQ(told(id, {0, kSize}, 2), "-64+128");
  EXPECT_EQ(told(id, {0, kSize}, 1), "-64");
  EXPECT_EQ(told(id, {kSize - kKiB, kKiB}), "-1");
}

// Mutation: offer() leaves the offer before in place.
TEST_F(ChangedTest, AnOfferMadeAnewEndsTheOneBefore) {
  const ContextId old = offer(kBits), other = offer(kMissing);
  const ContextId id = offer(kBits);
  EXPECT_NE(old, id);
  EXPECT_EQ(told(old), everything);
  EXPECT_EQ(told(id), "-4096");
  EXPECT_EQ(told(other), "-4096");
  EXPECT_EQ(told(ContextId(0)), everything);
  EXPECT_EQ(told(old, {kExtent, kExtent}), "+64");
}

// Mutations: remove_leg() and stop_recording() withdraw nothing; changed() does not ask whether the
// map is there.
TEST_F(ChangedTest, AMirrorThatIsGoneLeavesEverythingChanged) {
  const ContextId source = offer(kBits);
  core().inside([&] {
    tracker.add_map(kRecorded, MapKind::kCopyAway, ChangeMap(kSize));
    volume.record_into(kRecorded);
  });
  const ContextId target = offer(kRecorded);
  ASSERT_TRUE(write(0, 512, 1));
  EXPECT_EQ(told(target), "+64-4032");
  core().inside([&] { volume.stop_recording(kRecorded); });
  EXPECT_EQ(told(target), everything) << "its map is still there";
  const ContextId late = offer(kRecorded);
  core().inside([&] { tracker.remove_map(kRecorded); });
  EXPECT_EQ(told(late), everything);
  core().inside([&] { volume.remove_leg(one.leg); });
  EXPECT_EQ(told(source), everything);
  core().inside([&] { volume.add_leg(one.leg); });
}

}  // namespace
}  // namespace duplex::volume
