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
// are taken from the root down. The bits are a map of the source's tracker.
//
// Leaving. The first error of the target ends the session: the leg goes to kMark, what the target
// may not have durably (the window) gets bits, and a write that is still on its way gets them when
// it ends, before it is answered (trace F7). A new session, and whatever gives the target to
// somebody else, begins only when drained() has returned: a write of the old session can then no
// longer land (trace F25).
//
// Invariants: 1. a region written since the target's last good flush is in the window, on its way,
// or has a bit; 2. in kSend, with nothing on its way, source and target are equal where no bit is.
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
#include "volume/tracker.h"
#include "volume/window.h"

namespace duplex::volume {

class VolumeImpl;

class TargetLeg final : public Debtor {
 public:
  enum class Mode : uint8_t { kMark, kSend, kSendWhereClear };
  static constexpr Epoch kNoCut{std::numeric_limits<Epoch::rep>::max()};

  // `bits` is a map of `tracker`, the source's. `left` is called on this core when the leg leaves,
  // once a session. Begins in kMark.
  TargetLeg(Tracker& tracker, MapId bits, VolumeImpl& target, std::function<void(Error)> left);
  TargetLeg(const TargetLeg&) = delete;
  TargetLeg& operator=(const TargetLeg&) = delete;

  VolumeImpl& target() { return target_; }
  Mode mode() const { return mode_; }
  // To another mode than kMark: the source's gate is closed and drained, and so is this leg.
  void set_mode(Mode mode);
  // Armed: writes of this epoch and later ones stay here. The mode is kSend.
  void arm(Epoch cut);
  // The cut is void; or it is decided, and set_mode(kMark) comes with this in one step.
  void disarm() { cut_ = kNoCut; }

  // What one write does; taken at the gate, with no suspension before the call that sends it.
  struct Plan {
    Window::Stamp stamp;
    bool sends = false;
    bool where_clear = false;  // only the parts without a bit
  };
  Plan admit(Epoch epoch, ByteRange range);
  // For a copier, which has called Tracker::begin_copy(); kSendWhereClear.
  Plan admit_copy() const;
  // After a plan that sends. False: the target may not have it; the regions have bits by then.
  rt::Task<bool> write(Plan plan, Epoch epoch, uint64_t offset, std::span<const std::byte> from);
  rt::Task<bool> zero(Plan plan, Epoch epoch, ByteRange range, pool::ZeroMode mode);

  // The source answered a write with an error: nobody may count as equal there (trace F31).
  void refused_by_source(ByteRange range, const Error& why);
  // Ends the session, for an error or a verb.
  void leave(const Error& why);
  // Returns when nothing sent is on its way.
  rt::Task<> drained();

  const ChangeMap& bits() const { return tracker_.map(bits_); }
  MapId bits_id() const { return bits_; }

  // Debtor, for the tracker; a host's FLUSH goes through Tracker::flush().
  Window& window() override { return window_; }
  rt::Task<Result<void>> flush() override;
  void lost(const Error& why) override;

 private:
  class Sending;
  void lose_window();
  ByteRange next_part(Plan plan, ByteRange rest) const;
  bool ended(Plan plan, ByteRange range, Result<void> result);

  Tracker& tracker_;
  const MapId bits_;
  VolumeImpl& target_;
  const std::function<void(Error)> left_;
  Mode mode_ = Mode::kMark;
  Epoch cut_ = kNoCut;
  uint32_t in_flight_ = 0;
  rt::Event landed_;  // pulsed when in_flight_ becomes 0
  Window window_;
};

}  // namespace duplex::volume
