// Jobs: copies, restores, repairs and verifies of mirrors; how they start, end and report.
#include <fmt/format.h>

#include <utility>

#include "mirror/mirrors_impl.h"

namespace duplex::mirror {
namespace {

using copy::Copier;
using Running = Mirror::Running;

JobState state_of(Copier::State state) {
  switch (state) {
    case Copier::State::kRunning:
      return JobState::kRunning;
    case Copier::State::kPaused:
      return JobState::kPaused;
    case Copier::State::kStalled:
      return JobState::kStalled;
  }
  return JobState::kRunning;
}

template <class Engine>
WorkProgress progress_of(const Engine& engine) {
  const Copier::Progress now = engine.progress();
  return {.state = state_of(engine.state()),
          .reason = now.reason,
          .bytes_done = now.done_bytes,
          .bytes_total = now.total_bytes,
          .bytes_moved = now.moved_bytes,
          .rate_now = now.rate,
          .eta_seconds = now.eta_seconds};
}

// f(engine) for whichever of the two the job has now, on the source core.
template <class F>
void with_engine(Running& job, F f) {
  if (job.copier) f(*job.copier);
  if (job.verifier) f(*job.verifier);
}

std::string kind_name(const Mirror& mirror, JobKind kind) {
  switch (kind) {
    case JobKind::kCopy:
      return "copy";
    case JobKind::kBack:
      return mirror.state == Relation::kReverse ? "restore" : "repair";
    case JobKind::kCompare:
      return "verify";
  }
  return {};
}

bool may_run(JobKind kind, Relation state) {
  switch (kind) {
    case JobKind::kCopy:
      return state == Relation::kCopying;
    case JobKind::kBack:
      return state == Relation::kSync || state == Relation::kArmed ||
             state == Relation::kSplitting || state == Relation::kCopying ||
             state == Relation::kReverse;
    case JobKind::kCompare:
      return state == Relation::kSync || state == Relation::kCopying || state == Relation::kSplit ||
             state == Relation::kSuspended;
  }
  return false;
}

}  // namespace

WorkProgress Running::progress() const {
  if (copier) return progress_of(*copier);
  if (verifier) return progress_of(*verifier);
  return last;
}

// What the desk calls. It may be asked while the job ends: the engine is gone then, not this.
class MirrorsImpl::JobWork final : public Work {
 public:
  JobWork(MirrorsImpl& all, Mirror& mirror, JobKind kind, std::weak_ptr<Running> job)
      : all_(all),
        core_(mirror.source.core()),
        id_(mirror.row.id),
        kind_(kind),
        job_(std::move(job)) {}

  rt::Task<WorkProgress> progress() override {
    const std::shared_ptr<Running> job = job_.lock();
    rt::Core& control = all_.control_;
    if (!job) co_return WorkProgress{};
    co_await rt::hop(core_);
    WorkProgress now = job->progress();
    co_await rt::hop(control);
    co_return now;
  }
  rt::Task<Result<void>> pause() override {
    return with([](auto& engine) { engine.pause(); });
  }
  rt::Task<Result<void>> resume() override {
    return with([](auto& engine) { engine.resume(); });
  }
  rt::Task<Result<void>> set_rate(uint64_t rate) override {
    return with([rate](auto& engine) { engine.set_rate(rate); });
  }
  rt::Task<Result<void>> cancel(bool confirmed) override {
    return all_.cancel_job(id_, kind_, confirmed);
  }

 private:
  template <class F>
  rt::Task<Result<void>> with(F f) {
    const std::shared_ptr<Running> job = job_.lock();
    rt::Core& control = all_.control_;
    if (!job) co_return fail(Code::kState, "the job has ended", "duplex job list");
    co_await rt::hop(core_);
    with_engine(*job, f);
    co_await rt::hop(control);
    co_return Result<void>();
  }

  MirrorsImpl& all_;
  rt::Core& core_;
  const MirrorId id_;
  const JobKind kind_;
  const std::weak_ptr<Running> job_;
};

void MirrorsImpl::start_job(Mirror& mirror, JobKind kind) {
  if (mirror.has_job(kind) || stopping_) return;
  auto job = std::make_shared<Running>();
  job->work = std::make_unique<JobWork>(*this, mirror, kind, job);
  const bool is_back = kind == JobKind::kBack;
  const JobDesk::Opened opened =
      parts_.jobs.open({.kind = kind_name(mirror, kind),
                        .mirror = mirror.row.name,
                        .source = is_back ? mirror.target_name() : mirror.source_name(),
                        .target = is_back ? mirror.source_name() : mirror.target_name(),
                        .rate = kind == JobKind::kCopy ? mirror.rate : 0},
                       *job->work);
  job->id = opened.id;
  mirror.job(kind) = job;
  tasks_->spawn(
      run_job(mirror.row.id, kind, job, {.rate = opened.rate, .is_paused = opened.is_paused}));
}

// One whose end nobody has followed yet goes on.
void MirrorsImpl::copy_again(Mirror& mirror) {
  auto& ended = mirror.done_jobs[static_cast<size_t>(JobKind::kCopy)];
  if (ended) parts_.jobs.close(ended->id, JobDesk::End::kStopped, {}, ended->last);
  ended.reset();
  start_job(mirror, JobKind::kCopy);
}

// The mirror stays while it has a job.
rt::Task<> MirrorsImpl::run_job(MirrorId id, JobKind kind, std::shared_ptr<Running> job,
                                Copier::Start start) {
  Mirror& mirror = *with(id);
  volume::VolumeImpl& source = mirror.source.volume();
  volume::TargetLeg& leg = *mirror.leg;
  volume::Tracker& tracker = mirror.source.tracker();
  co_await rt::hop(mirror.source.core());
  Copier::End end = Copier::End::kStopped;
  if (kind == JobKind::kCompare) {
    end = co_await compare(mirror, job, start);
  } else {
    auto way = kind == JobKind::kCopy
                   ? copy::way_forward(source, leg, [this] { return newest_epoch(); })
                   : copy::way_back(source, leg);
    job->copier = std::make_unique<Copier>(source, std::move(way), tracker, start);
    end = co_await job->copier->run();
    // Nothing suspends from the last region to here: from now on every write goes to both.
    if (end == Copier::End::kDone && kind == JobKind::kCopy) {
      leg.set_mode(volume::TargetLeg::Mode::kSend);
      tracker.release_empty();
    }
    job->last = progress_of(*job->copier);
    job->copier.reset();
  }
  co_await rt::hop(control_);
  mirror.job(kind).reset();
  mirror.job_ended.pulse();
  if (end == Copier::End::kDone) {
    mirror.done_jobs[static_cast<size_t>(kind)] = job;
    tasks_->spawn(job_done(id, kind));
  } else {
    parts_.jobs.close(job->id, job->end_as, {}, job->last);
  }
}

// Source core. What the verify finds on its way its mirror hears of at once; then it goes on.
rt::Task<Copier::End> MirrorsImpl::compare(Mirror& mirror, std::shared_ptr<Running> job,
                                           Copier::Start start) {
  using End = copy::Verifier::End;
  rt::Core& core = mirror.source.core();
  job->verifier = std::make_unique<copy::Verifier>(
      mirror.source.volume(), *mirror.leg, mirror.source.tracker(), start,
      copy::Verifier::Target{.behind = mirror.behind(),
                             .tracker = &mirror.target.tracker(),
                             .is_attached = [&] { return is_target_there(mirror); }});
  copy::Verifier& verifier = *job->verifier;
  End end = co_await verifier.run();
  for (; end == End::kFound; end = co_await verifier.run()) {
    job->found = verifier.found();
    job->unmarked = volume::ChangeMap(verifier.unmarked().volume_bytes());
    job->unmarked.unite(verifier.unmarked());
    co_await rt::hop(control_);
    job->is_answered = false;
    if (!job->is_ending) tasks_->spawn(tell_found(mirror.row.id, job));
    while (!job->is_ending && !job->is_answered) co_await job->changed.wait();
    if (job->is_answered) job->unmarked.clear_all();
    co_await rt::hop(core);
    if (job->is_answered) verifier.have_bits();
  }
  job->last = progress_of(verifier);
  job->found = verifier.found();
  job->unread_bytes = verifier.unread_bytes();
  job->verifier.reset();
  // One that was ended before its mirror has heard of all has that to say.
  const bool is_over = end == End::kDone || job->found.regions != job->told_regions;
  co_return is_over ? Copier::End::kDone : Copier::End::kCancelled;
}

rt::Task<bool> MirrorsImpl::is_target_there(Mirror& mirror) {
  rt::Core& core = mirror.source.core();
  co_await rt::hop(control_);
  const bool is_there = co_await parts_.volumes.is_attached(mirror.target.number());
  co_await rt::hop(core);
  co_return is_there;
}

// The verify waits for this, but not longer than until it is to end: then its end says it. Who ends
// it has a turn, so that is not in between. A store that refused is asked again.
rt::Task<> MirrorsImpl::tell_found(MirrorId id, std::shared_ptr<Running> job) {
  while (!job->is_ending) {
    {
      const Turn turn = co_await turn_.lock();
      Mirror* const mirror = with(id);
      if (mirror == nullptr || job->is_ending) co_return;
      job->is_answered = (co_await differs(*mirror, *job)).has_value();
    }
    if (job->is_answered) {
      job->changed.pulse();
      co_return;
    }
    co_await job->changed.wait_until(control_.clock(), control_.clock().now() + kFirstRetry);
  }
}

// What the end of a job means for its mirror, if it still is what it was. The job is over for
// people when that has been done: who waited for it finds the mirror in its new state.
rt::Task<> MirrorsImpl::job_done(MirrorId id, JobKind kind) {
  const Turn turn = co_await turn_.lock();
  Mirror* const mirror = with(id);
  if (mirror == nullptr) co_return;
  std::shared_ptr<Running>& job = mirror->done_jobs[static_cast<size_t>(kind)];
  if (!job) co_return;
  Result<bool> followed = false;
  if (!stopping_) followed = co_await follow(*mirror, kind, *job);
  if (!followed) {  // the store refused: the same again soon
    mirror->look_at = control_.clock().now() + kFirstRetry;
    co_return;
  }
  const std::shared_ptr<Running> over = std::exchange(job, nullptr);
  mirror->bell.ring();  // regions may have become missing meanwhile
  const std::string error = finding(*mirror, *over);
  JobDesk::End end = *followed ? JobDesk::End::kDone : JobDesk::End::kStopped;
  if (!error.empty()) end = JobDesk::End::kFailed;
  parts_.jobs.close(over->id, end, error, over->last);
}

// What a verify has to say against its mirror.
std::string MirrorsImpl::finding(const Mirror& mirror, const Running& job) {
  std::string text;
  if (job.found.regions > 0) {
    text = fmt::format("volumes {} and {} differ in {}", mirror.source_name(), mirror.target_name(),
                       job.found.text());
    if (job.is_ending) text += "; the verify did not go to the end";
  }
  if (job.unread_bytes > 0) {
    if (!text.empty()) text += "; ";
    text += fmt::format("{} bytes could not be read and compared: {}", job.unread_bytes,
                        job.last.reason);
  }
  return text;
}

// False: the mirror is not where the job belongs any more.
rt::Task<Result<bool>> MirrorsImpl::follow(Mirror& mirror, JobKind kind, Running& job) {
  co_await rt::hop(mirror.source.core());
  const bool sends = mirror.leg->mode() == volume::TargetLeg::Mode::kSend;
  const bool misses = mirror.leg->is_missing_any();
  co_await rt::hop(control_);
  if (kind == JobKind::kCompare) {
    if (job.found.regions > 0) CO_TRY(co_await differs(mirror, job));
    co_return true;
  }
  if (kind == JobKind::kCopy) {
    if (mirror.state != Relation::kCopying || !sends) co_return false;
    CO_TRY(co_await event(mirror, RelationEvent::kLastRegionDone));
    mirror.rate = 0;
    tell(Severity::kInfo, "mirror_sync", mirror,
         fmt::format("mirror {} is in sync: volume {} equals volume {}", mirror.row.name,
                     mirror.target_name(), mirror.source_name()));
    co_return true;
  }
  if (misses) co_return false;
  if (mirror.state != Relation::kReverse) {
    tell(Severity::kInfo, "mirror_repaired", mirror,
         fmt::format("volume {} has all its regions again", mirror.source_name()));
    co_return true;
  }
  const bool attached = co_await parts_.volumes.is_attached(mirror.target.number());
  const bool then_sync = mirror.row.then == static_cast<uint8_t>(Then::kSync);
  Known known;
  known.facts.set(Guard::kThenSync, then_sync);
  known.facts.set(Guard::kThenSyncTargetAway, then_sync && !attached);
  CO_TRY(co_await event(mirror, RelationEvent::kLastRegionDone, known));
  tell(Severity::kInfo, "mirror_restored", mirror,
       fmt::format("volume {} is restored from volume {}", mirror.source_name(),
                   mirror.target_name()));
  co_return true;
}

// Only what has no bit yet is an event: of the rest a resync may have made an end since. A verify
// that was ended by a cut is heard behind it; a restore takes the target as right and ends with it.
rt::Task<Result<void>> MirrorsImpl::differs(Mirror& mirror, Running& job) {
  const bool is_over = mirror.job(JobKind::kCompare) == nullptr;
  const std::string text = finding(mirror, job) + (is_over ? "" : "; the verify goes on");
  const bool runs = mirror.state == Relation::kCopying || mirror.state == Relation::kSync ||
                    mirror.state == Relation::kSplit || mirror.state == Relation::kSuspended;
  if (runs && !job.unmarked.empty()) {
    CO_TRY(co_await event(mirror, RelationEvent::kDifference, {},
                          {.detail = text, .difference = &job.unmarked}));
  }
  const bool suspended = mirror.state == Relation::kSuspended;
  if (suspended && mirror.reason() == Reason::kDiffers) mirror.reason_detail = text;
  if (std::exchange(job.told_regions, job.found.regions) == job.found.regions) {
    co_return Result<void>();
  }
  tell(Severity::kError, "mirror_differs", mirror, text,
       suspended ? fmt::format("duplex mirror resync {} takes the source as right", mirror.row.name)
                 : "duplex mirror show " + mirror.row.name);
  co_return Result<void>();
}

rt::Task<Result<void>> MirrorsImpl::end_jobs_for(Mirror& mirror, const Outcome& outcome,
                                                 Relation to) {
  for (const JobKind kind : {JobKind::kCopy, JobKind::kBack, JobKind::kCompare}) {
    if (!mirror.job(kind)) continue;
    const bool restarts = kind == JobKind::kBack &&
                          (to == Relation::kReverse) != (mirror.state == Relation::kReverse);
    // "The job" of a row is what copies. A verify goes on beside it and behind it.
    const bool ends = outcome.does(Action::kEndJob) && kind != JobKind::kCompare;
    if (may_run(kind, to) && !restarts && !ends) continue;
    // A copy whose target was lost goes on when it is back.
    const bool goes_on = to == Relation::kSuspended && !outcome.does(Action::kEndJob);
    CO_TRY(co_await end_job(mirror, kind,
                            goes_on ? JobDesk::End::kStopped : JobDesk::End::kCancelled));
  }
  co_return Result<void>();
}

rt::Task<Result<void>> MirrorsImpl::end_job(Mirror& mirror, JobKind kind, JobDesk::End end) {
  const std::shared_ptr<Running> job = mirror.job(kind);
  if (!job) co_return Result<void>();
  job->end_as = end;
  job->is_ending = true;
  job->changed.pulse();
  co_await rt::hop(mirror.source.core());
  with_engine(*job, [](auto& engine) { engine.cancel(); });
  co_await rt::hop(control_);
  const rt::Micros until = control_.clock().now() + kMostWait;
  while (mirror.job(kind) == job) {
    if (!co_await mirror.job_ended.wait_until(control_.clock(), until)) {
      co_return fail(Code::kTimeout,
                     fmt::format("the job of mirror {} waits for volume {} or {}", mirror.row.name,
                                 mirror.source_name(), mirror.target_name()),
                     "duplex device list");
    }
  }
  co_return Result<void>();
}

// Those that failed try again at once.
rt::Task<> MirrorsImpl::retry_jobs(Mirror& mirror) {
  const Mirror::Looking looking(mirror);
  for (const auto& job : mirror.jobs) {
    if (!job) continue;
    const std::shared_ptr<Running> held = job;
    co_await rt::hop(mirror.source.core());
    if (held->copier && held->copier->state() == Copier::State::kStalled) held->copier->resume();
    co_await rt::hop(control_);
  }
}

rt::Task<Result<void>> MirrorsImpl::cancel_job(MirrorId id, JobKind kind, bool confirmed) {
  const Turn turn = co_await turn_.lock();
  Mirror* const mirror = with(id);
  if (mirror == nullptr || !mirror->job(kind)) {
    co_return fail(Code::kState, "the job has ended", "duplex job list");
  }
  if (kind == JobKind::kCompare) {
    co_return co_await end_job(*mirror, kind, JobDesk::End::kCancelled);
  }
  if (kind == JobKind::kBack && mirror->state != Relation::kReverse) {
    co_return fail(Code::kState,
                   fmt::format("volume {} needs its repair: it reads regions from volume {}",
                               mirror->source_name(), mirror->target_name()),
                   "duplex job wait " + mirror->row.name);
  }
  Known known;
  known.facts.set(Guard::kNotConfirmed, !confirmed);
  CO_TRY(co_await event(*mirror, RelationEvent::kJobCancel, known));
  tell(Severity::kWarning, "mirror_cancelled", *mirror,
       fmt::format("the {} of mirror {} was cancelled", kind == JobKind::kCopy ? "copy" : "restore",
                   mirror->row.name),
       fmt::format("duplex mirror {} {}", kind == JobKind::kCopy ? "resync" : "restore",
                   mirror->row.name));
  co_return Result<void>();
}

}  // namespace duplex::mirror
