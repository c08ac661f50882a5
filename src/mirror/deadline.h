// within(): waits for a task, but not for ever.
//
// A device that hangs may keep a drain or a flush for as long as it likes; a verb gives up and says
// so. The task itself cannot be broken off: it goes on in its group, counted by `Pending`, and what
// it looks at stays until it has ended. Thread: control core; the task hops and comes back.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "rt/clock.h"
#include "rt/task.h"
#include "rt/task_group.h"
#include "rt/wait.h"

namespace duplex::mirror {

// Tasks that were given up and have not ended.
struct Pending {
  uint32_t count = 0;
};

namespace detail {

template <class T>
struct Late {
  std::optional<T> value;
  rt::Event done;
};

template <class T>
rt::Task<> carry(rt::Task<T> task, std::shared_ptr<Late<T>> late, std::shared_ptr<Pending> who) {
  late->value.emplace(co_await std::move(task));
  --who->count;
  late->done.set();
}

}  // namespace detail

// Nothing: `until` came first.
template <class T>
rt::Task<std::optional<T>> within(rt::TaskGroup& tasks, rt::Clock& clock, rt::Micros until,
                                  std::shared_ptr<Pending> who, rt::Task<T> task) {
  auto late = std::make_shared<detail::Late<T>>();
  ++who->count;
  if (!tasks.spawn(detail::carry(std::move(task), late, who))) {
    --who->count;
    co_return std::nullopt;
  }
  if (!co_await late->done.wait_until(clock, until)) co_return std::nullopt;
  co_return std::move(late->value);
}

}  // namespace duplex::mirror
