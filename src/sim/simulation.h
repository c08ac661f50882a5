// Simulation: one seed, one thread, virtual time; the whole world a test runs arrays in.
//
//   sim::Simulation sim(seed);
//   sim::Machine& box = sim.add_machine("a1", {.reactors = 2});
//   auto array = sim.run(box.control(), open_array(box));  // nullopt: power was cut, or stuck
//   box.power_cut();                                       // executors abandoned, caches lost
//   array.reset();                                         // objects die where they stand
//   box.power_on();                                        // fresh cores, same disks
//
// Scheduling is adversarial: of all cores with ready work one is drawn at random; now and then a
// core is starved for a while. Within one core work runs in order of posting. Each step costs a
// little virtual time. Everything random comes from the seed, so the same seed and build give the
// same trace hash (promise P13).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rt/clock.h"
#include "rt/executor.h"
#include "rt/task.h"
#include "sim/dice.h"

namespace duplex::sim {

class Machine;
struct Toll;
class Network;
class SimExecutor;
namespace detail {
template <class T>
struct Outcome;
}

struct MachineOptions {
  size_t reactors = 1;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed);
  ~Simulation();
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  Machine& add_machine(std::string name, MachineOptions options);
  Network& network() { return *network_; }

  enum class End {
    kDone,      // the condition came true
    kPowerCut,  // a machine lost power on the way (Machine::power_cut_* armed it)
    kStuck,     // nothing can happen any more, or the step or time limit was reached
  };
  // Runs until `done` is set by something that runs. `limit`: virtual time from now.
  End run_until(const bool& done, rt::Micros limit = 3600 * rt::kSecond);
  // Runs a task to its end on an executor; nullopt on power cut or when stuck (see last_end()).
  template <class T>
  std::optional<T> run(rt::Executor& executor, rt::Task<T> task,
                       rt::Micros limit = 3600 * rt::kSecond);
  bool run(rt::Executor& executor, rt::Task<void> task, rt::Micros limit = 3600 * rt::kSecond);
  // Starts a task that goes on beside what is run next; its outcome can be asked for at any time.
  template <class T>
  std::shared_ptr<detail::Outcome<T>> start(rt::Executor& executor, rt::Task<T> task);
  // Runs until a started task has ended; false on power cut or when stuck.
  template <class T>
  bool finish(detail::Outcome<T>& outcome, rt::Micros limit = 3600 * rt::kSecond);
  End last_end() const { return last_end_; }

  rt::Micros now() const { return now_; }
  uint64_t steps() const { return steps_; }
  // Digest of every step so far: who ran, when, and what its I/O was.
  uint64_t hash() const { return hash_; }
  void trace(uint64_t value) { hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15u + (hash_ >> 29); }

  // How often each kind of fault was injected, and rare paths that were reached.
  void count(const std::string& what, uint64_t times = 1) { counts_[what] += times; }
  void count(const Toll& toll);
  const std::map<std::string, uint64_t>& counts() const { return counts_; }

  Dice& schedule() { return schedule_; }
  Dice& disk() { return disk_; }
  Dice& net() { return net_; }
  Dice& faults() { return faults_; }
  // Dice for the test's own use, one per purpose number.
  Dice dice(uint64_t purpose) const {
    return Dice(seed_ * 0x2545f4914f6cdd1du + purpose * 0x9e3779b97f4a7c15u);
  }
  uint64_t seed() const { return seed_; }

  // Things that happen at a time. `fire` runs outside any executor unless it enters one.
  struct Occurrence {
    void (*fire)(void* object, uint64_t argument) = nullptr;
    void* object = nullptr;
    uint64_t argument = 0;
    const SimExecutor* owner = nullptr;  // skipped when this one is abandoned by then
  };
  // Returns a slot > 0 for cancel(); slots are reused after the occurrence.
  uint64_t at(rt::Micros time, Occurrence what);
  void cancel(uint64_t slot);
  // Drops everything that waits for this executor.
  void forget(const SimExecutor& owner);

  // For executors: there is work now.
  void runnable(SimExecutor& executor);
  void remove(SimExecutor& executor);
  // For machines: stop running, power is gone.
  void interrupt() { interrupted_ = true; }
  // Cuts the power of `machine`, or kills it, when this many more steps have run; 0 disarms.
  void cut_after_steps(Machine& machine, uint64_t steps, bool kill = false);
  // Destroys started tasks that have ended or whose executor is abandoned.
  void sweep();

 private:
  struct Entry {
    rt::Micros time;
    uint64_t order;
    uint64_t slot;
    bool operator>(const Entry& o) const {
      return time != o.time ? time > o.time : order > o.order;
    }
  };
  bool step();
  void fire_next();

  const uint64_t seed_;
  Dice schedule_;
  Dice disk_;
  Dice net_;
  Dice faults_;
  rt::Micros now_ = rt::kSecond;
  uint64_t steps_ = 0;
  uint64_t hash_ = 0;
  uint64_t next_order_ = 0;
  std::vector<Entry> heap_;
  std::vector<Occurrence> slots_;
  std::vector<uint64_t> slot_orders_;  // of the entry a slot is waiting with; 0: free
  std::vector<uint64_t> free_slots_;
  std::vector<SimExecutor*> runnable_;
  std::map<std::string, uint64_t> counts_;
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<Machine>> machines_;
  // Tasks that were started. One on a living executor may have I/O under way, which needs its
  // frames, so it stays until it has ended, its machine has stopped, or the simulation ends.
  struct Started {
    std::coroutine_handle<> root;
    const rt::Executor* executor;
    const bool* done;
  };
  std::vector<Started> roots_;
  bool interrupted_ = false;
  End last_end_ = End::kDone;
  Machine* cut_machine_ = nullptr;
  uint64_t cut_step_ = 0;
  bool cut_is_kill_ = false;
};

namespace detail {

// A coroutine that starts suspended and is owned by whoever holds its handle.
struct Root {
  struct promise_type {
    Root get_return_object() noexcept {
      return Root{std::coroutine_handle<promise_type>::from_promise(*this)};
    }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_always final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept {
      assert_failed("an exception escaped a coroutine", __FILE__, __LINE__);
    }
  };
  std::coroutine_handle<promise_type> handle;
};

// Outcome of a task that is being run; shared, because a task that never ends outlives its run().
template <class T>
struct Outcome {
  std::optional<T> value;
  bool done = false;
};
template <>
struct Outcome<void> {
  bool done = false;
};

template <class T>
Root run_root(rt::Executor& executor, rt::Task<T> task, std::shared_ptr<Outcome<T>> outcome) {
  co_await rt::hop(executor);
  if constexpr (std::is_void_v<T>) {
    co_await std::move(task);
  } else {
    outcome->value.emplace(co_await std::move(task));
  }
  outcome->done = true;
}

}  // namespace detail

template <class T>
std::optional<T> Simulation::run(rt::Executor& executor, rt::Task<T> task, rt::Micros limit) {
  const auto outcome = start(executor, std::move(task));
  return finish(*outcome, limit) ? std::move(outcome->value) : std::nullopt;
}

template <class T>
std::shared_ptr<detail::Outcome<T>> Simulation::start(rt::Executor& executor, rt::Task<T> task) {
  auto outcome = std::make_shared<detail::Outcome<T>>();
  const detail::Root root = detail::run_root(executor, std::move(task), outcome);
  roots_.push_back({root.handle, &executor, &outcome->done});
  root.handle.resume();
  return outcome;
}

template <class T>
bool Simulation::finish(detail::Outcome<T>& outcome, rt::Micros limit) {
  last_end_ = run_until(outcome.done, limit);
  sweep();
  return outcome.done;
}

}  // namespace duplex::sim
