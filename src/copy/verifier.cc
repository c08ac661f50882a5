#include "copy/verifier.h"

#include <algorithm>

namespace duplex::copy {

using volume::VolumeImpl;

Verifier::Verifier(VolumeImpl& source, volume::TargetLeg& leg, Copier::Start start, Target target)
    : source_(source),
      leg_(leg),
      target_(target),
      clock_(source.core().clock()),
      state_(start.is_paused ? Copier::State::kPaused : Copier::State::kRunning),
      rate_(start.rate),
      speed_(clock_.now()) {}

rt::Task<Copier::End> Verifier::run() {
  while (!is_cancelled_ && !difference_ && at_ < source_.size_bytes()) {
    if (state_ == Copier::State::kPaused) {
      co_await changed_.wait();
      continue;
    }
    const uint64_t length = std::min(VolumeImpl::kCopyBytes, source_.size_bytes() - at_);
    const ByteRange run{at_, length};
    const rt::Micros began = clock_.now();
    co_await step(run);
    at_ = run.end();
    speed_.add(clock_.now(), length);
    rt::Micros rest = clock_.now() - began;
    if (rate_ > 0) rest = std::max(rest, length * rt::kSecond / rate_);
    const rt::Micros until = clock_.now() + rest;
    while (!is_cancelled_ && clock_.now() < until) co_await changed_.wait_until(clock_, until);
    if (rest == 0) co_await rt::yield();
  }
  co_return is_cancelled_ && !difference_ ? Copier::End::kCancelled : Copier::End::kDone;
}

// A megabyte that cannot be read as a whole is read region by region.
rt::Task<> Verifier::step(ByteRange run) {
  auto regions = co_await source_.compare_step(leg_, run);
  if (!regions && run.length > kRegionBytes) {
    for (uint64_t at = run.offset; at < run.end() && !difference_; at += kRegionBytes) {
      co_await step({at, std::min(kRegionBytes, run.end() - at)});
    }
    co_return;
  }
  if (!regions) {
    unread_bytes_ += run.length;
    unread_reason_ = regions.error().message();
    co_return;
  }
  compared_bytes_ += run.length;
  for (const ByteRange region : *regions) {
    if (co_await is_changed_there(region)) continue;
    difference_ = region;
    co_return;
  }
}

rt::Task<bool> Verifier::is_changed_there(ByteRange range) {
  if (target_.tracker == nullptr) co_return false;
  co_await rt::hop(leg_.target().core());
  const bool changed =
      target_.tracker->has_map(target_.behind) && target_.tracker->map(target_.behind).any(range);
  co_await rt::hop(source_.core());
  co_return changed;
}

void Verifier::pause() {
  state_ = Copier::State::kPaused;
  changed_.pulse();
}

void Verifier::resume() {
  state_ = Copier::State::kRunning;
  changed_.pulse();
}

void Verifier::set_rate(uint64_t rate) {
  rate_ = rate;
  changed_.pulse();
}

void Verifier::cancel() {
  is_cancelled_ = true;
  changed_.pulse();
}

Copier::Progress Verifier::progress() const {
  const rt::Micros now = clock_.now();
  Copier::Progress progress{.total_bytes = source_.size_bytes(),
                            .done_bytes = at_,
                            .moved_bytes = compared_bytes_,
                            .skipped_bytes = at_ - std::min(at_, compared_bytes_),
                            .rate = speed_.bytes_per_second(now),
                            .eta_seconds = std::nullopt,
                            .reason = unread_reason_};
  if (state_ == Copier::State::kRunning && progress.rate > 0) {
    progress.eta_seconds = divide_up(progress.total_bytes - at_, progress.rate);
  }
  return progress;
}

}  // namespace duplex::copy
