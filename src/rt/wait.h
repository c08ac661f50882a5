// What coroutines of one executor wait for: Event, Mutex, Limit.
//
// Thread: all of these live on one executor; waiters and wakers run there. Wake-ups are posted,
// in order of arrival. After a simulated power cut waiters and what they wait for are destroyed in
// any order: each takes itself out of the other.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>

#include "base/assert.h"
#include "rt/clock.h"
#include "rt/executor.h"

namespace duplex::rt {

class WaitList;

// One suspended coroutine in a WaitList.
struct Waiter : Work {
  Waiter() : Work(&Waiter::resume), home(Executor::current()) {}
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  inline ~Waiter();
  static void resume(Work& work) { static_cast<Waiter&>(work).handle.resume(); }

  std::coroutine_handle<> handle;
  Executor& home;
  WaitList* list = nullptr;  // null: not waiting (any more)
  Waiter* before = nullptr;
  Waiter* after = nullptr;
  uint64_t amount = 0;  // what a Limit's waiter asks for
};

// First in, first out.
class WaitList {
 public:
  WaitList() = default;
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList() {
    while (!empty()) remove(*first_);
  }
  bool empty() const { return first_ == nullptr; }
  Waiter* front() { return first_; }
  void push(Waiter& waiter) {
    waiter.list = this;
    waiter.before = last_;
    waiter.after = nullptr;
    (last_ != nullptr ? last_->after : first_) = &waiter;
    last_ = &waiter;
  }
  void remove(Waiter& waiter) {
    ASSERT(waiter.list == this);
    (waiter.before != nullptr ? waiter.before->after : first_) = waiter.after;
    (waiter.after != nullptr ? waiter.after->before : last_) = waiter.before;
    waiter.list = nullptr;
  }
  // Takes the first waiter out and posts it to its executor.
  void wake_one() {
    Waiter& waiter = *first_;
    remove(waiter);
    waiter.home.post(waiter);
  }
  void wake_all() {
    while (!empty()) wake_one();
  }

 private:
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
};

inline Waiter::~Waiter() {
  if (list != nullptr) list->remove(*this);
}

// A flag to wait for. set() wakes all; stays set until reset().
class Event {
 public:
  bool is_set() const { return set_; }
  void set() {
    set_ = true;
    waiters_.wake_all();
  }
  void reset() { set_ = false; }
  // Wakes those who wait now without setting the flag.
  void pulse() { waiters_.wake_all(); }

  struct Wait : Waiter {
    explicit Wait(Event& e) : event(e) {}
    bool await_ready() const { return event.set_; }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      event.waiters_.push(*this);
    }
    void await_resume() const {}
    Event& event;
  };
  [[nodiscard]] Wait wait() { return Wait(*this); }

  // co_await event.wait_until(clock, deadline): true if the event came, false on the deadline.
  struct TimedWait : Waiter, Timer {
    TimedWait(Event& e, Clock& c, Micros d)
        : Timer(&TimedWait::expire), event(e), clock(c), until(d) {}
    bool await_ready() const { return event.set_; }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      suspended = true;
      event.waiters_.push(*this);
      clock.arm(*this, until);
    }
    bool await_resume() {
      if (!suspended) return true;
      if (!expired) clock.cancel(*this);
      return !expired;
    }
    static void expire(Timer& timer) {
      auto& self = static_cast<TimedWait&>(timer);
      if (self.list == nullptr) return;  // already woken; its resumption is on the way
      self.expired = true;
      self.list->remove(self);
      self.home.post(self);
    }
    Event& event;
    Clock& clock;
    Micros until;
    bool suspended = false;
    bool expired = false;
  };
  [[nodiscard]] TimedWait wait_until(Clock& clock, Micros deadline) {
    return TimedWait(*this, clock, deadline);
  }

 private:
  bool set_ = false;
  WaitList waiters_;
};

// Mutual exclusion between coroutines of one executor, in order of arrival.
//   auto held = co_await mutex.lock();
class Mutex {
 public:
  class [[nodiscard]] Held {
   public:
    Held(Mutex& mutex, Executor& home) : mutex_(&mutex), home_(&home) {}
    Held(Held&& other) noexcept : mutex_(other.mutex_), home_(other.home_) {
      other.mutex_ = nullptr;
    }
    Held& operator=(Held&&) = delete;
    ~Held() {
      // After a power cut the waiters may be destroyed already, in any order.
      if (mutex_ != nullptr && !home_->abandoned()) mutex_->unlock();
    }

   private:
    Mutex* mutex_;
    Executor* home_;
  };
  struct Lock : Waiter {
    explicit Lock(Mutex& m) : mutex(m) {}
    bool await_ready() {
      if (mutex.locked_) return false;
      mutex.locked_ = true;
      return true;
    }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      mutex.waiters_.push(*this);
    }
    Held await_resume() { return Held(mutex, home); }
    Mutex& mutex;
  };
  [[nodiscard]] Lock lock() { return Lock(*this); }

 private:
  void unlock() {
    if (waiters_.empty()) {
      locked_ = false;
    } else {
      waiters_.wake_one();  // the lock passes on, it never looks free
    }
  }
  bool locked_ = false;
  WaitList waiters_;
};

// A bounded amount of something (bytes in flight, requests). acquire() waits, in order of
// arrival, until its amount is free; a request larger than the whole limit gets the whole limit.
class Limit {
 public:
  explicit Limit(uint64_t total) : total_(total), free_(total) {}
  struct Acquire : Waiter {
    Acquire(Limit& l, uint64_t a) : limit(l) { amount = a; }
    bool await_ready() {
      if (!limit.waiters_.empty() || limit.free_ < amount) return false;
      limit.free_ -= amount;
      return true;
    }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      limit.waiters_.push(*this);
    }
    void await_resume() const {}
    Limit& limit;
  };
  // What was acquired must be given back with release(amount), which clamps it the same way.
  [[nodiscard]] Acquire acquire(uint64_t amount) { return Acquire(*this, clamp(amount)); }
  // Takes it at once or not at all; never overtakes a waiter.
  bool try_acquire(uint64_t amount) {
    if (!waiters_.empty() || free_ < clamp(amount)) return false;
    free_ -= clamp(amount);
    return true;
  }
  void release(uint64_t amount) {
    free_ += clamp(amount);
    ASSERT(free_ <= total_);
    while (!waiters_.empty() && waiters_.front()->amount <= free_) {
      free_ -= waiters_.front()->amount;
      waiters_.wake_one();
    }
  }

 private:
  uint64_t clamp(uint64_t amount) const { return amount < total_ ? amount : total_; }

  uint64_t total_;
  uint64_t free_;
  WaitList waiters_;
};

}  // namespace duplex::rt
