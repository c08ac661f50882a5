#include "sim/cut_judge.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.h"

namespace duplex::simtest {

Image image_of_bytes(std::span<const std::byte> bytes) {
  Image image(bytes.size() / kSector);
  for (uint64_t s = 0; s < image.size(); ++s)
    image[s] = Oracle::tag_of(bytes.subspan(s * kSector, kSector), s);
  return image;
}

CutJudge::Source CutJudge::add(std::string name, uint64_t sectors) {
  volumes_.push_back(
      {.name = std::move(name), .sectors = std::vector<Sector>(sectors), .in_flight = {}});
  return volumes_.size() - 1;
}

CutJudge::Sector& CutJudge::opened(Sector& sector) {
  if (sector.empty()) sector.push_back({.tag = 0, .start = 0, .end = 0, .known = 0});
  return sector;
}

const CutJudge::Sector& CutJudge::opened(const Sector& sector) {
  static const Sector untouched = {{.tag = 0, .start = 0, .end = 0, .known = 0}};
  return sector.empty() ? untouched : sector;
}

void CutJudge::begin(Time started, Source source, uint64_t first, uint64_t count) {
  ASSERT(count > 0 && first + count <= volumes_[source].sectors.size());
  volumes_[source].in_flight.push_back({started, {first, count}});
}

void CutJudge::begin_write(Time started, Source source, uint64_t first, uint64_t count, Tag tag) {
  begin(started, source, first, count);
  for (uint64_t s = first; s < first + count; ++s)
    opened(volumes_[source].sectors[s]).push_back({.tag = tag, .start = started});
}

void CutJudge::begin_replace(Time started, Source source, const Image& image) {
  begin(started, source, 0, image.size());
  for (uint64_t s = 0; s < image.size(); ++s) {
    if (image[s])
      opened(volumes_[source].sectors[s]).push_back({.tag = *image[s], .start = started});
  }
}

void CutJudge::end_write(Time now, Source source, Time started, bool success) {
  auto& in_flight = volumes_[source].in_flight;
  const auto it = std::ranges::find(in_flight, started, [](const auto& w) { return w.first; });
  if (it == in_flight.end()) return;  // a crash was faster
  const auto [first, count] = it->second;
  in_flight.erase(it);
  for (uint64_t s = first; s < first + count; ++s) {
    for (Version& v : volumes_[source].sectors[s]) {
      if (v.start != started) continue;
      v.end = now;
      if (success && !v.tainted && !volumes_[source].is_untold) v.known = std::min(v.known, now);
    }
  }
}

void CutJudge::seen(Time now, Source source, uint64_t first, std::span<const std::byte> bytes) {
  if (volumes_[source].is_untold) return;
  for (uint64_t i = 0; i < bytes.size() / kSector; ++i) {
    const auto tag = Oracle::tag_of(bytes.subspan(i * kSector, kSector), first + i);
    if (!tag || *tag == 0) continue;
    for (Version& v : volumes_[source].sectors[first + i]) {
      // One that comes back by a restore has its tag twice: then the later one is meant.
      if (v.tag == *tag && !v.tainted) v.known = std::min(v.known, now);
    }
  }
}

void CutJudge::stopped(Time now, bool power) {
  for (Source source = 0; source < volumes_.size(); ++source) {
    Volume& volume = volumes_[source];
    for (const auto& [started, range] : volume.in_flight) {
      for (uint64_t s = range.first; s < range.first + range.second; ++s) {
        for (Version& v : volume.sectors[s])
          if (v.start == started) v.end = now;
      }
    }
    volume.in_flight.clear();
    if (power) loss(source);
    volume.is_untold = false;
  }
}

void CutJudge::flushed(Source source, uint64_t before, bool success) {
  Volume& volume = volumes_[source];
  const bool is_told = volume.losses == before;
  if (!success) loss(source);
  if (is_told) volume.is_untold = false;
}

void CutJudge::loss(Source source) {
  ++volumes_[source].losses;
  volumes_[source].is_untold = true;
  for (Sector& sector : volumes_[source].sectors) {
    for (Version& v : sector) {
      v.tainted = v.tainted || v.end == kNever;
      v.known = kNever;
    }
  }
}

void CutJudge::settle(Source source, const Image& image) {
  Volume& volume = volumes_[source];
  ASSERT(image.size() == volume.sectors.size());
  volume.in_flight.clear();
  volume.is_untold = false;
  for (uint64_t s = 0; s < image.size(); ++s)
    if (image[s]) volume.sectors[s] = {{.tag = *image[s], .start = 0, .end = 0, .known = 0}};
}

CutJudge::Cut CutJudge::freeze(Time asked, Time now, std::span<const Source> sources) const {
  Cut cut{.asked = asked, .answered = now, .members = {}};
  for (const Source source : sources)
    cut.members.push_back({source, volumes_[source].name, volumes_[source].sectors});
  return cut;
}

const CutJudge::Cut::Member* CutJudge::member_of(const Cut& cut, Source source) {
  const auto it = std::ranges::find(cut.members, source, &Cut::Member::source);
  return it == cut.members.end() ? nullptr : &*it;
}

// The beginning of the latest write that is certainly in an image.
std::optional<Time> CutJudge::latest_start(const Cut& cut, std::span<const Target> targets) {
  std::optional<Time> latest;
  for (const Target& target : targets) {
    const Cut::Member& member = *member_of(cut, target.source);
    for (uint64_t s = 0; s < target.image.size(); ++s) {
      const Version* only = nullptr;
      size_t explanations = 0;
      for (const Version& v : opened(member.sectors[s])) {
        if (v.tag != target.image[s]) continue;
        ++explanations;
        only = &v;
      }
      if (explanations == 1) latest = std::max(latest.value_or(0), only->start);
    }
  }
  return latest;
}

std::string CutJudge::judge_sector(const Sector& sector, Tag seen, Time until) {
  std::string why = fmt::format("holds tag {:x}, which was not written before the answer", seen);
  for (const Version& v : sector) {
    if (v.tag != seen) continue;
    const auto missing = std::ranges::find_if(
        sector, [&](const Version& u) { return u.start > v.end && u.known < until; });
    if (missing == sector.end()) return {};
    why = fmt::format("holds tag {:x} of {}..{}, but {:x}, known since {}, follows it", seen,
                      v.start, v.end, missing->tag, missing->known);
  }
  return why;
}

std::string CutJudge::judge(const Cut& cut, std::span<const Target> targets) {
  for (const Target& target : targets) {
    const Cut::Member* member = member_of(cut, target.source);
    if (member == nullptr || member->sectors.size() != target.image.size())
      return fmt::format("{} is no target of this cut", target.name);
  }
  const Time until = std::max(cut.asked, latest_start(cut, targets).value_or(0));
  for (size_t i = 0; i < targets.size(); ++i) {
    const Target& target = targets[i];
    const Cut::Member& member = *member_of(cut, target.source);
    const auto twin = std::ranges::find(targets.first(i), target.source, &Target::source);
    for (uint64_t s = 0; s < target.image.size(); ++s) {
      if (!target.image[s])
        return fmt::format("sector {} of {} holds bytes nobody wrote", s, target.name);
      if (twin != targets.begin() + static_cast<std::ptrdiff_t>(i) &&
          twin->image[s] != target.image[s])
        return fmt::format(
            "sector {}: {} holds tag {:x}, {} holds {:x}: one cut, two sets of writes", s,
            twin->name, twin->image[s].value_or(0), target.name, *target.image[s]);
      const std::string why = judge_sector(opened(member.sectors[s]), *target.image[s], until);
      if (!why.empty())
        return fmt::format("cut {}..{} is no prefix up to {}: sector {} of {} (source {}) {}",
                           cut.asked, cut.answered, until, s, target.name, member.name, why);
    }
  }
  return {};
}

}  // namespace duplex::simtest
