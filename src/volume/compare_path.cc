// What a verify does: reads a run here and at the target of a leg, and compares.
//
// The first look takes no lock, so writes and copies under way may make it differ. The second one
// holds the range lock: nothing is on its way to the region, and what differs then has no bit and
// is not missing: nobody knew of it. The bit is set under the same lock, so it is one of what both
// sides hold at that instant, and writes, copies and cuts that follow find it as any other. Only a
// leg in kSend takes none: its mirror counts as equal, and has to leave that state with the bit.
#include <algorithm>
#include <cstring>

#include "volume/volume_impl.h"

namespace duplex::volume {

rt::Task<Result<std::vector<VolumeImpl::Difference>>> VolumeImpl::differing(TargetLeg& leg,
                                                                            ByteRange run) {
  ASSERT(run.length <= kCopyBytes && is_inside(run));
  const rt::Buffer here = core_.buffers().get(run.length);
  const rt::Buffer there = core_.buffers().get(run.length);
  CO_TRY(co_await read_blocks(run.offset, here.span(), Rescue::kNever));
  Result<void> read = co_await leg.read(run.offset, there.span());
  const bool is_unreadable = !read;
  if (!read && (run.length > kRegionBytes || read.error().code() != Code::kMediumRead)) {
    co_return std::unexpected(std::move(read).error());
  }
  std::vector<Difference> found;
  for (uint64_t at = 0; at < run.length; at += kRegionBytes) {
    const ByteRange region{run.offset + at, std::min(kRegionBytes, run.length - at)};
    if (!is_unreadable && std::memcmp(here.data() + at, there.data() + at, region.length) == 0) {
      continue;
    }
    if (leg.bits().any(region) || leg.is_missing(region)) continue;
    found.push_back({.region = region, .is_unreadable = is_unreadable});
  }
  co_return found;
}

rt::Task<Result<std::optional<VolumeImpl::Difference>>> VolumeImpl::accuse(TargetLeg& leg,
                                                                           ByteRange region,
                                                                           const Counts& counts) {
  const RangeLock::Held lock = co_await locks_.lock(region);
  CO_TRY_ASSIGN(const std::vector<Difference> still, co_await differing(leg, region));
  if (still.empty() || !co_await counts(still.front())) co_return std::nullopt;
  // A resync may have taken over meanwhile what the target's hosts have changed.
  if (leg.bits().any(region) || leg.is_missing(region)) co_return std::nullopt;
  Difference found = still.front();
  found.has_bit = leg.mode() != TargetLeg::Mode::kSend;
  if (found.has_bit) tracker_->set(leg.bits_id(), region);
  co_return found;
}

}  // namespace duplex::volume
