// Scenario: one array on one simulated machine, for tests that play a trace: a few requests in a
// fixed order, one fault at a named place, and the promise checked afterwards.
//
//   Box box(1);
//   box.add_disk("/dev/a", 8 * kMiB);
//   box.add_volume("a", kMiB);
//   EXPECT_TRUE(box.run(box.write("a", 0, kExtent, 'A')));
//   box.crash(Ending::kPower);
//   box.start();
//   EXPECT_EQ(box.letters("a", 0, kExtent), "A");
//
// Bytes are letters, zeroes show as '.', and what was on a disk before it was added is '#'.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/array.h"
#include "sim/machine.h"
#include "sim/simulation.h"

namespace duplex::simtest {

inline constexpr uint64_t kExtent = 64 * kKiB;

// How a life of the machine ends before its trace does.
enum class Ending {
  kPower,         // after a number of steps; caches are lost, in part
  kKill,          // after a number of steps; caches stay
  kPowerInStore,  // at one of the store's reads, writes and flushes
};

class Box {
 public:
  explicit Box(uint64_t seed);
  ~Box();
  Box(const Box&) = delete;
  Box& operator=(const Box&) = delete;

  Result<void> try_start();
  // A start as a task of its own, for a trace that is cut inside it; the machine is running.
  rt::Task<Result<std::unique_ptr<control::Array>>> open();
  void start();
  void stop();
  void crash(Ending ending);

  // A block device full of '#', given to the array.
  void add_disk(const std::string& path, uint64_t bytes, uint64_t extent_bytes = kExtent);
  // The same without the array: it is there, that is all.
  sim::DiskFile& plug_in(const std::string& path, uint64_t bytes);
  sim::DiskFile& disk(const std::string& path) { return *machine.disk().find(path); }
  void add_volume(const std::string& name, uint64_t bytes, bool thick = false);
  // Extents that no volume has, clean or not yet.
  uint64_t free_extents() const {
    const pool::PoolUsage usage = array->pool().usage();
    return (usage.free_bytes + usage.scrubbing_bytes) / kExtent;
  }
  pool::DeviceInfo device(const std::string& path);

  // The state directory as it is now; lost; put back from a copy.
  using State = std::map<std::string, std::vector<std::byte>>;
  State copy_state();
  void lose_state();
  void put_state(const State& state);
  Result<pool::RebuildReport> rebuild(std::vector<std::string> paths, bool accept_missing = false);

  // Requests of a host.
  rt::Task<Result<void>> write(std::string volume, uint64_t offset, uint64_t bytes, char letter,
                               bool fua = false);
  rt::Task<Result<void>> trim(std::string volume, uint64_t offset, uint64_t bytes);
  rt::Task<Result<void>> flush(std::string volume);
  rt::Task<std::string> read(std::string volume, uint64_t offset, uint64_t bytes);
  // The letters that are in a range, each once, in the order of ASCII; "error" if it is unreadable.
  std::string letters(const std::string& volume, uint64_t offset, uint64_t bytes) {
    return run(read(volume, offset, bytes));
  }

  // Runs a task to its end on the control core.
  template <class T>
  T run(rt::Task<T> task) {
    auto result = simulation.run(machine.control(), std::move(task));
    EXPECT_TRUE(result) << "it never ends";
    return result ? *std::move(result) : T{};
  }
  void pass(rt::Micros time);

  sim::Simulation simulation;
  sim::Machine& machine;
  std::unique_ptr<control::Array> array;

 private:
  template <class Request>
  rt::Task<Result<void>> ask(std::string volume, Request request);
};

// True when nothing but `allowed` was seen.
inline bool only(const std::string& seen, const std::string& allowed) {
  return seen.find_first_not_of(allowed) == std::string::npos;
}

// A trace that is cut at every point.
class Trace {
 public:
  virtual ~Trace() = default;
  virtual void prepare(Box& box) = 0;
  // On the control core; may be destroyed at any suspension.
  virtual rt::Task<> play(Box& box) = 0;
  // With the power back. The default: the array starts, which it must.
  virtual void recover(Box& box) { box.start(); }
  virtual void check(Box& box) = 0;
};

// Plays the trace once, cut at one place. True: it came to its end before that.
template <class T>
bool cut_at(Ending ending, uint64_t at, uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "cut at " << at << ", seed " << seed << ", ending "
                                  << static_cast<int>(ending));
  T trace;
  Box box(seed);
  trace.prepare(box);
  if (ending == Ending::kPowerInStore) {
    box.machine.cut_at_sync_io(at);
  } else {
    box.simulation.cut_after_steps(box.machine, at, ending == Ending::kKill);
  }
  const bool ended = box.simulation.run(box.machine.control(), trace.play(box));
  EXPECT_TRUE(ended || box.simulation.last_end() == sim::Simulation::End::kPowerCut)
      << "the trace is stuck";
  box.crash(ending);
  trace.recover(box);
  if (!testing::Test::HasFatalFailure()) trace.check(box);
  return ended;
}

// Plays the trace again and again, each time in new worlds that differ in order, delays and what a
// cut leaves of the caches, cut one step (one store I/O) later, until it ends before the cut in all
// of them. Returns how many places that were.
template <class T>
uint64_t cut_everywhere(Ending ending, uint64_t worlds = 4) {
  for (uint64_t at = 1;; ++at) {
    bool all_ended = true;
    for (uint64_t world = 0; world < worlds; ++world) {
      if (!cut_at<T>(ending, at, at * worlds + world)) all_ended = false;
      if (testing::Test::HasFailure()) return at;
    }
    if (all_ended) return at;
  }
}

}  // namespace duplex::simtest
