#include "volume/target_leg.h"

#include <algorithm>
#include <utility>

#include "volume/volume_impl.h"

namespace duplex::volume {

// Counts what is on its way.
class TargetLeg::Sending {
 public:
  explicit Sending(TargetLeg& leg) : leg_(leg) { ++leg_.in_flight_; }
  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;
  ~Sending() {
    if (--leg_.in_flight_ == 0) leg_.landed_.pulse();
  }

 private:
  TargetLeg& leg_;
};

TargetLeg::TargetLeg(uint32_t id, VolumeImpl& target, uint64_t bytes,
                     std::function<void(Error)> lost)
    : id_(id), target_(target), lost_(std::move(lost)), bits_(bytes), window_(bytes) {}

void TargetLeg::set_mode(Mode mode) {
  ASSERT(mode == Mode::kMark || mode_ != Mode::kMark || in_flight_ == 0);
  if (mode_ == Mode::kMark && mode != Mode::kMark) ++session_;
  mode_ = mode;
}

void TargetLeg::arm(Epoch cut) {
  ASSERT(mode_ == Mode::kSend && cut_ == kNoCut);
  cut_ = cut;
}

TargetLeg::Plan TargetLeg::admit(Epoch epoch, ByteRange range) {
  Plan plan{.session = session_, .sends = false};
  switch (mode_) {
    case Mode::kSend:
      plan.sends = epoch < cut_;
      break;
    case Mode::kSendWhereClear:
      plan.sends = !bits_.all(range);
      plan.where_clear = true;
      break;
    case Mode::kMark:
      break;
  }
  if (!plan.sends) {
    bits_.set(range);
    return plan;
  }
  window_.add(range);
  return plan;
}

TargetLeg::Plan TargetLeg::begin_copy(ByteRange run) {
  ASSERT(mode_ == Mode::kSendWhereClear);
  bits_.clear(run);
  window_.add(run);
  return {.session = session_, .sends = true};
}

// The next part of `rest` that is sent; empty: none. While a copy runs the bits under a request do
// not change: the copier would need its range lock, and whoever sets one ends the session. In a
// cut a newer write may set the bit of a region while an old one is on its way there: that one
// goes all the same.
ByteRange TargetLeg::next_part(Plan plan, ByteRange rest) const {
  return plan.where_clear ? bits_.next_clear(rest) : rest;
}

rt::Task<bool> TargetLeg::write(Plan plan, Epoch epoch, uint64_t offset,
                                std::span<const std::byte> from) {
  const Sending sending(*this);
  const ByteRange whole{offset, from.size()};
  Result<void> result;
  for (uint64_t at = offset; result && at < whole.end();) {
    const ByteRange part = next_part(plan, {at, whole.end() - at});
    if (part.empty()) break;
    result = co_await target_.forward_write(epoch, part.offset,
                                            from.subspan(part.offset - offset, part.length));
    at = part.end();
  }
  co_return ended(plan, whole, std::move(result));
}

rt::Task<bool> TargetLeg::zero(Plan plan, Epoch epoch, ByteRange range, pool::ZeroMode mode) {
  const Sending sending(*this);
  Result<void> result;
  for (uint64_t at = range.offset; result && at < range.end();) {
    const ByteRange part = next_part(plan, {at, range.end() - at});
    if (part.empty()) break;
    result = co_await target_.forward_zero(epoch, part, mode);
    at = part.end();
  }
  co_return ended(plan, range, std::move(result));
}

bool TargetLeg::ended(Plan plan, ByteRange range, Result<void> result) {
  if (!result && plan.session == session_) leave(std::move(result).error());
  if (plan.session == session_) return true;
  bits_.set(range);
  return false;
}

rt::Task<bool> TargetLeg::flush() {
  const Sending sending(*this);
  const uint32_t session = session_;
  const Window::Flush covered = window_.begin_flush();
  Result<void> result = co_await target_.forward_flush();
  if (session != session_) co_return false;
  if (!result) {
    leave(std::move(result).error());
    co_return false;
  }
  window_.end_flush(covered);
  co_return true;
}

void TargetLeg::leave(Error why) {
  if (mode_ == Mode::kMark) return;
  mode_ = Mode::kMark;
  ++session_;
  window_.take_all(bits_);
  lost_(std::move(why));
}

rt::Task<> TargetLeg::drained() {
  while (in_flight_ > 0) co_await landed_.wait();
}

}  // namespace duplex::volume
