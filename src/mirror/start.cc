// The start and the stop of the registry.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "mirror/mirrors_impl.h"

namespace duplex::mirror {
namespace {

using volume::ChangeMap;
using volume::HotExtent;

// What the store has of a map; empty when it has none.
ChangeMap found_map(const meta::Marks::Found& found, volume::MapId id, uint64_t bytes) {
  ChangeMap map(bytes);
  const auto row = std::ranges::find(found.maps, id.value(), &meta::MapRow::map);
  if (row == found.maps.end()) return map;
  for (const meta::ExtentWord& word : row->words) {
    map.set_word(HotExtent(word.extent), word.regions);
  }
  return map;
}

std::vector<HotExtent> hot_of(const meta::Marks::Found& found, VolumeNumber volume) {
  std::vector<HotExtent> hot;
  const auto row = std::ranges::find(found.hot, volume, &meta::HotMarksRow::volume);
  if (row == found.hot.end()) return hot;
  for (const LogicalExtent extent : row->extents) hot.push_back(HotExtent(extent.value()));
  return hot;
}

}  // namespace

rt::Task<Result<std::unique_ptr<Mirrors>>> Mirrors::open(Parts parts,
                                                         const meta::Snapshot& snapshot,
                                                         meta::Marks::Found found) {
  auto mirrors = std::make_unique<MirrorsImpl>(parts, snapshot);
  auto started = co_await mirrors->start(snapshot, std::move(found));
  if (!started) {
    co_await mirrors->stop();
    co_return std::unexpected(std::move(started).error());
  }
  co_return mirrors;
}

rt::Task<Result<void>> MirrorsImpl::start(const meta::Snapshot& snapshot,
                                          meta::Marks::Found found) {
  for (const meta::CutRow& row : snapshot.cuts) cuts_[row.id] = row;
  const std::vector<meta::MirrorRow> rows = snapshot.mirrors;
  const std::vector<meta::GroupRow> groups = snapshot.groups;
  for (const meta::MirrorRow& row : rows) CO_TRY(co_await bring_back(row, found));
  for (const meta::GroupRow& row : groups) {
    groups_[row.name] = {row.mirrors.begin(), row.mirrors.end()};
  }
  CO_TRY(co_await settle_start(found));
  has_started_ = true;
  tasks_->spawn(watch());
  co_return Result<void>();
}

// The mirror as the store has it: its maps, and a leg that does nothing yet.
rt::Task<Result<void>> MirrorsImpl::bring_back(meta::MirrorRow row,
                                               const meta::Marks::Found& found) {
  CO_TRY_ASSIGN(Mirror* const mirror, co_await join(std::move(row)));
  const uint64_t bytes = mirror->source.size_bytes();
  ChangeMap bits = found_map(found, mirror->bits(), bytes);
  if (!found.trusted) bits.set({0, bytes});
  co_await add_leg(*mirror, std::move(bits), found_map(found, mirror->missing(), bytes));
  if (mirror->state == Relation::kSplit || mirror->state == Relation::kReverse) {
    ChangeMap behind = found_map(found, mirror->behind(), bytes);
    if (!found.trusted) behind.set({0, bytes});
    co_await rt::hop(mirror->target.core());
    mirror->target.tracker().add_map(mirror->behind(), volume::MapKind::kCopyAway,
                                     std::move(behind));
    mirror->target.volume().record_into(mirror->behind());
    co_await rt::hop(control_);
    co_await volume::offer_changed(mirror->target, mirror->row.name, mirror->behind(), control_);
  }
  co_return Result<void>();
}

// What the marks say goes into the maps; then every state is looked at by the table, and one
// transaction holds what came of it and takes the marks off.
rt::Task<Result<void>> MirrorsImpl::settle_start(const meta::Marks::Found& found) {
  std::map<VolumeNumber, volume::Member*> members;
  for (const auto& [id, mirror] : mirrors_) {
    members[mirror->source.number()] = &mirror->source;
    members[mirror->target.number()] = &mirror->target;
  }
  for (const auto& [number, member] : members) {
    const std::vector<HotExtent> hot = hot_of(found, number);
    if (hot.empty()) continue;
    co_await rt::hop(member->core());
    member->tracker().mark_in_maps_at_start(hot);
    co_await rt::hop(control_);
  }
  for (const auto& [number, member] : members) co_await choose_holders(*member);
  Ledger ledger(control_, parts_.marks);
  std::vector<std::unique_ptr<Transition>> transitions;
  for (const auto& [id, mirror] : mirrors_) {
    const bool attached = co_await parts_.volumes.is_attached(mirror->target.number());
    co_await rt::hop(mirror->source.core());
    const bool bits = !mirror->leg->bits().empty();
    co_await rt::hop(control_);
    const Outcome& outcome = at_start(*mirror, found, attached, bits);
    transitions.push_back(std::make_unique<Transition>(
        *this, *mirror, outcome,
        Transition::How{.then = static_cast<Then>(mirror->row.then),
                        .access = static_cast<TargetAccess>(mirror->row.access),
                        .cut = mirror->row.cut,
                        .detail = attached ? "" : "its device is away",
                        .at_start = true,
                        .doubt = !found.trusted}));
    CO_TRY(co_await transitions.back()->prepare());
    co_await transitions.back()->record(ledger);
  }
  for (const meta::HotMarksRow& row : found.hot) ledger.drop_marks(row.volume);
  CO_TRY(co_await ledger.commit());
  for (const auto& transition : transitions) co_await transition->settle_source();
  for (const auto& transition : transitions) co_await transition->settle_target();
  for (const auto& transition : transitions) co_await transition->open_gates();
  for (const auto& [id, mirror] : mirrors_) {
    co_await go_on(*mirror);
    if (found.trusted) continue;
    tell(Severity::kError, "mirror_in_doubt", *mirror,
         fmt::format("the marks of changes were unreadable: everything of mirror {} counts as "
                     "changed",
                     mirror->row.name),
         "duplex mirror resync " + mirror->row.name);
  }
  co_return Result<void>();
}

// A crash may leave a region missing at two targets: it had come back from one, was lost again, and
// is missing at another that held it. All that was written since went there, so that one is chosen:
// a target that is restored from got nothing, and one that is suspended had left. The other one
// gets a bit.
rt::Task<> MirrorsImpl::choose_holders(volume::Member& source) {
  std::vector<Mirror*> all = below(source.number());
  const auto rank = [](const Mirror* mirror) {
    const int behind = mirror->state == Relation::kReverse     ? 2
                       : mirror->state == Relation::kSuspended ? 1
                                                               : 0;
    return std::pair(behind, mirror->row.id);
  };
  std::ranges::sort(all, {}, rank);
  co_await rt::hop(source.core());
  volume::Tracker& tracker = source.tracker();
  ChangeMap chosen(source.size_bytes());
  for (const Mirror* mirror : all) {
    const ChangeMap& missing = tracker.map(mirror->missing());
    ChangeMap twice(source.size_bytes());
    missing.each_set_word([&](ChangeMap::Word word) {
      const uint64_t regions = word.regions & chosen.word(word.stretch);
      if (regions == 0) return;
      twice.set_word(word.stretch, regions);
      tracker.or_word(mirror->bits(), word.stretch, regions);
    });
    if (!twice.empty()) tracker.drop(mirror->missing(), twice);
    chosen.unite(tracker.map(mirror->missing()));
  }
  co_await rt::hop(control_);
}

// A stop that was clean has left neither marks nor bits in SYNC; so one rule does for both kinds.
const Outcome& MirrorsImpl::at_start(const Mirror& mirror, const meta::Marks::Found& found,
                                     bool attached, bool bits) const {
  Facts facts;
  facts.set(Guard::kTargetAway, !attached || !found.trusted);
  facts.set(Guard::kBitsLeft, bits);
  const bool clean = found.hot.empty() && found.trusted && attached && !bits;
  return next(mirror.state, clean ? RelationEvent::kCleanRestart : RelationEvent::kCrashRestart,
              facts);
}

// Jobs that a stop or a crash has cut off.
rt::Task<> MirrorsImpl::go_on(Mirror& mirror) {
  co_await rt::hop(mirror.source.core());
  const bool misses = mirror.leg->is_missing_any();
  co_await rt::hop(control_);
  if (mirror.state == Relation::kCopying) start_job(mirror, JobKind::kCopy);
  const bool repairs = mirror.state == Relation::kCopying || mirror.state == Relation::kSync;
  if (mirror.state == Relation::kReverse || (repairs && misses)) {
    start_job(mirror, JobKind::kBack);
  }
}

// --- stop

// Copies end where they are, both sides are flushed, and one transaction holds the maps as they are
// and takes all marks off. What cannot be flushed keeps its marks: the next start copies it.
rt::Task<> MirrorsImpl::stop() {
  {
    const Turn turn = co_await turn_.lock();
    stopping_ = true;
    stop_.set();
    bool all_ended = true;
    for (const auto& [id, mirror] : mirrors_) {
      for (const JobKind kind : {JobKind::kCopy, JobKind::kBack, JobKind::kCompare}) {
        const Result<void> ended = co_await end_job(*mirror, kind, JobDesk::End::kStopped);
        if (!ended) all_ended = false;
      }
    }
    for (const auto& [id, mirror] : mirrors_) co_await keep_difference(*mirror);
    // After a start that failed the maps may lack what the marks on disk say.
    if (all_ended && has_started_) co_await leave_no_marks();
  }
  co_await tasks_->close();
  while (!mirrors_.empty()) {
    Mirror& mirror = *mirrors_.begin()->second;
    co_await rt::hop(mirror.source.core());
    mirror.leg->leave(Error(Code::kShutdown));
    co_await rt::hop(mirror.target.core());
    if (mirror.target.tracker().has_map(mirror.behind())) {
      mirror.target.volume().stop_recording(mirror.behind());
      mirror.target.tracker().remove_map(mirror.behind());
    }
    co_await rt::hop(control_);
    parting_.push_back(std::move(mirrors_.extract(mirror.row.id).mapped()));
    co_await part_with(mirror);
  }
}

// What a verify has found and its mirror not yet heard of. One that does not get as far as to be
// suspended has the bits at least: the next start copies them.
rt::Task<> MirrorsImpl::keep_difference(Mirror& mirror) {
  const auto job = mirror.done_jobs[static_cast<size_t>(JobKind::kCompare)];
  if (!job || co_await differs(mirror, *job)) co_return;
  co_await rt::hop(mirror.source.core());
  volume::Tracker& tracker = mirror.source.tracker();
  job->unmarked.each_set_word(
      [&](ChangeMap::Word word) { tracker.or_word(mirror.bits(), word.stretch, word.regions); });
  co_await rt::hop(control_);
}

rt::Task<> MirrorsImpl::leave_no_marks() {
  if (mirrors_.empty()) co_return;
  Ledger ledger(control_, parts_.marks);
  std::set<VolumeNumber> flushed, failed;
  for (const auto& [id, mirror] : mirrors_) {
    if (!flushed.insert(mirror->source.number()).second) continue;
    if (!co_await mirror->source.volume().flush_untold()) failed.insert(mirror->source.number());
  }
  // As its leg asks: what a target lost earlier, and nobody knows, counts as well.
  for (const auto& [id, mirror] : mirrors_) {
    flushed.insert(mirror->target.number());
    if (!co_await mirror->target.volume().forward_flush()) failed.insert(mirror->target.number());
  }
  for (const auto& [id, mirror] : mirrors_) {
    // What a copy has sent there and the target has lost has no bit yet.
    if (failed.contains(mirror->target.number())) failed.insert(mirror->source.number());
    co_await ledger.add_map(mirror->source, mirror->bits());
    co_await ledger.add_map(mirror->source, mirror->missing());
    co_await rt::hop(mirror->target.core());
    const bool is_split = mirror->target.tracker().has_map(mirror->behind());
    co_await rt::hop(control_);
    if (is_split) co_await ledger.add_map(mirror->target, mirror->behind());
  }
  for (const VolumeNumber volume : flushed) {
    if (!failed.contains(volume)) ledger.drop_marks(volume);
  }
  static_cast<void>(co_await ledger.commit());  // the marks stay, then
}

}  // namespace duplex::mirror
