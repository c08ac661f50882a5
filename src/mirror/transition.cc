#include "mirror/transition.h"

#include <fmt/format.h>

#include <utility>

#include "base/planted_bug.h"
#include "base/text.h"
#include "mirror/access.h"
#include "mirror/deadline.h"
#include "mirror/ledger.h"
#include "mirror/mirrors_impl.h"

namespace duplex::mirror {
namespace {

using Mode = volume::TargetLeg::Mode;
using volume::ChangeMap;

// What the leg does with writes in a state, when no cut is under way.
Mode mode_of(Relation state) {
  switch (state) {
    case Relation::kSync:
    case Relation::kArmed:
    case Relation::kSplitting:
      return Mode::kSend;
    case Relation::kCopying:
      return Mode::kSendWhereClear;
    default:
      return Mode::kMark;
  }
}

bool has_target_map(Relation state) {
  return state == Relation::kSplit || state == Relation::kReverse;
}

void add_words(volume::Tracker& tracker, volume::MapId map, const ChangeMap& more) {
  more.each_set_word(
      [&](ChangeMap::Word word) { tracker.or_word(map, word.stretch, word.regions); });
}

rt::Task<Result<void>> drain_gate(volume::Member& member, rt::Core& control) {
  co_await rt::hop(member.core());
  co_await member.volume().gate().drained();
  co_await rt::hop(control);
  co_return Result<void>();
}

rt::Task<Result<void>> drain_leg(Mirror& mirror, rt::Core& control) {
  co_await rt::hop(mirror.source.core());
  co_await mirror.leg->drained();
  co_await rt::hop(control);
  co_return Result<void>();
}

// What the leg has sent, and what hosts have written to the target themselves.
rt::Task<Result<void>> flush_target(Mirror& mirror, rt::Core& control) {
  co_await rt::hop(mirror.source.core());
  Result<void> done = co_await mirror.source.tracker().flush(*mirror.leg);
  co_await rt::hop(control);
  co_return done;
}

rt::Task<Result<void>> flush_source(volume::Member& member, rt::Core& control) {
  Result<void> done = co_await member.volume().flush_untold();
  co_await rt::hop(control);
  co_return done;
}

}  // namespace

Transition::Transition(MirrorsImpl& all, Mirror& mirror, const Outcome& outcome, How how)
    : all_(all),
      mirror_(mirror),
      outcome_(outcome),
      how_(std::move(how)),
      to_(state_after(mirror.state, outcome)),
      begins_(mode_of(to_) != Mode::kMark &&
              (how_.at_start || mode_of(mirror.state) == Mode::kMark)) {}

rt::Task<Result<void>> Transition::run(MirrorsImpl& all, Transitions transitions) {
  Result<void> done;
  for (const auto& one : transitions) {
    done = co_await one->prepare();
    if (!done) break;
  }
  if constexpr (planted(Bug::kGatesOpenEarly)) {
    for (const auto& one : transitions) co_await one->open_gates();
  }
  if (done) {
    Ledger ledger(all.control_, all.parts_.marks);
    for (const auto& one : transitions) co_await one->record(ledger);
    done = co_await ledger.commit();
  }
  if (done) {
    for (const auto& one : transitions) co_await one->settle_source();
    for (const auto& one : transitions) co_await one->settle_target();
  } else if (done.error().code() == Code::kInDoubt) {
    for (const auto& one : transitions) co_await one->refuse_writes();
  }
  if (!done) {
    for (const auto& one : transitions) co_await one->unseal();
  }
  for (const auto& one : transitions) co_await one->open_gates();
  if (!done) {
    for (const auto& one : transitions) one->go_on_as_before();
  }
  co_return done;
}

// Of a delete that did not happen.
rt::Task<> Transition::unseal() {
  if (!outcome_.does(Action::kRemove)) co_return;
  co_await rt::hop(mirror_.source.core());
  mirror_.leg->disarm();
  co_await rt::hop(all_.control_);
}

// Of a restore in doubt: the next start finds either the volume as it is now or one to be restored.
// What hosts write until then would be lost in the second case, also what waits at the gate now.
rt::Task<> Transition::refuse_writes() {
  if (!next_missing_) co_return;
  co_await rt::hop(mirror_.source.core());
  mirror_.source.tracker().refuse_writes(
      Error(Code::kInDoubt,
            fmt::format("whether volume {} is restored from volume {} shows at the next start",
                        mirror_.source_name(), mirror_.target_name()),
            "restart duplexd"));
  co_await rt::hop(all_.control_);
}

void Transition::go_on_as_before() {
  for (Mirror* other : stopped_) all_.start_job(*other, JobKind::kCopy);
}

// 1 and 2. A leg that was idle begins to send at an instant at which nothing is on its way.
rt::Task<Result<void>> Transition::prepare() {
  if (mirror_.pending->count > 0) {
    co_return fail(Code::kBusy,
                   fmt::format("mirror {} still waits for volume {} or {}", mirror_.row.name,
                               mirror_.source_name(), mirror_.target_name()),
                   "duplex device list");
  }
  CO_TRY(co_await all_.end_jobs_for(mirror_, outcome_, to_));
  if (outcome_.does(Action::kMissingDownstream)) CO_TRY(co_await stop_downstream());
  if (begins_) {
    CO_TRY(co_await close_gate(mirror_.source, quiet_.source));
    CO_TRY(co_await wait_for(drain_leg(mirror_, all_.control_)));
  }
  for (const Action action : outcome_.actions()) CO_TRY(co_await do_now(action));
  if (outcome_.does(Action::kRemove)) co_return co_await refuse_a_holder();
  co_return Result<void>();
}

// A write or a flush that was still under way when the delete was allowed may have left the target
// the only one that has something. From here on nobody relies on it: a flush that fails while the
// record is being stored is told to the host.
rt::Task<Result<void>> Transition::refuse_a_holder() {
  co_await rt::hop(mirror_.source.core());
  const uint64_t bytes = mirror_.source.tracker().map(mirror_.missing()).set_bytes();
  if (bytes == 0) mirror_.leg->seal();
  co_await rt::hop(all_.control_);
  if (bytes == 0) co_return Result<void>();
  Known known;
  known.count = format_size_rounded(bytes);
  known.facts.set(Guard::kMissingLeft);
  known.facts.set(Guard::kNotConfirmed, !how_.confirmed);
  const Outcome& now = next(mirror_.state, RelationEvent::kDelete, known.facts);
  if (now.kind != Kind::kRefused) co_return Result<void>();
  co_return std::unexpected(all_.refusal(now, mirror_, known));
}

// A copy beside a restore gets bits for what is restored before readers find it. Until then it
// would read what P had before, and take the bits for done. Before the gates: a step may wait for
// them.
rt::Task<Result<void>> Transition::stop_downstream() {
  for (Mirror* other : all_.below(mirror_.source.number())) {
    if (other == &mirror_ || other->state != Relation::kCopying) continue;
    stopped_.push_back(other);
    CO_TRY(co_await all_.end_job(*other, JobKind::kCopy, JobDesk::End::kStopped));
  }
  co_return Result<void>();
}

rt::Task<Result<void>> Transition::wait_for(rt::Task<Result<void>> task) {
  rt::Clock& clock = all_.control_.clock();
  auto done = co_await within(*all_.tasks_, clock, clock.now() + MirrorsImpl::kMostWait,
                              mirror_.pending, std::move(task));
  if (done) co_return *std::move(done);
  co_return fail(Code::kTimeout,
                 fmt::format("volume {} or {} does not answer within {} s", mirror_.source_name(),
                             mirror_.target_name(), MirrorsImpl::kMostWait / rt::kSecond),
                 "duplex device list");
}

// Closed first and drained then: nothing begins, and what is under way ends.
rt::Task<Result<void>> Transition::close_gate(volume::Member& member,
                                              std::optional<volume::Gate::Closer>& closer) {
  if (closer) co_return Result<void>();
  co_await rt::hop(member.core());
  closer.emplace(member.volume().gate().close());
  co_await rt::hop(all_.control_);
  co_return co_await wait_for(drain_gate(member, all_.control_));
}

rt::Task<> Transition::open_gates() {
  if (quiet_.target) {
    co_await rt::hop(mirror_.target.core());
    quiet_.target.reset();
  }
  if (quiet_.source) {
    co_await rt::hop(mirror_.source.core());
    quiet_.source.reset();
  }
  co_await rt::hop(all_.control_);
}

// What has to be there before the transaction. Actions that belong to it, or follow it, are in
// record() and in settle_*().
rt::Task<Result<void>> Transition::do_now(Action action) {
  switch (action) {
    case Action::kDrainBoth:
      CO_TRY(co_await close_gate(mirror_.source, quiet_.source));
      co_return co_await close_gate(mirror_.target, quiet_.target);
    case Action::kDrainSource:
      co_return co_await close_gate(mirror_.source, quiet_.source);
    case Action::kDrainTarget:
      co_return co_await close_gate(mirror_.target, quiet_.target);
    case Action::kFlushSource:
      co_return co_await wait_for(flush_source(mirror_.source, all_.control_));
    case Action::kFlushTarget:
      co_return co_await wait_for(flush_target(mirror_, all_.control_));
    case Action::kFlushBothLegs:
      CO_TRY(co_await wait_for(flush_source(mirror_.source, all_.control_)));
      co_return co_await wait_for(flush_target(mirror_, all_.control_));
    case Action::kSetAllBits:
      // What was written before the volumes were members owes a flush that no window knows.
      CO_TRY(co_await wait_for(flush_source(mirror_.source, all_.control_)));
      co_await mark_mapped();
      break;
    case Action::kUniteMaps:
      if constexpr (!planted(Bug::kTargetMapForgotten)) co_await unite_maps();
      break;
    case Action::kMissingFromUnion:
      co_await missing_from_union();
      break;
    case Action::kMarkWindow:
      co_await end_session();
      break;
    case Action::kMarkDifference:
    case Action::kMarkMissing:
      co_await mark_source(action);
      break;
    default:
      break;
  }
  co_return Result<void>();
}

// What neither side has needs no copy. Both gates are closed.
rt::Task<> Transition::mark_mapped() {
  co_await rt::hop(mirror_.target.core());
  const ChangeMap theirs = mirror_.target.volume().mapped();
  co_await rt::hop(mirror_.source.core());
  volume::Tracker& tracker = mirror_.source.tracker();
  ChangeMap all = mirror_.source.volume().mapped();
  all.unite(theirs);
  all.unite(tracker.map(mirror_.bits()));
  tracker.replace(mirror_.bits(), std::move(all));
  co_await rt::hop(all_.control_);
}

// A copy of the target's map, which stays there until the transaction has dropped it.
rt::Task<ChangeMap> Transition::target_map() {
  co_await rt::hop(mirror_.target.core());
  const volume::Tracker& tracker = mirror_.target.tracker();
  ChangeMap copy(mirror_.target.size_bytes());
  if (tracker.has_map(mirror_.behind())) copy.unite(tracker.map(mirror_.behind()));
  co_await rt::hop(all_.control_);
  co_return copy;
}

rt::Task<> Transition::unite_maps() {
  const ChangeMap theirs = co_await target_map();
  co_await rt::hop(mirror_.source.core());
  volume::Tracker& tracker = mirror_.source.tracker();
  add_words(tracker, mirror_.bits(), theirs);
  co_await rt::hop(all_.control_);
}

// The target has been flushed. What the source had not, or read elsewhere, it may still lose; a
// loss would be told, but to hosts of before: the restore promises what the target has.
rt::Task<> Transition::missing_from_union() {
  ChangeMap next = co_await target_map();
  co_await rt::hop(mirror_.source.core());
  next.unite(mirror_.source.tracker().map(mirror_.bits()));
  next.unite(mirror_.source.volume().unsafe());
  co_await rt::hop(all_.control_);
  changed_.emplace(mirror_.source.size_bytes()).unite(next);
  next_missing_ = std::move(next);
}

rt::Task<> Transition::end_session() {
  co_await rt::hop(mirror_.source.core());
  mirror_.leg->leave(Error(Code::kState, fmt::format("mirror {} was ended", mirror_.row.name)));
  mirror_.left.reset();
  co_await rt::hop(all_.control_);
}

rt::Task<> Transition::mark_source(Action action) {
  co_await rt::hop(mirror_.source.core());
  volume::Tracker& tracker = mirror_.source.tracker();
  if (action == Action::kMarkDifference) {
    add_words(tracker, mirror_.bits(), *how_.difference);
  } else {
    ChangeMap all(mirror_.source.size_bytes());
    all.unite(tracker.map(mirror_.bits()));
    all.unite(tracker.map(mirror_.missing()));
    changed_.emplace(mirror_.source.size_bytes()).unite(tracker.map(mirror_.missing()));
    tracker.replace(mirror_.bits(), std::move(all));
  }
  co_await rt::hop(all_.control_);
}

// 3. The rows and maps as they will be.
rt::Task<> Transition::record(Ledger& ledger) {
  meta::MirrorRow row = mirror_.row;
  row.relation = static_cast<uint8_t>(to_);
  row.reason = static_cast<uint8_t>(next_reason());
  row.then = static_cast<uint8_t>(how_.then);
  if (outcome_.does(Action::kNewTargetContent)) {
    row.cut = how_.cut;
    row.access = static_cast<uint8_t>(how_.access);
  } else if (to_ != Relation::kSplit && to_ != Relation::kReverse) {
    row.cut = 0;
  }
  record_volumes(ledger);
  if (outcome_.does(Action::kRemove)) {
    for (const auto& [name, members] : all_.groups_) {
      if (!members.contains(row.id)) continue;
      meta::GroupRow group{.name = name, .mirrors = {members.begin(), members.end()}};
      std::erase(group.mirrors, row.id);
      ledger.add(meta::PutGroup{std::move(group)});
    }
    ledger.add(meta::DropMirror{row.id});
    ledger.drop_map(mirror_.bits());
    ledger.drop_map(mirror_.missing());
    if (has_target_map(mirror_.state)) ledger.drop_map(mirror_.behind());
  } else {
    ledger.add(meta::PutMirror{row});
    co_await record_maps(ledger);
  }
  next_row_ = row;
}

Reason Transition::next_reason() const {
  if (how_.doubt && to_ == Relation::kSuspended) return Reason::kDoubt;
  if (outcome_.does(Action::kReasonFault)) return Reason::kFault;
  if (outcome_.does(Action::kReasonDiffers)) return Reason::kDiffers;
  if (outcome_.does(Action::kReasonOperator)) return Reason::kOperator;
  return to_ == Relation::kSuspended ? mirror_.reason() : Reason::kNone;
}

void Transition::record_volumes(Ledger& ledger) {
  rt::Rng& rng = all_.control_.rng();
  const auto fresh = [&] { return Uuid::from_random(rng.next(), rng.next()); };
  for (const Action action : outcome_.actions()) {
    switch (action) {
      case Action::kTargetInconsistent:
        all_.set_consistent(ledger, mirror_.target, false);
        break;
      case Action::kTargetAsSource:
        all_.set_consistent(ledger, mirror_.target, ledger.is_consistent(mirror_.source));
        break;
      case Action::kSourceInconsistent:
        all_.set_consistent(ledger, mirror_.source, false);
        break;
      case Action::kNewTargetContent:
        ledger.set_content(mirror_.target, fresh());
        break;
      case Action::kNewSourceContent:
        ledger.set_content(mirror_.source, fresh());
        all_.set_consistent(ledger, mirror_.source, true);
        break;
      default:
        break;
    }
  }
}

// Maps whose row changes anything about them; words of the others go their own way.
rt::Task<> Transition::record_maps(Ledger& ledger) {
  const ChangeMap none(mirror_.source.size_bytes());
  if (outcome_.does(Action::kClearMaps)) {
    ledger.add_map(mirror_.bits(), none);
  } else {
    co_await ledger.add_map(mirror_.source, mirror_.bits());
  }
  const bool tells = outcome_.does(Action::kMissingDownstream);
  if (tells && !planted(Bug::kRestoreUntold)) co_await record_downstream(ledger);
  if (next_missing_) {
    ledger.add_map(mirror_.missing(), *next_missing_);
  } else if (outcome_.does(Action::kClearMissing)) {
    ledger.add_map(mirror_.missing(), none);
  } else {
    co_await ledger.add_map(mirror_.source, mirror_.missing());
  }
  const bool has = has_target_map(mirror_.state), will = has_target_map(to_);
  if (has && !will) {
    ledger.drop_map(mirror_.behind());
  } else if (will && has && !outcome_.does(Action::kClearMaps)) {
    co_await ledger.add_map(mirror_.target, mirror_.behind());
  } else if (will) {
    ledger.add_map(mirror_.behind(), none);
  }
}

// What readers of P see changes with this transaction: to everybody P is copied to, and to the map
// of a mirror above that is split, the regions have been written. What only another target had of
// them is overwritten: a region is missing at one leg at most, and that is the one restored from.
rt::Task<> Transition::record_downstream(Ledger& ledger) {
  co_await rt::hop(mirror_.source.core());
  volume::Tracker& tracker = mirror_.source.tracker();
  for (Mirror* other : all_.below(mirror_.source.number())) {
    if (other == &mirror_) continue;
    told_.push_back(other->bits());
    overwritten_.push_back(other->missing());
  }
  const Mirror* above = all_.upstream_of(mirror_.source.number());
  if (above != nullptr && tracker.has_map(above->behind())) told_.push_back(above->behind());
  for (const volume::MapId map : told_) add_words(tracker, map, *changed_);
  co_await rt::hop(all_.control_);
  for (const volume::MapId map : told_) co_await ledger.add_map(mirror_.source, map);
  for (const volume::MapId map : overwritten_) {
    co_await ledger.add_map(mirror_.source, map, &*changed_);
  }
  for (Mirror* other : all_.below(mirror_.source.number())) {
    if (other == &mirror_ || other->state != Relation::kSync) continue;
    downstream_.push_back(other);
    meta::MirrorRow row = other->row;
    row.relation = static_cast<uint8_t>(Relation::kCopying);
    ledger.add(meta::PutMirror{row});
    all_.set_consistent(ledger, other->target, false);
  }
}

// 4. On the source core nothing suspends between the change of the maps and that of the leg.
rt::Task<> Transition::settle_source() {
  // Before anything is cleared: who has read these maps until now is told so.
  co_await volume::offer_changed(mirror_.source, mirror_.row.name, mirror_.bits(), all_.control_);
  co_await rt::hop(mirror_.source.core());
  volume::Tracker& tracker = mirror_.source.tracker();
  const uint64_t bytes = mirror_.source.size_bytes();
  if (outcome_.does(Action::kClearMaps)) tracker.replace(mirror_.bits(), ChangeMap(bytes));
  for (const volume::MapId map : overwritten_) tracker.drop(map, *changed_);
  // What came back from another target meanwhile is equal there no more.
  for (const volume::MapId map : told_) add_words(tracker, map, *changed_);
  if (next_missing_) tracker.replace(mirror_.missing(), *std::move(next_missing_));
  if (outcome_.does(Action::kClearMissing)) tracker.replace(mirror_.missing(), ChangeMap(bytes));
  for (Mirror* other : downstream_) other->leg->set_mode(Mode::kSendWhereClear);
  // Its copy had ended when it got bits, and SYNC is not in its row yet.
  for (Mirror* other : stopped_) {
    if (other->leg->mode() == Mode::kSend) other->leg->set_mode(Mode::kSendWhereClear);
  }
  for (Mirror* other : downstream_) mirror_.source.volume().withdraw(other->bits());
  settle_leg();
  misses_ = mirror_.leg->is_missing_any();
  co_await rt::hop(all_.control_);
}

// A leg that has left meanwhile stays out: the bell has rung.
void Transition::settle_leg() {
  volume::TargetLeg& leg = *mirror_.leg;
  const Mode mode = mode_of(to_);
  if (to_ == Relation::kSplit) leg.forget_origins();
  if (mode == Mode::kMark) {
    leg.disarm();
    if (leg.mode() != Mode::kMark) leg.set_mode(Mode::kMark);
    return;
  }
  if (leg.mode() == Mode::kMark && !begins_) return;
  if (begins_) mirror_.left.reset();
  if (leg.mode() != mode) leg.set_mode(mode);
}

rt::Task<> Transition::settle_target() {
  const bool has = has_target_map(mirror_.state), will = has_target_map(to_);
  co_await rt::hop(mirror_.target.core());
  volume::Tracker& tracker = mirror_.target.tracker();
  volume::VolumeImpl& volume = mirror_.target.volume();
  volume.withdraw(mirror_.behind());
  if (has && !will) {
    volume.stop_recording(mirror_.behind());
    tracker.remove_map(mirror_.behind());
  } else if (!has && will) {
    tracker.add_map(mirror_.behind(), volume::MapKind::kCopyAway, ChangeMap());
    volume.record_into(mirror_.behind());
  } else if (!has && outcome_.does(Action::kRemove)) {
    volume.forget_losses_of_hosts();
  } else if (will && outcome_.does(Action::kClearMaps)) {
    tracker.replace(mirror_.behind(), ChangeMap(mirror_.target.size_bytes()));
  }
  co_await rt::hop(all_.control_);
  if (will)
    co_await volume::offer_changed(mirror_.target, mirror_.row.name, mirror_.behind(),
                                   all_.control_);
  if (has && !will) mirror_.target.drop_context(mirror_.row.name);
  adopt();
}

// The state is seen from here on.
void Transition::adopt() {
  if (to_ == Relation::kSuspended) mirror_.reason_detail = how_.detail;
  if (to_ != Relation::kArmed && to_ != Relation::kSplitting) mirror_.cut.reset();
  mirror_.row = next_row_;
  mirror_.state = to_;
  if (to_ != Relation::kSuspended) mirror_.retry_after = 0;
  mirror_.target.set_access(all_.access_of(mirror_, to_));
  for (Mirror* other : downstream_) {
    other->row.relation = static_cast<uint8_t>(Relation::kCopying);
    other->state = Relation::kCopying;
    all_.start_job(*other, JobKind::kCopy);
  }
  for (Mirror* other : stopped_) all_.copy_again(*other);
  for (const Action action : outcome_.actions()) {
    if (action == Action::kStartCopy) all_.start_job(mirror_, JobKind::kCopy);
    if (action == Action::kStartRestore) all_.start_job(mirror_, JobKind::kBack);
    if (action == Action::kRepairFirst && misses_) all_.start_job(mirror_, JobKind::kBack);
    if (action == Action::kRetryJob) all_.tasks_->spawn(all_.retry_jobs(mirror_));
  }
}

}  // namespace duplex::mirror
