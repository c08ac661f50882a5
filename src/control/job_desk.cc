// The desk of Jobs: the work of mirrors comes and goes; its numbers, rows and waiters stay here.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "control/jobs.h"

namespace duplex::control {

// The unfinished job of this kind and mirror that no work belongs to: a restart left it.
Jobs::JobPtr Jobs::take_up(const mirror::NewJob& job) {
  const auto left = std::ranges::find_if(jobs_, [&](const auto& entry) {
    const Job& one = *entry.second;
    return one.work == nullptr && !is_final(one.row) && one.row.kind == job.kind &&
           one.mirror == job.mirror;
  });
  return left == jobs_.end() ? nullptr : left->second;
}

mirror::JobDesk::Opened Jobs::open(mirror::NewJob job, mirror::Work& work) {
  ASSERT(!job.mirror.empty() && job.kind != "import");
  if (const JobPtr left = take_up(job)) {
    left->work = &work;
    return {.id = left->row.id, .rate = left->row.rate, .is_paused = left->row.state == "paused"};
  }
  const auto made = std::make_shared<Job>();
  made->row = {.id = ++last_id_,
               .kind = std::move(job.kind),
               .target = std::move(job.target),
               .source = std::move(job.source),
               .state = "running",
               .error = {},
               .rate = job.rate,
               .started_us = control_.clock().wall_us()};
  made->mirror = std::move(job.mirror);
  made->work = &work;
  jobs_[last_id_] = made;
  saves_.spawn(save_behind(made));
  return {.id = made->row.id, .rate = made->row.rate, .is_paused = false};
}

void Jobs::close(uint32_t id, End end, std::string error, mirror::WorkProgress last) {
  const auto found = find(id);
  ASSERT(found && (*found)->work != nullptr);
  const JobPtr& job = *found;
  job->work = nullptr;
  job->row.bytes_done = job->durable_bytes = last.bytes_done;
  job->row.bytes_total = last.bytes_total;
  job->bytes_moved = last.bytes_moved;
  job->row.error = std::move(error);
  if (end != End::kStopped) {
    job->row.state = end == End::kDone ? "done" : end == End::kFailed ? "failed" : "cancelled";
    job->row.ended_us = control_.clock().wall_us();
  }
  job->changed.pulse();
  saves_.spawn(save_behind(job));
}

// A job of a mirror that no work belongs to.
void Jobs::end_left(const JobPtr& job, std::string why) {
  job->row.state = "cancelled";
  job->row.error = std::move(why);
  job->row.ended_us = control_.clock().wall_us();
  job->changed.pulse();
  saves_.spawn(save_behind(job));
}

void Jobs::forget(const std::string& mirror) {
  for (auto& [id, job] : jobs_) {
    if (job->mirror != mirror || job->work != nullptr || is_final(job->row)) continue;
    end_left(job, fmt::format("mirror {} was deleted", mirror));
  }
}

void Jobs::settle_left_over() {
  for (auto& [id, job] : jobs_) {
    if (job->mirror.empty() || job->work != nullptr || is_final(job->row)) continue;
    end_left(job, fmt::format("it ended with a restart; how the mirror is: duplex mirror show {}",
                              job->mirror));
  }
}

rt::Task<> Jobs::close_desk() { co_await saves_.close(); }

// Commits take effect in the order of their calls, and a task begins inside spawn().
rt::Task<> Jobs::save_behind(JobPtr job) {
  const bool has_ended = is_final(job->row);
  meta::Transaction transaction;
  transaction.push_back(meta::PutJob{stored_form(*job)});
  if (!has_ended) drop_old(transaction);
  const Result<void> saved = co_await store_.commit(std::move(transaction));
  if (saved) job->is_stored = true;
  if (has_ended) tell_end(*job, saved);
}

rt::Task<Result<meta::JobRow>> Jobs::cancel_work(JobPtr job, bool confirmed) {
  if (stopping_) co_return fail(Code::kShutdown);
  if (job->work == nullptr) {
    co_return fail(
        Code::kState,
        fmt::format("mirror {} does not work at job {} now and goes on with it by itself",
                    job->mirror, job->row.id),
        fmt::format("duplex mirror show {0}; mirror delete {0} ends the job as well", job->mirror));
  }
  CO_TRY(co_await job->work->cancel(confirmed));
  const rt::Micros deadline = control_.clock().now() + kCancelWait;
  while (!is_final(job->row) && !waiters_released_ && control_.clock().now() < deadline) {
    co_await job->changed.wait_until(control_.clock(), deadline);
  }
  co_return job->row;
}

void Jobs::tell_end(const Job& job, const Result<void>& saved) {
  const std::string subject = fmt::format("job {}", job.row.id);
  const std::string next = fmt::format("duplex job show {}", job.row.id);
  const std::string what = job.mirror.empty()
                               ? fmt::format("import into volume {}", job.row.target)
                               : fmt::format("{} of mirror {}", job.row.kind, job.mirror);
  if (job.row.state == "failed") {
    events_.emit({.severity = Severity::kError,
                  .code = "job_failed",
                  .subject = subject,
                  .text = fmt::format("{} failed: {}", what, job.row.error),
                  .next = next});
  } else if (!saved) {
    events_.emit({.severity = Severity::kWarning,
                  .code = "job_not_saved",
                  .subject = subject,
                  .text = fmt::format("the end of job {} could not be stored: {}", job.row.id,
                                      saved.error().message()),
                  .next = next});
  } else {
    events_.emit({.severity = Severity::kInfo,
                  .code = "job_ended",
                  .subject = subject,
                  .text = fmt::format("{} is {}", what, job.row.state),
                  .next = {}});
  }
}

}  // namespace duplex::control
