// TargetLeg: the way of a volume's writes to the target of one mirror below it.
//
// Owner: the mirror, which lends it to the source volume (VolumeImpl::add_leg). Thread: the core of
// the source, all calls. What a write that has passed the gate with epoch e does:
//
//   mode             e below the cut             e at or above the cut
//   kMark            a bit for each region       the same
//   kSend            goes to the target          a bit for each region
//   kSendWhereClear  goes where no bit is set    never: a cut needs kSend
//
// `cut` is above every epoch while no cut is under way. A write goes through the target's own write
// path with the epoch of its root (traces F1, F2): there it takes the target's range lock, so locks
// are taken from the root down.
//
// Sessions. The first error of the target ends the session: the leg *leaves*. It goes to kMark,
// everything the target may not have durably (the window) gets bits, and a write that is still on
// its way gets them when it ends, before it is answered (trace F7). A new session, and whatever
// gives the target to somebody else, begins only when drained() has returned: a write of the old
// session can then no longer land (trace F25).
//
// Invariants: 1. a region written since the target's last good flush is in the window or has a bit;
// 2. in kSend and outside the window source and target are equal where no bit is set; 3. bits are
// only cleared by the copier, under the range lock of the source.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>

#include "base/error.h"
#include "base/units.h"
#include "pool/backing.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "volume/change_map.h"
#include "volume/window.h"

namespace duplex::volume {

class VolumeImpl;

class TargetLeg {
 public:
  enum class Mode : uint8_t { kMark, kSend, kSendWhereClear };
  static constexpr Epoch kNoCut{std::numeric_limits<Epoch::rep>::max()};

  // `lost` is called on this core when the leg leaves, once for each session. `bytes`: of the
  // source. Begins in kMark.
  TargetLeg(uint32_t id, VolumeImpl& target, uint64_t bytes, std::function<void(Error)> lost);
  TargetLeg(const TargetLeg&) = delete;
  TargetLeg& operator=(const TargetLeg&) = delete;

  uint32_t id() const { return id_; }
  VolumeImpl& target() { return target_; }
  Mode mode() const { return mode_; }
  // The gate of the source is closed and drained, unless the mode is kMark before or after.
  void set_mode(Mode mode);
  // Armed: writes of this epoch and later ones stay here. The mode is kSend.
  void arm(Epoch cut);
  // The cut is void or decided. Decided: set_mode(kMark) comes with it, in one step.
  void disarm() { cut_ = kNoCut; }

  // What one write does; taken at the gate, without a suspension before the call that sends it.
  struct Plan {
    uint32_t session = 0;
    bool sends = false;
    bool where_clear = false;  // only the parts without a bit
  };
  Plan admit(Epoch epoch, ByteRange range);
  // For a copier, under the range lock of the source; kSendWhereClear. Clears the bits.
  Plan begin_copy(ByteRange run);
  // After admit() said `sends`, or begin_copy(). False: the target may not have it; the regions
  // have bits by then.
  rt::Task<bool> write(Plan plan, Epoch epoch, uint64_t offset, std::span<const std::byte> from);
  rt::Task<bool> zero(Plan plan, Epoch epoch, ByteRange range, pool::ZeroMode mode);
  // Everything that ended before the call is durable on the target, or has bits (false).
  rt::Task<bool> flush();

  // The source answered a write with an error: nobody may count as equal there.
  void refused_by_source(ByteRange range, const Error& why) {
    bits_.set(range);
    leave(why);
  }
  // Ends the session, for an error or a verb.
  void leave(Error why);
  // Returns when nothing sent is on its way.
  rt::Task<> drained();

  ChangeMap& bits() { return bits_; }

 private:
  // One part of a request that goes to the target.
  class Sending;
  ByteRange next_part(Plan plan, ByteRange rest) const;
  bool ended(Plan plan, ByteRange range, Result<void> result);

  const uint32_t id_;
  VolumeImpl& target_;
  const std::function<void(Error)> lost_;
  Mode mode_ = Mode::kMark;
  Epoch cut_ = kNoCut;
  uint32_t session_ = 1;
  uint32_t in_flight_ = 0;
  rt::Event landed_;  // pulsed when in_flight_ becomes 0
  ChangeMap bits_;
  Window window_;
};

}  // namespace duplex::volume
