// TaskGroup: owns coroutines that run on their own, and waits for them when it closes.
//
// Owner: the object whose work the tasks are, as its last member, so that it dies first.
// Thread: one executor. Invariants: 1. no task outlives its group; 2. after close() nothing
// starts; 3. the destructor finds the group empty, or its executor abandoned (simulated power
// cut), and then destroys the tasks where they stand.
#pragma once

#include <coroutine>
#include <cstddef>

#include "rt/executor.h"
#include "rt/task.h"
#include "rt/wait.h"

namespace duplex::rt {

class TaskGroup {
 public:
  // `home`: the executor every task of the group runs on at its start and end.
  explicit TaskGroup(Executor& home) : home_(home) {}
  ~TaskGroup();
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  // Starts `task` at once, inside this call, up to its first suspension. On `home` only.
  // False, and the task is dropped unstarted, when the group is closing.
  bool spawn(Task<> task);
  // No new tasks from now on; returns when all have ended. May be awaited by several.
  Task<> close();

  size_t size() const { return size_; }

 private:
  struct Root;
  struct RootPromise;
  static Root run(TaskGroup& group, Task<> task);
  void link(RootPromise& promise);
  void unlink(RootPromise& promise);

  Executor& home_;
  RootPromise* first_ = nullptr;
  size_t size_ = 0;
  bool closing_ = false;
  Event empty_;
};

}  // namespace duplex::rt
