// Copier: one copy of all set regions of one map, between a volume (the source) and the target of
// one of its legs: forward what has bits, or back what is missing (copy/way.h).
//
// Owner: the mirror, which awaits run() to its end before it drops the Copier, gives the leg
// another mode or begins a new session. Thread: the core of the source, all calls.
//
// It keeps kSteps steps (copy_step() or restore_step() of the source) in flight, each a run of bits
// nobody else of them has, goes round and round the map until no bit is left, flushes the side it
// writes, writes the cleared words back and returns kDone: no bit is set and nothing is in flight
// at that moment, and nothing suspends between it and the line behind the owner's co_await. The
// bits are the truth: a write of a host while it runs sets none (target_leg.h), so it ends.
//
//   state     pause    resume     read or store error  cause gone   cancel, stop, left
//   RUNNING   PAUSED   -          STALLED              never        run() returns
//   PAUSED    -        RUNNING *  -                    -            run() returns
//   STALLED   PAUSED   RUNNING *  -                    RUNNING      run() returns      * tries
//   again
//
// The same cells as mirror/job_state.h, which a test compares.
//
// Errors. A run that cannot be read is put back; its regions are tried one by one when all else
// is copied, and those that fail alone are left for the last. STALLED, naming the first one: only
// such regions are left, or kFailuresInRow steps failed one after another (the device is gone), or
// the words could not be written. It tries again every second; the first success means RUNNING.
// An error of the target ends the session of a forward copy: the leg leaves, run() returns kLeft. A
// copy back has no session: an error of either side counts as one of reading, and a flush of the
// own backing that fails puts back what it lost and counts as one of the words. A forward copy that
// is done but for regions that are missing at its leg waits until they are back.
//
// What a crash copies again. A region's bit leaves the disk at a checkpoint: target flushed, words
// written. One begins when kCheckpointBytes were moved since the last one began, or
// kCheckpointTime after it if anything was copied; no step begins while kMostOwedBytes were moved
// that no checkpoint covers. So a crash makes it move at most kMostOwedBytes, and the steps in
// flight, a second time (as far as the source, too, has flushed what was read: tracker.h, rule 2).
//
// Hosts first. While a step ran for the time t, n requests of hosts began on the source: its
// worker then rests n x t, at most 19 t, and goes on at once when a whole t passes without a
// request. A busy host so gets n turns for each of the copy, and the copy at least one twentieth of
// its full speed. The hard rate holds beside that, for bytes moved: over any time T at most
// rate x T and one step for each change of the rate.
//
// Invariants: 1. a region that differs has a bit, is in flight here, or is in the leg's window on
// a target that still counts; 2. no two steps in flight overlap; 3. in PAUSED, and when it is to
// end, no step begins.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "copy/speed.h"
#include "copy/way.h"
#include "rt/task_group.h"
#include "volume/volume_impl.h"

namespace duplex::copy {

class Copier {
 public:
  static constexpr size_t kSteps = 4;
  static constexpr uint64_t kCheckpointBytes = 256 * kMiB;
  static constexpr uint64_t kMostOwedBytes = 2 * kCheckpointBytes;
  static constexpr rt::Micros kCheckpointTime = 5 * rt::kSecond;
  static constexpr rt::Micros kRetryTime = rt::kSecond;
  static constexpr uint32_t kFailuresInRow = 16;
  static constexpr uint64_t kMostRestTurns = 19;

  enum class State : uint8_t { kRunning, kPaused, kStalled };
  enum class End : uint8_t {
    kDone,       // last region done
    kLeft,       // the leg has left
    kCancelled,  // cancel(); what is not copied has its bits
    kStopped,    // stop(); the same
  };
  struct Start {
    uint64_t rate = 0;  // bytes per second; 0: none
    bool is_paused = false;
  };

  // What way_forward() or way_back() gave for `source` (copy/way.h); `tracker` is the source's.
  Copier(volume::VolumeImpl& source, std::unique_ptr<Way> way, volume::Tracker& tracker,
         Start start);
  // Forward.
  Copier(volume::VolumeImpl& source, volume::TargetLeg& leg, volume::Tracker& tracker,
         std::function<Epoch()> root, Start start);
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;

  // Once. Returns when no step is in flight.
  rt::Task<End> run();

  // No step begins after pause(); those in flight end.
  void pause();
  void resume();
  void set_rate(uint64_t rate);
  // run() returns as soon as what is in flight has ended.
  void cancel() { end_with(End::kCancelled); }
  void stop() { end_with(End::kStopped); }
  // From the leg's callback.
  void left() { end_with(End::kLeft); }

  State state() const { return state_; }
  struct Progress {
    uint64_t total_bytes = 0;  // of this run: done, in flight and set
    uint64_t done_bytes = 0;
    uint64_t moved_bytes = 0;             // of them read and written
    uint64_t skipped_bytes = 0;           // of them holes and zeroes
    uint64_t rate = 0;                    // bytes done per second, lately
    std::optional<uint64_t> eta_seconds;  // none: not running, or not known
    std::string reason;                   // of STALLED
  };
  Progress progress() const;

 private:
  enum class Trouble : uint8_t { kNone, kRead, kStore };
  struct Pick {
    ByteRange run;
    bool is_alone = false;  // a region of a run that failed
  };

  rt::Task<> work();
  rt::Task<> step(Pick pick);
  rt::Task<> rest(rt::Micros turn, uint64_t requests_before);
  rt::Task<> wind_up();
  rt::Task<bool> checkpoint();

  void start_workers();
  void end_with(End end);
  // The workers go home.
  bool is_over() const { return end_.has_value() || winding_up_; }
  bool is_copied() const { return flying_ == 0 && way_->map().empty(); }
  bool may_start() const;
  std::optional<Pick> pick();
  std::optional<ByteRange> pick_from(uint64_t from, uint64_t until) const;
  std::optional<ByteRange> obstacle(ByteRange run) const;
  ByteRange free_part(ByteRange run) const;

  bool is_checkpoint_due() const;
  bool is_only_bad_left() const;
  void succeeded(const volume::VolumeImpl::CopyStep& step);
  void failed(Pick pick, const Error& why);
  void stall(Trouble trouble, std::string reason);
  void cause_gone(Trouble trouble);
  void try_again();
  std::optional<rt::Micros> next_look() const;
  uint64_t host_requests() const;

  volume::VolumeImpl& source_;
  const std::unique_ptr<Way> way_;
  volume::Tracker& tracker_;
  rt::Clock& clock_;

  State state_ = State::kRunning;
  std::optional<End> end_;
  uint64_t pointer_ = 0;                       // the next step begins about here
  std::array<ByteRange, kSteps> in_flight_{};  // empty: free
  size_t flying_ = 0;
  size_t workers_at_work_ = 0;
  bool winding_up_ = false;

  // Errors.
  volume::ChangeMap suspect_;  // of a run that failed: to be tried alone
  volume::ChangeMap bad_;      // failed alone
  uint32_t failures_in_row_ = 0;
  Trouble trouble_ = Trouble::kNone;
  std::string read_reason_;             // of the last step that failed
  std::string reason_;                  // of the last stall
  std::optional<rt::Micros> retry_at_;  // no step begins before

  // Rate: the next step begins here.
  uint64_t rate_;
  rt::Micros due_ = 0;

  // Checkpoints.
  uint64_t owed_moved_bytes_ = 0;
  bool owes_ = false;  // something was copied since the last checkpoint began
  uint64_t moved_at_checkpoint_ = 0;
  rt::Micros checkpoint_at_;

  uint64_t total_bytes_;
  uint64_t done_bytes_ = 0;
  uint64_t moved_bytes_ = 0;
  Speed speed_;
  rt::Event changed_;  // pulsed when anything above may let somebody go on
  rt::TaskGroup workers_;
};

}  // namespace duplex::copy
