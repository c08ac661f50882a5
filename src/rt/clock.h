// The first two doors: Clock and Rng.
#pragma once

#include <coroutine>
#include <cstdint>

#include "rt/executor.h"

namespace duplex::rt {

// Microseconds of the monotonic clock. Only differences mean anything.
using Micros = uint64_t;
inline constexpr Micros kMillisecond = 1000;
inline constexpr Micros kSecond = 1000 * kMillisecond;

// A timer, linked into a clock without allocation. Fires once on the clock's executor.
struct Timer {
  using Fire = void (*)(Timer&);
  explicit Timer(Fire f) : fire(f) {}
  Fire fire;
  Micros deadline = 0;
  uint64_t timer_slot = 0;  // owned by the clock; 0: not armed
};

// The clock of one core. All calls on that core, except now() and wall_us(): any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Micros now() const = 0;
  // Microseconds since 1970 UTC. For people only: no decision depends on it.
  virtual int64_t wall_us() const = 0;
  // `timer` is not armed. A deadline in the past fires at the next turn.
  virtual void arm(Timer& timer, Micros deadline) = 0;
  // No effect when it is not armed (has fired).
  virtual void cancel(Timer& timer) = 0;
};

// co_await sleep_until(clock, deadline)
class Sleep : Timer {
 public:
  Sleep(Clock& clock, Micros deadline) : Timer(&Sleep::wake), clock_(clock), until_(deadline) {}
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    clock_.arm(*this, until_);
  }
  void await_resume() const {}

 private:
  static void wake(Timer& timer) { static_cast<Sleep&>(timer).handle_.resume(); }
  Clock& clock_;
  Micros until_;
  std::coroutine_handle<> handle_;
};
inline Sleep sleep_until(Clock& clock, Micros deadline) { return Sleep(clock, deadline); }
inline Sleep sleep_for(Clock& clock, Micros time) { return Sleep(clock, clock.now() + time); }

// Random numbers of cryptographic quality in the daemon (getrandom), of the seed in the simulator.
class Rng {
 public:
  virtual ~Rng() = default;
  virtual uint64_t next() = 0;
};

}  // namespace duplex::rt
