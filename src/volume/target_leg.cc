#include "volume/target_leg.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/planted_bug.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

// Counts what is on its way.
class TargetLeg::Sending {
 public:
  Sending(TargetLeg& leg, uint32_t& counter) : leg_(leg), counter_(counter) { ++counter_; }
  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;
  ~Sending() {
    if (--counter_ == 0) leg_.landed_.pulse();
  }

 private:
  TargetLeg& leg_;
  uint32_t& counter_;
};

TargetLeg::TargetLeg(Tracker& tracker, MapId bits, MapId missing, VolumeImpl& target,
                     std::function<void(Error)> left, std::function<void()> became_missing,
                     std::function<void(ByteRange)> was_repaired)
    : tracker_(tracker),
      bits_(bits),
      missing_(missing),
      target_(target),
      left_(std::move(left)),
      became_missing_(std::move(became_missing)),
      was_repaired_(std::move(was_repaired)) {}

void TargetLeg::set_mode(Mode mode) {
  ASSERT(mode == Mode::kMark || mode_ != Mode::kMark || writing_ == 0);
  ASSERT(mode != Mode::kSend || bits().empty());
  mode_ = mode;
}

void TargetLeg::arm(Epoch cut) {
  ASSERT(mode_ == Mode::kSend && cut_ == kNoCut);
  cut_ = cut;
}

TargetLeg::Plan TargetLeg::admit(Epoch epoch, ByteRange range) {
  Plan plan{.stamp = window_.stamp()};
  if (!unchanged_.empty()) [[unlikely]]
    forget(unchanged_, range);
  switch (mode_) {
    case Mode::kSend:
      plan.sends = epoch < cut_ || planted(Bug::kNewWriteToTarget);
      break;
    case Mode::kSendWhereClear:
      plan.sends = !bits().all(range);
      plan.where_clear = true;
      break;
    case Mode::kMark:
      break;
  }
  if (!plan.sends && !planted(Bug::kUnsentWithoutBit)) tracker_.set(bits_, range);
  return plan;
}

TargetLeg::Plan TargetLeg::admit_copy() const {
  ASSERT(mode_ == Mode::kSendWhereClear);
  return {.stamp = window_.stamp(), .sends = true};
}

// The first part of `rest` that is sent; empty: none. Copier and verify do not change the bits
// under a request: they would need its range lock. A loss of the source sets some without one, and
// the leg stays: that is asked for before each part, so what has a bit by then is left to the
// copier, and what was sent before is copied once more. In a cut a newer write may set the bit of a
// region while an older one is on its way there: that one goes all the same.
ByteRange TargetLeg::next_part(Plan plan, ByteRange rest) const {
  if (!plan.where_clear) return rest;
  while (!rest.empty()) {
    const ByteRange run = bits().next_run(rest.offset, std::max(rest.length, kRegionBytes));
    if (run.empty() || run.offset >= rest.end()) return rest;
    if (run.offset > rest.offset) return {rest.offset, run.offset - rest.offset};
    const uint64_t next = std::min(run.end(), rest.end());
    rest = {next, rest.end() - next};
  }
  return {};
}

rt::Task<bool> TargetLeg::write(Plan plan, Epoch epoch, uint64_t offset,
                                std::span<const std::byte> from) {
  const Sending sending(*this, writing_);
  const ByteRange whole{offset, from.size()};
  Result<void> result;
  uint64_t sent = 0;
  for (uint64_t at = offset; result;) {
    const ByteRange part = next_part(plan, {at, whole.end() - at});
    if (part.empty()) break;
    sent += part.length;
    result = co_await target_.forward_write(epoch, part.offset,
                                            from.subspan(part.offset - offset, part.length));
    at = part.end();
  }
  co_return ended(plan, whole, std::move(result)) && sent == whole.length;
}

rt::Task<bool> TargetLeg::zero(Plan plan, Epoch epoch, ByteRange range, pool::ZeroMode mode) {
  const Sending sending(*this, writing_);
  Result<void> result;
  uint64_t sent = 0;
  for (uint64_t at = range.offset; result;) {
    const ByteRange part = next_part(plan, {at, range.end() - at});
    if (part.empty()) break;
    sent += part.length;
    result = co_await target_.forward_zero(epoch, part, mode);
    at = part.end();
  }
  co_return ended(plan, range, std::move(result)) && sent == range.length;
}

// The window takes a part that was not sent as well: its bit is set, and that is more than the
// window asks for.
bool TargetLeg::ended(Plan plan, ByteRange range, Result<void> result) {
  if constexpr (planted(Bug::kTargetErrorIgnored)) return true;
  if (!result) leave(result.error());
  const bool is_counted = window_.add(range, plan.stamp);
  if (result && is_counted) return true;
  tracker_.set(bits_, range);
  return false;
}

rt::Task<Result<void>> TargetLeg::flush() {
  const Sending sending(*this, flushing_);
  co_return co_await target_.forward_flush();
}

void TargetLeg::refused_by_source(ByteRange range, const Error& why) {
  tracker_.set(bits_, range);
  leave(why);
}

void TargetLeg::leave(const Error& why) {
  if (mode_ == Mode::kMark) return;
  mode_ = Mode::kMark;
  lose_window();
  left_(why);
}

// What the window owes of the regions of a map.
std::vector<ChangeMap::Word> TargetLeg::owed_of(const ChangeMap& map) const {
  std::vector<ChangeMap::Word> owed;
  map.each_set_word([&](ChangeMap::Word word) {
    const uint64_t regions = word.regions & window_.word(word.stretch);
    if (regions != 0) owed.push_back({word.stretch, regions});
  });
  return owed;
}

// The leg may have left while the flush was on its way. What it has now may be older than what the
// source reads, or brought back from it.
void TargetLeg::lost(const Error& why) {
  for (const ChangeMap::Word& word : owed_of(unchanged_)) {
    unchanged_.set_word(word.stretch, unchanged_.word(word.stretch) & ~word.regions);
  }
  std::vector<ChangeMap::Word> gone;
  if (is_missing_any()) gone = owed_of(missing());
  if (mode_ == Mode::kMark) {
    lose_window();
  } else {
    leave(why);
  }
  if (!gone.empty()) source_->lost_at(*this, gone, why);
}

void TargetLeg::lose_window() {
  window_.lose([this](HotExtent stretch, uint64_t regions) {
    if constexpr (!planted(Bug::kWindowForgotten)) tracker_.or_word(bits_, stretch, regions);
  });
}

rt::Task<> TargetLeg::drained() {
  while (writing_ > 0 || flushing_ > 0) co_await landed_.wait();
  const rt::Mutex::Held turn = co_await draining_.lock();
  co_await readers_.drain();
}

bool TargetLeg::holds(ByteRange range) const {
  return mode_ != Mode::kMark && !is_sealed_ && tracker_.has_map(missing_) && !bits().any(range) &&
         !is_copying(range) && !owes_copy(range);
}

bool TargetLeg::is_in_window(ByteRange range) const {
  bool is_owed = false;
  each_word(range, [&](HotExtent stretch, uint64_t regions) {
    is_owed |= (window_.word(stretch) & regions) != 0;
  });
  return is_owed;
}

bool TargetLeg::serves_any(ByteRange range) const {
  const ByteRange wide = range.widened(kRegionBytes);
  for (uint64_t at = wide.offset; at < wide.end(); at += kRegionBytes) {
    if (serves({at, 1})) return true;
  }
  return false;
}

void TargetLeg::repaired(ByteRange region) {
  unchanged_.resize(bits().volume_bytes());
  unchanged_.set(region);
  if (was_repaired_) was_repaired_(region);
}

bool TargetLeg::holds_lost(ByteRange region) const {
  const bool has_map = tracker_.has_map(missing_) && !is_sealed_;
  return holds(region) || (has_map && unchanged_.any(region));
}

void TargetLeg::set_missing(HotExtent stretch, uint64_t regions) {
  const bool was_any = is_missing_any();
  tracker_.or_word(missing_, stretch, regions);
  if (!was_any && is_missing_any()) became_missing_();
}

// A target in kMark may still lose what it has not flushed: such a bit stays.
void TargetLeg::returned(ByteRange run) {
  tracker_.begin_copy(missing_, run).done();
  returned_.resize(missing().volume_bytes());
  returned_.set(run);
  unchanged_.resize(returned_.volume_bytes());
  unchanged_.set(run);
  each_word(run, [&](HotExtent stretch, uint64_t regions) {
    regions &= bits().word(stretch);
    if (mode_ == Mode::kMark) regions &= ~window_.word(stretch);
    for (; regions != 0; regions &= regions - 1) {
      const uint64_t offset = stretch.value() * kHotBytes +
                              static_cast<uint64_t>(std::countr_zero(regions)) * kRegionBytes;
      const uint64_t length = std::min(kRegionBytes, run.end() - offset);
      tracker_.begin_copy(bits_, {offset, length}).done();
    }
  });
}

void TargetLeg::returned_elsewhere(ByteRange run) {
  forget(returned_, run);
  forget(unchanged_, run);
}

void TargetLeg::forget_origins() {
  returned_.clear_all();
  unchanged_.clear_all();
}

// Every region that `range` touches.
void TargetLeg::forget(ChangeMap& map, ByteRange range) {
  if (map.empty()) return;
  const ByteRange wide = range.widened(kRegionBytes);
  map.clear({wide.offset, std::min(wide.end(), map.volume_bytes()) - wide.offset});
}

rt::Task<Result<void>> TargetLeg::read(uint64_t offset, std::span<std::byte> into) {
  const Readers::Inside inside(readers_);
  co_return co_await target_.forward_read(offset, into);
}

rt::Task<Result<std::vector<StatusRun>>> TargetLeg::status(ByteRange range, size_t limit) {
  const Readers::Inside inside(readers_);
  co_return co_await target_.forward_status(range, limit);
}

}  // namespace duplex::volume
