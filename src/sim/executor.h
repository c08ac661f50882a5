// SimExecutor: a queue of work that the simulation draws from.
//
// Two kinds exist: cores (with doors) and the store's executor (plain); ExecutorOf adds the queue
// to either.
#pragma once

#include "rt/executor.h"
#include "sim/simulation.h"

namespace duplex::sim {

class SimExecutor {
 public:
  SimExecutor(Simulation& simulation, uint64_t id) : simulation_(simulation), id_(id) {}
  virtual ~SimExecutor() { simulation_.remove(*this); }
  SimExecutor(const SimExecutor&) = delete;
  SimExecutor& operator=(const SimExecutor&) = delete;

  // Runs one piece of work; deferred work only when nothing else is ready.
  virtual void run_one() = 0;
  // Runs `function(argument)` as if on this executor: completions of I/O, timers.
  virtual void enter(void (*function)(void*), void* argument) = 0;

  void add(rt::Work& work, bool deferred) {
    if (abandoned_) return;
    push(deferred ? deferred_ : ready_, work);
    simulation_.runnable(*this);
  }
  bool has_work() const { return ready_.first != nullptr || deferred_.first != nullptr; }
  bool is_abandoned() const { return abandoned_; }
  // Power is gone: nothing queued or awaited here ever runs.
  void abandon() {
    abandoned_ = true;
    ready_ = deferred_ = {};
    simulation_.remove(*this);
    simulation_.forget(*this);
  }

  uint64_t id() const { return id_; }
  Simulation& simulation() const { return simulation_; }
  rt::Micros starved_until = 0;
  bool listed = false;  // owned by the simulation: in its list of runnable executors

 protected:
  rt::Work& take() { return pop(ready_.first != nullptr ? ready_ : deferred_); }

 private:
  struct Queue {
    rt::Work* first = nullptr;
    rt::Work* last = nullptr;
  };
  static void push(Queue& queue, rt::Work& work) {
    work.next_work = nullptr;
    (queue.last != nullptr ? queue.last->next_work : queue.first) = &work;
    queue.last = &work;
  }
  static rt::Work& pop(Queue& queue) {
    rt::Work& work = *queue.first;
    queue.first = work.next_work;
    if (queue.first == nullptr) queue.last = nullptr;
    return work;
  }

  Simulation& simulation_;
  const uint64_t id_;
  Queue ready_;
  Queue deferred_;
  bool abandoned_ = false;
};

// Base: rt::Executor or rt::Core.
template <class Base>
class ExecutorOf : public Base, public SimExecutor {
 public:
  using SimExecutor::SimExecutor;
  void post(rt::Work& work) override { add(work, false); }
  void defer(rt::Work& work) override { add(work, true); }
  bool abandoned() const override { return is_abandoned(); }
  void run_one() override {
    const typename Base::Scope scope(*this);
    rt::Work& work = take();
    work.run(work);
  }
  void enter(void (*function)(void*), void* argument) override {
    const typename Base::Scope scope(*this);
    function(argument);
  }
};

}  // namespace duplex::sim
