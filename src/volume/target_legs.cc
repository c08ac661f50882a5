// Stages 4 and 5 of the write path when there are mirrors below, and what a mirror above sends.
//
// Every leg is started before the first one is awaited, so nothing suspends between the gate and
// the start of the last leg (trace F1). The request waits for all of them: its range lock stays
// until every target has it, and an older write never lands after a newer one on either side.
#include <utility>

#include "volume/ack_rule.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

// The targets one request was sent to; lives in the frame of the request.
struct VolumeImpl::LegJoin {
  void ended() {
    if (--running == 0) done.set();
  }
  rt::Task<> all() {
    if (running > 0) co_await done.wait();
  }

  uint32_t running = 0;
  rt::Event done;
};

rt::Task<> VolumeImpl::write_target(TargetLeg& leg, TargetLeg::Plan plan, Epoch epoch,
                                    uint64_t offset, std::span<const std::byte> from,
                                    LegJoin& join) {
  co_await leg.write(plan, epoch, offset, from);
  join.ended();
}

rt::Task<> VolumeImpl::zero_target(TargetLeg& leg, TargetLeg::Plan plan, Epoch epoch,
                                   ByteRange range, pool::ZeroMode mode, LegJoin& join) {
  co_await leg.zero(plan, epoch, range, mode);
  join.ended();
}

rt::Task<> VolumeImpl::flush_target(TargetLeg& leg, LegJoin& join) {
  co_await tracker_->flush(leg);
  join.ended();
}

rt::Task<Result<void>> VolumeImpl::write_all(Epoch epoch, uint64_t offset,
                                             std::span<const std::byte> from) {
  const ByteRange range{offset, from.size()};
  LegJoin join;
  for (TargetLeg* leg : legs_) {
    const TargetLeg::Plan plan = leg->admit(epoch, range);
    if (!plan.sends) continue;
    ++join.running;
    tasks_.spawn(write_target(*leg, plan, epoch, offset, from, join));
  }
  Result<void> own = co_await own_.write(epoch, offset, from);
  co_await join.all();
  if (!own) refused_by_own(range, own.error());
  co_return acknowledge({.own = std::move(own)});
}

rt::Task<Result<void>> VolumeImpl::zero_all(Epoch epoch, ByteRange range, pool::ZeroMode mode) {
  LegJoin join;
  // Fast is a promise about this volume's own backing; a target does what it can.
  const auto target_mode = mode == pool::ZeroMode::kFast ? pool::ZeroMode::kMayUnmap : mode;
  for (TargetLeg* leg : legs_) {
    const TargetLeg::Plan plan = leg->admit(epoch, range);
    if (!plan.sends) continue;
    ++join.running;
    tasks_.spawn(zero_target(*leg, plan, epoch, range, target_mode, join));
  }
  Result<void> own = co_await own_.zero(epoch, range, mode);
  co_await join.all();
  if (!own) refused_by_own(range, own.error());
  co_return acknowledge({.own = std::move(own)});
}

// A target that is being copied owes nothing yet: what it lacks has bits, and the copy flushes it
// before it counts as equal.
rt::Task<Result<void>> VolumeImpl::flush_all() {
  LegJoin join;
  for (TargetLeg* leg : legs_) {
    if (leg->mode() != TargetLeg::Mode::kSend) continue;
    ++join.running;
    tasks_.spawn(flush_target(*leg, join));
  }
  Result<void> own = co_await own_.flush();
  co_await join.all();
  co_return acknowledge({.own = std::move(own)});
}

// The host hears of an error, and each block here holds its old or its new bytes: no target may
// count as equal (trace F31).
void VolumeImpl::refused_by_own(ByteRange range, const Error& why) {
  for (TargetLeg* leg : legs_) leg->refused_by_source(range, why);
}

rt::Task<Result<void>> VolumeImpl::forward_write(Epoch root, uint64_t offset,
                                                 std::span<const std::byte> from) {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  Result<void> done;
  {
    const RangeLock::Held lock = co_await locks_.lock({offset, from.size()});
    done = co_await write_blocks(offset, from, Holes::kAllowed, root);
  }
  co_await rt::hop(home);
  co_return done;
}

rt::Task<Result<void>> VolumeImpl::forward_zero(Epoch root, ByteRange range, pool::ZeroMode mode) {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  Result<void> done;
  {
    const RangeLock::Held lock = co_await locks_.lock(range);
    done = co_await zero_blocks(range, mode, root);
  }
  co_await rt::hop(home);
  co_return done;
}

rt::Task<Result<void>> VolumeImpl::forward_flush() {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  Result<void> done = co_await flush_legs();
  co_await rt::hop(home);
  co_return done;
}

}  // namespace duplex::volume
