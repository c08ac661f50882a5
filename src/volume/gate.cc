#include "volume/gate.h"

namespace duplex::volume {

void Gate::leave(Epoch epoch) {
  uint32_t& count = epoch == epoch_ ? inside_ : old_inside_;
  ASSERT(count > 0);
  if (--count == 0) draining_.wake_all();
}

void Gate::open() {
  ASSERT(closers_ > 0);
  if (--closers_ == 0) waiting_.wake_all();
}

void Gate::advance(Epoch epoch) {
  ASSERT(!is_open() && epoch > epoch_);
  epoch_ = epoch;
  old_inside_ += std::exchange(inside_, 0);
}

rt::Task<> Gate::drained() {
  while (inside_ + old_inside_ > 0) co_await ListWait(draining_);
}

rt::Task<> Gate::old_drained() {
  while (old_inside_ > 0) co_await ListWait(draining_);
}

}  // namespace duplex::volume
