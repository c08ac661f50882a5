// Device: one file or disk of the pool as all cores see it: its ports, its health.
//
// Owner: shared by the pool's member and the backings that have extents there; the last one to
// let go finds all ports closed. Thread: what is marked any thread; the rest control core.
// The space on it and its map log belong to the pool (device_space.h, map_log.h).
//
// Health: kOnline -> kFailing (an operation failed) -> kAbsent (gone: ENXIO, ENODEV, EBADF) ->
// kOnline (re-attached). Any core reports an error with failed(); the control core changes the
// state when the report arrives.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/units.h"
#include "base/uuid.h"
#include "pool/device_port.h"
#include "pool/pool.h"
#include "rt/world.h"

namespace duplex::pool {

// A device that answers so is not there any more.
bool means_gone(int errnum);

// The loss count of a device that was attached once and has lost nothing.
inline constexpr uint64_t kLossesOfAGoodStart = 1;

class Device {
 public:
  Device(rt::World& world, DeviceId id, const Uuid& uuid, std::string name, uint64_t extent_bytes,
         uint64_t data_offset);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // Any thread.
  DeviceId id() const { return id_; }
  const Uuid& uuid() const { return uuid_; }
  const std::string& name() const { return name_; }
  uint64_t extent_bytes() const { return extent_bytes_; }
  uint64_t byte_of(PhysicalExtent pe) const { return data_offset_ + pe.value() * extent_bytes_; }
  DeviceState state() const { return state_.load(std::memory_order_acquire); }
  bool is_absent() const { return state() == DeviceState::kAbsent; }
  // Rises whenever unflushed writes of anybody may have been lost: a failed flush, a
  // re-attachment. Invariant 5 of backing.h is built on comparing it.
  uint64_t losses() const { return losses_.load(std::memory_order_acquire); }
  void count_loss() { losses_.fetch_add(1, std::memory_order_acq_rel); }
  // The map log is written (not flushed) up to this sequence number.
  uint64_t log_written() const { return log_written_.load(std::memory_order_acquire); }
  void set_log_written(uint64_t sequence) {
    log_written_.store(sequence, std::memory_order_release);
  }
  // ... and known to be flushed up to this one. Never falls.
  uint64_t log_flushed() const { return log_flushed_.load(std::memory_order_acquire); }
  void note_log_flushed(uint64_t sequence) {
    uint64_t before = log_flushed();
    while (before < sequence &&
           !log_flushed_.compare_exchange_weak(before, sequence, std::memory_order_acq_rel)) {
    }
  }
  // An operation ended with an error.
  void failed(rt::FileOp::Kind kind, int errnum);
  uint64_t read_errors() const { return read_errors_.load(std::memory_order_relaxed); }
  uint64_t write_errors() const { return write_errors_.load(std::memory_order_relaxed); }
  uint64_t flush_errors() const { return flush_errors_.load(std::memory_order_relaxed); }

  // Used on that core only.
  DevicePort& port(const rt::Core& core) { return *ports_[core.index()]; }
  DevicePort& control_port() { return *ports_[0]; }

  // Control core.
  void set_state(DeviceState state) { state_.store(state, std::memory_order_release); }
  // Called on the control core after errors were reported; several reports may come as one.
  void on_trouble(std::function<void()> handler) { trouble_handler_ = std::move(handler); }
  // errno of the last failed operation, and whether one has said that the device is gone.
  int last_error() const { return last_error_.load(std::memory_order_acquire); }
  bool seen_gone() const { return seen_gone_.load(std::memory_order_acquire); }
  void forget_errors();
  // Gives `control_file` to the control port and opens `path` on every other core. On an error
  // everything is closed again.
  rt::Task<Result<void>> attach(std::string path, std::unique_ptr<rt::File> control_file);
  // Reads the size again, on every core.
  rt::Task<Result<uint64_t>> refresh_size();
  // The device is absent from here on. Closes all ports; returns when the last operation has ended
  // and no report is under way.
  rt::Task<> detach();

 private:
  struct Trouble : rt::Work {
    explicit Trouble(Device& d) : Work(&Trouble::arrive), device(d) {}
    static void arrive(rt::Work& work);
    Device& device;
    std::atomic<bool> posted{false};
  };

  rt::World& world_;
  const DeviceId id_;
  const Uuid uuid_;
  const std::string name_;
  const uint64_t extent_bytes_;
  const uint64_t data_offset_;
  std::vector<std::unique_ptr<DevicePort>> ports_;  // by core index
  std::atomic<DeviceState> state_{DeviceState::kAbsent};
  std::atomic<uint64_t> losses_{0};
  std::atomic<uint64_t> log_written_{0};
  std::atomic<uint64_t> log_flushed_{0};
  std::atomic<uint64_t> read_errors_{0};
  std::atomic<uint64_t> write_errors_{0};
  std::atomic<uint64_t> flush_errors_{0};
  std::atomic<int> last_error_{0};
  std::atomic<bool> seen_gone_{false};
  std::function<void()> trouble_handler_;
  Trouble trouble_;
};

}  // namespace duplex::pool
