#include "sim/simulation.h"

#include <algorithm>
#include <functional>

#include "base/assert.h"
#include "sim/executor.h"
#include "sim/machine.h"

namespace duplex::sim {
namespace {

// More steps than any honest run needs between two results; a livelock ends here.
constexpr uint64_t kStepLimit = 50'000'000;

uint64_t mix(uint64_t seed, uint64_t purpose) {
  return Dice(seed ^ (purpose * 0xd1342543de82ef95u)).next();
}

}  // namespace

Simulation::Simulation(uint64_t seed)
    : seed_(seed),
      schedule_(mix(seed, 1)),
      disk_(mix(seed, 2)),
      net_(mix(seed, 3)),
      faults_(mix(seed, 4)),
      network_(std::make_unique<Network>(*this)) {}

Simulation::~Simulation() {
  for (const auto& machine : machines_) machine->power_cut();
  sweep();
}

Machine& Simulation::add_machine(std::string name, MachineOptions options) {
  machines_.push_back(std::make_unique<Machine>(*this, std::move(name), machines_.size(), options));
  return *machines_.back();
}

void Simulation::count(const Toll& toll) {
  if (toll.lost > 0) count("unflushed write lost", toll.lost);
  if (toll.torn > 0) count("unflushed write torn", toll.torn);
}

void Simulation::runnable(SimExecutor& executor) {
  if (executor.listed) return;
  executor.listed = true;
  runnable_.push_back(&executor);
}

void Simulation::remove(SimExecutor& executor) {
  if (!executor.listed) return;
  executor.listed = false;
  std::erase(runnable_, &executor);
}

uint64_t Simulation::at(rt::Micros time, Occurrence what) {
  uint64_t slot = 0;
  if (free_slots_.empty()) {
    slots_.emplace_back();
    slot_orders_.push_back(0);
    slot = slots_.size();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[slot - 1] = what;
  slot_orders_[slot - 1] = ++next_order_;
  heap_.push_back({std::max(time, now_), next_order_, slot});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  return slot;
}

// The heap entry stays and is skipped when its time comes: its order no longer matches the slot.
void Simulation::cancel(uint64_t slot) {
  ASSERT(slot_orders_[slot - 1] != 0);
  slot_orders_[slot - 1] = 0;
  free_slots_.push_back(slot);
}

void Simulation::forget(const SimExecutor& owner) {
  for (uint64_t slot = 1; slot <= slots_.size(); ++slot) {
    if (slot_orders_[slot - 1] != 0 && slots_[slot - 1].owner == &owner) cancel(slot);
  }
}

void Simulation::fire_next() {
  const Entry entry = heap_.front();
  std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
  heap_.pop_back();
  if (slot_orders_[entry.slot - 1] != entry.order) return;  // cancelled
  const Occurrence what = slots_[entry.slot - 1];
  slot_orders_[entry.slot - 1] = 0;
  free_slots_.push_back(entry.slot);
  now_ = std::max(now_, entry.time);
  trace(now_);
  what.fire(what.object, what.argument);
}

// One step of the world. False when nothing is left to happen.
bool Simulation::step() {
  ++steps_;
  if (!heap_.empty() && heap_.front().time <= now_) {
    fire_next();
    return true;
  }
  if (!runnable_.empty()) {
    const size_t pick = schedule_.below(runnable_.size());
    SimExecutor& executor = *runnable_[pick];
    if (executor.starved_until > now_ && runnable_.size() > 1) {
      now_ += 10;  // it gets its turn when the time has come
      return true;
    }
    if (schedule_.chance(0.0002)) executor.starved_until = now_ + schedule_.between(100, 5000);
    trace(executor.id() * 1'000'003 + now_);
    executor.run_one();
    if (executor.listed && !executor.has_work()) remove(executor);
    now_ += schedule_.below(3);
    return true;
  }
  if (heap_.empty()) return false;
  fire_next();
  return true;
}

Simulation::End Simulation::run_until(const bool& done, rt::Micros limit) {
  const rt::Micros end_time = now_ + limit;
  const uint64_t end_step = steps_ + kStepLimit;
  interrupted_ = false;  // a cut made between two runs needs no telling
  while (!done) {
    if (cut_machine_ != nullptr && steps_ >= cut_step_) {
      Machine& machine = *std::exchange(cut_machine_, nullptr);
      cut_is_kill_ ? machine.kill() : machine.power_cut();
    }
    if (std::exchange(interrupted_, false)) return last_end_ = End::kPowerCut;
    if (now_ > end_time || steps_ > end_step || !step()) return last_end_ = End::kStuck;
  }
  return last_end_ = End::kDone;
}

bool Simulation::run(rt::Executor& executor, rt::Task<void> task, rt::Micros limit) {
  return finish(*start(executor, std::move(task)), limit);
}

void Simulation::sweep() {
  std::erase_if(roots_, [](const Started& started) {
    const bool over = *started.done || started.executor->abandoned();
    if (over) started.root.destroy();
    return over;
  });
}

void Simulation::cut_after_steps(Machine& machine, uint64_t steps, bool kill) {
  cut_machine_ = steps == 0 ? nullptr : &machine;
  cut_step_ = steps_ + steps;
  cut_is_kill_ = kill;
}

}  // namespace duplex::sim
