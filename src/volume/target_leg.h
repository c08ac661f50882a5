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
// Missing regions: those that only this target has, because the source's own backing failed to
// store them or lost them, or because a restore begins (traces F4, F23, F24). They are the second
// map, of kind kMissing; while a region is in it everybody who reads the source reads the target.
// They stay when the leg leaves. A region is missing at one leg of its source at most.
//
//   missing  bit  the region                                      reads of the source
//   0        0    equal                                           own backing
//   0        1    the source may be newer                         own backing
//   1        0    only the target has it                          target
//   1        1    in doubt; the target is still the only copy     target
//
// Invariants: 1. a region written since the target's last good flush is in the window, on its way,
// or has a bit; 2. in kSend, with nothing on its way, source and target are equal where neither a
// bit is nor a region missing; 3. a forward copy leaves missing regions alone.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "pool/backing.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "volume/readers.h"
#include "volume/tracker.h"
#include "volume/volume.h"
#include "volume/window.h"

namespace duplex::volume {

class VolumeImpl;

class TargetLeg final : public Debtor {
 public:
  enum class Mode : uint8_t { kMark, kSend, kSendWhereClear };
  static constexpr Epoch kNoCut{std::numeric_limits<Epoch::rep>::max()};

  // `bits` (kCopyAway) and `missing` (kMissing) are maps of `tracker`, the source's. On this core:
  // `left` is called when the leg leaves, once a session; `became_missing` when the map of missing
  // regions was empty and a write or flush of the source has put something there, not when its
  // owner does; `was_repaired` for each region that this target has saved. None may suspend or end
  // the leg. Begins in kMark.
  TargetLeg(Tracker& tracker, MapId bits, MapId missing, VolumeImpl& target,
            std::function<void(Error)> left, std::function<void()> became_missing,
            std::function<void(ByteRange)> was_repaired = nullptr);
  TargetLeg(const TargetLeg&) = delete;
  TargetLeg& operator=(const TargetLeg&) = delete;

  VolumeImpl& target() { return target_; }
  Mode mode() const { return mode_; }
  // To another mode than kMark: the source's gate is closed and drained, and so is this leg.
  void set_mode(Mode mode);
  // Armed: writes of this epoch and later ones stay here. The mode is kSend.
  void arm(Epoch cut);
  // Nothing is missing here, and the cut is about to be decided: from now on nothing becomes so.
  // What the own backing loses meanwhile is lost.
  void seal() { is_sealed_ = true; }
  // The cut is void; or it is decided, and set_mode(kMark) comes with this in one step.
  void disarm() {
    cut_ = kNoCut;
    is_sealed_ = false;
  }

  // What one write does; taken at the gate, with no suspension before the call that sends it.
  struct Plan {
    Window::Stamp stamp;
    bool sends = false;
    bool where_clear = false;  // only the parts without a bit
  };
  Plan admit(Epoch epoch, ByteRange range);
  // For a copier, which has called Tracker::begin_copy(); kSendWhereClear.
  Plan admit_copy() const;
  // After a plan that sends. False: the target may not have all of it; what it may lack has bits.
  rt::Task<bool> write(Plan plan, Epoch epoch, uint64_t offset, std::span<const std::byte> from);
  rt::Task<bool> zero(Plan plan, Epoch epoch, ByteRange range, pool::ZeroMode mode);

  // The source answered a write with an error: nobody may count as equal there (trace F31).
  void refused_by_source(ByteRange range, const Error& why);
  // Ends the session, for an error or a verb.
  void leave(const Error& why);
  // Returns when nothing sent is on its way, and every read of the target through this leg that
  // began before has ended. In kMark, with nothing missing, nothing new begins.
  rt::Task<> drained();

  const ChangeMap& bits() const { return tracker_.map(bits_); }
  MapId bits_id() const { return bits_; }

  // Missing regions. None, once the owner has given the map up.
  MapId missing_id() const { return missing_; }
  const ChangeMap& missing() const { return tracker_.map(missing_); }
  bool is_missing_any() const { return tracker_.has_map(missing_) && !missing().empty(); }
  bool is_missing(ByteRange range) const {
    return tracker_.has_map(missing_) && missing().any(range);
  }
  bool is_missing_all(ByteRange range) const {
    return tracker_.has_map(missing_) && missing().all(range);
  }
  // Does the target have what hosts read in all regions of `range`, none of which is missing? With
  // its cache a target loses what was written since its last flush, as the own backing does; but of
  // a region that was copied since then it loses all, also what is flushed here: that it does not
  // hold.
  bool holds(ByteRange range) const;
  // Would it, after a flush? In kSend everything that was copied is flushed; what is written there
  // again is not a copy.
  bool owes_copy(ByteRange range) const {
    return mode_ == Mode::kSendWhereClear && tracker_.is_copy_owed(bits_, range);
  }
  // Has any of it been written there since the last flush?
  bool owes(ByteRange range) const { return mode_ != Mode::kMark && is_in_window(range); }
  // Of what only this target has?
  bool owes_missing(ByteRange range) const { return is_missing(range) && is_in_window(range); }
  // As holds(), for a read that the own backing has refused: not of a leg that is armed, whose
  // target may be past its cut. Of all of `range`; or of any region of it, missing ones left aside.
  bool serves(ByteRange range) const { return cut_ == kNoCut && holds(range); }
  bool serves_any(ByteRange range) const;
  // What this target answered for is written again in the own backing, under its lock.
  void repaired(ByteRange region);
  // The same after a loss of the own backing: or did its content come from here, with no write
  // since?
  bool holds_lost(ByteRange region) const;
  // Was it here that the own backing last had the region from?
  bool is_origin(ByteRange region) const {
    return tracker_.has_map(missing_) && !is_sealed_ && returned_.any(region);
  }
  void set_missing(HotExtent stretch, uint64_t regions);
  // Bits, for what was lost everywhere.
  void set_bits(HotExtent stretch, uint64_t regions) { tracker_.or_word(bits_, stretch, regions); }
  // Is a copy of it to the target under way?
  bool is_copying(ByteRange range) const { return tracker_.is_copying(bits_, range); }
  // The own backing has `run` again: whole regions, all missing here, under their range lock, and
  // in the own backing's window. Their marks stay on disk until the own backing has flushed. A bit
  // beside one goes with it.
  void returned(ByteRange run);
  // It came back from another leg.
  void returned_elsewhere(ByteRange run);
  // The target gets hosts of its own: what came from there may soon not be there any more. The own
  // backing has flushed it.
  void forget_origins();

  // Of the source's legs, which one.
  size_t slot() const { return slot_; }
  void joined(VolumeImpl& source, size_t slot) {
    source_ = &source;
    slot_ = slot;
  }
  // drained() waits for what exists of these.
  Readers::Inside stay() { return Readers::Inside(readers_); }
  // The target's own read path, for missing regions. Whole blocks, aligned memory.
  rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into);
  rt::Task<Result<std::vector<StatusRun>>> status(ByteRange range, size_t limit);

  // Debtor, for the tracker; a host's FLUSH goes through Tracker::flush().
  Window& window() override { return window_; }
  rt::Task<Result<void>> flush() override;
  void lost(const Error& why) override;

 private:
  class Sending;
  bool is_in_window(ByteRange range) const;
  void lose_window();
  std::vector<ChangeMap::Word> owed_of(const ChangeMap& map) const;
  ByteRange next_part(Plan plan, ByteRange rest) const;
  bool ended(Plan plan, ByteRange range, Result<void> result);
  static void forget(ChangeMap& map, ByteRange range);

  Tracker& tracker_;
  const MapId bits_;
  const MapId missing_;
  VolumeImpl& target_;
  const std::function<void(Error)> left_;
  const std::function<void()> became_missing_;
  const std::function<void(ByteRange)> was_repaired_;
  Mode mode_ = Mode::kMark;
  Epoch cut_ = kNoCut;
  bool is_sealed_ = false;
  VolumeImpl* source_ = nullptr;
  size_t slot_ = 0;
  uint32_t writing_ = 0;
  uint32_t flushing_ = 0;  // also of a session that has ended: while something is missing here
  rt::Event landed_;       // pulsed when one of them becomes 0
  Readers readers_;
  rt::Mutex draining_;
  // Came from the target; and those of them in which no write has passed since.
  ChangeMap returned_, unchanged_;
  Window window_;
};

}  // namespace duplex::volume
