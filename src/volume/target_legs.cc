// Stages 4 and 5 of the write path when there are mirrors below, and what a mirror above sends.
//
// Every leg is started before the first one is awaited, so nothing suspends between the gate and
// the start of the last leg (trace F1). The request waits for all of them: its range lock stays
// until every target has it, and an older write never lands after a newer one on either side.
#include <utility>

#include "base/planted_bug.h"
#include "volume/ack_rule.h"
#include "volume/tracker_use.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

// The targets one request was sent to; lives in the frame of the request.
struct VolumeImpl::LegJoin {
  // Before the task starts: it may end inside spawn(), and what that has set is not the end of the
  // one that starts after it.
  void begin() {
    done.reset();
    ++running;
  }
  void ended() {
    if (--running == 0) done.set();
  }
  rt::Task<> all() {
    if (running > 0) co_await done.wait();
  }

  uint32_t running = 0;
  rt::Event done;
  // By slot.
  uint64_t took = 0;
  uint64_t flushing = 0;
  uint64_t failed = 0;
};
static_assert(VolumeImpl::kMaxLegs <= 64);

VolumeImpl::Landing::Landing(VolumeImpl& volume, ByteRange of)
    : range(of), next(volume.landings_), volume_(volume) {
  if (next != nullptr) next->before_ = this;
  volume_.landings_ = this;
}

VolumeImpl::Landing::~Landing() {
  if (volume_.core_.abandoned()) return;
  (before_ != nullptr ? before_->next : volume_.landings_) = next;
  if (next != nullptr) next->before_ = before_;
}

bool VolumeImpl::is_landing(ByteRange range) const {
  for (const Landing* one = landings_; one != nullptr; one = one->next) {
    if (one->range.overlaps(range)) return true;
  }
  return false;
}

rt::Task<> VolumeImpl::change_target(const TargetLeg& leg, rt::Task<bool> sent, LegJoin& join) {
  if (co_await std::move(sent)) join.took |= uint64_t{1} << leg.slot();
  join.ended();
}

rt::Task<> VolumeImpl::flush_target(TargetLeg& leg, LegJoin& join) {
  const TrackerUse tracker(*this);
  // One that owes nothing is asked all the same: only it has what is missing here.
  const Result<void> flushed =
      tracker->has_debtor(leg) ? co_await tracker->flush(leg) : co_await leg.flush();
  if (!flushed) join.failed |= uint64_t{1} << leg.slot();
  join.ended();
}

void VolumeImpl::start_flush(TargetLeg& leg, LegJoin& join) {
  join.flushing |= uint64_t{1} << leg.slot();
  join.begin();
  tasks_->spawn(flush_target(leg, join));
}

// Before a target counts as one that holds the range.
rt::Task<> VolumeImpl::flush_targets(ByteRange range, bool (TargetLeg::*owes)(ByteRange) const) {
  LegJoin join;
  for (TargetLeg* leg : legs_) {
    if ((leg->*owes)(range)) start_flush(*leg, join);
  }
  co_await join.all();
}

// send(leg, plan) to each target that takes it, store() to the own backing.
template <class Send, class Store>
rt::Task<Result<void>> VolumeImpl::change_all(Epoch epoch, ByteRange range, Send send,
                                              Store store) {
  const Landing landing(*this, range);
  LegJoin join;
  for (const MapId map : recorded_) {
    if constexpr (!planted(Bug::kTargetWriteUnrecorded)) tracker_->set(map, range);
  }
  for (TargetLeg* leg : legs_) {
    const TargetLeg::Plan plan = leg->admit(epoch, range);
    if (!plan.sends) continue;
    join.begin();
    tasks_->spawn(change_target(*leg, send(*leg, plan), join));
  }
  const Window::Stamp stamp = own_debtor_.owed.stamp();
  const uint64_t losses = own_debtor_.losses;
  Result<void> own = co_await store();
  if (!own_debtor_.owed.add(range, stamp) && own) own = fail(Code::kFlushLost);
  co_await join.all();
  if (own && !is_missing(range) && own_debtor_.losses == losses) [[likely]]
    co_return acknowledge({.own = std::move(own)});
  co_return co_await conclude(range, std::move(own), join.took, losses);
}

rt::Task<Result<void>> VolumeImpl::write_all(Epoch epoch, uint64_t offset,
                                             std::span<const std::byte> from) {
  return change_all(
      epoch, {offset, from.size()},
      [epoch, offset, from](TargetLeg& leg, TargetLeg::Plan plan) {
        return leg.write(plan, epoch, offset, from);
      },
      [this, epoch, offset, from] { return own_.write(epoch, offset, from); });
}

rt::Task<Result<void>> VolumeImpl::zero_all(Epoch epoch, ByteRange range, pool::ZeroMode mode) {
  return change_all(
      epoch, range,
      [epoch, range, mode](TargetLeg& leg, TargetLeg::Plan plan) {
        return leg.zero(plan, epoch, range, mode);
      },
      [this, epoch, range, mode] { return own_.zero(epoch, range, mode); });
}

// Every target that takes writes, also while it is being copied: it may become the only one that
// has a region, and what was flushed here must not be in its cache alone then. And one that has
// regions that are missing here: they are as durable as it makes them (trace F24), and their marks
// are on disk, or off it, before the answer (F27).
rt::Task<Result<void>> VolumeImpl::flush_all() {
  const TrackerUse tracker(*this);
  LegJoin join;
  for (TargetLeg* leg : legs_) {
    if (leg->mode() != TargetLeg::Mode::kMark || leg->is_missing_any()) start_flush(*leg, join);
  }
  Result<void> own = co_await flush_own();
  co_await join.all();
  // What has just been lost may be the first that a leg has alone.
  const auto is_owed = [&](const TargetLeg* leg) {
    return leg->is_missing_any() && (join.flushing >> leg->slot() & 1) == 0;
  };
  for (;;) {
    const auto leg = std::ranges::find_if(legs_, is_owed);
    if (leg == legs_.end()) break;
    start_flush(**leg, join);
    co_await join.all();
  }
  for (const TargetLeg* leg : legs_) {
    const bool has_failed = (join.failed >> leg->slot() & 1) != 0;
    if (own && leg->is_missing_any() && has_failed) own = fail(Code::kFlushLost);
  }
  if (own && !planted(Bug::kMissingNotDurable)) own = co_await write_missing_back();
  co_return acknowledge({.own = std::move(own)});
}

// The host hears of an error, and each block here holds its old or its new bytes: no target may
// count as equal (trace F31).
void VolumeImpl::refused_by_own(ByteRange range, const Error& why) {
  for (TargetLeg* leg : legs_) leg->refused_by_source(range, why);
}

// `step` passes the gate. What is missing under it comes back first, as in write().
template <class F>
rt::Task<Result<void>> VolumeImpl::forward(ByteRange range, F step) {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  Result<Passed> done = Passed::kNot;
  {
    RangeLock::Held lock = co_await locks_.lock(range);
    if (!is_missing(range)) [[likely]]
      done = co_await step();
    while (done && *done == Passed::kNot) [[unlikely]] {
      lock.release();
      auto back = co_await lock_and_bring_back(range);
      if (back) {
        lock = *std::move(back);
        done = co_await step();
      } else {
        done = std::unexpected(std::move(back).error());
      }
    }
  }
  co_await rt::hop(home);
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return Result<void>();
}

rt::Task<Result<void>> VolumeImpl::forward_write(Epoch root, uint64_t offset,
                                                 std::span<const std::byte> from) {
  return forward({offset, from.size()}, [this, root, offset, from] {
    return write_blocks(offset, from, Holes::kAllowed, root);
  });
}

rt::Task<Result<void>> VolumeImpl::forward_zero(Epoch root, ByteRange range, pool::ZeroMode mode) {
  return forward(range, [this, root, range, mode] { return zero_blocks(range, mode, root); });
}

rt::Task<Result<void>> VolumeImpl::forward_flush() {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  Result<void> done = co_await flush_and_tell(untold_.above);
  co_await rt::hop(home);
  co_return done;
}

rt::Task<Result<void>> VolumeImpl::flush_untold() {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  Result<void> done = co_await flush_since(own_debtor_.losses);
  co_await rt::hop(home);
  co_return done;
}

rt::Task<Result<void>> VolumeImpl::forward_read(uint64_t offset, std::span<std::byte> into) {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  Result<void> done = co_await read_blocks(offset, into, Rescue::kLocks);
  co_await rt::hop(home);
  co_return done;
}

rt::Task<Result<std::vector<StatusRun>>> VolumeImpl::forward_status(ByteRange range, size_t limit) {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(core_);
  auto runs = co_await status(range, limit);
  co_await rt::hop(home);
  co_return runs;
}

}  // namespace duplex::volume
