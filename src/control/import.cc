// Import: a raw file becomes the content of a volume. Zeroes stay holes.
#include <fmt/format.h>

#include <utility>

#include "base/checksum.h"
#include "base/text.h"
#include "control/jobs.h"

namespace duplex::control {
namespace {

constexpr uint64_t kPiece = kMiB;
constexpr uint64_t kCheckpointBytes = 256 * kMiB;

Error medium_error(int errnum, const std::string& path, uint64_t offset) {
  return system_error(errnum, fmt::format("read {} at {}", path, offset),
                      "check the file and start the import again");
}

}  // namespace

rt::Task<Result<meta::JobRow>> Jobs::start_import(std::string volume, std::string path,
                                                  bool overwrite) {
  CO_TRY_ASSIGN(const volume::VolumeInfo info, volumes_.info(volume));
  if (!info.clients.empty()) {
    co_return fail(Code::kBusy,
                   fmt::format("volume {} is open by {}", info.name, info.clients.front()),
                   "disconnect the client first");
  }
  if (!info.mirrors.empty()) {
    co_return std::unexpected(volume::in_mirror(info.name, info.mirrors));
  }
  // What refuses a host refuses an import, before there is a job.
  CO_TRY_ASSIGN(auto probe, volumes_.open(info.name, "import", [] {}));
  volumes_.close(std::move(probe));
  if (info.allocated_bytes > 0 && !overwrite) {
    co_return fail(Code::kState,
                   fmt::format("volume {} holds up to {} of data", info.name,
                               format_size_rounded(info.allocated_bytes)),
                   "add --overwrite to replace it, or import into a new volume");
  }
  CO_TRY_ASSIGN(const auto file,
                co_await control_.files().open(path, {.write = false, .direct = false}));
  const uint64_t bytes = file->info().size;
  if (bytes > info.size_bytes) {
    co_return fail(
        Code::kSize,
        fmt::format("{} has {} bytes, volume {} only {}", path, bytes, info.name, info.size_bytes),
        fmt::format("duplex volume resize {} --size {}", info.name,
                    format_size(round_up(bytes, kMiB))));
  }
  const auto job = std::make_shared<Job>();
  job->row = {.id = ++last_id_,
              .kind = "import",
              .target = info.name,
              .source = path,
              .state = "running",
              .error = {},
              .bytes_done = 0,
              .bytes_total = bytes,
              .rate = 0,
              .started_us = control_.clock().wall_us(),
              .ended_us = 0};
  job->overwrite = info.allocated_bytes > 0;
  meta::Transaction transaction;
  transaction.push_back(meta::PutJob{job->row});
  drop_old(transaction);
  CO_TRY(co_await store_.commit(std::move(transaction)));
  job->is_stored = true;
  jobs_[job->row.id] = job;
  const meta::JobRow row = job->row;
  if (!tasks_.spawn(run_import(job))) co_return fail(Code::kShutdown);
  co_return row;
}

rt::Task<> Jobs::run_import(JobPtr job) {
  co_await rt::yield();  // the caller sees the job as it began
  job->started_at = control_.clock().now();
  job->started_at_bytes = job->row.bytes_done;
  auto open = volumes_.open(job->row.target, fmt::format("import job {}", job->row.id), [job] {
    job->row.state = "cancelled";
    job->changed.pulse();
  });
  if (!open) {
    co_await finish(std::move(job), std::unexpected(open.error()));
    co_return;
  }
  Result<void> result = fail(Code::kWriteProtected);
  if (!(*open)->read_only()) result = co_await copy(job, (*open)->volume());
  volumes_.close(std::move(*open));
  // Stopped on the way: the next start goes on from the last checkpoint.
  const bool interrupted =
      stopping_ && job->row.bytes_done < job->row.bytes_total && !is_final(job->row);
  if (!interrupted) co_await finish(std::move(job), std::move(result));
}

rt::Task<Result<void>> Jobs::copy(JobPtr job, volume::Volume& volume) {
  rt::Core& core = volume.core();
  const std::string path = job->row.source;
  co_await rt::hop(core);
  auto file = co_await core.files().open(path, {.write = false, .direct = false});
  co_await rt::hop(control_);
  if (!file) co_return std::unexpected(file.error());
  Result<void> result;
  while (job->row.bytes_done < job->row.bytes_total && result) {
    while (job->row.state == "paused" && !stopping_) co_await job->changed.wait();
    if (job->row.state == "cancelled" || stopping_) break;
    const uint64_t at = job->row.bytes_done;
    const uint64_t count = std::min(kPiece, job->row.bytes_total - at);
    co_await rt::hop(core);
    result = co_await copy_piece(*job, **file, volume, {at, count});
    co_await rt::hop(control_);
    if (!result) break;
    job->row.bytes_done = at + count;
    if (job->row.bytes_done - job->durable_bytes >= kCheckpointBytes)
      result = co_await checkpoint(job, volume);
    co_await throttle(*job, count);
  }
  if (result) result = co_await checkpoint(job, volume);
  co_await rt::hop(core);
  file->reset();
  co_await rt::hop(control_);
  co_return result;
}

// On the volume's core.
rt::Task<Result<void>> Jobs::copy_piece(Job& job, rt::File& file, volume::Volume& volume,
                                        ByteRange range) {
  const rt::Buffer buffer = volume.core().buffers().get(range.length);
  const int error = co_await file.read(range.offset, buffer.span());
  if (error != 0) co_return std::unexpected(medium_error(error, job.row.source, range.offset));
  if (!is_zero(buffer.span())) co_return co_await volume.write(range.offset, buffer.span(), false);
  if (job.overwrite) co_return co_await volume.zero(range, {});
  co_return Result<void>();
}

// Flushed first, written down afterwards.
rt::Task<Result<void>> Jobs::checkpoint(JobPtr job, volume::Volume& volume) {
  const uint64_t bytes = job->row.bytes_done;
  co_await rt::hop(volume.core());
  const auto flushed = co_await volume.flush();
  co_await rt::hop(control_);
  CO_TRY(flushed);
  job->durable_bytes = bytes;
  co_return co_await save(std::move(job));
}

// Sleeps as long as the bytes should have taken; a new rate or state ends the sleep.
rt::Task<> Jobs::throttle(Job& job, uint64_t bytes) {
  const uint64_t rate = job.row.rate;
  if (rate == 0) co_return;
  const rt::Micros until = control_.clock().now() + bytes * rt::kSecond / rate;
  while (!stopping_ && job.row.state == "running" && job.row.rate == rate &&
         control_.clock().now() < until) {
    co_await job.changed.wait_until(control_.clock(), until);
  }
}

rt::Task<> Jobs::finish(JobPtr job, Result<void> result) {
  if (job->row.state != "cancelled") job->row.state = result ? "done" : "failed";
  if (!result) job->row.error = result.error().describe();
  job->row.ended_us = control_.clock().wall_us();
  const auto saved = co_await save(job);
  tell_end(*job, saved);
  job->changed.pulse();
}

}  // namespace duplex::control
