// Split: from names or pairs to a cut, and what is shown of cuts.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "mirror/cut.h"
#include "mirror/mirrors_impl.h"

namespace duplex::mirror {
namespace {

constexpr rt::Micros kLeastLease = rt::kMillisecond;
constexpr rt::Micros kMostLease = 10 * rt::kSecond;

std::string pair_text(const PairId& pair) {
  return fmt::format("{}, {} to {}, {}", format_id(pair.source_array), format_id(pair.source),
                     format_id(pair.target_array), format_id(pair.target));
}

}  // namespace

// `entry` counts from 1, as a person counts them.
Result<Mirror*> MirrorsImpl::paired(const PairId& pair, size_t entry) const {
  for (const ArrayId array : {pair.source_array, pair.target_array}) {
    if (array == parts_.array) continue;
    return fail(Code::kNoName,
                fmt::format("entry {} ({}): no array {} is linked", entry, pair_text(pair),
                            format_id(array)),
                "duplex mirror list --table copy");
  }
  for (const auto& [id, mirror] : mirrors_) {
    if (mirror->state == Relation::kSimplex) continue;
    if (mirror->source.number() == pair.source && mirror->target.number() == pair.target) {
      return mirror.get();
    }
  }
  return fail(Code::kNoName, fmt::format("entry {} ({}) is no mirror", entry, pair_text(pair)),
              "duplex mirror list --table copy");
}

// Empty when it was named by itself, or by its pair.
std::string MirrorsImpl::group_asked(const Mirror& mirror,
                                     const std::vector<std::string>& names) const {
  if (std::ranges::find(names, mirror.row.name) != names.end()) return {};
  for (const std::string& name : names) {
    const auto group = groups_.find(name);
    if (group != groups_.end() && group->second.contains(mirror.row.id)) return name;
  }
  return {};
}

Result<std::vector<Mirror*>> MirrorsImpl::members_of(const SplitRequest& request) const {
  TRY_ASSIGN(std::vector<Mirror*> all, expand(request.names));
  for (size_t i = 0; i < request.pairs.size(); ++i) {
    TRY_ASSIGN(Mirror* const mirror, paired(request.pairs[i], i + 1));
    if (std::ranges::find(all, mirror) == all.end()) all.push_back(mirror);
  }
  if (all.empty()) {
    return fail(Code::kInvalid, "a split needs at least one mirror", "duplex split NAME...");
  }
  return all;
}

rt::Task<Result<CutInfo>> MirrorsImpl::split(SplitRequest request) {
  if (request.lease < kLeastLease || request.lease > kMostLease) {
    co_return fail(Code::kInvalid, "a hold is from 1 ms to 10 s", "give --max-hold 250ms");
  }
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(const std::vector<Mirror*> members, members_of(request));
  Cut cut(*this, request, members);
  CO_TRY_ASSIGN(const meta::CutRow row, co_await cut.run());
  for (const Mirror* mirror : members) {
    tell(Severity::kInfo, "mirror_split", *mirror,
         fmt::format("mirror {} was split at cut {}, hold {} us", mirror->row.name, row.id,
                     row.hold_us));
  }
  CutInfo info = info_of(row);
  info.members.clear();  // in the order named
  for (const Mirror* mirror : members) {
    info.members.push_back({.mirror = mirror->row.name,
                            .target = mirror->target_name(),
                            .state = mirror->state,
                            .number = mirror->target.number()});
  }
  co_return info;
}

CutInfo MirrorsImpl::info_of(const meta::CutRow& row) const {
  CutInfo info{.id = row.id,
               .epoch = row.epoch.value(),
               .hold = row.hold_us,
               .wall_us = row.wall_us,
               .members = {}};
  for (const meta::CutMember& member : row.members) {
    CutInfo::Member shown{.mirror = {}, .target = {}, .number = member.volume};
    if (const Mirror* mirror = with(member.mirror)) {
      shown.mirror = mirror->row.name;
      shown.target = mirror->target_name();
      shown.state = mirror->state;
      shown.is_kept = mirror->row.cut == row.id;
    }
    info.members.push_back(std::move(shown));
  }
  return info;
}

std::vector<CutInfo> MirrorsImpl::cuts() const {
  std::vector<CutInfo> all;
  for (const auto& [id, row] : cuts_) all.push_back(info_of(row));
  return all;
}

Result<CutInfo> MirrorsImpl::cut(uint64_t id) const {
  const auto found = cuts_.find(id);
  if (found != cuts_.end()) return info_of(found->second);
  return fail(Code::kNoName, fmt::format("there is no cut {}", id), "duplex cut list");
}

}  // namespace duplex::mirror
