// Jobs: long work with progress, rate, pause, cancel and resume. Today: import of a raw file.
//
// Owner: the array. Thread: control core; the bytes move on the volume's reactor.
// The row of a job is durable when it starts, at every checkpoint and when it ends. A job that a
// restart finds running goes on from its last checkpoint: everything below the stored bytes_done
// has been flushed before it was written down. The last kKeptJobs jobs stay listed.
//
//   state      pause      resume    cancel      end of work   error    restart
//   running    paused     -         cancelled   done          failed   running
//   paused     -          running   cancelled   -             -        paused
//   (done, failed, cancelled are final)
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "meta/store.h"
#include "rt/task_group.h"
#include "rt/wait.h"
#include "rt/world.h"
#include "volume/volumes.h"

namespace duplex::control {

class Jobs {
 public:
  static constexpr size_t kKeptJobs = 100;

  Jobs(rt::World& world, meta::Store& store, volume::Volumes& volumes, EventSink& events,
       const meta::Snapshot& snapshot);
  // Those who wait() come back at once from now on.
  void release_waiters();
  // Running jobs stop at their next step and stay "running" for the next start.
  rt::Task<> stop();

  // Copies the raw file at `path` into the volume, from its first byte on. kState when the volume
  // holds data and `overwrite` is not set; kBusy when a client has it open; kSize when it is too
  // small.
  rt::Task<Result<meta::JobRow>> start_import(std::string volume, std::string path, bool overwrite);

  std::vector<meta::JobRow> list() const;
  Result<meta::JobRow> show(uint32_t id) const;
  rt::Task<Result<meta::JobRow>> pause(uint32_t id);
  rt::Task<Result<meta::JobRow>> resume(uint32_t id);
  rt::Task<Result<meta::JobRow>> cancel(uint32_t id);
  // Bytes per second; 0: no limit.
  rt::Task<Result<meta::JobRow>> set_rate(uint32_t id, uint64_t rate);
  // Returns when the job has ended or the deadline has come.
  rt::Task<Result<meta::JobRow>> wait(uint32_t id, rt::Micros deadline);

  static bool is_final(const meta::JobRow& row);
  // Seconds to go at the speed so far; 0 when unknown.
  uint64_t eta_seconds(const meta::JobRow& row) const;

 private:
  struct Job {
    meta::JobRow row;
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
  rt::Task<Result<void>> save(JobPtr job);
  rt::Task<> finish(JobPtr job, Result<void> result);
  rt::Task<Result<meta::JobRow>> set_state(uint32_t id, const char* from, const char* to);
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
  rt::TaskGroup tasks_;
};

}  // namespace duplex::control
