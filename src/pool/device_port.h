// DevicePort: the open file of one device on one core.
//
// Owner: Device; there is one per core, for the life of the Device. Thread: its core.
// Invariants: 1. without a file (device absent, or not attached on this core yet) everything
// fails with ENODEV; 2. the file is closed when its last operation has ended; 3. a flush round
// that fails counts one loss of the device, however many wait for it.
#pragma once

#include <coroutine>
#include <cstdint>
#include <memory>
#include <span>

#include "rt/file.h"
#include "rt/task.h"
#include "rt/wait.h"

namespace duplex::pool {

class Device;

class DevicePort {
 public:
  explicit DevicePort(Device& device) : device_(device) {}

  bool is_open() const { return file_ != nullptr && !closing_; }
  const rt::FileInfo* info() const { return file_ ? &file_->info() : nullptr; }

  // As rt::File::start. When it returns false, op.done must call ended() first. Errors are
  // reported to the device by the caller.
  bool start(rt::FileOp& op);
  void ended();

  // 0 or an errno, which the device has been told.
  rt::Task<int> read(uint64_t offset, std::span<std::byte> into);
  rt::Task<int> write(uint64_t offset, std::span<const std::byte> from);
  rt::Task<int> zero(uint64_t offset, uint64_t length, rt::FileOp::Kind kind);
  // Covers all writes to the device that ended before the call. Callers share rounds: one that
  // comes while a round runs waits for the next, which starts after it came.
  rt::Task<int> flush();

  // The size as it is now, in bytes.
  rt::Task<Result<uint64_t>> refresh_size();

  void attach(std::unique_ptr<rt::File> file);
  // Nothing starts any more; returns when the file is closed.
  rt::Task<> close();

 private:
  struct Operation;

  Device& device_;
  std::unique_ptr<rt::File> file_;
  bool closing_ = false;
  uint32_t in_flight_ = 0;
  rt::Event idle_;

  uint64_t rounds_started_ = 0;
  uint64_t rounds_ended_ = 0;
  uint64_t last_failed_round_ = 0;
  int last_flush_error_ = 0;
  rt::Event round_ended_;
};

}  // namespace duplex::pool
