// JobDesk: where copies, restores, repairs and verifies of mirrors become jobs that people see.
//
// Owner: the array (the room `control` implements it beside its own jobs). Thread: control core.
// The mirror keeps the state of its work; the desk keeps the number, the row and the waiters, and
// asks the work for its progress.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "mirror/job_state.h"
#include "rt/task.h"

namespace duplex::mirror {

struct WorkProgress {
  JobState state = JobState::kRunning;
  std::string reason;  // of kStalled
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  uint64_t bytes_moved = 0;  // of bytes_done: read and written; the rest was zeroes
  uint64_t rate_now = 0;     // bytes per second, lately
  std::optional<uint64_t> eta_seconds;
};

// A piece of work under way. Called by the desk; each verb may refuse.
class Work {
 public:
  virtual ~Work() = default;
  virtual rt::Task<WorkProgress> progress() = 0;
  virtual rt::Task<Result<void>> pause() = 0;
  virtual rt::Task<Result<void>> resume() = 0;
  // `confirmed`: a restore that is cut off leaves its source half restored.
  virtual rt::Task<Result<void>> cancel(bool confirmed) = 0;
  virtual rt::Task<Result<void>> set_rate(uint64_t bytes_per_second) = 0;
};

struct NewJob {
  std::string kind;  // "copy", "restore", "repair", "verify"
  std::string mirror;
  std::string source;  // volumes: from where to where bytes go
  std::string target;
  uint64_t rate = 0;
};

class JobDesk {
 public:
  virtual ~JobDesk() = default;
  struct Opened {
    uint32_t id = 0;
    uint64_t rate = 0;       // as an operator set it before a restart
    bool is_paused = false;  // the same
  };
  // The job of this kind and mirror that a restart left unfinished goes on under its number; else
  // a new one begins. `work` lives until close().
  virtual Opened open(NewJob job, Work& work) = 0;
  enum class End : uint8_t { kDone, kFailed, kCancelled, kStopped /* goes on at the next start */ };
  virtual void close(uint32_t id, End end, std::string error, WorkProgress last) = 0;
  // The mirror is deleted: a job of it that was stopped is over.
  virtual void forget(const std::string& mirror) = 0;
};

}  // namespace duplex::mirror
