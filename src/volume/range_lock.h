// RangeLock: overlapping writes of one volume run one after the other, in order of arrival.
//
// Owner: a volume. Thread: the volume's core.
// Invariants:
// 1. No two holders overlap.
// 2. Fair: a request waits for every earlier request it overlaps, holder or waiter. So a large
//    request is never starved by small ones that keep slipping in before it.
// 3. Requests that overlap none of those before them are granted at once, inside lock().
//
// All requests, granted or waiting, stand in one array in order of arrival (a few hundred at
// most: the requests in flight on one volume). Each knows how many earlier ones it still waits
// for. A scan of 64 entries of 40 bytes costs less than one pointer chase through a tree, and
// the array never shrinks, so nothing is allocated per request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/units.h"
#include "rt/wait.h"

namespace duplex::volume {

class RangeLock {
 public:
  RangeLock();
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;

  // The lock of one range; given back by the destructor.
  class [[nodiscard]] Held {
   public:
    Held(Held&& other) noexcept
        : lock_(std::exchange(other.lock_, nullptr)), ticket_(other.ticket_) {}
    Held& operator=(Held&& other) noexcept {
      release();
      lock_ = std::exchange(other.lock_, nullptr);
      ticket_ = other.ticket_;
      return *this;
    }
    ~Held() { release(); }
    void release() {
      if (lock_ != nullptr) std::exchange(lock_, nullptr)->leave(ticket_);
    }

   private:
    friend class RangeLock;
    Held(RangeLock& lock, uint64_t ticket) : lock_(&lock), ticket_(ticket) {}
    RangeLock* lock_;
    uint64_t ticket_;
  };

  class [[nodiscard]] Acquire : public rt::Waiter {
   public:
    Acquire(RangeLock& lock, ByteRange range) : lock_(lock), range_(range) {}
    Acquire(const Acquire&) = delete;
    Acquire& operator=(const Acquire&) = delete;
    // A coroutine destroyed while it waits (simulated power cut) leaves the queue.
    ~Acquire() {
      if (ticket_ != 0) lock_.leave(ticket_);
    }
    bool await_ready() {
      ticket_ = lock_.enter(range_, *this);
      return lock_.entries_.back().blockers == 0;
    }
    void await_suspend(std::coroutine_handle<> h) { handle = h; }
    Held await_resume() { return Held(lock_, std::exchange(ticket_, 0)); }

   private:
    RangeLock& lock_;
    ByteRange range_;
    uint64_t ticket_ = 0;  // 0: not in the queue
  };

  // auto held = co_await lock.lock(range). `range` is not empty; whole blocks by convention of
  // the caller, any bytes as far as the lock is concerned.
  Acquire lock(ByteRange range) { return Acquire(*this, range); }

  // Requests that hold or wait.
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    ByteRange range;
    uint64_t ticket;     // rises along the array
    rt::Waiter* waiter;  // alive while blockers > 0
    uint32_t blockers;   // earlier entries it overlaps
  };
  uint64_t enter(ByteRange range, rt::Waiter& waiter);
  void leave(uint64_t ticket);

  std::vector<Entry> entries_;
  uint64_t last_ticket_ = 0;
};

}  // namespace duplex::volume
