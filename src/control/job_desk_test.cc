// The desk: jobs of mirrors beside imports, over restarts and refusals.
#include <utility>

#include "control/test_array.h"

namespace duplex::control {
namespace {

using mirror::JobDesk;
using mirror::JobState;
using mirror::WorkProgress;

// Keeps the rows of jobs; refuses while `trouble` is set.
class RowStore final : public meta::Store {
 public:
  rt::Task<Result<meta::Snapshot>> load() override { co_return meta::Snapshot{}; }
  rt::Task<Result<void>> commit(meta::Transaction transaction) override {
    if (trouble) co_return fail(Code::kNoSpace);
    for (const meta::Change& change : transaction) {
      if (const auto* put = std::get_if<meta::PutJob>(&change)) rows[put->row.id] = put->row;
      const auto* drop = std::get_if<meta::DropJob>(&change);
      if (drop != nullptr && rows.erase(drop->id) == 0) co_return fail(Code::kState);
    }
    co_return Result<void>();
  }
  rt::Task<Result<std::vector<meta::EventRow>>> events(uint64_t, size_t) override {
    co_return std::vector<meta::EventRow>();
  }
  rt::Task<Result<void>> close() override { co_return Result<void>(); }

  std::map<uint32_t, meta::JobRow> rows;
  bool trouble = false;
};

struct TestWork final : mirror::Work {
  rt::Task<WorkProgress> progress() override {
    if (delay > 0) co_await rt::sleep_for(*clock, delay);
    co_return now;
  }
  rt::Task<Result<void>> answer(std::string verb) {
    asked.push_back(std::move(verb));
    co_return refusal ? std::unexpected(*refusal) : Result<void>();
  }
  rt::Task<Result<void>> pause() override { return answer("pause"); }
  rt::Task<Result<void>> resume() override { return answer("resume"); }
  rt::Task<Result<void>> cancel(bool confirmed) override {
    return answer(confirmed ? "cancel confirmed" : "cancel");
  }
  rt::Task<Result<void>> set_rate(uint64_t rate) override {
    return answer("rate " + std::to_string(rate));
  }
  WorkProgress now{
      .reason = {}, .bytes_done = 3, .bytes_total = 8, .bytes_moved = 2, .eta_seconds = 5};
  std::vector<std::string> asked;
  std::optional<Error> refusal;
  rt::Clock* clock = nullptr;
  rt::Micros delay = 0;
};

class JobDeskTest : public testing::Test {
 protected:
  void SetUp() override {
    world.start();
    begin();
  }
  void TearDown() override { end(); }
  void begin() {
    meta::Snapshot snapshot;
    for (const auto& [id, row] : store.rows) snapshot.jobs.push_back(row);
    jobs = std::make_unique<Jobs>(world.box, store, world.array->volumes(), world.array->events(),
                                  snapshot);
  }
  void end() {
    world.sim.run(world.box.control(), jobs->stop());
    world.sim.run(world.box.control(), jobs->close_desk());
    jobs.reset();
  }
  // As an array that stops, or is killed, and starts again; who opens a job again does it then.
  void restart() {
    end();
    begin();
  }
  // On the control core, as mirrors call the desk.
  JobDesk::Opened open(const std::string& kind, const std::string& mirror, mirror::Work& of) {
    return world.run(opened(*jobs, {kind, mirror, "db", "copy", 7}, of));
  }
  void close(uint32_t id, JobDesk::End end, std::string error = {}) {
    world.sim.run(world.box.control(), closed(*jobs, id, end, std::move(error)));
  }
  JobInfo info(uint32_t id) {
    auto info = world.run(jobs->info(id));
    EXPECT_TRUE(info);
    return info ? *info : JobInfo{};
  }
  static rt::Task<JobDesk::Opened> opened(Jobs& jobs, mirror::NewJob job, mirror::Work& work) {
    co_return jobs.open(std::move(job), work);
  }
  static rt::Task<> closed(Jobs& jobs, uint32_t id, JobDesk::End end, std::string error) {
    jobs.close(
        id, end, std::move(error),
        {.reason = {}, .bytes_done = 8, .bytes_total = 8, .bytes_moved = 6, .eta_seconds = {}});
    co_return;
  }

  static rt::Task<> forgotten(Jobs& jobs, std::string mirror) {
    jobs.forget(mirror);
    co_return;
  }
  static rt::Task<> settle(Jobs& jobs) {
    jobs.settle_left_over();
    co_return;
  }

  test::TestArray world;
  RowStore store;
  std::unique_ptr<Jobs> jobs;
  TestWork work;
};

// Mutation: info_of() does not ask the work.
TEST_F(JobDeskTest, AJobOfAMirrorHasANumberARowAndTheProgressOfItsWork) {
  const auto job = open("copy", "m1", work);
  EXPECT_EQ(job.rate, 7u);
  EXPECT_FALSE(job.is_paused);
  const JobInfo now = info(job.id);
  EXPECT_EQ(now.row.kind, "copy");
  EXPECT_EQ(now.mirror, "m1");
  EXPECT_EQ(now.row.source, "db");
  EXPECT_EQ(now.row.target, "copy");
  EXPECT_EQ(now.row.state, "running");
  EXPECT_EQ(now.row.bytes_done, 3u);
  EXPECT_EQ(now.row.bytes_total, 8u);
  EXPECT_EQ(now.bytes_moved, 2u);
  EXPECT_EQ(now.eta_seconds, 5u);
  EXPECT_FALSE(now.is_stalled);
  ASSERT_EQ(store.rows.size(), 1u) << "durable";
  close(job.id, JobDesk::End::kDone);
  const JobInfo then = info(job.id);
  EXPECT_EQ(then.row.state, "done");
  EXPECT_EQ(then.row.bytes_done, 8u);
  EXPECT_EQ(then.bytes_moved, 6u);
  EXPECT_EQ(store.rows[job.id].state, "done");
  EXPECT_GT(store.rows[job.id].ended_us, 0);
  restart();
  EXPECT_EQ(info(job.id).mirror, "m1");
  EXPECT_EQ(info(job.id).row.source, "db");
  EXPECT_FALSE(info(job.id).bytes_moved) << "nobody has written it down";
}

// Mutation: open() counts numbers of its own.
TEST_F(JobDeskTest, ImportsAndMirrorsShareOneListAndItsNumbers) {
  world.add_device();
  world.add_volume("db", 4 * kMiB);
  world.add_source("/src", 4);
  const uint32_t first = open("copy", "m1", work).id;
  const auto import = world.run(jobs->start_import("db", "/src", false));
  ASSERT_TRUE(import);
  const uint32_t last = open("verify", "m1", work).id;
  EXPECT_EQ(import->id, first + 1);
  EXPECT_EQ(last, first + 2);
  const auto all = world.run(jobs->infos());
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[1].row.kind, "import");
  EXPECT_EQ(all[1].mirror, "");
  EXPECT_FALSE(all[1].bytes_moved);
  close(first, JobDesk::End::kDone);
  close(last, JobDesk::End::kFailed, "they differ");
  EXPECT_EQ(info(last).row.state, "failed");
  EXPECT_EQ(info(last).row.error, "they differ");
  ASSERT_TRUE(world.run(jobs->wait(import->id, world.sim.now() + 60 * rt::kSecond)));
}

// Mutation: take_up() does not compare the kind.
TEST_F(JobDeskTest, AfterARestartAJobGoesOnUnderItsNumberWithItsRateAndPause) {
  const auto copy = open("copy", "m1", work);
  const auto restore = open("restore", "m2", work);
  ASSERT_TRUE(world.run(jobs->set_rate(copy.id, 99)));
  ASSERT_TRUE(world.run(jobs->pause(copy.id)));
  close(copy.id, JobDesk::End::kStopped);
  close(restore.id, JobDesk::End::kStopped);
  EXPECT_EQ(store.rows[restore.id].state, "running");
  EXPECT_EQ(store.rows[restore.id].bytes_done, 8u);
  restart();
  TestWork again;
  EXPECT_NE(open("verify", "m1", again).id, copy.id);
  EXPECT_NE(open("copy", "m2", again).id, restore.id);
  const auto same = open("copy", "m1", again);
  EXPECT_EQ(same.id, copy.id);
  EXPECT_EQ(same.rate, 99u);
  EXPECT_TRUE(same.is_paused);
  EXPECT_EQ(open("restore", "m2", again).id, restore.id);
  EXPECT_NE(open("copy", "m1", again).id, copy.id) << "taken";
}

// Mutation: settle_left_over() is empty.
TEST_F(JobDeskTest, AJobThatNoMirrorTakesUpAfterTheStartIsOver) {
  const auto verify = open("verify", "m1", work);
  const auto copy = open("copy", "m1", work);
  restart();
  EXPECT_EQ(open("copy", "m1", work).id, copy.id);
  world.sim.run(world.box.control(), settle(*jobs));
  EXPECT_EQ(info(verify.id).row.state, "cancelled");
  EXPECT_NE(info(verify.id).row.error.find("duplex mirror show m1"), std::string::npos);
  EXPECT_EQ(info(copy.id).row.state, "running");
  EXPECT_EQ(store.rows[verify.id].state, "cancelled");
}

// Mutation: set_state() changes the row before it asks the work.
TEST_F(JobDeskTest, VerbsAreAskedOfTheWorkAndItsRefusalChangesNothing) {
  const uint32_t id = open("copy", "m1", work).id;
  work.refusal = Error(Code::kBusy, "not now", "later");
  EXPECT_FALSE(world.run(jobs->pause(id)));
  EXPECT_FALSE(world.run(jobs->set_rate(id, 5)));
  EXPECT_EQ(info(id).row.state, "running");
  EXPECT_EQ(info(id).row.rate, 7u);
  work.refusal.reset();
  EXPECT_EQ(world.run(jobs->pause(id))->state, "paused");
  EXPECT_EQ(store.rows[id].state, "paused");
  EXPECT_EQ(world.run(jobs->resume(id))->state, "running");
  EXPECT_EQ(world.run(jobs->resume(id))->state, "running") << "a stalled one tries again";
  EXPECT_EQ(world.run(jobs->set_rate(id, 5))->rate, 5u);
  EXPECT_EQ(work.asked,
            (std::vector<std::string>{"pause", "rate 5", "pause", "resume", "resume", "rate 5"}));
  close(id, JobDesk::End::kDone);
  EXPECT_EQ(world.run(jobs->pause(id)).error().code(), Code::kState);
  EXPECT_EQ(work.asked.size(), 6u) << "its work is gone";
}

// Mutation: `confirmed` is not handed on.
TEST_F(JobDeskTest, ACancelWaitsForTheWorkToEndAndTakesTheConfirmationAlong) {
  const uint32_t id = open("restore", "m1", work).id;
  work.refusal = Error(Code::kState, "half restored", "add --yes");
  EXPECT_EQ(world.run(jobs->cancel(id)).error().next(), "add --yes");
  EXPECT_EQ(info(id).row.state, "running");
  work.refusal.reset();
  const auto cancel = world.sim.start(world.box.control(), jobs->cancel(id, true));
  world.pass(rt::kSecond);
  EXPECT_FALSE(cancel->done);
  close(id, JobDesk::End::kCancelled);
  world.pass(rt::kMillisecond);
  EXPECT_TRUE(cancel->done);
  EXPECT_EQ(work.asked, (std::vector<std::string>{"cancel", "cancel confirmed"}));
  EXPECT_EQ(world.run(jobs->cancel(id))->state, "cancelled") << "again is success";
  const uint32_t slow = open("copy", "m1", work).id;
  const rt::Micros before = world.sim.now();
  EXPECT_EQ(world.run(jobs->cancel(slow))->state, "running");
  EXPECT_GE(world.sim.now() - before, Jobs::kCancelWait);
  EXPECT_LT(world.sim.now() - before, Jobs::kCancelWait + rt::kSecond);
}

// It has not ended: the same number runs again. Mutation: cancel_work() says that it has.
TEST_F(JobDeskTest, ACancelOfAJobThatNobodyWorksAtSaysThatItGoesOn) {
  const uint32_t id = open("copy", "m1", work).id;
  close(id, JobDesk::End::kStopped);
  const auto refused = world.run(jobs->cancel(id));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kState);
  EXPECT_EQ(refused.error().message(),
            "mirror m1 does not work at job 1 now and goes on with it by itself");
  EXPECT_EQ(refused.error().next(), "duplex mirror show m1; mirror delete m1 ends the job as well");
  EXPECT_EQ(open("copy", "m1", work).id, id) << "its mirror goes on with it";
}

// Mutation: forget() is empty: who waits for the job waits for ever.
TEST_F(JobDeskTest, AStoppedJobEndsWithItsMirror) {
  const uint32_t stopped = open("copy", "m1", work).id;
  const uint32_t other = open("copy", "m2", work).id;
  close(stopped, JobDesk::End::kStopped);
  close(other, JobDesk::End::kStopped);
  const auto waiting = world.sim.start(world.box.control(), jobs->wait(stopped, UINT64_MAX));
  world.sim.run(world.box.control(), forgotten(*jobs, "m1"));
  world.pass(rt::kMillisecond);
  EXPECT_TRUE(waiting->done);
  EXPECT_EQ(info(stopped).row.state, "cancelled");
  EXPECT_EQ(info(stopped).row.error, "mirror m1 was deleted");
  EXPECT_EQ(store.rows[stopped].state, "cancelled");
  EXPECT_EQ(info(other).row.state, "running");
}

// Mutation: a stalled job has the state "stalled".
TEST_F(JobDeskTest, AStalledJobIsShownAsRunningWithItsReason) {
  const uint32_t id = open("copy", "m1", work).id;
  work.now.state = JobState::kStalled;
  work.now.reason = "no space";
  const JobInfo now = info(id);
  EXPECT_EQ(now.row.state, "running");
  EXPECT_TRUE(now.is_stalled);
  EXPECT_EQ(now.reason, "no space");
}

// Mutation: info_of() does not look again after it has asked.
TEST_F(JobDeskTest, AJobThatEndsWhileItIsAskedIsShownAsEnded) {
  const uint32_t id = open("copy", "m1", work).id;
  work.clock = &world.box.control().clock();
  work.delay = rt::kSecond;
  const auto asking = world.sim.start(world.box.control(), jobs->infos());
  world.pass(rt::kMillisecond);
  close(id, JobDesk::End::kDone);
  world.pass(2 * rt::kSecond);
  ASSERT_TRUE(asking->done);
  EXPECT_EQ(asking->value->front().row.bytes_done, 8u);
  EXPECT_EQ(asking->value->front().row.state, "done");
}

// Mutation: number_of() takes the last one although an earlier one runs.
TEST_F(JobDeskTest, TheNameOfAMirrorIsItsRunningJobOrElseItsLastOne) {
  const uint32_t first = open("copy", "m1", work).id;
  const uint32_t second = open("verify", "m1", work).id;
  open("copy", "2", work);
  EXPECT_EQ(jobs->number_of("m1"), second);
  close(second, JobDesk::End::kDone);
  EXPECT_EQ(jobs->number_of("m1"), first);
  close(first, JobDesk::End::kDone);
  EXPECT_EQ(jobs->number_of("m1"), second);
  EXPECT_EQ(jobs->number_of("2"), second) << "a number is a number";
  for (const char* unknown : {"m3", "77"}) {
    const auto refused = jobs->number_of(unknown);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kNoName);
    EXPECT_EQ(refused.error().next(), "duplex job list");
  }
  for (const char* wrong : {"", "0x1ffffffff", "a b"})
    EXPECT_EQ(jobs->number_of(wrong).error().code(), Code::kInvalid) << wrong;
}

// Mutation: close() does not pulse.
TEST_F(JobDeskTest, WhoWaitsForAJobComesBackWhenItEnds) {
  const uint32_t id = open("copy", "m1", work).id;
  const auto waiting =
      world.sim.start(world.box.control(), jobs->wait(id, world.sim.now() + 3600 * rt::kSecond));
  world.pass(rt::kSecond);
  EXPECT_FALSE(waiting->done);
  close(id, JobDesk::End::kFailed, "gone");
  world.pass(rt::kMillisecond);
  EXPECT_TRUE(waiting->done);
}

// Mutation: drop_old() drops rows that were never stored.
TEST_F(JobDeskTest, AFullStoreStopsNoJobAndLeavesNothingThatStopsLaterOnes) {
  store.trouble = true;
  const uint32_t lost = open("copy", "m1", work).id;
  close(lost, JobDesk::End::kDone);
  EXPECT_EQ(info(lost).row.state, "done");
  EXPECT_TRUE(store.rows.empty());
  store.trouble = false;
  for (size_t i = 0; i < Jobs::kKeptJobs; ++i)
    close(open("copy", "m1", work).id, JobDesk::End::kDone);
  EXPECT_EQ(store.rows.size(), Jobs::kKeptJobs);
  EXPECT_EQ(jobs->list().size(), Jobs::kKeptJobs);
}

}  // namespace
}  // namespace duplex::control
