#include "sim/machine.h"

#include "base/assert.h"
#include "sim/core.h"

namespace duplex::sim {

Machine::Machine(Simulation& simulation, std::string name, size_t index, MachineOptions options)
    : simulation_(simulation),
      name_(std::move(name)),
      index_(index),
      sync_files_(std::make_unique<SimSyncFiles>(*this)) {
  power_on(options);
}

Machine::~Machine() {
  if (running_) stop_running(true);
}

rt::Core& Machine::control() { return *cores_[0]; }
rt::Core& Machine::reactor(size_t i) { return *cores_.at(i + 1); }
rt::Executor& Machine::store() { return *store_; }
rt::SyncFiles& Machine::sync_files() { return *sync_files_; }

void Machine::power_on(MachineOptions options) {
  ASSERT(!running_ && options.reactors >= 1);
  options_ = options;
  cores_.clear();
  store_.reset();
  ++life_;
  // Ids are the same in every run of a seed: machine, life, core.
  const uint64_t base = index_ * 1'000'000 + life_ * 100;
  for (size_t i = 0; i <= options.reactors; ++i)
    cores_.push_back(std::make_unique<SimCore>(*this, base + i, i));
  store_ = std::make_unique<StoreExecutor>(simulation_, base + 99);
  running_ = true;
}

void Machine::stop_running(bool power) {
  if (!running_) return;
  running_ = false;
  sync_cut_ = 0;
  for (const auto& core : cores_) {
    core->abandon();
    simulation_.network().drop(*core);
  }
  store_->abandon();
  if (power) {
    simulation_.count(disk_.power_cut(simulation_.disk()));
  } else {
    disk_.kill(simulation_.disk());
  }
  simulation_.interrupt();
}

void Machine::power_cut() {
  simulation_.count("power cut");
  stop_running(true);
}

void Machine::kill() {
  simulation_.count("kill");
  stop_running(false);
}

bool Machine::sync_io() {
  if (!running_) return true;
  if (sync_cut_ != 0 && --sync_cut_ == 0) {
    simulation_.count("power cut inside a store commit");
    power_cut();
    return true;
  }
  return false;
}

}  // namespace duplex::sim
