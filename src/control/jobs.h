// Jobs: long work with progress, rate, pause, cancel and resume: imports of raw files, and the
// copies, restores, repairs and verifies of mirrors, which come to the desk (mirror/job_desk.h).
//
// Owner: the array. Thread: control core; the bytes move on the volume's reactor.
// The row of a job is durable when it starts and when it ends, that of an import also at every
// checkpoint. An import that a restart finds running goes on from its last checkpoint: everything
// below the stored bytes_done has been flushed before it was written down. The work of a mirror is
// its own: here are its number, its row and who waits for it. The last kKeptJobs jobs stay listed.
//
//   state      pause      resume    cancel      end of work   error    restart
//   running    paused     -         cancelled   done          failed   running
//   paused     -          running   cancelled   -             -        paused
//   (done, failed, cancelled are final; the verbs of a mirror's job are asked of its work, which
//   may refuse, and its row follows)
//
// Invariant: a job of a mirror has its Work from open() to close(), and at no other time. One that
// was closed as kStopped is running or paused without: its mirror takes it up again, or the end of
// the mirror ends it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "meta/store.h"
#include "mirror/job_desk.h"
#include "rt/task_group.h"
#include "rt/wait.h"
#include "rt/world.h"
#include "volume/volumes.h"

namespace duplex::control {

// A job as people see it: its row, and what its work says of itself.
struct JobInfo {
  meta::JobRow row;
  std::string mirror;  // empty: an import
  bool is_stalled = false;
  std::string reason;                   // why it is stalled
  std::optional<uint64_t> bytes_moved;  // none: nobody counts, or counted before a restart
  uint64_t eta_seconds = 0;             // 0: unknown
};

class Jobs final : public mirror::JobDesk {
 public:
  static constexpr size_t kKeptJobs = 100;
  // How long cancel() waits for the work of a mirror to end.
  static constexpr rt::Micros kCancelWait = 10 * rt::kSecond;

  Jobs(rt::World& world, meta::Store& store, volume::Volumes& volumes, EventSink& events,
       const meta::Snapshot& snapshot);
  // Those who wait() come back at once from now on.
  void release_waiters();
  // Running imports stop at their next step and stay "running" for the next start.
  rt::Task<> stop();

  // mirror::JobDesk. The rows become durable behind the caller's back, in the order of the calls.
  Opened open(mirror::NewJob job, mirror::Work& work) override;
  void close(uint32_t id, End end, std::string error, mirror::WorkProgress last) override;
  void forget(const std::string& mirror) override;
  // All mirrors are open: a job of theirs that none of them has taken up is over.
  void settle_left_over();
  // All mirrors are stopped: returns when what they closed is durable.
  rt::Task<> close_desk();

  // Copies the raw file at `path` into the volume, from its first byte on. kState when the volume
  // holds data and `overwrite` is not set; kBusy when a client has it open; kSize when it is too
  // small.
  rt::Task<Result<meta::JobRow>> start_import(std::string volume, std::string path, bool overwrite);

  // The rows as they stand here; infos() also asks the mirrors how far their work is.
  std::vector<meta::JobRow> list() const;
  Result<meta::JobRow> show(uint32_t id) const;
  rt::Task<std::vector<JobInfo>> infos();
  rt::Task<Result<JobInfo>> info(uint32_t id);
  // The number of a job: itself, or the name of a mirror, of which it is the running job or else
  // the last one.
  Result<uint32_t> number_of(const std::string& text) const;
  rt::Task<Result<meta::JobRow>> pause(uint32_t id);
  rt::Task<Result<meta::JobRow>> resume(uint32_t id);
  // `confirmed`: a restore may leave its volume half restored.
  rt::Task<Result<meta::JobRow>> cancel(uint32_t id, bool confirmed = false);
  // Bytes per second; 0: no limit.
  rt::Task<Result<meta::JobRow>> set_rate(uint32_t id, uint64_t rate);
  // Returns when the job has ended or the deadline has come.
  rt::Task<Result<meta::JobRow>> wait(uint32_t id, rt::Micros deadline);

  static bool is_final(const meta::JobRow& row);
  // Seconds to go at the speed so far; 0 when unknown.
  uint64_t eta_seconds(const meta::JobRow& row) const;

 private:
  struct Job {
    meta::JobRow row;    // its source without the mirror
    std::string mirror;  // empty: an import
    mirror::Work* work = nullptr;
    std::optional<uint64_t> bytes_moved;
    bool is_stored = false;
    uint64_t durable_bytes = 0;  // flushed: what the store may hear of
    bool overwrite = false;      // the target may hold data: zeroes are written, not skipped
    uint64_t started_at_bytes = 0;
    rt::Micros started_at = 0;
    rt::Event changed;  // pulsed at every change of state or rate
  };
  // A job that has ended may leave the table while somebody still looks at it.
  using JobPtr = std::shared_ptr<Job>;
  rt::Task<> run_import(JobPtr job);
  rt::Task<Result<void>> copy(JobPtr job, volume::Volume& volume);
  rt::Task<Result<void>> copy_piece(Job& job, rt::File& file, volume::Volume& volume,
                                    ByteRange range);
  rt::Task<Result<void>> checkpoint(JobPtr job, volume::Volume& volume);
  static meta::JobRow stored_form(const Job& job);
  rt::Task<Result<void>> save(JobPtr job);
  rt::Task<> save_behind(JobPtr job);
  void drop_old(meta::Transaction& transaction);
  void tell_end(const Job& job, const Result<void>& saved);
  void end_left(const JobPtr& job, std::string why);
  JobPtr take_up(const mirror::NewJob& job);
  rt::Task<JobInfo> info_of(JobPtr job);
  rt::Task<Result<meta::JobRow>> cancel_work(JobPtr job, bool confirmed);
  rt::Task<> finish(JobPtr job, Result<void> result);
  using WorkVerb = rt::Task<Result<void>> (mirror::Work::*)();
  rt::Task<Result<meta::JobRow>> set_state(uint32_t id, const char* from, const char* to,
                                           WorkVerb verb);
  rt::Task<> throttle(Job& job, uint64_t bytes);
  Result<JobPtr> find(uint32_t id) const;
  Result<JobPtr> find_unfinished(uint32_t id) const;

  rt::World& world_;
  rt::Core& control_;
  meta::Store& store_;
  volume::Volumes& volumes_;
  EventSink& events_;
  std::map<uint32_t, JobPtr> jobs_;
  uint32_t last_id_ = 0;
  bool waiters_released_ = false;
  bool stopping_ = false;
  rt::TaskGroup tasks_;  // imports
  rt::TaskGroup saves_;  // rows of mirrors' jobs on their way to the store
};

}  // namespace duplex::control
