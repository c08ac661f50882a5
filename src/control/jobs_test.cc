// Import jobs: the whole life of one, also over stops, kills and power cuts.
#include "control/jobs.h"

#include "control/test_array.h"

namespace duplex::control {
namespace {

constexpr uint64_t kMib = 8;  // of the source

class JobsTest : public testing::Test {
 protected:
  void SetUp() override {
    world.start();
    world.add_device("/d1", 40 * kMiB);
    world.add_volume("db", kMib * kMiB);
    world.add_source("/src", kMib);
  }
  Jobs& jobs() { return world.array->jobs(); }
  Result<meta::JobRow> import(bool overwrite = false, const std::string& path = "/src") {
    return world.run(jobs().start_import("db", path, overwrite));
  }
  // An import slow enough to be met on its way: a MiB a second.
  uint32_t slow_import() {
    const auto row = import();
    EXPECT_TRUE(row) << row.error().describe();
    EXPECT_TRUE(world.run(jobs().set_rate(row->id, kMiB)));
    return row->id;
  }
  meta::JobRow wait(uint32_t id, rt::Micros time = 600 * rt::kSecond) {
    const auto row = world.run(jobs().wait(id, world.sim.now() + time));
    EXPECT_TRUE(row);
    return row ? *row : meta::JobRow{};
  }
  void restart_after_crash(bool power) {
    world.crash(power);
    world.start();
  }

  test::TestArray world;
};

TEST_F(JobsTest, AnImportCopiesTheFileAndLeavesHolesWhereItIsEmpty) {
  const auto begun = import();
  ASSERT_TRUE(begun) << begun.error().describe();
  EXPECT_EQ(begun->state, "running");
  EXPECT_EQ(begun->bytes_total, kMib * kMiB);
  const meta::JobRow row = wait(begun->id);
  EXPECT_EQ(row.state, "done");
  EXPECT_EQ(row.error, "");
  EXPECT_EQ(row.bytes_done, kMib * kMiB);
  EXPECT_GE(row.ended_us, row.started_us);
  EXPECT_EQ(world.imported("db"), kMib);
  EXPECT_EQ(world.array->volumes().info("db")->allocated_bytes, (kMib - 1) * kMiB);
  EXPECT_EQ(world.count_events("job_ended"), 1u);
}

TEST_F(JobsTest, WhatCannotBeImportedIsRefusedAndNoJobIsLeft) {
  const auto refused = [&](Code code, const Result<meta::JobRow>& row) {
    ASSERT_FALSE(row);
    EXPECT_EQ(row.error().code(), code);
    EXPECT_NE(row.error().next(), "");
    EXPECT_TRUE(jobs().list().empty());
  };
  refused(Code::kNoVolume, world.run(jobs().start_import("none", "/src", false)));
  refused(Code::kNoDevice, import(false, "/none"));
  world.add_source("/big", kMib + 1);
  refused(Code::kSize, import(false, "/big"));
  auto open = world.array->volumes().open("db", "somebody", [] {});
  ASSERT_TRUE(open);
  refused(Code::kBusy, import());
  world.array->volumes().close(std::move(*open));
  ASSERT_TRUE(world.write("db", 0, kBlockBytes));
  refused(Code::kState, import());
}

// Mutation: without the look at the mirrors the import begins.
TEST_F(JobsTest, NothingIsImportedIntoAMemberOfAMirrorOrAnInconsistentVolume) {
  auto& volumes = world.array->volumes();
  volume::Member& member = *world.run(volumes.join(VolumeNumber(1), "m1")).value();
  auto refused = import(true);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().describe(),
            "volume db is in mirror m1 (next: duplex mirror delete m1)");
  member.committed(member.row().content_id, false);
  world.sim.run(world.box.control(), volumes.leave(member, "m1"));
  refused = import(true);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kState);
  EXPECT_NE(refused.error().message().find("inconsistent"), std::string_view::npos);
  EXPECT_TRUE(jobs().list().empty());
}

TEST_F(JobsTest, OverwritingReplacesDataByTheZeroesOfTheFile) {
  ASSERT_TRUE(world.write("db", kMiB, kMiB));
  const auto row = import(true);
  ASSERT_TRUE(row) << row.error().describe();
  EXPECT_EQ(wait(row->id).state, "done");
  EXPECT_EQ(world.imported("db"), kMib);
}

TEST_F(JobsTest, AFileThatCannotBeReadFailsTheJobWithItsReason) {
  world.box.disk().find("/src")->faults.read_error = 1;
  const auto begun = import();
  ASSERT_TRUE(begun);
  const meta::JobRow row = wait(begun->id);
  EXPECT_EQ(row.state, "failed");
  EXPECT_NE(row.error.find("/src"), std::string::npos);
  EXPECT_EQ(world.count_events("job_failed"), 1u);
  // It is over: the volume is free.
  EXPECT_TRUE(world.run(world.array->volumes().remove("db", false)));
}

TEST_F(JobsTest, ALimitSlowsAJobAndLiftingItEndsTheSleep) {
  const uint32_t id = slow_import();
  const rt::Micros before = world.sim.now();
  EXPECT_EQ(wait(id, 4 * rt::kSecond).state, "running");
  EXPECT_GE(world.sim.now() - before, 4 * rt::kSecond) << "a wait ends at its deadline";
  const auto row = jobs().show(id);
  EXPECT_LE(row->bytes_done, 6 * kMiB);
  EXPECT_GT(jobs().eta_seconds(*row), 0u);
  ASSERT_TRUE(world.run(jobs().set_rate(id, 0)));
  const rt::Micros lifted = world.sim.now();
  EXPECT_EQ(wait(id).state, "done");
  EXPECT_LT(world.sim.now() - lifted, rt::kSecond);
}

TEST_F(JobsTest, APausedJobMovesNothingUntilItIsResumed) {
  const uint32_t id = slow_import();
  world.pass(2 * rt::kSecond);
  EXPECT_EQ(world.run(jobs().pause(id))->state, "paused");
  EXPECT_EQ(world.run(jobs().pause(id))->state, "paused") << "again is success";
  world.pass(2 * rt::kSecond);
  const uint64_t done = jobs().show(id)->bytes_done;
  EXPECT_EQ(wait(id, 100 * rt::kSecond).bytes_done, done);
  EXPECT_EQ(world.run(jobs().resume(id))->state, "running");
  EXPECT_EQ(world.run(jobs().resume(id))->state, "running");
  EXPECT_EQ(wait(id).state, "done");
  EXPECT_EQ(world.imported("db"), kMib);
}

TEST_F(JobsTest, ACancelledJobEndsAndFreesItsVolume) {
  const uint32_t id = slow_import();
  world.pass(2 * rt::kSecond);
  EXPECT_EQ(world.run(jobs().cancel(id))->state, "cancelled");
  EXPECT_EQ(world.run(jobs().cancel(id))->state, "cancelled") << "again is success";
  world.pass(2 * rt::kSecond);
  EXPECT_LT(jobs().show(id)->bytes_done, kMib * kMiB);
  EXPECT_TRUE(world.array->volumes().info("db")->clients.empty());
  for (const auto verb : {&Jobs::pause, &Jobs::resume}) {
    const auto refused = world.run((jobs().*verb)(id));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kState);
  }
  world.stop();
  world.start();
  EXPECT_EQ(jobs().show(id)->state, "cancelled");
  EXPECT_EQ(wait(id, rt::kSecond).state, "cancelled");
}

TEST_F(JobsTest, DeletingTheVolumeByForceCancelsItsImport) {
  const uint32_t id = slow_import();
  world.pass(rt::kSecond);
  const auto refused = world.run(world.array->volumes().remove("db", false));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kBusy);
  EXPECT_TRUE(world.run(world.array->volumes().remove("db", true)));
  EXPECT_EQ(wait(id, 10 * rt::kSecond).state, "cancelled");
}

TEST_F(JobsTest, AJobGoesOnAfterAStopFromWhereItWas) {
  const uint32_t id = slow_import();
  world.pass(3 * rt::kSecond);
  const uint64_t done = jobs().show(id)->bytes_done;
  ASSERT_GT(done, 0u);
  world.stop();
  world.start();
  const auto row = jobs().show(id);
  ASSERT_TRUE(row);
  EXPECT_EQ(row->state, "running");
  EXPECT_GE(row->bytes_done, done);
  EXPECT_EQ(row->rate, kMiB);
  EXPECT_EQ(wait(id).state, "done");
  EXPECT_EQ(world.imported("db"), kMib);
}

TEST_F(JobsTest, AJobGoesOnAfterAKillAndAfterAPowerCut) {
  const uint32_t id = slow_import();
  for (const bool power : {false, true, true}) {
    world.pass(2 * rt::kSecond);
    restart_after_crash(power);
    ASSERT_TRUE(jobs().show(id));
    EXPECT_EQ(jobs().show(id)->state, "running");
  }
  ASSERT_TRUE(world.run(jobs().set_rate(id, 0)));
  EXPECT_EQ(wait(id).state, "done");
  EXPECT_EQ(world.imported("db"), kMib);
}

TEST_F(JobsTest, OverwritingGoesOnAfterAKill) {
  ASSERT_TRUE(world.write("db", kMiB, kMiB));
  const auto begun = import(true);
  ASSERT_TRUE(begun) << begun.error().describe();
  restart_after_crash(false);
  EXPECT_EQ(wait(begun->id).state, "done");
  EXPECT_EQ(world.imported("db"), kMib) << "the zeroes of the file have replaced what was there";
}

TEST_F(JobsTest, WhatIsDoneIsOnTheDevice) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    test::TestArray other(seed);
    other.start();
    other.add_device("/d1", 40 * kMiB);
    other.add_volume("db", kMib * kMiB);
    other.add_source("/src", kMib);
    Jobs& jobs = other.array->jobs();
    const auto begun = other.run(jobs.start_import("db", "/src", false));
    ASSERT_TRUE(begun) << begun.error().describe();
    const auto row = other.run(jobs.wait(begun->id, other.sim.now() + 600 * rt::kSecond));
    ASSERT_EQ(row->state, "done");
    other.crash(true);
    other.start();
    EXPECT_EQ(other.array->jobs().show(begun->id)->state, "done");
    EXPECT_EQ(other.imported("db"), kMib) << "seed " << seed;
  }
}

TEST_F(JobsTest, APauseIsRememberedOverAPowerCut) {
  const uint32_t id = slow_import();
  world.pass(2 * rt::kSecond);
  ASSERT_TRUE(world.run(jobs().pause(id)));
  restart_after_crash(true);
  EXPECT_EQ(wait(id, 30 * rt::kSecond).state, "paused");
  ASSERT_TRUE(world.run(jobs().resume(id)));
  EXPECT_EQ(wait(id).state, "done");
  EXPECT_EQ(world.imported("db"), kMib);
}

TEST_F(JobsTest, AJobWhoseFileIsGoneAfterTheRestartHasFailed) {
  const uint32_t id = slow_import();
  world.pass(rt::kSecond);
  world.crash(true);
  world.box.disk().remove("/src");
  world.start();
  const meta::JobRow row = wait(id, 10 * rt::kSecond);
  EXPECT_EQ(row.state, "failed");
  EXPECT_NE(row.error.find("/src"), std::string::npos);
}

TEST_F(JobsTest, WaitingEndsWhenTheArrayStops) {
  const uint32_t id = slow_import();
  const auto waiting =
      world.sim.start(world.box.control(), jobs().wait(id, world.sim.now() + 3600 * rt::kSecond));
  world.pass(rt::kSecond);
  EXPECT_FALSE(waiting->done);
  world.array->release_waiters();
  world.pass(rt::kMillisecond * 100);
  EXPECT_TRUE(waiting->done);
}

TEST_F(JobsTest, OldJobsLeaveTheListAndTheirNumbersAreNotUsedAgain) {
  uint32_t last = 0;
  for (size_t i = 0; i < Jobs::kKeptJobs + 3; ++i) {
    const auto row = import(true);
    ASSERT_TRUE(row) << row.error().describe();
    EXPECT_EQ(row->id, last + 1);
    last = row->id;
    EXPECT_EQ(world.run(jobs().cancel(last))->state, "cancelled");
    world.pass(rt::kSecond);
  }
  EXPECT_EQ(jobs().list().size(), Jobs::kKeptJobs);
  world.stop();
  world.start();
  EXPECT_EQ(jobs().list().size(), Jobs::kKeptJobs);
  EXPECT_EQ(import(true)->id, last + 1);
}

TEST_F(JobsTest, AJobThatIsNotThereIsRefused) {
  const auto refused = world.run(jobs().wait(7, 0));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kNoName);
  EXPECT_FALSE(world.run(jobs().cancel(7)));
  EXPECT_FALSE(world.run(jobs().set_rate(7, 1)));
}

}  // namespace
}  // namespace duplex::control
