// What a copy does to its source, under the source's range lock: clear the bits, read, write.
//
// The lock keeps host writes out, so a write that comes before finds the bit set and leaves the
// target alone, and one that comes after finds it clear and goes there (trace F14). The bit is
// still set on disk: it leaves it after a flush of the target (tracker.h), so a crash only copies
// again what was under way. Zeroes are not moved: a hole here becomes a hole there.
#include "base/checksum.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

rt::Task<Result<VolumeImpl::CopyStep>> VolumeImpl::copy_step(TargetLeg& leg, uint64_t from,
                                                             Epoch root) {
  const ByteRange wanted = leg.bits().next_run(from, kCopyBytes);
  if (wanted.empty()) co_return CopyStep{.next = size_bytes(), .is_end = true};
  const RangeLock::Held lock = co_await locks_.lock(wanted.widened(kBlockBytes));
  if (leg.mode() != TargetLeg::Mode::kSendWhereClear) {
    co_return fail(Code::kState, "the copy was ended");
  }
  const ByteRange run = leg.bits().next_run(wanted.offset, wanted.length);
  if (run.empty() || run.offset >= wanted.end()) {
    co_return CopyStep{.next = wanted.end()};  // somebody else has copied it
  }
  CopyStep step{.next = run.end(), .done_bytes = run.length};
  Tracker::Copy copy = tracker_->begin_copy(leg.bits_id(), run);
  const TargetLeg::Plan plan = leg.admit_copy();
  bool sent = false;
  if (backing_.is_hole(run)) {
    sent = co_await leg.zero(plan, root, run, pool::ZeroMode::kMayUnmap);
  } else {
    const rt::Buffer buffer = core_.buffers().get(run.length);
    if (Result<void> read = co_await backing_.read(run.offset, buffer.span()); !read) {
      co_return std::unexpected(std::move(read).error());
    }
    if (is_zero(buffer.span())) {
      sent = co_await leg.zero(plan, root, run, pool::ZeroMode::kMayUnmap);
    } else {
      sent = co_await leg.write(plan, root, run.offset, buffer.span());
      step.moved_bytes = run.length;
    }
  }
  if (!sent) co_return fail(Code::kState, "the copy was ended");
  copy.done();
  co_return step;
}

}  // namespace duplex::volume
