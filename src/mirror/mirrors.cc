// Create, delete, and what people see of mirrors.
#include "mirror/mirrors.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "mirror/access.h"
#include "mirror/deadline.h"
#include "mirror/mirrors_impl.h"

namespace duplex::mirror {
namespace {

constexpr std::string_view kReasons[] = {"", "a fault of the target", "a verify found a difference",
                                         "an operator cancelled the copy",
                                         "the marks of changes were lost"};

// The next step of a refusal that takes a group as well.
constexpr std::string_view kResync = "duplex mirror resync";

}  // namespace

std::string_view reason_text(Reason reason) { return kReasons[static_cast<size_t>(reason)]; }

MirrorsImpl::MirrorsImpl(Parts parts, const meta::Snapshot& snapshot)
    : parts_(parts),
      control_(parts.world.control()),
      last_mirror_(snapshot.array.last_mirror),
      last_cut_(snapshot.array.last_cut),
      epoch_(snapshot.array.epoch),
      tasks_(std::in_place, control_) {}

// After a simulated crash nothing has ended: users are dropped before what they use.
MirrorsImpl::~MirrorsImpl() {
  tasks_.reset();
  for (const auto& [id, mirror] : mirrors_) mirror->jobs = {};
  parts_.volumes.abandon();
}

// --- looking up

Result<Mirror*> MirrorsImpl::find(const std::string& name) const {
  if (stopping_) return fail(Code::kShutdown);
  const auto found =
      std::ranges::find_if(mirrors_, [&](const auto& m) { return m.second->row.name == name; });
  if (found != mirrors_.end() && found->second->state != Relation::kSimplex) {
    return found->second.get();
  }
  TRY(refuse_parting(name));
  return fail(Code::kNoName, fmt::format("there is no mirror {}", name), "duplex mirror list");
}

// Its leave() of its volumes is still to come, and goes by its name.
Result<void> MirrorsImpl::refuse_parting(const std::string& name) const {
  for (const auto& mirror : parting_) {
    if (mirror->row.name == name) return std::unexpected(parting_error(*mirror));
  }
  return {};
}

Error MirrorsImpl::parting_error(const Mirror& mirror) {
  return Error(Code::kBusy,
               fmt::format("mirror {} is gone, but its writes to volume {} have not ended",
                           mirror.row.name, mirror.target_name()),
               "duplex device list");
}

Mirror* MirrorsImpl::with(MirrorId id) const {
  const auto found = mirrors_.find(id);
  return found == mirrors_.end() ? nullptr : found->second.get();
}

Result<std::vector<Mirror*>> MirrorsImpl::expand(const std::vector<std::string>& names) const {
  std::vector<Mirror*> all;
  const auto add = [&all](Mirror* mirror) {
    if (std::ranges::find(all, mirror) == all.end()) all.push_back(mirror);
  };
  for (const std::string& name : names) {
    const auto group = groups_.find(name);
    if (group == groups_.end()) {
      auto mirror = find(name);
      if (!mirror && mirror.error().code() == Code::kNoName) {
        return fail(Code::kNoName, fmt::format("there is no mirror or group {}", name),
                    "duplex mirror list, or duplex group list");
      }
      TRY(mirror);
      add(*mirror);
      continue;
    }
    if (group->second.empty()) {
      return fail(Code::kState, fmt::format("group {} has no members", name),
                  fmt::format("duplex group add {} MIRROR", name));
    }
    for (const MirrorId id : group->second) add(with(id));
  }
  return all;
}

// NAME, 0xNUMBER, ARRAY:NAME or 0xARRAY,0xNUMBER; of this array.
Result<volume::VolumeInfo> MirrorsImpl::volume_named(const std::string& name) const {
  const size_t comma = name.find(','), colon = name.find(':');
  if (comma != std::string::npos) {
    TRY_ASSIGN(const ArrayId array, parse_array_id(name.substr(0, comma)));
    if (array != parts_.array) {
      return fail(Code::kNoVolume, fmt::format("no array {} is linked", format_id(array)),
                  "duplex status");
    }
    return parts_.volumes.info(name.substr(comma + 1));
  }
  if (colon != std::string::npos) {
    if (name.substr(0, colon) != parts_.array_name) {
      return fail(Code::kNoVolume, fmt::format("no array {} is linked", name.substr(0, colon)),
                  "duplex status");
    }
    return parts_.volumes.info(name.substr(colon + 1));
  }
  return parts_.volumes.info(name);
}

Mirror* MirrorsImpl::upstream_of(VolumeNumber volume) const {
  for (const auto& [id, mirror] : mirrors_) {
    if (mirror->target.number() == volume) return mirror.get();
  }
  return nullptr;
}

size_t MirrorsImpl::depth_of(VolumeNumber volume) const {
  size_t depth = 0;
  for (const Mirror* above = upstream_of(volume); above != nullptr;
       above = upstream_of(above->source.number())) {
    ++depth;
  }
  return depth;
}

std::vector<Mirror*> MirrorsImpl::below(VolumeNumber volume) const {
  std::vector<Mirror*> all;
  for (const auto& [id, mirror] : mirrors_) {
    if (mirror->source.number() == volume) all.push_back(mirror.get());
  }
  return all;
}

Mirror* MirrorsImpl::feeder_of(VolumeNumber volume) const {
  Mirror* above = upstream_of(volume);
  if (above == nullptr) return nullptr;
  switch (above->state) {
    case Relation::kCopying:
    case Relation::kSync:
    case Relation::kArmed:
    case Relation::kSplitting:
      return above;
    case Relation::kSuspended:
      return above->target.row().consistent ? nullptr : above;
    default:
      return nullptr;
  }
}

// --- the table

Error MirrorsImpl::refusal(const Outcome& outcome, const Mirror& mirror, const Known& known) const {
  const std::string cut =
      mirror.cut ? std::to_string(*mirror.cut)
                 : (known.cut ? std::to_string(known.cut) : std::to_string(mirror.row.cut));
  const std::string reason = mirror.reason_detail.empty()
                                 ? std::string(reason_text(mirror.reason()))
                                 : mirror.reason_detail;
  mirror::Names names{.mirror = mirror.row.name,
                      .source = mirror.source_name(),
                      .target = mirror.target_name(),
                      .cut = cut,
                      .client = known.client,
                      .reason = reason,
                      .other = known.other,
                      .count = known.count};
  Error error = refusal_error(outcome.refusal, names);
  if (known.group.empty() || !error.next().starts_with(kResync)) return error;
  names.mirror = known.group;
  return Error(error.code(), std::string(error.message()), fill(outcome.refusal.next, names));
}

rt::Task<Result<void>> MirrorsImpl::event(Mirror& mirror, RelationEvent event, Known known,
                                          Transition::How how) {
  std::vector<Happening> one;
  one.push_back({.mirror = &mirror, .known = std::move(known), .how = std::move(how)});
  co_return co_await events(event, std::move(one));
}

rt::Task<Result<void>> MirrorsImpl::events(RelationEvent event, std::vector<Happening> all) {
  std::ranges::sort(all, {}, [this](const Happening& one) {
    return std::pair(depth_of(one.mirror->source.number()), one.mirror->id);
  });
  Transition::Transitions transitions;
  for (Happening& one : all) {
    const Outcome& outcome = next(one.mirror->state, event, one.known.facts);
    ASSERT(outcome.kind != Kind::kNever);
    if (outcome.kind == Kind::kRefused) {
      co_return std::unexpected(refusal(outcome, *one.mirror, one.known));
    }
    if (outcome.kind == Kind::kStays && outcome.actions().empty()) continue;
    transitions.push_back(
        std::make_unique<Transition>(*this, *one.mirror, outcome, std::move(one.how)));
  }
  if (transitions.empty()) co_return Result<void>();
  co_return co_await Transition::run(*this, std::move(transitions));
}

volume::Access MirrorsImpl::access_of(const Mirror& mirror, Relation state) const {
  if (state == Relation::kSimplex) return volume::Access::read_write();
  if (state == Relation::kSplit &&
      mirror.row.access == static_cast<uint8_t>(TargetAccess::kReadWrite)) {
    return volume::Access::read_write();
  }
  if (state == Relation::kSplit || state == Relation::kReverse) {
    return volume::Access::read_only();
  }
  return volume::Access::refused(
      refusal_error(target_refusal(state), {.mirror = mirror.row.name,
                                            .source = mirror.source_name(),
                                            .target = mirror.target_name(),
                                            .cut = {},
                                            .client = {},
                                            .reason = {},
                                            .other = {},
                                            .count = {}}));
}

// The same for every volume that is kept equal to this one.
void MirrorsImpl::set_consistent(Ledger& ledger, volume::Member& volume, bool consistent) const {
  ledger.set_consistent(volume, consistent);
  for (Mirror* mirror : below(volume.number())) {
    const bool follows = mirror->state == Relation::kSync || mirror->state == Relation::kArmed ||
                         mirror->state == Relation::kSplitting;
    if (follows) set_consistent(ledger, mirror->target, consistent);
  }
}

// --- create

Known MirrorsImpl::known_for_create(const CreateMirror& request, const volume::VolumeInfo& source,
                                    const volume::VolumeInfo& target) const {
  Known known;
  Facts& facts = known.facts;
  const Mirror* above = upstream_of(target.number);
  facts.set(Guard::kTargetHasMirror, above != nullptr);
  if (above != nullptr) known.other = above->row.name;
  facts.set(Guard::kCycle, source.number == target.number);
  for (VolumeNumber at = source.number; const Mirror* up = upstream_of(at);) {
    at = up->source.number();
    if (at == target.number) facts.set(Guard::kCycle);
  }
  facts.set(Guard::kSizeDiffers, source.size_bytes != target.size_bytes);
  for (const auto& [id, mirror] : mirrors_) {
    const auto touches = [&](VolumeNumber volume) {
      return mirror->source.number() == volume || mirror->target.number() == volume;
    };
    if (!touches(source.number) && !touches(target.number)) continue;
    if (mirror->cut) facts.set(Guard::kInCut), known.cut = *mirror->cut;
    if (mirror->state == Relation::kReverse) {
      facts.set(Guard::kInRestore);
      if (known.other.empty()) known.other = mirror->row.name;
    }
  }
  facts.set(Guard::kTargetHoldsData, target.allocated_bytes > 0 && !request.overwrite);
  known.count = format_size(target.allocated_bytes);
  // Within one array nothing but a copy shows that two volumes are equal.
  facts.set(Guard::kMapsUnknown, !request.copy);
  return known;
}

rt::Task<Result<Mirrors::Created>> MirrorsImpl::create(CreateMirror request) {
  CO_TRY(check_name(request.name, "mirror"));
  const Turn turn = co_await turn_.lock();
  if (stopping_) co_return fail(Code::kShutdown);
  if (groups_.contains(request.name)) {
    co_return fail(Code::kExists, fmt::format("{} is the name of a group", request.name),
                   "choose another name, or see: duplex group show " + request.name);
  }
  CO_TRY_ASSIGN(const volume::VolumeInfo source, volume_named(request.source));
  CO_TRY_ASSIGN(const volume::VolumeInfo target, volume_named(request.target));
  if (auto same = find(request.name)) {
    Known known;
    known.facts.set(Guard::kSameDefinition, (*same)->source.number() == source.number &&
                                                (*same)->target.number() == target.number);
    CO_TRY(co_await event(**same, RelationEvent::kCreateFull, known));
    co_return Created{co_await info_of(**same), false};
  }
  for (const volume::VolumeInfo& volume : {source, target}) {
    if (!volume.damaged) continue;
    co_return fail(Code::kState,
                   fmt::format("volume {} may have lost data: it was rebuilt without all devices",
                               volume.name),
                   "duplex volume show " + volume.name);
  }
  if (source.number == target.number) {
    co_return fail(Code::kInvalid, "a volume cannot be mirrored to itself", "name two volumes");
  }
  CO_TRY(refuse_parting(request.name));
  // A write of a mirror that has gone may still reach its target.
  for (const auto& parting : parting_) {
    const VolumeNumber late = parting->target.number();
    if (late != source.number && late != target.number) continue;
    co_return std::unexpected(parting_error(*parting));
  }
  CO_TRY(co_await make(request, source, target));
  CO_TRY_ASSIGN(Mirror* const made, find(request.name));
  tell(Severity::kInfo, "mirror_created", *made,
       fmt::format("mirror {} of volume {} to volume {} was created", made->row.name,
                   made->source_name(), made->target_name()));
  co_return Created{co_await info_of(*made), true};
}

// The mirror joins its volumes first, so that the row finds something to act on; it leaves them
// again when the row refuses or fails.
rt::Task<Result<void>> MirrorsImpl::make(const CreateMirror& request,
                                         const volume::VolumeInfo& source,
                                         const volume::VolumeInfo& target) {
  Known known = known_for_create(request, source, target);
  known.facts.set(Guard::kTargetAway, !co_await parts_.volumes.is_attached(target.number));
  meta::MirrorRow row;
  row.id = MirrorId(++last_mirror_);  // also when it comes to nothing: its maps may stay a while
  row.name = request.name;
  row.source = source.number;
  row.target = target.number;
  row.created_us = control_.clock().wall_us();
  CO_TRY_ASSIGN(Mirror* const mirror, co_await join(std::move(row)));
  mirror->rate = request.rate;
  // Nobody opens the target from the look at its clients on.
  mirror->target.set_access(access_of(*mirror, Relation::kCopying));
  known.client = names_of(mirror->target.clients(), false);
  known.facts.set(Guard::kTargetOpen, !known.client.empty());
  co_await add_leg(*mirror, volume::ChangeMap(), volume::ChangeMap());
  const RelationEvent create =
      request.copy ? RelationEvent::kCreateFull : RelationEvent::kCreateNoCopy;
  Result<void> done = co_await event(*mirror, create, known);
  if (!done) co_await drop(*mirror);
  co_return done;
}

// Memory only.
rt::Task<Result<Mirror*>> MirrorsImpl::join(meta::MirrorRow row) {
  const MirrorId id = row.id;
  CO_TRY_ASSIGN(volume::Member* const source, co_await parts_.volumes.join(row.source, row.name));
  auto target = co_await parts_.volumes.join(row.target, row.name);
  if (!target) {
    co_await parts_.volumes.leave(*source, row.name);
    co_return std::unexpected(std::move(target).error());
  }
  auto look = [this, id] { tasks_->spawn(this->look(id)); };
  auto mirror = std::make_unique<Mirror>(control_, std::move(row), *source, **target, look);
  co_return mirrors_.emplace(id, std::move(mirror)).first->second.get();
}

// Called on the source core, for each region: told at most once a second.
std::function<void(ByteRange)> MirrorsImpl::repaired_teller(const Mirror& mirror) {
  const Event event{.severity = Severity::kWarning,
                    .code = "region_repaired",
                    .subject = "volume " + mirror.source_name(),
                    .text = fmt::format("volume {} could not read a region of its own backing: "
                                        "volume {} answered, and it was written again",
                                        mirror.source_name(), mirror.target_name()),
                    .next = "duplex device list"};
  return [this, event, &clock = mirror.source.core().clock(),
          told = std::optional<rt::Micros>()](ByteRange /*region*/) mutable {
    if (told && clock.now() < *told + rt::kSecond) return;
    told = clock.now();
    parts_.events.emit(event);
  };
}

rt::Task<> MirrorsImpl::add_leg(Mirror& mirror, volume::ChangeMap bits, volume::ChangeMap missing) {
  volume::VolumeImpl& target = mirror.target.volume();
  co_await rt::hop(mirror.target.core());
  target.forget_losses_above();
  co_await rt::hop(mirror.source.core());
  volume::VolumeImpl& source = mirror.source.volume();
  volume::Tracker& tracker = mirror.source.tracker();
  tracker.add_map(mirror.bits(), volume::MapKind::kCopyAway, std::move(bits));
  tracker.add_map(mirror.missing(), volume::MapKind::kMissing, std::move(missing));
  mirror.leg = std::make_unique<volume::TargetLeg>(
      tracker, mirror.bits(), mirror.missing(), target,
      [&mirror](Error why) {
        mirror.left = std::move(why);
        mirror.bell.ring();
      },
      [&mirror] { mirror.bell.ring(); }, repaired_teller(mirror));
  tracker.set_windows(mirror.bits(), &source.own_window(), &mirror.leg->window());
  // Not held until the target has flushed: the source's own backing has it, and what the target
  // owes is hot.
  tracker.set_windows(mirror.missing(), nullptr, &source.returned_window());
  tracker.add_debtor(*mirror.leg);
  source.add_leg(*mirror.leg);
  co_await rt::hop(control_);
  co_await volume::offer_changed(mirror.source, mirror.row.name, mirror.bits(), control_);
}

// The mirror is in no store (any more): nobody finds it from now on. A device that hangs keeps it
// in parting_ for longer than this waits.
rt::Task<> MirrorsImpl::drop(Mirror& mirror) {
  parting_.push_back(std::move(mirrors_.extract(mirror.row.id).mapped()));
  rt::Clock& clock = control_.clock();
  co_await within(*tasks_, clock, clock.now() + kMostWait, std::make_shared<Pending>(),
                  part_with(mirror));
}

rt::Task<bool> MirrorsImpl::part_with(Mirror& mirror) {
  mirror.state = Relation::kSimplex;
  while (mirror.pending->count > 0 || mirror.lookers > 0 || !mirror.bell.is_quiet()) {
    co_await rt::sleep_for(control_.clock(), rt::kMillisecond);
  }
  co_await rt::hop(mirror.source.core());
  volume::Tracker& tracker = mirror.source.tracker();
  tracker.remove_map(mirror.missing());
  co_await mirror.leg->drained();
  mirror.source.volume().remove_leg(*mirror.leg);
  co_await tracker.remove_debtor(*mirror.leg);
  tracker.remove_map(mirror.bits());
  mirror.leg.reset();
  co_await rt::hop(control_);
  for (const auto& job : mirror.done_jobs) {
    if (job) parts_.jobs.close(job->id, JobDesk::End::kCancelled, {}, job->last);
  }
  mirror.target.set_access(volume::Access::read_write());
  co_await parts_.volumes.leave(mirror.target, mirror.row.name);
  co_await parts_.volumes.leave(mirror.source, mirror.row.name);
  std::erase_if(parting_, [&](const auto& other) { return other.get() == &mirror; });
  co_return true;
}

// --- delete

rt::Task<Result<Plan>> MirrorsImpl::plan_remove(std::string name) {
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(Mirror* const mirror, find(name));
  const MirrorInfo info = co_await info_of(*mirror);
  Plan plan{.volume = info.source};
  plan.lines.push_back(fmt::format("Mirror {} of volume {} to volume {} ends; both volumes stay.",
                                   name, info.source, info.target));
  if (mirror->state == Relation::kCopying || !info.consistent) {
    plan.lines.push_back(fmt::format(
        "Volume {} holds part of a copy: nobody can open it until a mirror has filled it again.",
        info.target));
  }
  if (info.missing_bytes > 0) {
    plan.destroys = true;
    plan.bytes_overwritten = info.missing_bytes;
    plan.lines.push_back(fmt::format("{} of volume {} exist only on volume {} and would be lost.",
                                     format_size_rounded(info.missing_bytes), info.source,
                                     info.target));
  }
  co_return plan;
}

rt::Task<bool> MirrorsImpl::flush_source(Mirror& mirror) {
  rt::Clock& clock = control_.clock();
  const auto done = co_await within(*tasks_, clock, clock.now() + kMostWait, mirror.pending,
                                    mirror.source.volume().flush_untold());
  co_return done && done->has_value();
}

rt::Task<Result<void>> MirrorsImpl::remove(std::string name, bool confirmed) {
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(Mirror* const mirror, find(name));
  // A region that has come back may still be in the source's cache alone; if that is lost, it is
  // missing again, and the row below says so.
  static_cast<void>(co_await flush_source(*mirror));
  const MirrorInfo info = co_await info_of(*mirror);
  Known known;
  known.facts.set(Guard::kMissingLeft, info.missing_bytes > 0);
  known.facts.set(Guard::kNotConfirmed, info.missing_bytes > 0 && !confirmed);
  known.count = format_size(info.missing_bytes);
  CO_TRY(co_await event(*mirror, RelationEvent::kDelete, known, {.confirmed = confirmed}));
  for (auto& [group, members] : groups_) members.erase(mirror->row.id);
  tell(Severity::kInfo, "mirror_deleted", *mirror,
       fmt::format("mirror {} of volume {} to volume {} was deleted", name, info.source,
                   info.target));
  parts_.jobs.forget(name);
  co_await drop(*mirror);
  co_return Result<void>();
}

// --- what people see

// Source core.
static double percent_of(const Mirror::Running& job) {
  const WorkProgress now = job.progress();
  if (now.bytes_total == 0) return 100;
  return 100.0 * static_cast<double>(now.bytes_done) / static_cast<double>(now.bytes_total);
}

static double percent_equal(const MirrorInfo& info) {
  const uint64_t differs =
      std::min(info.size_bytes, info.changed_bytes_source + info.missing_bytes);
  return 100.0 * static_cast<double>(info.size_bytes - differs) /
         static_cast<double>(info.size_bytes);
}

rt::Task<MirrorInfo> MirrorsImpl::info_of(Mirror& mirror) {
  const Mirror::Looking looking(mirror);
  MirrorInfo info{.id = mirror.row.id,
                  .name = mirror.row.name,
                  .source = mirror.source_name(),
                  .target = mirror.target_name(),
                  .source_number = mirror.source.number(),
                  .target_number = mirror.target.number(),
                  .size_bytes = mirror.source.size_bytes()};
  info.state = mirror.state;
  info.reason = std::string(reason_text(mirror.reason()));
  if (mirror.state == Relation::kSuspended && !mirror.reason_detail.empty()) {
    info.reason += ": " + mirror.reason_detail;
  }
  info.read_only = mirror.row.access == static_cast<uint8_t>(TargetAccess::kReadOnly);
  info.consistent = mirror.target.row().consistent;
  info.source_consistent = mirror.source.row().consistent;
  info.cut = mirror.row.cut;
  info.in_cut = mirror.cut.has_value();
  info.created_us = mirror.row.created_us;
  for (const auto& [name, members] : groups_) {
    if (members.contains(mirror.row.id)) info.groups.push_back(name);
  }
  if (mirror.state == Relation::kReverse) {
    info.then = mirror.row.then == static_cast<uint8_t>(Then::kSync) ? "sync" : "split";
  }
  std::shared_ptr<Mirror::Running> job;
  for (const JobKind kind : {JobKind::kCopy, JobKind::kBack, JobKind::kCompare}) {
    for (const auto& one :
         {mirror.jobs[static_cast<size_t>(kind)], mirror.done_jobs[static_cast<size_t>(kind)]}) {
      if (one && !job) job = one;
    }
  }
  if (job) info.job = job->id;
  co_await rt::hop(mirror.source.core());
  const volume::Tracker& tracker = mirror.source.tracker();
  info.changed_bytes_source = tracker.map(mirror.bits()).set_bytes();
  info.missing_bytes = tracker.map(mirror.missing()).set_bytes();
  if (job) info.progress = percent_of(*job);
  if (!job && info.state == Relation::kSuspended) info.progress = percent_equal(info);
  co_await rt::hop(mirror.target.core());
  const volume::Tracker& theirs = mirror.target.tracker();
  if (theirs.has_map(mirror.behind())) {
    info.changed_bytes_target = theirs.map(mirror.behind()).set_bytes();
  }
  co_await rt::hop(control_);
  info.attached = co_await parts_.volumes.is_attached(mirror.target.number());
  co_return info;
}

rt::Task<std::vector<MirrorInfo>> MirrorsImpl::list() {
  std::vector<MirrorId> ids;
  for (const auto& [id, mirror] : mirrors_) ids.push_back(id);
  std::vector<MirrorInfo> all;
  for (const MirrorId id : ids) {
    Mirror* mirror = with(id);
    if (mirror != nullptr && mirror->state != Relation::kSimplex) {
      all.push_back(co_await info_of(*mirror));
    }
  }
  std::ranges::sort(all, {}, &MirrorInfo::name);
  co_return all;
}

rt::Task<Result<MirrorInfo>> MirrorsImpl::show(std::string name) {
  CO_TRY_ASSIGN(Mirror* const mirror, find(name));
  co_return co_await info_of(*mirror);
}

rt::Task<std::vector<MirrorInfo>> MirrorsImpl::infos_of(const std::vector<Mirror*>& mirrors) {
  std::vector<MirrorInfo> all;
  for (Mirror* mirror : mirrors) all.push_back(co_await info_of(*mirror));
  co_return all;
}

void MirrorsImpl::tell(Severity severity, const char* code, const Mirror& mirror, std::string text,
                       std::string next) {
  parts_.events.emit({.severity = severity,
                      .code = code,
                      .subject = "mirror " + mirror.row.name,
                      .text = std::move(text),
                      .next = std::move(next)});
}

}  // namespace duplex::mirror
