#include "rt/task_group.h"

#include "base/assert.h"

namespace duplex::rt {

struct TaskGroup::RootPromise {
  TaskGroup& group;
  RootPromise* before = nullptr;
  RootPromise* after = nullptr;

  RootPromise(TaskGroup& g, Task<>&) : group(g) {}
  static void* operator new(size_t bytes) { return detail::allocate_frame(bytes); }
  static void operator delete(void* frame, size_t bytes) noexcept {
    detail::free_frame(frame, bytes);
  }

  struct End {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<RootPromise> self) const noexcept {
      TaskGroup& owner = self.promise().group;
      owner.unlink(self.promise());
      self.destroy();
      if (owner.size_ == 0 && owner.closing_) owner.empty_.set();
    }
    void await_resume() const noexcept {}
  };

  Root get_return_object() noexcept;
  std::suspend_always initial_suspend() const noexcept { return {}; }
  End final_suspend() const noexcept { return {}; }
  void return_void() const noexcept {}
  [[noreturn]] void unhandled_exception() const noexcept {
    assert_failed("an exception escaped a coroutine", __FILE__, __LINE__);
  }
};

struct TaskGroup::Root {
  using promise_type = RootPromise;
  std::coroutine_handle<RootPromise> handle;
};

TaskGroup::Root TaskGroup::RootPromise::get_return_object() noexcept {
  return Root{std::coroutine_handle<RootPromise>::from_promise(*this)};
}

TaskGroup::Root TaskGroup::run(TaskGroup& /*group*/, Task<> task) { co_await std::move(task); }

TaskGroup::~TaskGroup() {
  ASSERT(size_ == 0 || home_.abandoned());
  while (first_ != nullptr) {
    RootPromise& promise = *first_;
    unlink(promise);
    std::coroutine_handle<RootPromise>::from_promise(promise).destroy();
  }
}

bool TaskGroup::spawn(Task<> task) {
  if (closing_) return false;
  ASSERT(home_.is_current());
  const Root root = run(*this, std::move(task));
  link(root.handle.promise());
  root.handle.resume();
  return true;
}

Task<> TaskGroup::close() {
  closing_ = true;
  if (size_ == 0) empty_.set();
  co_await empty_.wait();
}

void TaskGroup::link(RootPromise& promise) {
  promise.after = first_;
  if (first_ != nullptr) first_->before = &promise;
  first_ = &promise;
  ++size_;
}

void TaskGroup::unlink(RootPromise& promise) {
  (promise.before != nullptr ? promise.before->after : first_) = promise.after;
  if (promise.after != nullptr) promise.after->before = promise.before;
  --size_;
}

}  // namespace duplex::rt
