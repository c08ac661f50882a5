#include "copy/verifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace duplex::copy {

using volume::VolumeImpl;

Verifier::Verifier(VolumeImpl& source, volume::TargetLeg& leg, volume::Tracker& tracker,
                   Copier::Start start, Target target)
    : source_(source),
      leg_(leg),
      tracker_(tracker),
      target_(std::move(target)),
      clock_(source.core().clock()),
      state_(start.is_paused ? Copier::State::kPaused : Copier::State::kRunning),
      rate_(start.rate),
      unmarked_(source.size_bytes()),
      words_at_(clock_.now()),
      speed_(clock_.now()) {}

rt::Task<Verifier::End> Verifier::run() {
  while (!is_cancelled_ && at_ < source_.size_bytes()) {
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
    if (!unmarked_.empty() || (found_.regions > 0 && !is_told_)) {
      is_told_ = true;
      co_await write_bits();
      co_return End::kFound;
    }
    if (clock_.now() >= words_at_) co_await write_bits();
    rt::Micros rest = clock_.now() - began;
    if (rate_ > 0) rest = std::max(rest, length * rt::kSecond / rate_);
    const rt::Micros until = clock_.now() + rest;
    while (!is_cancelled_ && clock_.now() < until) co_await changed_.wait_until(clock_, until);
    if (rest == 0) co_await rt::yield();
  }
  co_await write_bits();
  co_return is_cancelled_ ? End::kCancelled : End::kDone;
}

// A megabyte that cannot be read as a whole is read region by region.
rt::Task<> Verifier::step(ByteRange run) {
  const auto suspects = co_await source_.differing(leg_, run);
  if (!suspects && run.length > kRegionBytes) {
    for (uint64_t at = run.offset; at < run.end() && !is_cancelled_; at += kRegionBytes) {
      co_await step({at, std::min(kRegionBytes, run.end() - at)});
    }
    co_return;
  }
  if (!suspects) {
    could_not_read(run, suspects.error().message());
    co_return;
  }
  compared_bytes_ += run.length;
  for (const auto& suspect : *suspects) co_await accuse(suspect.region);
}

rt::Task<> Verifier::accuse(ByteRange region) {
  const auto found = co_await source_.accuse(
      leg_, region, [this](VolumeImpl::Difference difference) { return counts(difference); });
  if (!found) {
    compared_bytes_ -= region.length;
    could_not_read(region, found.error().message());
    co_return;
  }
  if (!*found) co_return;
  if (found_.regions == 0) found_.first = region.offset;
  ++found_.regions;
  found_.bytes += region.length;
  if ((*found)->is_unreadable) found_.unreadable_bytes += region.length;
  if ((*found)->has_bit) {
    owes_words_ = true;
  } else {
    unmarked_.set(region);
  }
}

// Nobody knew of the difference, and the target is there to be accused.
rt::Task<bool> Verifier::counts(VolumeImpl::Difference difference) {
  if (difference.is_unreadable && target_.is_attached && !co_await target_.is_attached()) {
    compared_bytes_ -= difference.region.length;
    could_not_read(difference.region, "the device of the target is away");
    co_return false;
  }
  if (target_.tracker == nullptr) co_return true;
  co_await rt::hop(leg_.target().core());
  const bool is_known = target_.tracker->has_map(target_.behind) &&
                        target_.tracker->map(target_.behind).any(difference.region);
  co_await rt::hop(source_.core());
  co_return !is_known;
}

// A store that takes none of it is asked again: the bits stay pending.
rt::Task<> Verifier::write_bits() {
  words_at_ = clock_.now() + kWriteTime;
  if (!owes_words_) co_return;
  const Result<void> written = co_await tracker_.write_back(leg_.bits_id());
  owes_words_ = !written;
}

void Verifier::could_not_read(ByteRange run, std::string_view why) {
  unread_bytes_ += run.length;
  unread_reason_ = why;
}

std::string Verifier::Found::text() const {
  std::string text = fmt::format("{} region{} ({} bytes), the first at {}", regions,
                                 regions == 1 ? "" : "s", bytes, first);
  if (unreadable_bytes > 0) {
    text += fmt::format("; {} bytes of them cannot be read there", unreadable_bytes);
  }
  return text;
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
