// run_on(core, task): a plain thread (main, an API thread, a test) has a task run on a core and
// waits for its result.
#pragma once

#include <optional>
#include <semaphore>
#include <utility>

#include "rt/executor.h"
#include "rt/task.h"

namespace duplex::os {
namespace detail {

// A coroutine that starts at once and owns itself.
struct Detached {
  struct promise_type {
    Detached get_return_object() const noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept {
      assert_failed("an exception escaped a coroutine", __FILE__, __LINE__);
    }
  };
};

template <class T>
Detached run(rt::Executor& executor, rt::Task<T> task, std::optional<T>& result,
             std::binary_semaphore& done) {
  co_await rt::hop(executor);
  result.emplace(co_await std::move(task));
  co_await rt::hop(executor);  // the caller may go on only when the task has left its last executor
  done.release();
}
inline Detached run(rt::Executor& executor, rt::Task<void> task, std::binary_semaphore& done) {
  co_await rt::hop(executor);
  co_await std::move(task);
  co_await rt::hop(executor);
  done.release();
}

}  // namespace detail

template <class T>
T run_on(rt::Executor& executor, rt::Task<T> task) {
  std::binary_semaphore done(0);
  std::optional<T> result;
  detail::run(executor, std::move(task), result, done);
  done.acquire();
  return std::move(*result);
}
inline void run_on(rt::Executor& executor, rt::Task<void> task) {
  std::binary_semaphore done(0);
  detail::run(executor, std::move(task), done);
  done.acquire();
}

}  // namespace duplex::os
