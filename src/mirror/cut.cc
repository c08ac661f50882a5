#include "mirror/cut.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/planted_bug.h"
#include "base/text.h"
#include "mirror/deadline.h"

namespace duplex::mirror {
namespace {

using Mode = volume::TargetLeg::Mode;

rt::Task<Result<void>> old_drained(volume::Member& root, rt::Core& control) {
  co_await rt::hop(root.core());
  co_await root.volume().gate().old_drained();
  co_await rt::hop(control);
  co_return Result<void>();
}

// The target's cache, and that of the source: a region that has come back from this target may not
// have left the source's cache yet, and nobody else will have it.
rt::Task<Result<void>> flush_sides(Mirror& mirror, rt::Core& control) {
  co_await rt::hop(mirror.source.core());
  volume::Tracker& tracker = mirror.source.tracker();
  Result<void> done = co_await tracker.flush(*mirror.leg);
  if (done) done = co_await tracker.flush(mirror.source.volume().own_debtor());
  co_await rt::hop(control);
  co_return done;
}

}  // namespace

Cut::Cut(MirrorsImpl& all, const SplitRequest& request, std::vector<Mirror*> members)
    : all_(all),
      lease_(request.lease),
      access_(request.read_only ? TargetAccess::kReadOnly : TargetAccess::kReadWrite),
      names_(request.names),
      id_(all.last_cut_ + 1),
      epoch_(all.newest_epoch().value() + 1),
      members_(std::move(members)) {}

std::vector<Mirror*> Cut::all_members() const {
  std::vector<Mirror*> all = members_;
  all.insert(all.end(), path_.begin(), path_.end());
  return all;
}

rt::Task<Result<meta::CutRow>> Cut::run() {
  CO_TRY(co_await check());
  all_.last_cut_ = id_;
  Result<void> done = co_await arm_all();
  if (done) done = co_await stamp();
  if (!done) {
    co_await disarm_all();
    co_return std::unexpected(std::move(done).error());
  }
  done = co_await finish();
  if (done) done = co_await decide();
  if (done) co_return row();
  if (done.error().code() == Code::kInDoubt) {
    co_await stay_in_doubt(done.error());
  } else {
    co_await void_all(done.error());
  }
  co_return std::unexpected(std::move(done).error());
}

// --- check

rt::Task<Result<void>> Cut::check() {
  for (Mirror* member : members_) {
    Known known;
    VolumeNumber at = member->source.number();
    while (Mirror* above = all_.feeder_of(at)) {
      if (above->state != Relation::kSync) {
        known.facts.set(Guard::kPathNotSync);
        known.other = above->row.name;
        break;
      }
      const bool is_member = std::ranges::find(members_, above) != members_.end();
      const bool is_known = std::ranges::find(path_, above) != path_.end();
      if (!is_member && !is_known) path_.push_back(above);
      at = above->source.number();
    }
    roots_.insert(at);
    const MirrorInfo info = co_await all_.info_of(*member);
    known.facts.set(Guard::kTargetAway, !info.attached);
    known.facts.set(Guard::kOnlyTargetHolds, info.missing_bytes > 0);
    known.count = format_size_rounded(info.missing_bytes);
    known.group = all_.group_asked(*member, names_);
    if (member->state == Relation::kCopying) known.count = fmt::format("{:.1f} %", info.progress);
    const Outcome& outcome = next(member->state, RelationEvent::kArm, known.facts);
    if (outcome.kind == Kind::kRefused) {
      co_return std::unexpected(all_.refusal(outcome, *member, known));
    }
  }
  co_return Result<void>();
}

// --- arm

bool Cut::is_whole(const Mirror& mirror) {
  return mirror.leg->mode() == Mode::kSend && !mirror.leg->is_missing_any();
}

// One that came back during the flush is not covered by it, and still marked missing on disk.
bool Cut::is_returning(const Mirror& mirror) {
  return mirror.source.tracker().is_held(mirror.missing());
}

rt::Task<bool> Cut::arm(Mirror& mirror) {
  co_await rt::hop(mirror.source.core());
  const bool whole = is_whole(mirror);
  if (whole) mirror.leg->arm(epoch_);
  co_await rt::hop(all_.control_);
  co_return whole;
}

rt::Task<Result<void>> Cut::arm_all() {
  for (Mirror* mirror : path_) {
    mirror->state = Relation::kArmed;
    mirror->cut = id_;
  }
  for (Mirror* mirror : members_) {
    mirror->state = Relation::kArmed;
    mirror->cut = id_;
    if (co_await arm(*mirror)) continue;
    co_return fail(Code::kState,
                   fmt::format("mirror {} left SYNC before the cut", mirror->row.name),
                   "duplex mirror show " + mirror->row.name);
  }
  co_return Result<void>();
}

// --- stamp

rt::Task<Result<void>> Cut::stamp() {
  std::map<size_t, std::vector<Mirror*>> legs;  // by core
  for (Mirror* mirror : all_members()) legs[mirror->source.core().index()].push_back(mirror);
  std::vector<CutRound::Roots> all;
  for (const auto& [core, mirrors] : legs) {
    CutRound::Roots& part = all.emplace_back();
    part.core = &mirrors.front()->source.core();
    std::set<VolumeNumber> seen;
    for (Mirror* mirror : mirrors) {
      const VolumeNumber number = mirror->source.number();
      if (!roots_.contains(number) || !seen.insert(number).second) continue;
      part.volumes.push_back(&mirror->source.volume());
    }
    part.is_ready = [mirrors] {
      return std::ranges::all_of(mirrors, [](const Mirror* m) { return is_whole(*m); });
    };
  }
  CutRound round(all_.control_, std::move(all), epoch_);
  const CutRound::Outcome outcome = co_await round.stamp(lease_);
  hold_ = outcome.hold;
  if (outcome.is_cut) {
    all_.epoch_.store(epoch_.value(), std::memory_order_release);
    for (Mirror* mirror : members_) mirror->state = Relation::kSplitting;
    co_return Result<void>();
  }
  if (outcome.was_late) {
    co_return fail(Code::kTimeout,
                   fmt::format("the cut took longer than {} ms and is void; nothing has changed",
                               lease_ / rt::kMillisecond),
                   "try again, or with a larger --max-hold");
  }
  co_return fail(Code::kState, "a mirror left SYNC before the cut; nothing else has changed",
                 "duplex mirror list");
}

// --- finish

rt::Task<Result<void>> Cut::finish() {
  if constexpr (!planted(Bug::kCutNotDrained)) CO_TRY(co_await drain_roots());
  if constexpr (!planted(Bug::kCutNotFlushed)) CO_TRY(co_await flush_targets());
  for (Mirror* mirror : members_) {
    co_await rt::hop(mirror->source.core());
    // Here and not in a flush: one that was given up ends when the cut may be void.
    const bool whole = is_whole(*mirror) && !is_returning(*mirror);
    if (whole) mirror->leg->seal();
    co_await rt::hop(all_.control_);
    if (whole) continue;
    co_return fail(
        Code::kState,
        fmt::format("mirror {} failed while it was split; the cut is void", mirror->row.name),
        "duplex mirror show " + mirror->row.name);
  }
  co_return Result<void>();
}

rt::Task<Result<void>> Cut::drain_roots() {
  rt::Clock& clock = all_.control_.clock();
  const rt::Micros until = clock.now() + MirrorsImpl::kMostWait;
  std::set<VolumeNumber> done;
  for (Mirror* mirror : all_members()) {
    const VolumeNumber number = mirror->source.number();
    if (!roots_.contains(number) || !done.insert(number).second) continue;
    const auto drained = co_await within(*all_.tasks_, clock, until, mirror->pending,
                                         old_drained(mirror->source, all_.control_));
    if (drained) continue;
    co_return fail(Code::kTimeout,
                   fmt::format("writes to volume {} from before the cut have not ended within "
                               "{} s; the cut is void",
                               mirror->source_name(), MirrorsImpl::kMostWait / rt::kSecond),
                   "duplex device list");
  }
  co_return Result<void>();
}

rt::Task<Result<void>> Cut::flush_targets() {
  rt::Clock& clock = all_.control_.clock();
  const rt::Micros until = clock.now() + MirrorsImpl::kMostWait;
  for (Mirror* mirror : members_) {
    auto flushed = co_await within(*all_.tasks_, clock, until, mirror->pending,
                                   flush_sides(*mirror, all_.control_));
    if (flushed && *flushed) continue;
    const std::string why =
        flushed ? std::string(flushed->error().message())
                : fmt::format("no answer within {} s", MirrorsImpl::kMostWait / rt::kSecond);
    co_return fail(flushed ? Code::kState : Code::kTimeout,
                   fmt::format("volume {} or {} could not be flushed ({}); the cut is void",
                               mirror->target_name(), mirror->source_name(), why),
                   "duplex mirror show " + mirror->row.name);
  }
  co_return Result<void>();
}

// --- decide, apply

rt::Task<Result<void>> Cut::decide() {
  wall_us_ = all_.control_.clock().wall_us();
  Ledger ledger(all_.control_, all_.parts_.marks);
  std::vector<std::unique_ptr<Transition>> transitions;
  for (Mirror* mirror : members_) {
    const Outcome& outcome = next(mirror->state, RelationEvent::kDecided, {});
    transitions.push_back(std::make_unique<Transition>(
        all_, *mirror, outcome, Transition::How{.access = access_, .cut = id_}));
    co_await transitions.back()->record(ledger);
    contents_.push_back({.mirror = mirror->row.id,
                         .volume = mirror->target.number(),
                         .content_id = ledger.content_of(mirror->target)});
  }
  std::ranges::sort(contents_, {}, &meta::CutMember::mirror);
  ledger.add(meta::PutCut{row()});
  if (all_.cuts_.size() >= MirrorsImpl::kCutsKept) {
    ledger.add(meta::DropCut{all_.cuts_.begin()->first});
  }
  CO_TRY(co_await ledger.commit());
  if (all_.cuts_.size() >= MirrorsImpl::kCutsKept) all_.cuts_.erase(all_.cuts_.begin());
  all_.cuts_[id_] = row();
  // No target opens before every leg has stopped.
  for (const auto& transition : transitions) co_await transition->settle_source();
  for (const auto& transition : transitions) co_await transition->settle_target();
  for (Mirror* mirror : path_) {
    mirror->state = Relation::kSync;
    mirror->cut.reset();
    mirror->bell.ring();
  }
  co_return Result<void>();
}

meta::CutRow Cut::row() const {
  return {.id = id_,
          .epoch = epoch_,
          .wall_us = wall_us_,
          .hold_us = hold_,
          .state = 0,
          .members = contents_};
}

// --- void

// Before the stamp: every write went everywhere, no bit was set.
rt::Task<> Cut::disarm_all() {
  for (Mirror* mirror : all_members()) {
    if (mirror->state != Relation::kArmed) continue;
    co_await rt::hop(mirror->source.core());
    mirror->leg->disarm();
    co_await rt::hop(all_.control_);
    mirror->state = Relation::kSync;
    mirror->cut.reset();
    mirror->bell.ring();
  }
}

rt::Task<> Cut::void_all(const Error& why) {
  for (Mirror* mirror : members_) co_await void_one(*mirror, why);
  co_await disarm_all();
}

// New writes have set bits and go on doing so until the leg sends again.
rt::Task<> Cut::void_one(Mirror& mirror, const Error& why) {
  co_await rt::hop(mirror.source.core());
  volume::TargetLeg& leg = *mirror.leg;
  leg.disarm();
  const bool has_left = leg.mode() == Mode::kMark;
  const bool bits = !leg.bits().empty();
  if (!has_left && bits) leg.set_mode(Mode::kSendWhereClear);
  co_await rt::hop(all_.control_);
  Known known;
  known.facts.set(Guard::kBitsLeft, bits);
  Result<void> done;
  if (!has_left) done = co_await all_.event(mirror, RelationEvent::kVoid, known);
  if (has_left || !done) {
    // The bell has rung, or rings when the leg leaves for want of a record.
    mirror.state = Relation::kSync;
    mirror.cut.reset();
    co_await rt::hop(mirror.source.core());
    leg.leave(done ? why : done.error());
    co_await rt::hop(all_.control_);
    mirror.bell.ring();
    co_return;
  }
  all_.tell(Severity::kWarning, "cut_void", mirror,
            fmt::format("cut {} is void: {}", id_, why.message()),
            bits ? fmt::format("volume {} is consistent again when mirror {} is SYNC",
                               mirror.target_name(), mirror.row.name)
                 : "duplex split " + mirror.row.name);
}

rt::Task<> Cut::stay_in_doubt(const Error& why) {
  for (Mirror* mirror : members_) {
    co_await rt::hop(mirror->source.core());
    // The next start may find it split: nothing may become missing there when the seal is off.
    mirror->leg->forget_origins();
    mirror->leg->disarm();
    if (mirror->leg->mode() != Mode::kMark) mirror->leg->set_mode(Mode::kMark);
    co_await rt::hop(all_.control_);
    mirror->state = Relation::kSuspended;
    mirror->cut.reset();
    mirror->row.reason = static_cast<uint8_t>(Reason::kDoubt);
    mirror->reason_detail = fmt::format("whether cut {} was stored shows at the next start", id_);
    all_.tell(Severity::kError, "cut_in_doubt", *mirror,
              fmt::format("cut {} is in doubt: {}", id_, why.message()), "restart duplexd");
  }
  co_await disarm_all();
}

}  // namespace duplex::mirror
