#include "volume/range_lock.h"

#include <algorithm>

#include "base/assert.h"

namespace duplex::volume {

RangeLock::RangeLock() { entries_.reserve(64); }

uint64_t RangeLock::enter(ByteRange range, rt::Waiter& waiter) {
  ASSERT(!range.empty());
  uint32_t blockers = 0;
  for (const Entry& earlier : entries_) blockers += earlier.range.overlaps(range);
  entries_.push_back({range, ++last_ticket_, &waiter, blockers});
  return last_ticket_;
}

void RangeLock::leave(uint64_t ticket) {
  const auto self = std::ranges::lower_bound(entries_, ticket, {}, &Entry::ticket);
  ASSERT(self != entries_.end() && self->ticket == ticket);
  const ByteRange range = self->range;
  auto later = entries_.erase(self);
  for (; later != entries_.end(); ++later) {
    if (!later->range.overlaps(range)) continue;
    ASSERT(later->blockers > 0);
    if (--later->blockers == 0) later->waiter->home.post(*later->waiter);
  }
}

}  // namespace duplex::volume
