// What verbs do about writes that do not end.
#include <gtest/gtest.h>

#include "mirror/mirrors.h"
#include "mirror/test_mirrors.h"

namespace duplex::mirror {
namespace {

class UnendedTest : public testing::PairTest {
 protected:
  using Begun = testing::TestMirrors::Begun<Result<void>>;
  // Nothing that is sent to `volume` ends until release().
  void hold(const char* volume) { closed_.emplace(t.member(volume).volume().gate().close()); }
  void release() { closed_.reset(); }
  Begun releases_after(rt::Micros time) { return t.begin(wait_and_release(*this, time)); }

  // m is suspended, and a write of its ended session still on its way to s.
  Begun suspend_with_a_write_under_way() {
    make_sync();
    EXPECT_TRUE(t.write("p", 0, 4096, 1));
    hold("s");
    Begun writing = t.begin_write("p", 0, 4096, 2);
    t.pass(10 * rt::kMillisecond);
    EXPECT_FALSE(writing->done);
    faults("/d2").flush_error = 1;
    EXPECT_TRUE(t.flush("p"));
    EXPECT_TRUE(t.reaches("m", Relation::kSuspended));
    faults("/d2").flush_error = 0;
    return writing;
  }
  static void expect_parting(const Error& error) {
    EXPECT_EQ(error.code(), Code::kBusy);
    EXPECT_EQ(error.message(), "mirror m is gone, but its writes to volume s have not ended");
  }

 private:
  static rt::Task<Result<void>> wait_and_release(UnendedTest& test, rt::Micros time) {
    co_await rt::sleep_for(test.t.box.control().clock(), time);
    test.release();
    co_return Result<void>();
  }
  std::optional<volume::Gate::Closer> closed_;
};

// Mutations: drop() waits for part_with() itself; create() does not look at those that part.
TEST_F(UnendedTest, ADeleteGivesUpAfterAWhileAndItsVolumesAndNameAreFreeWhenTheWriteEnds) {
  t.add_volume("s2", "d2");
  const Begun writing = suspend_with_a_write_under_way();
  const rt::Micros before = t.sim.now();
  ASSERT_TRUE(t.run(t.mirrors->remove("m", false)));
  EXPECT_GE(t.sim.now() - before, 5 * rt::kSecond);
  EXPECT_LT(t.sim.now() - before, 6 * rt::kSecond);
  EXPECT_TRUE(t.run(t.mirrors->list()).empty());
  for (const auto& [name, target] : {std::pair("x", "s"), std::pair("m", "s2")}) {
    const auto made = t.create(name, "p", target);
    ASSERT_FALSE(made) << name << " to " << target;
    expect_parting(made.error());
  }
  expect_parting(t.run(t.mirrors->remove("m", false)).error());
  release();
  EXPECT_TRUE(t.end_of(writing));
  t.pass(rt::kSecond);
  ASSERT_TRUE(t.create("m", "p", "s2"));
  ASSERT_TRUE(t.reaches("m", Relation::kSync));
  EXPECT_EQ(t.read("p", 0, 4096), 2);
  EXPECT_TRUE(t.run(t.volumes->remove("s", true)));
}

// Mutation: stop() does not wait for its tasks.
TEST_F(UnendedTest, AStopWaitsForTheWritesOfAMirrorThatHasGone) {
  const Begun writing = suspend_with_a_write_under_way();
  ASSERT_TRUE(t.run(t.mirrors->remove("m", false)));
  const Begun released = releases_after(2 * rt::kSecond);
  const rt::Micros before = t.sim.now();
  t.stop();
  EXPECT_GE(t.sim.now() - before, 2 * rt::kSecond);
  EXPECT_TRUE(t.end_of(writing));
  t.open();
  EXPECT_TRUE(t.run(t.mirrors->list()).empty());
  EXPECT_EQ(t.read("p", 0, 4096), 2);
}

// Mutation: restore() keeps the targets shut.
TEST_F(UnendedTest, ARestoreOfSeveralThatOneCannotBeginLeavesTheOthersAsTheyWere) {
  for (const char* name : {"q", "r", "u"}) t.add_volume(name, "d2");
  make_sync();
  ASSERT_TRUE(t.create("m2", "q", "r"));
  ASSERT_TRUE(t.create("m3", "q", "u"));
  for (const char* name : {"m2", "m3"}) ASSERT_TRUE(t.reaches(name, Relation::kSync));
  ASSERT_TRUE(split({"m", "m2"}));
  hold("u");
  const Begun writing = t.begin_write("q", 0, 4096, 2);
  t.pass(10 * rt::kMillisecond);
  const auto refused = t.run(t.mirrors->restore({.names = {"m", "m2"}, .online = true}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kTimeout) << refused.error().describe();
  for (const char* name : {"m", "m2"}) EXPECT_EQ(t.show(name).state, Relation::kSplit);
  EXPECT_TRUE(t.write("p", 0, 4096, 3));
  const auto offered = t.volumes->find("s");
  EXPECT_TRUE(offered && !offered->read_only) << "its hosts may write again";
  EXPECT_EQ(t.read("p", 0, 4096), 3);
  release();
  EXPECT_TRUE(t.end_of(writing));
  t.pass(rt::kSecond);
  EXPECT_TRUE(t.run(t.mirrors->restore({.names = {"m", "m2"}, .online = true})));
}

// Mutation: one_restore_each() returns at once.
TEST_F(UnendedTest, AVolumeIsNotRestoredFromTwoOthers) {
  t.add_volume("s2", "d2");
  make_sync();
  ASSERT_TRUE(t.create("m2", "p", "s2"));
  ASSERT_TRUE(t.reaches("m2", Relation::kSync));
  ASSERT_TRUE(split({"m", "m2"}));
  const auto plan = t.run(t.mirrors->plan_restore({.names = {"m", "m2"}}));
  const auto begun = t.run(t.mirrors->restore({.names = {"m", "m2"}}));
  ASSERT_FALSE(plan);
  ASSERT_FALSE(begun);
  for (const Error& refused : {plan.error(), begun.error()}) {
    EXPECT_EQ(refused.code(), Code::kInvalid);
    EXPECT_EQ(refused.message(), "mirrors m and m2 share volume p: one of them can be restored");
  }
  for (const char* name : {"m", "m2"}) EXPECT_EQ(t.show(name).state, Relation::kSplit);
}

}  // namespace
}  // namespace duplex::mirror
