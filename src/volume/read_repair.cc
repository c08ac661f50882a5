// What happens when the own backing cannot read a region that is not missing: a target that holds
// it answers, for hosts, parts of blocks, copies to other targets and the mirror above alike; then
// the region is written here again.
//
// Under the range lock only. Writes go to both sides at once, so without it one reader could find
// the new bytes at the target and the next one the old ones here. Nobody reads here in vain and
// waits for a shrink meanwhile: a volume with a target that holds anything is a member, and keeps
// its size.
//
// Who answers. A leg that holds the region and is not armed: past a cut the target is an image of
// its own, and may be opened as soon as the leg has stopped. So it is asked again when the read has
// ended, and what came from one that has stopped meanwhile is thrown away. That the leg has not
// stopped and begun again in between follows from TargetLeg::drained(), which waits for reads. A
// copy to a target never reads that target: the bits under the copy say that it lacks them.
//
// A target may have lost its cache and nobody knows yet: what it then has is older than what the
// own backing cannot read just now, and a repair would put it there for good. So a target that owes
// a flush is flushed first: one that has lost something leaves.
//
// The repair reads here again, and writes only what still fails: the bytes readers find anyway, so
// nothing is forwarded and no bit set. It is a write of the own backing like any other, marked and
// in its window; with the cache that loses it the region becomes missing at the target it came
// from. One that fails is not tried again before the next read that fails.
#include <algorithm>
#include <utility>

#include "volume/tracker_use.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

// The first leg that answers for the beginning of `range`, and how far it does. `tried`: slots of
// legs that are out of the question.
VolumeImpl::Route VolumeImpl::rescuer(ByteRange range, uint64_t tried) const {
  const auto end_of_region = [](uint64_t at) {
    return round_down(at, kRegionBytes) + kRegionBytes;
  };
  const uint64_t first = std::min(end_of_region(range.offset), range.end()) - range.offset;
  for (TargetLeg* leg : legs_) {
    if ((tried >> leg->slot() & 1) != 0 || !leg->serves({range.offset, first})) continue;
    Route route{.leg = leg, .length = first};
    while (route.length < range.length) {
      const uint64_t at = range.offset + route.length;
      const uint64_t more = std::min(end_of_region(at), range.end()) - at;
      if (is_missing({at, more}) || !leg->serves({at, more})) break;
      route.length += more;
    }
    return route;
  }
  return {.leg = nullptr, .length = first};
}

rt::Task<Result<void>> VolumeImpl::rescue(uint64_t offset, std::span<std::byte> into, Rescue how,
                                          Error why) {
  const ByteRange range{offset, into.size()};
  const auto is_served = [&](const TargetLeg* leg) {
    return leg->serves_any(range) || leg->owes_copy(range);
  };
  if (how == Rescue::kNever || why.code() != Code::kMediumRead ||
      std::ranges::none_of(legs_, is_served)) {
    co_return std::unexpected(std::move(why));
  }
  std::optional<RangeLock::Held> lock;
  if (how == Rescue::kLocks) lock.emplace(co_await locks_.lock(range));
  if (!is_inside(range)) co_return fail(Code::kSize);
  co_await flush_targets(range, &TargetLeg::owes);
  uint64_t repair_from = range.end(), repair_to = range.offset;
  for (uint64_t at = range.offset; at < range.end();) {
    const std::span<std::byte> rest = into.subspan(at - range.offset);
    uint64_t length = 0;
    if (const Route missing = route({at, rest.size()}); missing.leg != nullptr) {
      length = missing.length;
      CO_TRY(co_await missing.leg->read(at, rest.first(length)));
    } else {
      CO_TRY_ASSIGN(const Rescued part, co_await rescue_part(at, rest.first(missing.length)));
      length = part.length;
      if (part.from_target) {
        repair_from = std::min(repair_from, at);
        repair_to = at + length;
      }
    }
    at += length;
  }
  lock.reset();
  if (repair_from < repair_to) start_repair({repair_from, repair_to - repair_from});
  co_return Result<void>();
}

// The beginning of it, under its lock.
rt::Task<Result<VolumeImpl::Rescued>> VolumeImpl::rescue_part(uint64_t offset,
                                                              std::span<std::byte> into) {
  for (uint64_t tried = 0;;) {
    const Route from = rescuer({offset, into.size()}, tried);
    const std::span<std::byte> part = into.first(from.length);
    if (from.leg == nullptr) {
      // It may be the rest of the request that cannot be read.
      CO_TRY(co_await backing_.read(offset, part));
      if (has_untold_loss()) co_return fail(Code::kMediumRead);
      co_return Rescued{.length = part.size(), .from_target = false};
    }
    tried |= uint64_t{1} << from.leg->slot();
    const Readers::Inside stay = from.leg->stay();
    const Result<void> read = co_await from.leg->read(offset, part);
    if (read && from.leg->serves({offset, part.size()})) {
      co_return Rescued{.length = part.size(), .from_target = true};
    }
  }
}

// Not more at a time: a device that is gone fails every read, and repairs are no use then.
void VolumeImpl::start_repair(ByteRange range) {
  if (repairs_ < kMostRepairs) tasks_->spawn(repair(range));
}

rt::Task<> VolumeImpl::repair(ByteRange range) {
  struct Counted {
    explicit Counted(uint32_t& n) : number(n) { ++number; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() { --number; }
    uint32_t& number;
  };
  if (tracker_ == nullptr) co_return;
  const Counted counted(repairs_);
  // The volume stays what it is until this has ended.
  const TrackerUse tracker(*this);
  const ByteRange all = regions_of(range);
  for (uint64_t at = all.offset; at < all.end();) {
    const ByteRange region{at, std::min(kRegionBytes, all.end() - at)};
    if (!co_await repair_region(region)) co_return;
    at = region.end();
  }
}

// False: it makes no sense to go on.
rt::Task<bool> VolumeImpl::repair_region(ByteRange region) {
  const RangeLock::Held lock = co_await locks_.lock(region);
  if (!is_inside(region)) co_return false;
  if (is_missing(region)) co_return true;  // a repair of another kind
  const rt::Buffer buffer = core_.buffers().get(region.length);
  if (co_await backing_.read(region.offset, buffer.span())) co_return true;
  co_await flush_targets(region, &TargetLeg::owes);
  if (is_missing(region)) co_return true;
  TargetLeg* const leg = rescuer(region, 0).leg;
  if (leg == nullptr) co_return false;
  const auto still_serves = [&] {
    return std::ranges::find(legs_, leg) != legs_.end() && leg->serves(region);
  };
  {
    const Readers::Inside stay = leg->stay();
    if (!co_await leg->read(region.offset, buffer.span()) || !still_serves()) co_return false;
  }
  // What was read is right now, whatever becomes of the target. The leg is not kept: what cools for
  // this may wait at a gate that is closed until the leg is drained.
  const auto use = co_await tracker_->use(region);
  if (!use || is_missing(region)) co_return false;
  const Window::Stamp stamp = own_debtor_.owed.stamp();
  uint64_t moved_bytes = 0;
  const Result<void> stored = co_await store_returned(region.offset, buffer.span(), moved_bytes);
  if (!own_debtor_.owed.add(region, stamp) || !stored) co_return false;
  Counters::add(counters_.repaired, 1);
  if (still_serves()) leg->repaired(region);
  co_return true;
}

}  // namespace duplex::volume
