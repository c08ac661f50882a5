// Resync, restore, verify: the verbs that start copies.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "mirror/mirrors_impl.h"

namespace duplex::mirror {
namespace {

// What the targets let hosts do, to be given back when nothing comes of it.
class ShutTargets {
 public:
  void shut(volume::Member& target, volume::Access access) {
    before_.emplace_back(&target, target.access());
    target.set_access(std::move(access));
  }
  void undo() {
    for (const auto& [target, access] : before_) target->set_access(access);
  }

 private:
  std::vector<std::pair<volume::Member*, volume::Access>> before_;
};

}  // namespace

// A client with several connections is named once.
std::string names_of(const std::vector<volume::Member::Client>& clients, bool writers_only) {
  std::vector<std::pair<std::string_view, size_t>> found;
  for (const volume::Member::Client& client : clients) {
    if (writers_only && client.read_only) continue;
    const auto same = std::ranges::find(found, client.name, &decltype(found)::value_type::first);
    if (same == found.end()) {
      found.emplace_back(client.name, 1);
    } else {
      ++same->second;
    }
  }
  std::string names;
  for (const auto& [name, count] : found) {
    names += (names.empty() ? "" : ", ") + std::string(name);
    if (count > 1) names += fmt::format(" ({} connections)", count);
  }
  return names;
}

// --- resync

rt::Task<Known> MirrorsImpl::known_for_resync(Mirror& mirror, bool disconnect) const {
  Known known;
  known.client = names_of(mirror.target.clients(), false);
  known.facts.set(Guard::kTargetOpen, !known.client.empty() && !disconnect);
  for (const Mirror* below : below(mirror.target.number())) {
    if (below->state != Relation::kReverse) continue;
    known.facts.set(Guard::kTargetRestoring);
    known.other = below->row.name;
  }
  known.facts.set(Guard::kTargetAway, !co_await parts_.volumes.is_attached(mirror.target.number()));
  co_return known;
}

rt::Task<Result<std::vector<MirrorInfo>>> MirrorsImpl::resync(Names which) {
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(const std::vector<Mirror*> all, expand(which.names));
  std::vector<Mirror*> at_rest;
  ShutTargets targets;
  for (Mirror* mirror : all) {
    if (mirror->state == Relation::kSplit || mirror->state == Relation::kSuspended)
      at_rest.push_back(mirror);
    if (mirror->state != Relation::kSplit) continue;
    targets.shut(mirror->target, volume::Access::refused(Error(
                                     Code::kWriteProtected,
                                     fmt::format("volume {} is being resynchronised from volume {}",
                                                 mirror->target_name(), mirror->source_name()),
                                     "duplex mirror show " + mirror->row.name)));
  }
  const Result<void> done = co_await resync_all(all, which.disconnect);
  if (!done) {
    // In doubt: the store may have forgotten what hosts of the targets change.
    if (done.error().code() != Code::kInDoubt) targets.undo();
    co_return std::unexpected(done.error());
  }
  for (const Mirror* mirror : at_rest) {
    tell(Severity::kInfo, "mirror_resync", *mirror,
         fmt::format("mirror {} copies what has changed from volume {} to volume {}",
                     mirror->row.name, mirror->source_name(), mirror->target_name()));
  }
  co_return co_await infos_of(all);
}

// Nobody opens a target any more. All are checked before the first client is disconnected.
rt::Task<Result<void>> MirrorsImpl::resync_all(const std::vector<Mirror*>& all, bool disconnect) {
  std::vector<Happening> happenings;
  for (Mirror* mirror : all) {
    Known known = co_await known_for_resync(*mirror, disconnect);
    const Outcome& outcome = next(mirror->state, RelationEvent::kResync, known.facts);
    if (outcome.kind == Kind::kRefused) co_return std::unexpected(refusal(outcome, *mirror, known));
    happenings.push_back({.mirror = mirror, .known = std::move(known), .how = {}});
  }
  for (Mirror* mirror : all) {
    if (!disconnect || mirror->state != Relation::kSplit) continue;
    CO_TRY(co_await mirror->target.disconnect());
  }
  co_return co_await events(RelationEvent::kResync, std::move(happenings));
}

// --- restore

rt::Task<Known> MirrorsImpl::known_for_restore(Mirror& mirror, const Restore& request) {
  Known known;
  Facts& facts = known.facts;
  if (const Mirror* above = upstream_of(mirror.source.number())) {
    facts.set(Guard::kUpstreamBinds, above->state != Relation::kSplit);
    known.other = above->row.name;
  }
  for (const auto& [id, other] : mirrors_) {
    if (other.get() == &mirror || other->state != Relation::kReverse) continue;
    for (const VolumeNumber volume : {mirror.source.number(), mirror.target.number()}) {
      if (other->source.number() != volume && other->target.number() != volume) continue;
      facts.set(Guard::kInRestore);
      known.other = other->row.name;
    }
  }
  facts.set(Guard::kTargetInconsistent, !mirror.target.row().consistent);
  known.client = names_of(mirror.target.clients(), true);
  facts.set(Guard::kTargetOpen, !known.client.empty());
  if (known.client.empty()) known.client = names_of(mirror.source.clients(), true);
  facts.set(Guard::kSourceOpenForWriting, !known.client.empty() && !request.online);
  facts.set(Guard::kTargetAway, !co_await parts_.volumes.is_attached(mirror.target.number()));
  co_return known;
}

rt::Task<Result<Plan>> MirrorsImpl::plan_restore(Restore request) {
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(const std::vector<Mirror*> all, expand(request.names));
  CO_TRY(one_restore_each(all));
  Plan plan{.destroys = true};
  for (Mirror* mirror : all) {
    const Known known = co_await known_for_restore(*mirror, request);
    const Outcome& outcome = next(mirror->state, RelationEvent::kRestore, known.facts);
    if (outcome.kind == Kind::kRefused) {
      co_return std::unexpected(refusal(outcome, *mirror, known));
    }
    const MirrorInfo info = co_await info_of(*mirror);
    plan.volume = info.source;
    plan.bytes_overwritten += info.changed_bytes();
    plan.lines.push_back(
        info.changed_bytes() == 0
            ? fmt::format("Volume {} is what volume {} is: nothing of it is overwritten.",
                          info.source, info.target)
            : fmt::format("Volume {} becomes what volume {} is: at most {} of it are overwritten.",
                          info.source, info.target, format_size_rounded(info.changed_bytes())));
    for (const Mirror* other : below(mirror->source.number())) {
      if (other == mirror || other->state != Relation::kSync) continue;
      plan.lines.push_back(fmt::format(
          "Mirror {} copies the same to volume {}, which is no point in time meanwhile.",
          other->row.name, other->target_name()));
    }
  }
  co_return plan;
}

rt::Task<Result<std::vector<MirrorInfo>>> MirrorsImpl::restore(Restore request) {
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(const std::vector<Mirror*> all, expand(request.names));
  CO_TRY(one_restore_each(all));
  std::vector<Mirror*> due;
  ShutTargets targets;
  for (Mirror* mirror : all) {
    if (mirror->state == Relation::kReverse) continue;
    due.push_back(mirror);
    if (mirror->state == Relation::kSplit)
      targets.shut(mirror->target, volume::Access::read_only());
  }
  const Result<void> done = co_await restore_all(due, request);
  if (!done && done.error().code() == Code::kInDoubt) {
    for (const Mirror* mirror : due) tell_doubt(*mirror, done.error());
  } else if (!done) {
    targets.undo();
  }
  if (!done) co_return std::unexpected(done.error());
  for (const Mirror* mirror : due) {
    tell(Severity::kWarning, "mirror_restore", *mirror,
         fmt::format("volume {} is being restored from volume {}", mirror->source_name(),
                     mirror->target_name()));
  }
  co_return co_await infos_of(all);
}

rt::Task<Result<void>> MirrorsImpl::restore_all(const std::vector<Mirror*>& all,
                                                const Restore& request) {
  std::vector<Happening> happenings;
  for (Mirror* mirror : all) {
    happenings.push_back({.mirror = mirror,
                          .known = co_await known_for_restore(*mirror, request),
                          .how = {.then = request.then}});
  }
  co_return co_await events(RelationEvent::kRestore, std::move(happenings));
}

// A volume is restored from one other, and not from one that is itself being restored.
Result<void> MirrorsImpl::one_restore_each(const std::vector<Mirror*>& all) const {
  for (auto one = all.begin(); one != all.end(); ++one) {
    for (auto other = all.begin(); other != one; ++other) {
      for (const VolumeNumber volume : {(*one)->source.number(), (*one)->target.number()}) {
        const bool is_shared =
            volume == (*other)->source.number() || volume == (*other)->target.number();
        if (!is_shared) continue;
        return fail(Code::kInvalid,
                    fmt::format("mirrors {} and {} share volume {}: one of them can be restored",
                                (*other)->row.name, (*one)->row.name,
                                volume == (*one)->source.number() ? (*one)->source_name()
                                                                  : (*one)->target_name()),
                    "name one of them");
      }
    }
  }
  return {};
}

// Its transition has made the source refuse writes; nor does the target change.
void MirrorsImpl::tell_doubt(const Mirror& mirror, const Error& why) {
  tell(Severity::kError, "restore_in_doubt", mirror,
       fmt::format("volume {} takes no writes: whether its restore from volume {} was stored shows "
                   "at the next start ({})",
                   mirror.source_name(), mirror.target_name(), why.message()),
       "restart duplexd");
}

// --- verify

rt::Task<Result<std::vector<MirrorInfo>>> MirrorsImpl::verify(std::vector<std::string> names) {
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(const std::vector<Mirror*> all, expand(names));
  for (Mirror* mirror : all) {
    Known known;
    known.facts.set(Guard::kTargetAway,
                    !co_await parts_.volumes.is_attached(mirror->target.number()));
    const Outcome& outcome = next(mirror->state, RelationEvent::kVerify, known.facts);
    if (outcome.kind == Kind::kRefused) {
      co_return std::unexpected(refusal(outcome, *mirror, known));
    }
  }
  for (Mirror* mirror : all) start_job(*mirror, JobKind::kCompare);
  co_return co_await infos_of(all);
}

}  // namespace duplex::mirror
