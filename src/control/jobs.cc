// The table of jobs and its verbs; import.cc has the work of imports, job_desk.cc what mirrors do.
#include "control/jobs.h"

#include <fmt/format.h>

#include <utility>

#include "base/text.h"

namespace duplex::control {
namespace {

// The row of a mirror's job says so in its source: "db (mirror m1)". Names hold no blanks.
constexpr std::string_view kOfMirror = " (mirror ";

// Cuts the name of the mirror off the source; empty for an import.
std::string take_mirror(meta::JobRow& row) {
  const size_t at = row.source.rfind(kOfMirror);
  if (row.kind == "import" || at == std::string::npos || !row.source.ends_with(')')) return {};
  const size_t from = at + kOfMirror.size();
  std::string name = row.source.substr(from, row.source.size() - 1 - from);
  row.source.resize(at);
  return name;
}

}  // namespace

Jobs::Jobs(rt::World& world, meta::Store& store, volume::Volumes& volumes, EventSink& events,
           const meta::Snapshot& snapshot)
    : world_(world),
      control_(world.control()),
      store_(store),
      volumes_(volumes),
      events_(events),
      tasks_(control_),
      saves_(control_) {
  for (const meta::JobRow& row : snapshot.jobs) {
    auto& job = jobs_[row.id] = std::make_shared<Job>();
    job->row = row;
    job->mirror = take_mirror(job->row);
    job->durable_bytes = row.bytes_done;
    job->is_stored = true;
    job->overwrite = true;  // what an earlier run has copied is data
    last_id_ = std::max(last_id_, row.id);
  }
  for (auto& [id, job] : jobs_) {
    if (!is_final(job->row) && job->mirror.empty()) tasks_.spawn(run_import(job));
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

Result<uint32_t> Jobs::number_of(const std::string& text) const {
  const auto number = parse_number(text);
  if (number && *number <= UINT32_MAX && jobs_.contains(static_cast<uint32_t>(*number)))
    return static_cast<uint32_t>(*number);
  std::optional<uint32_t> last;
  std::optional<uint32_t> running;
  for (const auto& [id, job] : jobs_) {
    if (job->mirror.empty() || job->mirror != text) continue;
    last = id;
    if (!is_final(job->row)) running = id;
  }
  if (last) return running.value_or(*last);
  if (number && *number <= UINT32_MAX)
    return fail(Code::kNoName, fmt::format("there is no job {}", text), "duplex job list");
  TRY(check_name(text, "job or mirror"));
  return fail(Code::kNoName, fmt::format("there is no job of a mirror {}", text),
              "duplex job list");
}

rt::Task<JobInfo> Jobs::info_of(JobPtr job) {
  mirror::WorkProgress now;
  if (job->work != nullptr) now = co_await job->work->progress();
  JobInfo info{.row = job->row,
               .mirror = job->mirror,
               .reason = {},
               .bytes_moved = job->bytes_moved,
               .eta_seconds = eta_seconds(job->row)};
  if (job->work == nullptr) co_return info;  // it may have ended while it was asked
  info.row.bytes_done = now.bytes_done;
  info.row.bytes_total = now.bytes_total;
  info.is_stalled = now.state == mirror::JobState::kStalled;
  info.reason = info.is_stalled ? now.reason : std::string();
  info.bytes_moved = now.bytes_moved;
  info.eta_seconds = info.row.state == "running" ? now.eta_seconds.value_or(0) : 0;
  co_return info;
}

rt::Task<std::vector<JobInfo>> Jobs::infos() {
  std::vector<JobPtr> all;
  for (const auto& [id, job] : jobs_) all.push_back(job);
  std::vector<JobInfo> infos;
  for (JobPtr& job : all) infos.push_back(co_await info_of(std::move(job)));
  co_return infos;
}

rt::Task<Result<JobInfo>> Jobs::info(uint32_t id) {
  CO_TRY_ASSIGN(JobPtr job, find(id));
  co_return co_await info_of(std::move(job));
}

meta::JobRow Jobs::stored_form(const Job& job) {
  meta::JobRow row = job.row;
  row.bytes_done = job.durable_bytes;
  if (!job.mirror.empty()) row.source += fmt::format("{}{})", kOfMirror, job.mirror);
  return row;
}

rt::Task<Result<void>> Jobs::save(JobPtr job) {
  meta::Transaction transaction;
  transaction.push_back(meta::PutJob{stored_form(*job)});
  CO_TRY(co_await store_.commit(std::move(transaction)));
  job->is_stored = true;
  co_return Result<void>();
}

// Ended jobs leave the list when kKeptJobs newer ones have begun.
void Jobs::drop_old(meta::Transaction& transaction) {
  std::erase_if(jobs_, [&](const auto& entry) {
    const bool old = is_final(entry.second->row) && entry.first + kKeptJobs <= last_id_;
    if (old && entry.second->is_stored) transaction.push_back(meta::DropJob{entry.first});
    return old;
  });
}

rt::Task<Result<meta::JobRow>> Jobs::set_state(uint32_t id, const char* from, const char* to,
                                               WorkVerb verb) {
  CO_TRY_ASSIGN(const JobPtr job, find_unfinished(id));
  if (job->work != nullptr) {
    CO_TRY(co_await (job->work->*verb)());
    CO_TRY(find_unfinished(id));  // it may have ended
  }
  if (job->row.state == from) {
    job->row.state = to;
    job->changed.pulse();
    CO_TRY(co_await save(job));
  }
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::pause(uint32_t id) {
  return set_state(id, "running", "paused", &mirror::Work::pause);
}
rt::Task<Result<meta::JobRow>> Jobs::resume(uint32_t id) {
  return set_state(id, "paused", "running", &mirror::Work::resume);
}

rt::Task<Result<meta::JobRow>> Jobs::cancel(uint32_t id, bool confirmed) {
  CO_TRY_ASSIGN(const JobPtr job, find(id));
  if (job->row.state == "cancelled") co_return job->row;
  CO_TRY(find_unfinished(id));
  if (!job->mirror.empty()) co_return co_await cancel_work(job, confirmed);
  job->row.state = "cancelled";
  job->row.ended_us = control_.clock().wall_us();
  job->changed.pulse();
  CO_TRY(co_await save(job));
  co_return job->row;
}

rt::Task<Result<meta::JobRow>> Jobs::set_rate(uint32_t id, uint64_t rate) {
  CO_TRY_ASSIGN(const JobPtr job, find_unfinished(id));
  if (job->work != nullptr) {
    CO_TRY(co_await job->work->set_rate(rate));
    CO_TRY(find_unfinished(id));
  }
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
