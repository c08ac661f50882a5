// What faults do to mirrors: the bell, and the second look at targets that were lost.
#include <fmt/format.h>

#include <algorithm>

#include "mirror/mirrors_impl.h"

namespace duplex::mirror {

// The bell rang: the leg has left, or regions became missing. Or something could not be done when
// it was due.
rt::Task<> MirrorsImpl::look(MirrorId id) {
  const Turn turn = co_await turn_.lock();
  Mirror* const mirror = with(id);
  if (mirror == nullptr || stopping_ || mirror->state == Relation::kSimplex) co_return;
  co_await rt::hop(mirror->source.core());
  const std::optional<Error> left = std::exchange(mirror->left, std::nullopt);
  const bool misses = mirror->leg->is_missing_any();
  co_await rt::hop(control_);
  const bool has_leg = mirror->state == Relation::kCopying || mirror->state == Relation::kSync;
  if (left && has_leg) co_await lost(*mirror, *left);
  if (misses && (mirror->state == Relation::kCopying || mirror->state == Relation::kSync)) {
    if (!mirror->job(JobKind::kBack)) {
      tell(Severity::kError, "volume_degraded", *mirror,
           fmt::format("volume {} reads regions from volume {}: its own backing has failed there",
                       mirror->source_name(), mirror->target_name()),
           "duplex mirror show " + mirror->row.name);
    }
    start_job(*mirror, JobKind::kBack);
  }
}

// When the store takes no record of it the mirror is suspended all the same: a start that finds
// SYNC finds the marks as well.
rt::Task<> MirrorsImpl::lost(Mirror& mirror, const Error& why) {
  const std::string detail = fmt::format("volume {}: {}", mirror.target_name(), why.message());
  const Result<void> done = co_await event(mirror, RelationEvent::kLegLost, {}, {.detail = detail});
  if (!done) {
    mirror.state = Relation::kSuspended;
    mirror.row.reason = static_cast<uint8_t>(Reason::kFault);
    mirror.reason_detail = detail;
    mirror.target.set_access(access_of(mirror, mirror.state));
  }
  mirror.retry_after = std::clamp(mirror.retry_after * 2, kFirstRetry, kLastRetry);
  mirror.retry_at = control_.clock().now() + mirror.retry_after;
  tell(Severity::kError, "mirror_suspended", mirror,
       fmt::format("mirror {} is suspended: {}", mirror.row.name, detail),
       "it goes on by itself when the target answers; duplex mirror show " + mirror.row.name);
}

// Once a second: what was put off, targets that may be back, and copies that a verb has ended
// before it failed itself.
rt::Task<> MirrorsImpl::watch() {
  while (!stopping_) {
    co_await stop_.wait_until(control_.clock(), control_.clock().now() + kFirstRetry);
    const rt::Micros now = control_.clock().now();
    std::vector<MirrorId> due;
    for (const auto& [id, mirror] : mirrors_) {
      const bool tries = mirror->state == Relation::kSuspended &&
                         mirror->reason() == Reason::kFault && now >= mirror->retry_at;
      const bool copies = mirror->state == Relation::kCopying && !mirror->has_job(JobKind::kCopy);
      const bool restores = mirror->state == Relation::kReverse && !mirror->has_job(JobKind::kBack);
      if (tries || copies || restores || (mirror->look_at && now >= *mirror->look_at))
        due.push_back(id);
    }
    for (const MirrorId id : due) {
      if (stopping_) break;
      co_await second_look(id);
    }
  }
}

rt::Task<> MirrorsImpl::second_look(MirrorId id) {
  Mirror* mirror = with(id);
  if (mirror == nullptr) co_return;
  if (mirror->look_at) {
    // Here alone: a bell that rings meanwhile looks, but does not do what was put off.
    mirror->look_at.reset();
    co_await look(id);
    for (const JobKind kind : {JobKind::kCopy, JobKind::kBack, JobKind::kCompare}) {
      co_await job_done(id, kind);
    }
  }
  const Turn turn = co_await turn_.lock();
  mirror = with(id);
  if (mirror == nullptr || stopping_) co_return;
  if (mirror->state == Relation::kCopying && !mirror->has_job(JobKind::kCopy)) {
    start_job(*mirror, JobKind::kCopy);
  }
  if (mirror->state == Relation::kReverse) start_job(*mirror, JobKind::kBack);
  if (mirror->state != Relation::kSuspended || mirror->has_job(JobKind::kCopy)) co_return;
  if (mirror->reason() != Reason::kFault || control_.clock().now() < mirror->retry_at) co_return;
  co_await try_again(*mirror);
}

rt::Task<> MirrorsImpl::try_again(Mirror& mirror) {
  mirror.retry_after = std::clamp(mirror.retry_after, kFirstRetry, kLastRetry);
  mirror.retry_at = control_.clock().now() + mirror.retry_after;
  if (!co_await parts_.volumes.is_attached(mirror.target.number())) co_return;
  const rt::Micros backoff = mirror.retry_after;
  const Result<void> done = co_await event(mirror, RelationEvent::kLegBack);
  if (!done) co_return;
  mirror.retry_after = backoff;  // until it is in sync: a target that fails again waits longer
  tell(Severity::kInfo, "mirror_resync", mirror,
       fmt::format("mirror {} copies what has changed from volume {} to volume {}", mirror.row.name,
                   mirror.source_name(), mirror.target_name()));
}

}  // namespace duplex::mirror
