// What a copy back does, under the source's range lock: read the target, write the own backing,
// clear the bits. The mirror image of copy_path.cc, but the bits go last: readers take no lock, and
// find what they read by them. The window says what a crash still needs on disk (tracker.h, rule
// 2).
#include <algorithm>

#include "base/planted_bug.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

ByteRange VolumeImpl::next_restore(const TargetLeg& leg, uint64_t from, uint64_t limit) const {
  if (!leg.is_missing_any()) return {};
  const ByteRange run = leg.missing().next_run(from, std::clamp(limit, kRegionBytes, kCopyBytes));
  // The last region may be a short one.
  if (run.empty() || run.offset >= size_bytes()) return {};
  return {run.offset, std::min(run.end(), size_bytes()) - run.offset};
}

rt::Task<Result<VolumeImpl::CopyStep>> VolumeImpl::restore_step(TargetLeg& leg, uint64_t from,
                                                                uint64_t limit) {
  const ByteRange wanted = next_restore(leg, from, limit);
  if (wanted.empty()) co_return CopyStep{.next = size_bytes(), .is_end = true};
  RangeLock::Held lock = co_await locks_.lock(wanted);
  if constexpr (planted(Bug::kRestoreWithoutLock)) lock.release();
  // Again: a write may have brought it back.
  ByteRange run = next_restore(leg, wanted.offset, wanted.length);
  if (run.empty() || run.offset >= wanted.end()) co_return CopyStep{.next = wanted.end()};
  run.length = std::min(run.length, wanted.end() - run.offset);  // no more than is locked
  Returned back = co_await bring_run_back(leg, run);
  if (!back.result) co_return std::unexpected(std::move(back.result).error());
  co_return CopyStep{.next = run.end(), .done_bytes = run.length, .moved_bytes = back.moved_bytes};
}

}  // namespace duplex::volume
