// MirrorScene: quiet points. No host asks, no verb runs, no device fails.
#include <fmt/format.h>

#include <algorithm>

#include "sim/mirror_scene.h"
#include "sim/raw_view.h"

namespace duplex::simtest {

using mirror::MirrorInfo;
using mirror::Relation;

namespace {

// A copy of all volumes takes seconds; a job that is stalled tries again every second.
constexpr rt::Micros kRestLimit = 600 * rt::kSecond;

// Regions for which the target is the only one, of a volume in any of its mirrors: its own backing
// is behind then.
bool is_whole(const std::vector<MirrorInfo>& infos, const std::string& volume) {
  return std::ranges::none_of(infos, [&](const MirrorInfo& info) {
    return info.source == volume && info.missing_bytes != 0;
  });
}

// Below a mirror that is suspended a volume gets no FLUSH: neither it has hosts, nor does anything
// reach it from above. A cache that was lost with the flush of another volume is then still to be
// told of, and its own backing may be older than its targets until it is.
bool is_flushed(const std::vector<MirrorInfo>& infos, const std::string& volume) {
  const auto above = std::ranges::find(infos, volume, &MirrorInfo::target);
  if (above == infos.end() || above->state == Relation::kSplit) return true;
  return above->state != Relation::kSuspended && is_flushed(infos, above->source);
}

// SYNC with bits: the leg has left on the core of its source, with the FLUSH that has just been
// answered, and the word of it is on its way to the owner of the mirrors. A leg that sends has no
// bits, so a mirror that stays like this has forgotten that it was left.
bool is_moving(const MirrorInfo& info) {
  return info.state == Relation::kCopying || info.state == Relation::kReverse ||
         (info.state == Relation::kSync && (info.missing_bytes != 0 || info.changed_bytes() != 0));
}

}  // namespace

// What an operator has paused stays so, over a restart too.
rt::Task<> MirrorScene::resume_all() {
  for (const control::JobInfo& info : co_await array_->jobs().infos()) {
    if (info.row.state == "paused") done("resume", co_await array_->jobs().resume(info.row.id));
  }
}

// P10. `all_in_sync`: what is split or suspended is brought back as well.
rt::Task<> MirrorScene::bring_to_rest(bool all_in_sync) {
  const rt::Micros end = simulation_.now() + kRestLimit;
  for (;;) {
    co_await resume_all();
    const std::vector<MirrorInfo> infos = co_await array_->mirrors().list();
    std::string open;
    for (const MirrorInfo& info : infos) {
      const bool apart = info.state == Relation::kSplit || info.state == Relation::kSuspended;
      if (!is_moving(info) && !(apart && all_in_sync)) continue;
      open += fmt::format(" {} is {} ({}, {:.1f} %, {} missing, {} changed)", info.name,
                          mirror::state_name(info.state), info.reason, info.progress,
                          info.missing_bytes, info.changed_bytes());
      if (!apart) continue;
      const auto begun = co_await array_->mirrors().resync({{info.name}, false});
      if (!begun) open += ": " + begun.error().describe();
    }
    if (open.empty()) co_return;
    if (simulation_.now() > end) {
      violate("all faults are gone, but" + open);
      co_return;
    }
    co_await rt::sleep_for(box_->control().clock(), 500 * rt::kMillisecond);
  }
}

// P4, P5, P12.
rt::Task<> MirrorScene::compare_sides() {
  const std::vector<MirrorInfo> infos = co_await array_->mirrors().list();
  for (const MirrorInfo& info : infos) {
    if (!is_whole(infos, info.source) || !is_whole(infos, info.target)) continue;
    if (!is_flushed(infos, info.source)) continue;
    const auto p = co_await raw_bytes(*array_, *box_, info.source);
    const auto s = co_await raw_bytes(*array_, *box_, info.target);
    if (!p || !s) continue;
    const uint64_t differing = differing_regions(*p, *s);
    const uint64_t known = divide_up(info.changed_bytes(), kRegionBytes);
    if (info.state == Relation::kSync && differing != 0) {
      violate(fmt::format("{} is in SYNC, but {} and {} differ in {} regions", info.name,
                          info.source, info.target, differing));
    }
    const bool apart = info.state == Relation::kSplit || info.state == Relation::kSuspended;
    if (apart && differing > known) {
      violate(fmt::format("{} ({}): {} regions differ, the maps have {}", info.name,
                          mirror::state_name(info.state), differing, known));
    }
    simulation_.count("mirror compared");
  }
}

// P5. From the root on, so that what one brings is counted with the next. Mutation: unite_maps()
// sets every bit.
rt::Task<> MirrorScene::resync_counting() {
  for (const Mirror& one : mirrors_) {
    const auto infos = co_await array_->mirrors().list();
    const auto info = std::ranges::find(infos, one.name, &MirrorInfo::name);
    if (info == infos.end() || info->state != Relation::kSplit) continue;
    if (!is_whole(infos, info->source) || !is_flushed(infos, info->source)) continue;
    if (!done("resync", co_await array_->mirrors().resync({{one.name}, false}))) continue;
    const auto job = array_->jobs().number_of(one.name);
    if (job) co_await array_->jobs().wait(*job, kRestLimit);
    const auto ended = job ? co_await array_->jobs().info(*job)
                           : Result<control::JobInfo>(std::unexpected(job.error()));
    if (!ended || ended->row.state != "done") {
      violate(fmt::format("{}: a resync does not end with all faults gone", one.name));
      co_return;
    }
    if (ended->bytes_moved.value_or(0) > info->changed_bytes()) {
      violate(fmt::format("{}: {} bytes were copied, and the maps had {}", one.name,
                          *ended->bytes_moved, info->changed_bytes()));
    }
    simulation_.count("resync counted");
  }
}

rt::Task<> MirrorScene::compare_frozen(const Mirror& one) {
  if (!one.frozen || one.frozen->empty()) co_return;
  const auto infos = co_await array_->mirrors().list();
  const std::string& name = volumes_[one.target].name;
  const auto bytes = co_await raw_bytes(*array_, *box_, name);
  if (!bytes || !is_whole(infos, name)) co_return;
  if (image_of_bytes(*bytes) != *one.frozen)
    violate(fmt::format("{} was split read-only and has changed", name));
  simulation_.count("read-only image compared");
}

rt::Task<> MirrorScene::quiet() {
  co_await bring_to_rest(false);
  co_await flush_all();
  co_await bring_to_rest(false);
  co_await refresh();
  compare_group();
  co_await read_points();
  co_await compare_sides();
  for (const Mirror& one : mirrors_) co_await compare_frozen(one);
}

// The end of a run: everything comes back, and one more cut of all.
rt::Task<> MirrorScene::last_judgement() {
  co_await quiet();
  // A restore heals what a cancelled one has left behind.
  for (size_t i = 0; i < mirrors_.size(); ++i) {
    if (mirrors_[i].state == Relation::kSplit && !volumes_[mirrors_[i].source].known &&
        upstream(mirrors_[i].source) == nullptr)
      co_await restore(i);
  }
  co_await bring_to_rest(false);
  co_await resync_counting();
  for (size_t i = 0; i < mirrors_.size(); ++i) {
    if (!mirrors_[i].exists) co_await remove_and_create(i);
  }
  co_await bring_to_rest(true);
  co_await refresh();
  co_await compare_sides();
  co_await settle_roots();
  if (!result_.violation.empty()) co_return;
  std::vector<size_t> all;
  for (size_t i = 0; i < mirrors_.size(); ++i) all.push_back(i);
  co_await split(all);
  co_await refresh();
  for (const Mirror& one : mirrors_) {
    if (one.state != Relation::kSplit)
      violate(fmt::format("{} cannot be split with all faults gone", one.name));
  }
  co_await read_points();
  co_await compare_sides();
}

}  // namespace duplex::simtest
