// What a verify does: reads a run here and at the target of a leg, and compares.
//
// The first look takes no lock, so writes under way may make it differ. The second one holds the
// range lock, and what differs then has no bit and is not missing: nobody knew of it.
#include <algorithm>
#include <cstring>

#include "volume/volume_impl.h"

namespace duplex::volume {

rt::Task<Result<std::vector<ByteRange>>> VolumeImpl::differing(TargetLeg& leg, ByteRange run) {
  const rt::Buffer here = core_.buffers().get(run.length);
  const rt::Buffer there = core_.buffers().get(run.length);
  CO_TRY(co_await read_blocks(run.offset, here.span(), Rescue::kNever));
  CO_TRY(co_await leg.read(run.offset, there.span()));
  std::vector<ByteRange> regions;
  for (uint64_t at = 0; at < run.length; at += kRegionBytes) {
    const ByteRange region{run.offset + at, std::min(kRegionBytes, run.length - at)};
    if (std::memcmp(here.data() + at, there.data() + at, region.length) == 0) continue;
    if (leg.bits().any(region) || leg.is_missing(region)) continue;
    regions.push_back(region);
  }
  co_return regions;
}

rt::Task<Result<std::vector<ByteRange>>> VolumeImpl::compare_step(TargetLeg& leg, ByteRange run) {
  ASSERT(run.length <= kCopyBytes && is_inside(run));
  CO_TRY_ASSIGN(std::vector<ByteRange> suspects, co_await differing(leg, run));
  std::vector<ByteRange> regions;
  for (const ByteRange suspect : suspects) {
    const RangeLock::Held lock = co_await locks_.lock(suspect);
    CO_TRY_ASSIGN(const std::vector<ByteRange> still, co_await differing(leg, suspect));
    regions.insert(regions.end(), still.begin(), still.end());
  }
  co_return regions;
}

}  // namespace duplex::volume
