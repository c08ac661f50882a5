// ListWait: suspends a coroutine in a wait list; the owner of the list wakes it, in order of
// arrival. A coroutine that is destroyed while it waits (simulated power cut) leaves the list.
#pragma once

#include "rt/wait.h"

namespace duplex::volume {

// co_await ListWait(list). The list outlives the wait.
class [[nodiscard]] ListWait : rt::Waiter {
 public:
  explicit ListWait(rt::WaitList& waiters, bool is_ready = false)
      : waiters_(waiters), is_ready_(is_ready) {}
  ListWait(const ListWait&) = delete;
  ListWait& operator=(const ListWait&) = delete;
  bool await_ready() const { return is_ready_; }
  void await_suspend(std::coroutine_handle<> h) {
    handle = h;
    waiters_.push(*this);
  }
  void await_resume() const {}

 private:
  rt::WaitList& waiters_;
  bool is_ready_;
};

}  // namespace duplex::volume
