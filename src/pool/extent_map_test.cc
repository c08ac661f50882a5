#include "pool/extent_map.h"

#include <gtest/gtest.h>

#include "pool/free_extents.h"

namespace duplex::pool {
namespace {

Location place(uint16_t device, uint32_t pe) { return {DeviceId(device), PhysicalExtent(pe)}; }

TEST(ExtentMap, AnEntryIsWhereItWasPutAndItsNeighboursStayHoles) {
  ExtentMap map(300'000);
  map.map(LogicalExtent(1023), place(3, 0));
  map.map(LogicalExtent(1025), place(128, 0xffffffff));
  EXPECT_EQ(map.at(LogicalExtent(1023)), place(3, 0));
  EXPECT_EQ(map.at(LogicalExtent(1025)), place(128, 0xffffffff));
  EXPECT_FALSE(map.at(LogicalExtent(1024)).is_mapped());
  EXPECT_FALSE(map.at(LogicalExtent(299'999)).is_mapped());
  EXPECT_EQ(map.mapped(), 2u);
  EXPECT_EQ(map.unmap(LogicalExtent(1023)), place(3, 0));
  EXPECT_FALSE(map.at(LogicalExtent(1023)).is_mapped());
  EXPECT_EQ(map.mapped(), 1u);
}

TEST(ExtentMap, APendingEntryReadsAsAHoleUntilItIsMapped) {
  ExtentMap map(10);
  map.set_pending(LogicalExtent(4));
  EXPECT_TRUE(map.is_pending(LogicalExtent(4)));
  EXPECT_FALSE(map.at(LogicalExtent(4)).is_mapped());
  EXPECT_EQ(map.next_mapped(0), 10u);
  map.map(LogicalExtent(4), place(1, 7));
  map.clear_pending(LogicalExtent(4));
  EXPECT_EQ(map.at(LogicalExtent(4)), place(1, 7));
  map.set_pending(LogicalExtent(5));
  map.clear_pending(LogicalExtent(5));
  EXPECT_FALSE(map.is_pending(LogicalExtent(5)));
}

TEST(ExtentMap, RunsEndWhereMappedAndHoleMeetAlsoAcrossLeaves) {
  ExtentMap map(5000);
  for (uint32_t le = 1000; le < 2100; ++le) map.map(LogicalExtent(le), place(1, le));
  EXPECT_EQ(map.run_end(LogicalExtent(0)), 1000u);
  EXPECT_EQ(map.run_end(LogicalExtent(1000)), 2100u);
  EXPECT_EQ(map.run_end(LogicalExtent(2100)), 5000u);
}

TEST(ExtentMap, AShrunkAndGrownMapHasHolesInItsNewPart) {
  ExtentMap map(2000);
  map.map(LogicalExtent(5), place(1, 5));
  map.set_pending(LogicalExtent(50));
  map.resize(10);
  map.resize(2000);
  EXPECT_EQ(map.at(LogicalExtent(5)), place(1, 5));
  EXPECT_FALSE(map.is_pending(LogicalExtent(50)));
}

TEST(FreeExtents, GoesOnWhereTheLastSearchEndedAndComesRound) {
  FreeExtents space;
  space.resize(200);
  for (uint32_t pe : {3u, 70u, 199u}) space.add(PhysicalExtent(pe));
  EXPECT_EQ(space.take({}), PhysicalExtent(3));
  EXPECT_EQ(space.take({}), PhysicalExtent(70));
  space.add(PhysicalExtent(3));
  EXPECT_EQ(space.take({}), PhysicalExtent(199));
  EXPECT_EQ(space.take({}), PhysicalExtent(3));
  EXPECT_EQ(space.take({}), std::nullopt);
  EXPECT_EQ(space.count(), 0u);
}

TEST(FreeExtents, GivesTheWishedOneWhenItIsFree) {
  FreeExtents space;
  space.resize(100);
  for (uint32_t pe = 0; pe < 100; ++pe) space.add(PhysicalExtent(pe));
  EXPECT_EQ(space.take(PhysicalExtent(64)), PhysicalExtent(64));
  EXPECT_EQ(space.take(PhysicalExtent(64)), PhysicalExtent(65));
  EXPECT_EQ(space.take(PhysicalExtent(100)), PhysicalExtent(66));
  EXPECT_FALSE(space.contains(PhysicalExtent(66)));
}

}  // namespace
}  // namespace duplex::pool
