// Flush debt of a backing and how it is settled; invariants 4 and 5 of backing.h.
#include <algorithm>
#include <utility>

#include "base/planted_bug.h"
#include "pool/backing_impl.h"

namespace duplex::pool {

void DeviceUse::owe_earlier_run() {
  ended = 1;
  losses = kLossesOfAGoodStart;
}

uint64_t DeviceUse::begin_write() {
  const uint64_t now = device->losses();
  if (is_clean()) losses = now;
  ++in_flight;
  return now;
}

void DeviceUse::end_write(uint64_t losses_at_begin) {
  --in_flight;
  ++ended;
  later_losses = std::min(later_losses, losses_at_begin);
  // A loss while it was in flight may have taken it, whichever flush told of that loss: the next
  // flush fails, because the counts differ.
  if (device->losses() != losses_at_begin) losses = std::min(losses, losses_at_begin);
}

void DeviceUse::note_log(uint64_t sequence, uint64_t losses_before) {
  losses = is_clean() ? losses_before : std::min(losses, losses_before);
  later_losses = std::min(later_losses, losses_before);
  ++ended;
  log_sequence = std::max(log_sequence, sequence);
}

// True when all writes to the device that ended before the call are durable, with the map log
// records they need.
rt::Task<bool> BackingImpl::flush_device(std::shared_ptr<DeviceUse> use) {
  const uint64_t mine = use->rounds_started + 1;
  while (use->rounds_ended < mine) {
    if (use->rounds_started > use->rounds_ended) {
      co_await use->round_ended.wait();
      continue;
    }
    const uint64_t round = ++use->rounds_started;
    if (!co_await flush_round(use)) use->last_failed_round = round;
    use->rounds_ended = round;
    use->round_ended.pulse();
  }
  co_return use->last_failed_round < mine;
}

rt::Task<bool> BackingImpl::flush_round(std::shared_ptr<DeviceUse> use) {
  Device& device = *use->device;
  const uint64_t upto = use->ended;
  const uint64_t log_upto = use->log_sequence;
  use->later_losses = UINT64_MAX;
  bool ok = true;
  if (log_upto > 0 && (use->recheck_log || device.log_written() < log_upto)) {
    co_await rt::hop(control_);
    ok = (co_await mapper_.log_written(device.id(), log_upto)).has_value();
    co_await rt::hop(core_);
  }
  if constexpr (!planted(Bug::kFlushSkipsDevice)) ok = ok && co_await use->port.flush() == 0;
  ok = ok && device.losses() == use->losses;
  use->flushed = upto;
  if (ok) device.note_log_flushed(log_upto);
  if (!ok) {
    // Told once. What ended since the round began keeps its own, older count: the loss may have
    // taken it too; so does what is in flight, when it ends. Log records stay owed until they are
    // written: every flush fails until then.
    use->losses = std::min(device.losses(), use->later_losses);
    use->recheck_log = use->log_sequence > 0;
  } else if (use->log_sequence <= log_upto) {
    use->log_sequence = 0;
    use->recheck_log = false;
  }
  co_return ok;
}

struct BackingImpl::FlushJoin {
  size_t left = 0;
  bool ok = true;
  rt::Event done;
};

rt::Task<> BackingImpl::flush_part(std::shared_ptr<DeviceUse> use, FlushJoin& join) {
  if (!co_await flush_device(std::move(use))) join.ok = false;
  if (--join.left == 0) join.done.set();
}

rt::Task<Result<void>> BackingImpl::flush() {
  // Writes that have not ended are not covered: a device with nothing but those is left out.
  const auto owes = [](const std::shared_ptr<DeviceUse>& use) {
    return use && (use->ended > use->flushed || use->log_sequence > 0);
  };
  const auto count = std::ranges::count_if(uses_, owes);
  if (count == 0) co_return Result<void>();
  if (count == 1) {
    const bool ok = co_await flush_device(*std::ranges::find_if(uses_, owes));
    if (!ok) co_return fail(Code::kFlushLost);
    co_return Result<void>();
  }
  FlushJoin join;
  std::vector<std::shared_ptr<DeviceUse>> parts;
  std::ranges::copy_if(uses_, std::back_inserter(parts), owes);
  join.left = parts.size();
  for (auto& part : parts) {
    if (!tasks_.spawn(flush_part(std::move(part), join))) {
      join.ok = false;
      if (--join.left == 0) join.done.set();
    }
  }
  co_await join.done.wait();
  if (!join.ok) co_return fail(Code::kFlushLost);
  co_return Result<void>();
}

}  // namespace duplex::pool
