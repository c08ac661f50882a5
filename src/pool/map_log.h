// MapLog: writes the map log of one device (format/device_log.h) behind the store's back: every
// change reaches the store first, the log a little later, a FLUSH waits for it.
//
// Owner: the pool's member of the device. Thread: control core. One task, run(), writes.
// Invariants: 1. a record is appended after the store made it durable (the log never leads);
// 2. records are written in order, in batches without a gap; where there is one (a failed write,
// records lost with the device's cache, a jump of the sequence) the next thing written is a
// checkpoint into the other half; 3. the half that was live stays as it is until that checkpoint
// has been flushed; 4. log_written() of the device never names a record that is not written.
//
// A batch waits up to kLinger for more records, unless somebody waits for it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "format/device_log.h"
#include "pool/device.h"
#include "rt/clock.h"
#include "rt/task.h"
#include "rt/wait.h"

namespace duplex::pool {

// What the two halves of a device hold.
struct FoundLog {
  bool valid = false;  // false: neither half has a checkpoint
  unsigned half = 0;
  format::LogHalf content;
  format::LogPosition flushed;  // what either half tells to be flushed
  // Flushed records are lost. (Unflushed ones may be, also with later ones there: a power cut.)
  bool has_hole() const {
    const format::LogCheckpoint& end = content.checkpoint;
    return flushed > format::LogPosition{end.generation, end.sequence};
  }
};
// kCorrupt is not an error here (see `valid`); kNotSupported is, and failed reads (kMediumRead).
rt::Task<Result<FoundLog>> read_map_log(rt::File& file, uint64_t log_offset, uint64_t log_bytes,
                                        Uuid device);

class MapLog {
 public:
  // Volumes and maps of a checkpoint, as of the last append().
  using Contents = std::function<format::LogCheckpoint()>;

  MapLog(Device& device, rt::Core& control, uint64_t log_offset, uint64_t log_bytes,
         Contents contents);

  // The device is attached and holds `found`; the store is at `sequence`. What lags is brought up
  // by a checkpoint.
  void attached(const FoundLog& found, uint64_t sequence);
  // `records` have the numbers first_sequence .. and are durable in the store.
  void append(uint64_t first_sequence, std::vector<format::LogRecord> records);
  // The array's numbers have gone on to `sequence` without this log: what it lacks comes by a
  // checkpoint.
  void skip_to(uint64_t sequence);
  uint64_t sequence() const { return sequence_; }

  // Returns when all up to `sequence` is written, by an unbroken run that no loss has touched
  // since; the caller flushes. kMediumWrite when it cannot be written now.
  rt::Task<Result<void>> written(uint64_t sequence);

  // Ends when stop() was called and what can be written is written.
  rt::Task<> run();
  void stop();

 private:
  bool is_broken() const {
    return needs_checkpoint_ || live_generation_ == 0 || device_.losses() != losses_;
  }
  bool has_work() const { return is_broken() || !queue_.empty(); }
  rt::Task<bool> write_batch();
  rt::Task<bool> write_checkpoint();
  rt::Task<bool> write_bytes(uint64_t offset, std::span<const std::byte> bytes);
  uint64_t half_bytes() const { return log_bytes_ / 2; }

  Device& device_;
  rt::Core& control_;
  const uint64_t log_offset_;
  const uint64_t log_bytes_;
  const Contents contents_;

  std::vector<format::LogRecord> queue_;  // the last one has the number sequence_
  uint64_t sequence_ = 0;                 // last one appended
  uint64_t written_ = 0;

  // Where the live half stands.
  unsigned half_ = 0;
  uint64_t used_bytes_ = 0;
  uint32_t chain_ = 0;
  uint64_t generation_ = 0;       // of the last checkpoint begun
  uint64_t live_generation_ = 0;  // of the live half; 0: there is none
  uint64_t losses_ = 0;           // of the device, when the live half was known to be whole
  bool needs_checkpoint_ = true;

  bool urgent_ = false;  // somebody waits
  bool stopping_ = false;
  uint64_t failures_ = 0;  // failed attempts; waiters give up when it rises
  rt::Event wake_;
  rt::Event progress_;
};

}  // namespace duplex::pool
