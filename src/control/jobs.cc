// The table of jobs and its verbs; import.cc has the work itself.
#include "control/jobs.h"

#include <fmt/format.h>

#include <utility>

namespace duplex::control {

Jobs::Jobs(rt::World& world, meta::Store& store, volume::Volumes& volumes, EventSink& events, const meta::Snapshot& snapshot)
    : world_(world), control_(world.control()), store_(store), volumes_(volumes), events_(events), tasks_(control_) {
  for (const meta::JobRow& row : snapshot.jobs) {
    auto& job = jobs_[row.id] = std::make_unique<Job>();
    job->row = row;
    job->overwrite = true;  // what an earlier run has copied is data
    last_id_ = std::max(last_id_, row.id);
  }
  for (auto& [id, job] : jobs_) {
    if (!is_final(job->row)) tasks_.spawn(run_import(*job));
  }
}

rt::Task<> Jobs::stop() {
  stopping_ = true;
  stop_.set();
  for (auto& [id, job] : jobs_) job->changed.pulse();
  co_await tasks_.close();
}

bool Jobs::is_final(const meta::JobRow& row) { return row.state != "running" && row.state != "paused"; }

uint64_t Jobs::eta_seconds(const meta::JobRow& row) const {
  const auto it = jobs_.find(row.id);
  if (it == jobs_.end() || row.state != "running") return 0;
  const Job& job = *it->second;
  const rt::Micros time = control_.clock().now() - job.started_at;
  const uint64_t moved = row.bytes_done - std::min(row.bytes_done, job.started_at_bytes);
  if (moved == 0) return 0;
  const double left = static_cast<double>(row.bytes_total - row.bytes_done);
  return static_cast<uint64_t>(left * static_cast<double>(time) / static_cast<double>(moved) / 1e6) + 1;
}

std::vector<meta::JobRow> Jobs::list() const {
  std::vector<meta::JobRow> rows;
  for (const auto& [id, job] : jobs_) rows.push_back(job->row);
  return rows;
}

Result<Jobs::Job*> Jobs::find(uint32_t id) {
  const auto it = jobs_.find(id);
  if (it == jobs_.end()) return fail(Code::kNoName, fmt::format("there is no job {}", id), "duplex job list");
  return it->second.get();
}

Result<meta::JobRow> Jobs::show(uint32_t id) const {
  const auto it = jobs_.find(id);
  if (it == jobs_.end()) return fail(Code::kNoName, fmt::format("there is no job {}", id), "duplex job list");
  return it->second->row;
}

rt::Task<Result<void>> Jobs::save(const Job& job) {
  meta::Transaction transaction;
  transaction.push_back(meta::PutJob{job.row});
  co_return co_await store_.commit(std::move(transaction));
}

rt::Task<Result<meta::JobRow>> Jobs::set_state(uint32_t id, const char* from, const char* to) {
  CO_TRY_ASSIGN(Job* const job, find(id));
  if (job->row.state == to) co_return job->row;
  if (job->row.state != from) {
    co_return fail(Code::kState, fmt::format("job {} is {}", id, job->row.state), "duplex job list");
  }
  job->row.state = to;
  job->changed.pulse();
  CO_TRY(co_await save(*job));
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::pause(uint32_t id) { return set_state(id, "running", "paused"); }
rt::Task<Result<meta::JobRow>> Jobs::resume(uint32_t id) { return set_state(id, "paused", "running"); }

rt::Task<Result<meta::JobRow>> Jobs::cancel(uint32_t id) {
  CO_TRY_ASSIGN(Job* const job, find(id));
  if (job->row.state == "cancelled") co_return job->row;
  if (is_final(job->row)) co_return fail(Code::kState, fmt::format("job {} is {}", id, job->row.state), "duplex job list");
  job->row.state = "cancelled";
  job->row.ended_us = control_.clock().wall_us();
  job->changed.pulse();
  CO_TRY(co_await save(*job));
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::set_rate(uint32_t id, uint64_t rate) {
  CO_TRY_ASSIGN(Job* const job, find(id));
  if (is_final(job->row)) co_return fail(Code::kState, fmt::format("job {} is {}", id, job->row.state), "duplex job list");
  job->row.rate = rate;
  CO_TRY(co_await save(*job));
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::wait(uint32_t id, rt::Micros deadline) {
  CO_TRY_ASSIGN(Job* const job, find(id));
  while (!is_final(job->row) && !stopping_ && control_.clock().now() < deadline) {
    co_await job->changed.wait_until(control_.clock(), deadline);
  }
  co_return job->row;
}

}  // namespace duplex::control
