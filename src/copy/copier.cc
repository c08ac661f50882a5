#include "copy/copier.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace duplex::copy {
namespace {

using volume::VolumeImpl;

// What a rest is counted in: not less than a timer can wait, not so much that a step that hung
// for long makes the copy hang after it.
constexpr rt::Micros kLeastTurn = 100;
constexpr rt::Micros kMostTurn = rt::kSecond;

rt::Micros time_of(uint64_t bytes, uint64_t rate) { return bytes * rt::kSecond / rate; }

}  // namespace

Copier::Copier(VolumeImpl& source, volume::TargetLeg& leg, volume::Tracker& tracker,
               std::function<Epoch()> root, Start start)
    : Copier(source, way_forward(source, leg, std::move(root)), tracker, start) {}

Copier::Copier(VolumeImpl& source, std::unique_ptr<Way> way, volume::Tracker& tracker, Start start)
    : source_(source),
      way_(std::move(way)),
      tracker_(tracker),
      clock_(source.core().clock()),
      state_(start.is_paused ? State::kPaused : State::kRunning),
      suspect_(source.size_bytes()),
      bad_(source.size_bytes()),
      rate_(start.rate),
      checkpoint_at_(clock_.now()),
      total_bytes_(way_->map().set_bytes()),
      speed_(clock_.now()),
      workers_(source.core()) {}

rt::Task<Copier::End> Copier::run() {
  start_workers();
  while (!end_) {
    if (!way_->is_open()) {
      end_with(End::kLeft);
      break;
    }
    if (retry_at_ && clock_.now() >= *retry_at_) try_again();
    if (!retry_at_ && state_ != State::kPaused && is_copied()) {
      co_await wind_up();
      const bool is_safe = co_await checkpoint();
      // From here to the owner nothing suspends.
      if (is_safe && !end_ && state_ != State::kPaused && is_copied() && way_->is_open()) {
        co_return End::kDone;
      }
      start_workers();
    } else if (!retry_at_ && is_checkpoint_due()) {
      co_await checkpoint();
    } else {
      if (!retry_at_ && is_only_bad_left()) stall(Trouble::kRead, read_reason_);
      if (const auto at = next_look()) {
        // The time may bring what nobody here tells of: missing regions that are back.
        if (!co_await changed_.wait_until(clock_, *at)) changed_.pulse();
      } else {
        co_await changed_.wait();
      }
    }
  }
  co_await wind_up();
  co_return *end_;
}

void Copier::start_workers() {
  winding_up_ = false;
  for (size_t n = 0; n < kSteps; ++n) {
    ++workers_at_work_;
    workers_.spawn(work());
  }
}

rt::Task<> Copier::wind_up() {
  winding_up_ = true;
  changed_.pulse();
  while (workers_at_work_ > 0) co_await changed_.wait();
}

rt::Task<> Copier::work() {
  while (!is_over()) {
    if (may_start() && rate_ > 0 && clock_.now() < due_) {
      co_await changed_.wait_until(clock_, due_);
      continue;
    }
    const std::optional<Pick> next = may_start() ? pick() : std::nullopt;
    if (!next) {
      co_await changed_.wait();
      continue;
    }
    const rt::Micros began = clock_.now();
    const uint64_t requests = host_requests();
    co_await step(*next);
    co_await rest(clock_.now() - began, requests);
  }
  --workers_at_work_;
  changed_.pulse();
}

// Nothing suspends between the choice of the run and the step's look at the bits.
rt::Task<> Copier::step(Pick pick) {
  const auto slot = std::ranges::find(in_flight_, ByteRange{});
  ASSERT(slot != in_flight_.end());
  *slot = pick.run;
  ++flying_;
  const uint64_t at_most = std::min(pick.run.length, VolumeImpl::kCopyBytes);
  const rt::Micros charge = rate_ > 0 ? time_of(at_most, rate_) : 0;
  due_ = std::max(due_, clock_.now()) + charge;
  const auto done = co_await way_->step(pick.run);
  *slot = {};
  --flying_;
  if (done) {
    // What was not moved is given back.
    due_ -= std::min(due_, charge - charge * std::min(done->moved_bytes, at_most) / at_most);
    succeeded(*done);
  } else if (!way_->is_open()) {
    end_with(End::kLeft);
  } else {
    failed(pick, done.error());
  }
  changed_.pulse();
}

rt::Task<> Copier::rest(rt::Micros turn, uint64_t requests_before) {
  turn = std::clamp(turn, kLeastTurn, kMostTurn);
  uint64_t requests = host_requests();
  const uint64_t turns = std::min(requests - requests_before, kMostRestTurns);
  for (uint64_t n = 0; n < turns && !is_over(); ++n) {
    const rt::Micros until = clock_.now() + turn;
    while (!is_over() && clock_.now() < until) co_await changed_.wait_until(clock_, until);
    if (std::exchange(requests, host_requests()) == requests) break;
  }
}

// The steps that ended before it are covered.
rt::Task<bool> Copier::checkpoint() {
  const uint64_t covered = owed_moved_bytes_;
  owes_ = false;
  moved_at_checkpoint_ = moved_bytes_;
  checkpoint_at_ = clock_.now();
  if (!way_->is_open()) co_return false;
  if (Result<void> flushed = co_await tracker_.flush(way_->debtor()); !flushed) {
    owes_ = true;
    // Else the leg has left.
    if (way_->is_open()) {
      stall(Trouble::kStore, fmt::format("volume {} cannot be flushed: {}", source_.name(),
                                         flushed.error().message()));
    }
    co_return false;
  }
  if (Result<void> written = co_await tracker_.write_back(way_->map_id()); !written) {
    owes_ = true;
    stall(Trouble::kStore, fmt::format("the change map of volume {} cannot be written: {}",
                                       source_.name(), written.error().message()));
    co_return false;
  }
  owed_moved_bytes_ -= covered;
  cause_gone(Trouble::kStore);
  changed_.pulse();
  co_return true;
}

void Copier::pause() {
  state_ = State::kPaused;
  changed_.pulse();
}

void Copier::resume() {
  if (state_ == State::kRunning) return;
  state_ = State::kRunning;
  try_again();
}

void Copier::set_rate(uint64_t rate) {
  rate_ = rate;
  due_ = clock_.now();
  changed_.pulse();
}

void Copier::end_with(End end) {
  if (!end_) end_ = end;
  changed_.pulse();
}

bool Copier::may_start() const {
  return state_ != State::kPaused && !retry_at_ && owed_moved_bytes_ < kMostOwedBytes &&
         way_->is_open();
}

// What is not suspect comes first, from the pointer on and once round.
std::optional<Copier::Pick> Copier::pick() {
  suspect_.resize(std::max(suspect_.volume_bytes(), source_.size_bytes()));
  bad_.resize(suspect_.volume_bytes());
  auto run = pick_from(pointer_, source_.size_bytes());
  if (!run) run = pick_from(0, pointer_);
  if (run) {
    pointer_ = run->end() < source_.size_bytes() ? run->end() : 0;
    return Pick{.run = *run};
  }
  while (!suspect_.empty()) {
    const ByteRange region = suspect_.next_run(0, kRegionBytes);
    suspect_.clear(region);
    if (way_->map().any(region)) return Pick{.run = region, .is_alone = true};
  }
  return std::nullopt;
}

std::optional<ByteRange> Copier::pick_from(uint64_t from, uint64_t until) const {
  while (from < until) {
    const ByteRange run = way_->next(from);
    if (run.empty() || run.offset >= until) break;
    if (const ByteRange part = free_part(run); !part.empty()) return part;
    from = run.end();
  }
  return std::nullopt;
}

// The first part of `run` that is neither in flight nor left for later; empty: none.
ByteRange Copier::free_part(ByteRange run) const {
  while (const auto taken = obstacle(run)) {
    if (taken->offset > run.offset) return {run.offset, taken->offset - run.offset};
    if (taken->end() >= run.end()) return {};
    run = {taken->end(), run.end() - taken->end()};
  }
  return run;
}

// The first one in `run`.
std::optional<ByteRange> Copier::obstacle(ByteRange run) const {
  std::optional<ByteRange> first;
  const auto take = [&](ByteRange other) {
    if (other.empty() || !other.overlaps(run)) return;
    if (!first || other.offset < first->offset) first = other;
  };
  for (const ByteRange other : in_flight_) take(other);
  if (!suspect_.empty()) take(suspect_.next_run(run.offset, std::max(run.length, kRegionBytes)));
  if (!bad_.empty()) take(bad_.next_run(run.offset, std::max(run.length, kRegionBytes)));
  return first;
}

bool Copier::is_checkpoint_due() const {
  return moved_bytes_ - moved_at_checkpoint_ >= kCheckpointBytes ||
         (owes_ && clock_.now() >= checkpoint_at_ + kCheckpointTime) || trouble_ == Trouble::kStore;
}

bool Copier::is_only_bad_left() const {
  return state_ != State::kPaused && flying_ == 0 && suspect_.empty() && !bad_.empty() &&
         !pick_from(0, source_.size_bytes());
}

void Copier::succeeded(const VolumeImpl::CopyStep& step) {
  done_bytes_ += step.done_bytes;
  moved_bytes_ += step.moved_bytes;
  owed_moved_bytes_ += step.moved_bytes;
  if (step.done_bytes == 0) return;
  owes_ = true;
  speed_.add(clock_.now(), step.done_bytes);
  failures_in_row_ = 0;
  cause_gone(Trouble::kRead);
}

void Copier::failed(Pick pick, const Error& why) {
  (pick.is_alone || pick.run.length <= kRegionBytes ? bad_ : suspect_).set(pick.run);
  read_reason_ = fmt::format("volume {} cannot be {} at {} ({} bytes): {}", source_.name(),
                             way_->act(), pick.run.offset, pick.run.length, why.message());
  if (++failures_in_row_ >= kFailuresInRow) stall(Trouble::kRead, read_reason_);
}

void Copier::stall(Trouble trouble, std::string reason) {
  trouble_ = trouble;
  reason_ = std::move(reason);
  retry_at_ = clock_.now() + kRetryTime;
  if (state_ == State::kRunning) state_ = State::kStalled;
  changed_.pulse();
}

void Copier::cause_gone(Trouble trouble) {
  if (trouble_ != trouble) return;
  trouble_ = Trouble::kNone;
  if (state_ == State::kStalled) state_ = State::kRunning;
}

// Those that failed alone come round again only when the others have been tried.
void Copier::try_again() {
  retry_at_.reset();
  failures_in_row_ = 0;
  if (suspect_.empty()) suspect_.swap(bad_);
  changed_.pulse();
}

std::optional<rt::Micros> Copier::next_look() const {
  if (retry_at_) return retry_at_;
  if (flying_ == 0 && state_ != State::kPaused && !way_->map().empty()) {
    return clock_.now() + kRetryTime;
  }
  if (owes_) return checkpoint_at_ + kCheckpointTime;
  return std::nullopt;
}

// Requests the source has taken from hosts; a copy's own reads do not count there.
uint64_t Copier::host_requests() const {
  const volume::VolumeStats stats = source_.stats();
  return stats.reads + stats.writes + stats.trims + stats.flushes;
}

Copier::Progress Copier::progress() const {
  const rt::Micros now = clock_.now();
  Progress progress{.total_bytes = std::max(total_bytes_, done_bytes_ + way_->map().set_bytes()),
                    .done_bytes = done_bytes_,
                    .moved_bytes = moved_bytes_,
                    .skipped_bytes = done_bytes_ - moved_bytes_,
                    .rate = speed_.bytes_per_second(now),
                    .eta_seconds = std::nullopt,
                    .reason = {}};
  if (state_ == State::kStalled) progress.reason = reason_;
  if (state_ == State::kRunning && progress.rate > 0) {
    progress.eta_seconds = divide_up(progress.total_bytes - done_bytes_, progress.rate);
  }
  return progress;
}

}  // namespace duplex::copy
