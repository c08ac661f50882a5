// The table of jobs and its verbs; import.cc has the work itself.
#include "control/jobs.h"

#include <fmt/format.h>

#include <utility>

namespace duplex::control {

Jobs::Jobs(rt::World& world, meta::Store& store, volume::Volumes& volumes, EventSink& events,
           const meta::Snapshot& snapshot)
    : world_(world),
      control_(world.control()),
      store_(store),
      volumes_(volumes),
      events_(events),
      tasks_(control_) {
  for (const meta::JobRow& row : snapshot.jobs) {
    auto& job = jobs_[row.id] = std::make_shared<Job>();
    job->row = row;
    job->durable_bytes = row.bytes_done;
    job->overwrite = true;  // what an earlier run has copied is data
    last_id_ = std::max(last_id_, row.id);
  }
  for (auto& [id, job] : jobs_) {
    if (!is_final(job->row)) tasks_.spawn(run_import(job));
  }
}

void Jobs::release_waiters() {
  waiters_released_ = true;
  for (auto& [id, job] : jobs_) job->changed.pulse();
}

rt::Task<> Jobs::stop() {
  stopping_ = true;
  release_waiters();
  co_await tasks_.close();
}

bool Jobs::is_final(const meta::JobRow& row) {
  return row.state != "running" && row.state != "paused";
}

uint64_t Jobs::eta_seconds(const meta::JobRow& row) const {
  const auto it = jobs_.find(row.id);
  if (it == jobs_.end() || row.state != "running") return 0;
  const Job& job = *it->second;
  const rt::Micros time = control_.clock().now() - job.started_at;
  const uint64_t moved = row.bytes_done - std::min(row.bytes_done, job.started_at_bytes);
  if (moved == 0) return 0;
  const double left = static_cast<double>(row.bytes_total - row.bytes_done);
  return static_cast<uint64_t>(left * static_cast<double>(time) / static_cast<double>(moved) /
                               1e6) +
         1;
}

std::vector<meta::JobRow> Jobs::list() const {
  std::vector<meta::JobRow> rows;
  for (const auto& [id, job] : jobs_) rows.push_back(job->row);
  return rows;
}

Result<Jobs::JobPtr> Jobs::find(uint32_t id) const {
  const auto it = jobs_.find(id);
  if (it == jobs_.end())
    return fail(Code::kNoName, fmt::format("there is no job {}", id), "duplex job list");
  return it->second;
}

Result<Jobs::JobPtr> Jobs::find_unfinished(uint32_t id) const {
  auto job = find(id);
  if (job && is_final((*job)->row)) {
    return fail(Code::kState, fmt::format("job {} is {}", id, (*job)->row.state),
                "duplex job list");
  }
  return job;
}

Result<meta::JobRow> Jobs::show(uint32_t id) const {
  TRY_ASSIGN(const JobPtr job, find(id));
  return job->row;
}

rt::Task<Result<void>> Jobs::save(JobPtr job) {
  meta::JobRow row = job->row;
  row.bytes_done = job->durable_bytes;
  meta::Transaction transaction;
  transaction.push_back(meta::PutJob{std::move(row)});
  co_return co_await store_.commit(std::move(transaction));
}

rt::Task<Result<meta::JobRow>> Jobs::set_state(uint32_t id, const char* from, const char* to) {
  CO_TRY_ASSIGN(const JobPtr job, find_unfinished(id));
  if (job->row.state == from) {
    job->row.state = to;
    job->changed.pulse();
    CO_TRY(co_await save(job));
  }
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::pause(uint32_t id) {
  return set_state(id, "running", "paused");
}
rt::Task<Result<meta::JobRow>> Jobs::resume(uint32_t id) {
  return set_state(id, "paused", "running");
}

rt::Task<Result<meta::JobRow>> Jobs::cancel(uint32_t id) {
  CO_TRY_ASSIGN(const JobPtr job, find(id));
  if (job->row.state == "cancelled") co_return job->row;
  CO_TRY(find_unfinished(id));
  job->row.state = "cancelled";
  job->row.ended_us = control_.clock().wall_us();
  job->changed.pulse();
  CO_TRY(co_await save(job));
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::set_rate(uint32_t id, uint64_t rate) {
  CO_TRY_ASSIGN(const JobPtr job, find_unfinished(id));
  job->row.rate = rate;
  job->changed.pulse();
  CO_TRY(co_await save(job));
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::wait(uint32_t id, rt::Micros deadline) {
  CO_TRY_ASSIGN(const JobPtr job, find(id));
  while (!is_final(job->row) && !waiters_released_ && control_.clock().now() < deadline) {
    co_await job->changed.wait_until(control_.clock(), deadline);
  }
  co_return job->row;
}

}  // namespace duplex::control
