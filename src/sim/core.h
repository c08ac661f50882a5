// SimCore: one simulated thread with its doors; StoreExecutor: the one that may block.
#pragma once

#include <string>

#include "rt/world.h"
#include "sim/executor.h"
#include "sim/machine.h"
#include "sim/net.h"

namespace duplex::sim {

class SimClock final : public rt::Clock {
 public:
  explicit SimClock(SimExecutor& executor) : executor_(executor) {}
  rt::Micros now() const override { return executor_.simulation().now(); }
  // The wall clock starts in 2026 and jumps when a test says so; nothing may depend on it.
  int64_t wall_us() const override { return 1'767'225'600'000'000 + static_cast<int64_t>(now()); }
  void arm(rt::Timer& timer, rt::Micros deadline) override;
  void cancel(rt::Timer& timer) override;

 private:
  SimExecutor& executor_;
};

class SimRng final : public rt::Rng {
 public:
  explicit SimRng(uint64_t seed) : dice_(seed) {}
  uint64_t next() override { return dice_.next(); }

 private:
  Dice dice_;
};

class SimFiles final : public rt::Files {
 public:
  SimFiles(Machine& machine, SimExecutor& executor) : machine_(machine), executor_(executor) {}
  rt::Task<Result<std::unique_ptr<rt::File>>> open(std::string path,
                                                   rt::OpenOptions options) override;
  rt::Task<Result<void>> remove(std::string path) override;

 private:
  Machine& machine_;
  SimExecutor& executor_;
};

class SimCore final : public ExecutorOf<rt::Core> {
 public:
  SimCore(Machine& machine, uint64_t id, size_t index)
      : ExecutorOf(machine.simulation(), id),
        index_(index),
        clock_(*this),
        rng_(machine.simulation().seed() * 31 + id * 0x9e3779b97f4a7c15u),
        files_(machine, *this),
        net_(machine.simulation().network(), *this, *this, machine.name()),
        buffers_(0, size_t{4} << 20) {}

  rt::Clock& clock() override { return clock_; }
  rt::Rng& rng() override { return rng_; }
  rt::Files& files() override { return files_; }
  rt::Net& net() override { return net_; }
  rt::BufferPool& buffers() override { return buffers_; }
  size_t index() const override { return index_; }

 private:
  const size_t index_;
  SimClock clock_;
  SimRng rng_;
  SimFiles files_;
  SimNet net_;
  rt::BufferPool buffers_;
};

class StoreExecutor final : public ExecutorOf<rt::Executor> {
 public:
  using ExecutorOf::ExecutorOf;
};

// The blocking door. Every call is one I/O of Machine::sync_io().
class SimSyncFiles final : public rt::SyncFiles {
 public:
  explicit SimSyncFiles(Machine& machine) : machine_(machine) {}
  std::unique_ptr<rt::SyncFile> open(const std::string& path, bool create, int* error) override;
  int remove(const std::string& path) override;
  int rename(const std::string& from, const std::string& to) override;
  bool exists(const std::string& path) override;
  int make_directories(const std::string& path) override;
  int sync_directory(const std::string& path) override;

 private:
  Machine& machine_;
};

}  // namespace duplex::sim
