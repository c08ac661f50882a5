// What a copy does to its source, under the source's range lock: clear the bits, read, write.
//
// The lock keeps host writes out, so a write that comes before finds the bit set and leaves the
// target alone, and one that comes after finds it clear and goes there (trace F14). The bit is
// still set on disk: it leaves it after a flush of the target (tracker.h), so a crash only copies
// again what was under way. Zeroes are not moved, region by region: a hole here becomes a hole
// there. The leg may leave while the source is being read; so it is asked again before each call
// that sends, and a target that was given to somebody else gets nothing (trace F25).
#include <algorithm>

#include "base/checksum.h"
#include "base/planted_bug.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

// One kind, hole or mapped, so that a step over a hole can be long and moves nothing.
ByteRange VolumeImpl::next_copy(const TargetLeg& leg, uint64_t from, uint64_t limit) const {
  limit = std::clamp(limit, kRegionBytes, kHoleCopyBytes);
  ByteRange run = leg.bits().next_run(from, limit);
  while (!run.empty() && leg.is_missing(run)) {
    const ByteRange missing = leg.missing().next_run(run.offset, kHoleCopyBytes);
    if (missing.offset > run.offset) {
      run.length = missing.offset - run.offset;
    } else {
      run = leg.bits().next_run(missing.end(), limit);
    }
  }
  if (run.empty()) return run;
  const pool::Backing::Run here = backing_.run_at(run.offset);
  run.length = std::min(run.length, here.end - run.offset);
  // What is missing at another leg is read there.
  if (here.mapped || is_missing(run)) run.length = std::min(run.length, kCopyBytes);
  return run;
}

rt::Task<Result<VolumeImpl::CopyStep>> VolumeImpl::copy_step(TargetLeg& leg, uint64_t from,
                                                             Epoch root, uint64_t limit) {
  const ByteRange wanted = next_copy(leg, from, limit);
  if (wanted.empty()) co_return CopyStep{.next = size_bytes(), .is_end = true};
  RangeLock::Held lock = co_await locks_.lock(wanted.widened(kBlockBytes));
  if constexpr (planted(Bug::kCopyWithoutLock)) lock.release();
  if (leg.mode() != TargetLeg::Mode::kSendWhereClear) {
    co_return fail(Code::kState, "the copy was ended");
  }
  // Again: somebody else may have copied it, or a write may have mapped some of it.
  ByteRange run = next_copy(leg, wanted.offset, wanted.length);
  if (run.empty() || run.offset >= wanted.end()) co_return CopyStep{.next = wanted.end()};
  run.length = std::min(run.length, wanted.end() - run.offset);  // no more than is locked
  CopyStep step{.next = run.end(), .done_bytes = run.length};
  Tracker::Copy copy = tracker_->begin_copy(leg.bits_id(), run);
  bool sent = false;
  if (backing_.is_hole(run) && !is_missing(run)) {
    sent = co_await leg.zero(leg.admit_copy(), root, run, pool::ZeroMode::kMayUnmap);
  } else {
    const rt::Buffer buffer = core_.buffers().get(run.length);
    if (Result<void> read = co_await read_blocks(run.offset, buffer.span(), Rescue::kIsLocked);
        !read) {
      co_return std::unexpected(std::move(read).error());
    }
    sent = co_await send_copy(leg, root, run.offset, buffer.span(), step.moved_bytes);
  }
  if (!sent) co_return fail(Code::kState, "the copy was ended");
  copy.done();
  co_return step;
}

// Regions of zeroes as zeroes, those between them as they are.
rt::Task<bool> VolumeImpl::send_copy(TargetLeg& leg, Epoch root, uint64_t offset,
                                     std::span<const std::byte> from, uint64_t& moved_bytes) {
  while (!from.empty()) {
    const auto zeroes_at = [from](size_t at) {
      return is_zero(from.subspan(at, std::min<size_t>(kRegionBytes, from.size() - at)));
    };
    const bool is_zeroes = zeroes_at(0);
    size_t length = std::min<size_t>(kRegionBytes, from.size());
    while (length < from.size() && zeroes_at(length) == is_zeroes) {
      length = std::min<size_t>(length + kRegionBytes, from.size());
    }
    if (leg.mode() != TargetLeg::Mode::kSendWhereClear) co_return false;
    const TargetLeg::Plan plan = leg.admit_copy();
    bool sent = false;
    if (is_zeroes) {
      sent = co_await leg.zero(plan, root, {offset, length}, pool::ZeroMode::kMayUnmap);
    } else {
      sent = co_await leg.write(plan, root, offset, from.first(length));
      moved_bytes += length;
    }
    if (!sent) co_return false;
    offset += length;
    from = from.subspan(length);
  }
  co_return true;
}

}  // namespace duplex::volume
