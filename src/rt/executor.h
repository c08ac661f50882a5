// Executor: one thread of execution with a queue of work. Everything runs on one of these.
//
// The daemon has one executor per reactor, one for control work and one that may block (the
// store). The simulator implements all of them inside one thread, in an order drawn from the seed.
// Rule for everything in the rooms above: a wake-up goes through post(), never by resuming a
// coroutine inside another one's call. So no lock is needed, the stack stays flat, and the
// simulator can stop the world between any two steps.
#pragma once

#include <coroutine>

namespace duplex::rt {

// A unit of work, linked into a queue without allocation. The owner keeps it alive until it ran.
struct Work {
  using Run = void (*)(Work&);
  explicit Work(Run r) : run(r) {}
  Run run;
  Work* next_work = nullptr;  // owned by the queue it is in
};

class Executor {
 public:
  virtual ~Executor() = default;

  // Any thread. `work` runs once on this executor, later, in order of posting per poster.
  virtual void post(Work& work) = 0;
  // Only on this executor: runs after all work that is ready now. Used to batch replies.
  virtual void defer(Work& work) = 0;
  // True once the simulated machine of this executor has lost power: nothing posted runs any
  // more, and objects may be destroyed with work in flight. Never true in the daemon.
  virtual bool abandoned() const { return false; }

  bool is_current() const { return current_ == this; }
  // The executor this code runs on; must be on one.
  static Executor& current();

 protected:
  // Implementations bracket the running of work with this.
  class Scope {
   public:
    explicit Scope(Executor& executor) : before_(current_) { current_ = &executor; }
    ~Scope() { current_ = before_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Executor* before_;
  };

 private:
  static thread_local Executor* current_;
};

// co_await hop(executor): the coroutine goes on there. Does not suspend when already there.
class Hop : Work {
 public:
  explicit Hop(Executor& to) : Work(&Hop::resume), to_(to) {}
  bool await_ready() const { return to_.is_current(); }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    to_.post(*this);
  }
  void await_resume() const {}

 private:
  static void resume(Work& work) { static_cast<Hop&>(work).handle_.resume(); }
  Executor& to_;
  std::coroutine_handle<> handle_;
};
inline Hop hop(Executor& to) { return Hop(to); }

// co_await yield(): lets everything that is ready on this executor run first. Not for waiting in a
// loop: a reactor looks at its I/O, and at what other threads posted, when nothing is ready.
class Yield : Work {
 public:
  Yield() : Work(&Yield::resume) {}
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    Executor::current().post(*this);
  }
  void await_resume() const {}

 private:
  static void resume(Work& work) { static_cast<Yield&>(work).handle_.resume(); }
  std::coroutine_handle<> handle_;
};
inline Yield yield() { return {}; }

}  // namespace duplex::rt
