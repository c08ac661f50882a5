#include "sim/core.h"

namespace duplex::sim {
namespace {

void fire_timer(void* object, uint64_t argument) {
  auto& executor = *static_cast<SimExecutor*>(object);
  auto& timer = *reinterpret_cast<rt::Timer*>(argument);
  timer.timer_slot = 0;
  executor.enter([](void* t) { static_cast<rt::Timer*>(t)->fire(*static_cast<rt::Timer*>(t)); },
                 &timer);
}

}  // namespace

void SimClock::arm(rt::Timer& timer, rt::Micros deadline) {
  timer.deadline = deadline;
  if (executor_.is_abandoned()) return;
  timer.timer_slot =
      executor_.simulation().at(deadline, {.fire = &fire_timer,
                                           .object = &executor_,
                                           .argument = reinterpret_cast<uint64_t>(&timer),
                                           .owner = &executor_});
}

void SimClock::cancel(rt::Timer& timer) {
  if (timer.timer_slot == 0 || executor_.is_abandoned()) return;
  executor_.simulation().cancel(timer.timer_slot);
  timer.timer_slot = 0;
}

}  // namespace duplex::sim
