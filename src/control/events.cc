#include "control/events.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"

namespace duplex::control {

Events::Events(rt::Core& control) : control_(control), tasks_(control) {}

void Events::emit(Event event) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = queued_.empty() && dropped_ == 0;
    if (queued_.size() < kMaxQueued) {
      queued_.push_back(std::move(event));
    } else {
      ++dropped_;
    }
  }
  // Posted once; drain() takes everything that has come by then.
  if (first) control_.post(drain_);
}

void Events::drain() {
  std::deque<Event> taken;
  uint64_t dropped = 0;
  {
    const std::lock_guard lock(mutex_);
    taken.swap(queued_);
    dropped = std::exchange(dropped_, 0);
  }
  if (dropped > 0) {
    taken.push_back({.severity = Severity::kWarning,
                     .code = "events_dropped",
                     .subject = "array",
                     .text = fmt::format("{} events came too fast and were dropped", dropped),
                     .next = {}});
  }
  for (Event& event : taken) {
    const LogLevel level = event.severity == Severity::kError     ? LogLevel::kError
                           : event.severity == Severity::kWarning ? LogLevel::kWarning
                                                                  : LogLevel::kInfo;
    errors_ += event.severity == Severity::kError;
    warnings_ += event.severity == Severity::kWarning;
    if (log_enabled(level)) {
      log_line(level, fmt::format("{}: {}{}{}", event.code, event.text,
                                  event.next.empty() ? "" : "; next: ", event.next));
    }
    if (unwritten_.size() >= kMaxQueued) continue;  // the store hangs
    unwritten_.push_back(
        {.id = 0, .wall_us = control_.clock().wall_us(), .event = std::move(event)});
  }
  if (store_ != nullptr && !writing_) tasks_.spawn(write_out());
}

void Events::use_store(meta::Store& store) {
  store_ = &store;
  if (!unwritten_.empty() && !writing_) tasks_.spawn(write_out());
}

rt::Task<> Events::write_out() {
  writing_ = true;
  while (!unwritten_.empty()) {
    meta::Transaction transaction;
    for (meta::EventRow& row : std::exchange(unwritten_, {}))
      transaction.push_back(meta::AddEvent{std::move(row)});
    const auto stored = co_await store_->commit(std::move(transaction));
    if (!stored) {
      // They stand in the log; a store that cannot take events says so there as well.
      log_warning("events are not stored: {}", stored.error().describe());
      break;
    }
    stored_.pulse();
  }
  writing_ = false;
}

void Events::release_waiters() {
  waiters_released_ = true;
  stored_.pulse();
}

rt::Task<> Events::stop() {
  release_waiters();
  drain();
  co_await rt::yield();  // drain_ may still be in the queue of the control core
  co_await tasks_.close();
  store_ = nullptr;
}

rt::Task<Result<std::vector<meta::EventRow>>> Events::after(uint64_t after, size_t limit,
                                                            rt::Micros deadline) {
  while (true) {
    if (store_ == nullptr) co_return fail(Code::kShutdown);
    auto rows = co_await store_->events(after, limit);
    if (!rows || !rows->empty() || waiters_released_ || control_.clock().now() >= deadline)
      co_return rows;
    co_await stored_.wait_until(control_.clock(), deadline);
  }
}

}  // namespace duplex::control
