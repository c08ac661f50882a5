#include "sim/oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace duplex::simtest {
namespace {

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// False when it is not there: the request was cut off by a crash meanwhile.
bool take_out(std::vector<Time>& times, Time time) {
  const auto it = std::find(times.begin(), times.end(), time);
  if (it == times.end()) return false;
  *it = times.back();
  times.pop_back();
  return true;
}

}  // namespace

// A tag fills its sector with 64 words that depend on the tag, the sector and the position; the
// first word is the tag itself, so reading one back costs one comparison per word.
void Oracle::image_of(Tag tag, uint64_t sector, std::span<std::byte> out) {
  ASSERT(out.size() == kSector);
  if (tag == 0) {
    std::memset(out.data(), 0, out.size());
    return;
  }
  uint64_t words[kSector / 8];
  words[0] = tag;
  const uint64_t salt = mix(tag ^ mix(sector + 1));
  for (uint64_t i = 1; i < std::size(words); ++i) words[i] = salt + i * 0x9e3779b97f4a7c15u;
  std::memcpy(out.data(), words, kSector);
}

std::optional<Tag> Oracle::tag_of(std::span<const std::byte> bytes, uint64_t sector) {
  Tag tag;
  std::memcpy(&tag, bytes.data(), sizeof tag);
  std::byte expected[kSector];
  image_of(tag, sector, expected);
  if (std::memcmp(expected, bytes.data(), kSector) != 0) return std::nullopt;
  return tag;
}

Tag Oracle::tag_for(uint32_t write, bool zero) const {
  return zero ? 0 : (uint64_t{key_} << 48) | write;
}

Oracle::Sector& Oracle::opened(Sector& sector) {
  if (sector.empty())
    sector.push_back({.tag = 0, .start = 0, .end = 0, .success = true, .durable = true});
  return sector;
}

uint32_t Oracle::begin_write(Time now, uint64_t first, uint64_t count, WriteKind kind) {
  ASSERT(count > 0 && first + count <= sectors_.size());
  const uint32_t id = next_write_++;
  in_flight_[id] = {first, count, now, kNever, kind, false};
  for (uint64_t s = first; s < first + count; ++s) {
    opened(sectors_[s]).push_back({.tag = tag_for(id, kind.zero), .start = now});
  }
  return id;
}

uint32_t Oracle::begin_replace(Time now, std::span<const std::optional<Tag>> tags) {
  ASSERT(tags.size() == sectors_.size());
  const uint32_t id = next_write_++;
  in_flight_[id] = {0, tags.size(), now, kNever, {.zero = false, .fua = true}, false};
  for (uint64_t s = 0; s < tags.size(); ++s) {
    if (tags[s]) opened(sectors_[s]).push_back({.tag = *tags[s], .start = now});
  }
  return id;
}

void Oracle::rebase(std::span<const std::optional<Tag>> tags) {
  ASSERT(tags.size() == sectors_.size());
  for (uint64_t s = 0; s < tags.size(); ++s) {
    sectors_[s].clear();
    if (tags[s])
      sectors_[s].push_back(
          {.tag = *tags[s], .start = 0, .end = 0, .success = true, .durable = true});
  }
  in_flight_.clear();
  unflushed_.clear();
  flushes_.clear();
  reads_.clear();
  flush_must_fail_ = false;
}

void Oracle::fill(uint32_t write, std::span<std::byte> out) const {
  const Write& w = in_flight_.at(write);
  ASSERT(out.size() == w.count * kSector);
  for (uint64_t i = 0; i < w.count; ++i) {
    image_of(tag_for(write, w.kind.zero), w.first + i, out.subspan(i * kSector, kSector));
  }
}

void Oracle::end_write(Time now, uint32_t write, bool success) {
  const auto it = in_flight_.find(write);
  if (it == in_flight_.end()) return;
  Write w = it->second;
  in_flight_.erase(it);
  w.end = now;
  const bool certain = success && !w.tainted;
  const bool durable = certain && w.kind.fua;
  for (uint64_t s = w.first; s < w.first + w.count; ++s) {
    for (Version& v : sectors_[s]) {
      if (v.start != w.start) continue;
      v.end = now;
      v.success = certain;
      v.durable = durable;
    }
    prune(sectors_[s]);
  }
  if (certain && !durable) unflushed_.push_back(w);
  // A write with FUA may flush the device.
  if (w.kind.fua && success) note_flush();
}

void Oracle::end_flush(Time now, Time issued, bool success) {
  if (!take_out(flushes_, issued)) return;
  if (!success) {
    // What was unflushed is not durable, and no later flush makes it so.
    flush_must_fail_ = false;
    std::erase_if(unflushed_, [&](const Write& w) { return w.end < now; });
    return;
  }
  if (!flushes_.empty()) flush_must_fail_ = false;  // another one may have been told
  if (flush_must_fail_ && issued > last_loss_) {
    violate(fmt::format("flush at {} succeeded although unflushed writes were lost at {}", issued,
                        last_loss_));
  }
  note_flush();
  std::erase_if(unflushed_, [&](Write& w) {
    if (w.end >= issued) return false;
    for (uint64_t s = w.first; s < w.first + w.count; ++s) {
      for (Version& v : sectors_[s]) v.durable = v.durable || (v.start == w.start && v.success);
      prune(sectors_[s]);
    }
    return true;
  });
}

// Versions that ended before this moment are out for an observer that starts at `started` (rule 1).
Time Oracle::settled(const Sector& sector, Time started) {
  Time latest = 0;
  for (const Version& w : sector) {
    if (w.success && w.end < started) latest = std::max(latest, w.start);
  }
  return latest;
}

bool Oracle::allowed(const Version& v, Time started, Time settled) {
  return v.out_since >= started && (v.end == kNever || v.end >= settled);
}

// A read that ends at `now` has seen version `seen`.
void Oracle::observe(Sector& sector, size_t seen, Time now) {
  const Version v = sector[seen];
  if (v.end <= last_loss_ && v.end != kNever) {
    if (!loss_was_power_) return;  // rule 4: no constant
    std::erase_if(sector, [&](const Version& u) {
      return u.start != v.start && u.end <= last_loss_ && u.end != kNever;
    });
    for (Version& u : sector) {
      if (u.start == v.start) u.success = true;
    }
  }
  for (Version& u : sector) {
    if (u.end < v.start) u.out_since = std::min(u.out_since, now);
  }
  prune(sector);
}

void Oracle::end_read(Time now, Time started, uint64_t first, std::span<const std::byte> bytes) {
  if (!take_out(reads_, started)) return;
  for (uint64_t i = 0; i < bytes.size() / kSector; ++i) {
    const uint64_t number = first + i;
    const auto image = bytes.subspan(i * kSector, kSector);
    const std::optional<Tag> tag = tag_of(image, number);
    Sector& sector = sectors_[number];
    if (!tag) {
      violate(fmt::format("sector {} holds bytes nobody wrote there (first word {:016x})", number,
                          *reinterpret_cast<const uint64_t*>(image.data())));
      return;
    }
    if (sector.empty()) {
      if (*tag != 0)
        violate(fmt::format("sector {} was never written but reads tag {:x}", number, *tag));
      continue;
    }
    // Several versions may be zeroes: the read is right if any of them is allowed, and only a
    // version that is the one explanation is taken as seen.
    size_t explanations = 0;
    size_t seen = 0;
    const auto explain = [&] {
      const Time from = settled(sector, started);
      for (size_t k = 0; k < sector.size(); ++k) {
        if (sector[k].tag != *tag || !allowed(sector[k], started, from)) continue;
        ++explanations;
        seen = k;
      }
    };
    explain();
    if (explanations == 0 && (expects_losses_ || expects_told_losses_)) {
      cache_lost(now, !expects_losses_ && is_unflushed(number));
      explain();
    }
    if (explanations == 0) {
      violate(fmt::format("sector {} read {}..{} returned tag {:x}, allowed: {}", number, started,
                          now, *tag, describe(sector)));
      return;
    }
    // A read that was under way when data was lost may have seen what is gone now.
    if (explanations == 1 && started > last_loss_) observe(sector, seen, now);
  }
}

// Forgets versions that no observer, now or after a power cut, may see.
void Oracle::prune(Sector& sector) const {
  if (sector.size() < 2) return;
  Time oldest_read = kNever;
  for (const Time t : reads_) oldest_read = std::min(oldest_read, t);
  Time latest = 0;
  for (const Version& w : sector) {
    if (w.durable && w.success && w.end < oldest_read) latest = std::max(latest, w.start);
  }
  std::erase_if(sector, [&](const Version& v) { return v.end != kNever && v.end < latest; });
}

void Oracle::lose_unflushed(Time now, bool power) {
  last_loss_ = now;
  for (Sector& sector : sectors_) {
    for (Version& v : sector) {
      if (power && v.end == kNever) v.end = now;
      v.success = v.success && v.durable;
      v.out_since = kNever;
    }
  }
}

// Was the sector written, with success, since the last flush that ended, well or not?
bool Oracle::is_unflushed(uint64_t sector) const {
  return std::ranges::any_of(unflushed_, [&](const Write& write) {
    return sector >= write.first && sector - write.first < write.count;
  });
}

// A flush went well. It may have covered what the array answered before, also where the reply has
// not come yet.
void Oracle::note_flush() {
  for (Write& other : unflushed_) other.maybe_durable = true;
  for (auto& [id, other] : in_flight_) other.maybe_durable = true;
}

bool Oracle::may_be_flushing() const {
  return !flushes_.empty() ||
         std::ranges::any_of(in_flight_, [](const auto& w) { return w.second.kind.fua; });
}

void Oracle::power_cut(Time now) {
  loss_was_power_ = true;
  lose_unflushed(now, true);
  in_flight_.clear();
  unflushed_.clear();
  flushes_.clear();
  reads_.clear();
  flush_must_fail_ = false;
}

void Oracle::killed(Time now) {
  for (auto& [id, write] : in_flight_) {
    for (uint64_t s = write.first; s < write.first + write.count; ++s) {
      for (Version& v : sectors_[s]) {
        if (v.start == write.start) v.end = now;
      }
    }
  }
  in_flight_.clear();
  flushes_.clear();
  reads_.clear();
  flush_must_fail_ =
      false;  // who knew of the loss is gone, and so are the connections it concerned
}

void Oracle::cache_lost(Time now, bool only_device) {
  loss_was_power_ = false;
  const bool data = std::any_of(unflushed_.begin(), unflushed_.end(),
                                [](const Write& w) { return !w.kind.zero && !w.maybe_durable; });
  if (only_device && data && !may_be_flushing()) flush_must_fail_ = true;
  lose_unflushed(now, false);
  for (auto& [id, write] : in_flight_) write.tainted = true;
  unflushed_.clear();
}

void Oracle::violate(std::string text) {
  if (violation_.empty()) violation_ = fmt::format("volume key {}: {}", key_, text);
}

std::string Oracle::describe(const Sector& sector) const {
  std::string out;
  for (const Version& v : sector) {
    fmt::format_to(std::back_inserter(out), "[{:x} {}..{}{}{}{}]", v.tag, v.start,
                   v.end == kNever ? std::string("?") : std::to_string(v.end),
                   v.success ? " ok" : "", v.durable ? " durable" : "",
                   v.out_since == kNever ? "" : " out");
  }
  return out;
}

}  // namespace duplex::simtest
