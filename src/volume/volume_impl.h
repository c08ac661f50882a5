// VolumeImpl: one volume. write_path.cc has everything that changes data, target_legs.cc the same
// with mirrors, own_leg.cc what holds when the own backing fails, copy_path.cc and restore_path.cc
// the steps of copies, read_repair.cc what holds when it cannot be read, changed.cc what
// clients see of change maps, volume_impl.cc the rest.
//
// Owner: Volumes. Thread: core(), except where volume.h says "any thread". Ends when Volumes
// drops it: no client has it open and no request is running.
//
// Invariants:
// 1. A block changes only under its range lock, and the lock is held until all legs are done.
// 2. A leg gets a write only from a writer that is inside the gate.
// 3. Every extent a write goes to is mapped, durably, before the gate. It stays mapped: only TRIM,
//    WRITE_ZEROES and shrinking unmap, and each holds the lock of what it unmaps.
// 4. size_ is a multiple of kBlockBytes, and so is every range a leg sees.
// 5. A region that is missing at a leg (target_leg.h) is read there, by everybody who reads here. A
//    write to it begins only when it is back, or goes to the leg that has it.
// 6. While the volume has a tracker, the own backing is a debtor of it.
//
// Why reads are right without a lock (promise P2, linearizable per sector): there is one copy of
// each block and no cache above it, and the device answers for each sector with its old or its
// new bytes. A write that covers a block in part reads the block, changes its bytes and writes it
// back, all under the range lock; the bytes beside it are put back as they are, and no other
// writer can have changed them meanwhile. So a read that overtakes it sees old or new bytes where
// the host writes, and the same bytes as ever beside it. A hole that is being allocated reads as
// zeroes before and after; an extent that is being released is not reused while a read is in it
// (Backing, invariant 3).
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pool/backing.h"
#include "rt/task_group.h"
#include "volume/backing_leg.h"
#include "volume/gate.h"
#include "volume/range_lock.h"
#include "volume/readers.h"
#include "volume/target_leg.h"
#include "volume/tracker.h"
#include "volume/volume.h"

namespace duplex::volume {

class VolumeImpl final : public Volume {
 public:
  // `size_bytes`: whole blocks. `epoch`: of the array, now.
  VolumeImpl(std::string name, VolumeNumber number, uint64_t size_bytes, rt::Core& core,
             pool::Backing& backing, Epoch epoch);

  const std::string& name() const override { return name_; }
  VolumeNumber number() const override { return number_; }
  uint64_t size_bytes() const override { return size_.load(std::memory_order_relaxed); }
  rt::Core& core() const override { return core_; }
  rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) override;
  rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from, bool fua) override;
  rt::Task<Result<void>> zero(ByteRange range, ZeroFlags flags) override;
  rt::Task<Result<void>> trim(ByteRange range, bool fua) override;
  rt::Task<Result<void>> flush() override;
  rt::Task<Result<std::vector<StatusRun>>> status(ByteRange range, size_t limit) override;
  std::vector<ChangedRun> changed(ContextId id, ByteRange range, size_t limit) const override;
  VolumeStats stats() const override;

  // What the leg of a mirror above sends here, on its own core: it takes the whole path of this
  // volume from the range lock on, but keeps the epoch of its root. Whole blocks. The volume cannot
  // be dropped meanwhile: it belongs to a mirror.
  rt::Task<Result<void>> forward_write(Epoch root, uint64_t offset,
                                       std::span<const std::byte> from);
  rt::Task<Result<void>> forward_zero(Epoch root, ByteRange range, pool::ZeroMode mode);
  rt::Task<Result<void>> forward_flush();
  // For verbs, on any core: flushes, and tells of no loss but one of its own. Whoever lost
  // something hears of it all the same, the host and the leg above, each at its next flush.
  rt::Task<Result<void>> flush_untold();
  // What is read here because the volume above lacks it: this volume's own read path, on its own
  // core. Whole blocks, aligned memory.
  rt::Task<Result<void>> forward_read(uint64_t offset, std::span<std::byte> into);
  rt::Task<Result<std::vector<StatusRun>>> forward_status(ByteRange range, size_t limit);

  // For mirrors below this volume, on core(), while it has a tracker.
  static constexpr size_t kMaxLegs = 64;
  // The leg is in kMark. What its map of missing regions says holds from now on.
  void add_leg(TargetLeg& leg);
  // The leg is in kMark, misses nothing or has lost that map, and is drained since then. What came
  // back from it is nowhere else until this volume has been flushed: that comes first as well.
  void remove_leg(TargetLeg& leg);
  // The target of the leg has lost these regions, all missing here, and may hold something older.
  void lost_at(const TargetLeg& leg, std::span<const ChangeMap::Word> regions, const Error& why);
  // Needed from the first mirror this volume belongs to until the last one. A write that passes the
  // gate from now on is marked, and the own backing owes a flush for it; one that is inside already
  // may not be. So what is to count as equal to this volume: drain the gate and flush first.
  void set_tracker(Tracker& tracker);
  // Returns when no request uses it any more; nobody keeps the gate closed meanwhile.
  rt::Task<> take_tracker();
  // What the own backing owes, and the part of it that came back from targets. The first is `from`
  // of maps of bits, the second `to` of maps of missing regions (Tracker::set_windows()), which
  // have no `from`: once the own backing has flushed what came back, the target may lose it; and
  // what was written there later has nothing to do with it.
  const Window& own_window() const { return own_debtor_.owed; }
  const Window& returned_window() const { return own_debtor_.returned; }
  // For a restore's and repair's copies (copy::Copier).
  Debtor& own_debtor() { return own_debtor_; }

  // On core(), before they begin: a leg of a mirror above this volume; hosts, after a mirror that
  // kept them away. What was lost until then was none of theirs.
  void forget_losses_above() { untold_.above = false; }
  void forget_losses_of_hosts() { untold_.host = false; }

  // Every write and zero that passes the gate sets its bits in this map of the tracker, whether the
  // volume has legs or not: what the target of a split mirror changes itself.
  void record_into(MapId map);
  void stop_recording(MapId map);

  // What clients may read of a map of the tracker (changed.cc): from now on under this id and no
  // other; or not at all. A map that nobody records into any more, or whose leg is removed, is
  // withdrawn by that.
  ContextId offer(MapId map);
  void withdraw(MapId map);

  // One step of a copy to the target of `leg`: next_copy(leg, from, limit). `root` is the epoch of
  // this volume's root now. kState: the session has ended; another error: of reading here, and
  // the bits are set again. A session has not ended before the steps that began in it.
  static constexpr uint64_t kCopyBytes = kMiB;
  // Of a hole; what a target in a mirror can have hot for one request.
  static constexpr uint64_t kHoleCopyBytes = HotSet::kMaxPerRequest * kHotBytes;
  struct CopyStep {
    uint64_t next = 0;  // where the following step begins
    uint64_t done_bytes = 0;
    uint64_t moved_bytes = 0;  // of them read and written; the rest was zeroes
    bool is_end = false;       // no bit at or behind `from`
  };
  rt::Task<Result<CopyStep>> copy_step(TargetLeg& leg, uint64_t from, Epoch root,
                                       uint64_t limit = kHoleCopyBytes);
  // The first run of bits that ends behind `from`: all hole, or mapped and at most kCopyBytes; no
  // region that is missing at this leg. Empty when there is none. `limit`: at least a region.
  ByteRange next_copy(const TargetLeg& leg, uint64_t from, uint64_t limit) const;

  // The same in the other direction: one step of bringing missing regions back from the target of
  // `leg`, in any mode of it. Only the own backing is written: what readers see does not change,
  // so nothing is forwarded and no bit set (trace F27). An error: of reading there, of writing
  // here, or kState when the leg misses none of it any more; the regions stay missing.
  rt::Task<Result<CopyStep>> restore_step(TargetLeg& leg, uint64_t from,
                                          uint64_t limit = kCopyBytes);
  // The first run of missing regions that ends behind `from`, at most kCopyBytes.
  ByteRange next_restore(const TargetLeg& leg, uint64_t from, uint64_t limit) const;

  // What a verify does (compare_path.cc). differing(): the regions of `run` (at most kCopyBytes,
  // whole regions as far as the volume goes) that differ from the target of `leg`, as far as they
  // have no bit and are not missing. One that is readable here and not there differs, too. An
  // error: of reading this side; of the other one if `run` is more than a region, which may then be
  // asked for alone, or if it is not of the medium. accuse(): the same of one region under its
  // range lock; `counts` is asked there, on core(), before anything is said. The region has a bit
  // then, unless the leg is in kSend.
  struct Difference {
    ByteRange region;
    bool is_unreadable = false;  // there
    bool has_bit = false;
  };
  using Counts = std::function<rt::Task<bool>(Difference)>;
  rt::Task<Result<std::vector<Difference>>> differing(TargetLeg& leg, ByteRange run);
  rt::Task<Result<std::optional<Difference>>> accuse(TargetLeg& leg, ByteRange region,
                                                     const Counts& counts);

  // All that is not a hole here, or is missing.
  ChangeMap mapped() const;
  // What the own backing could still lose with its cache, or has not.
  ChangeMap unsafe() const;
  bool is_hole(ByteRange range) const { return backing_.is_hole(range) && !is_missing(range); }

  // After a crash, before any volume is destroyed: what goes to targets holds locks there.
  void abandon() { tasks_.reset(); }

  // For the registry, on core().
  Gate& gate() { return gate_; }
  // The backing has grown.
  void grow(uint64_t size_bytes);
  // Growing flushed the backing, in vain: the next FLUSH of a host has to say so too.
  void owe_telling() { untold_.host = true; }
  // Shrinking, in two steps around the change of the backing. Between them the volume ends at
  // the new size, nothing beyond it is being read or written, and no write at all is in flight.
  // No byte is changed: what stays beyond the new end in the last extent is zeroed before the
  // backing grows again, so a shrink that fails or is cut off has destroyed nothing.
  struct Shrink {
    RangeLock::Held beyond;
    Gate::Closer gate;
    uint64_t old_bytes;
  };
  // kState, naming the bytes, when something is allocated beyond and not `discard`.
  rt::Task<Result<Shrink>> begin_shrink(uint64_t size_bytes, bool discard);
  // `done`: the backing has shrunk; else the old size comes back.
  void end_shrink(Shrink shrink, bool done);

 private:
  // What one write has marked: nothing while the volume is in no mirror.
  class Marking;
  // Keeps the tracker while a request uses it.
  class TrackerUse;
  // The own backing, as the tracker knows it.
  class OwnDebtor final : public Debtor {
   public:
    explicit OwnDebtor(VolumeImpl& volume) : volume_(volume) {}
    Window& window() override { return owed; }
    rt::Task<Result<void>> flush() override;
    void lost(const Error& why) override;

    Window owed;
    // The part of it that came back from targets. Exact: what was flushed here since, with the
    // writes there, must not be read at the target again, after a loss or a crash.
    Window returned{Window::Kind::kExact};
    uint64_t losses = 0;  // after which nobody had all of it, also of what only a target had

   private:
    VolumeImpl& volume_;
  };
  // Something was lost for good, and no flush from there has failed since. A volume that is split
  // has hosts of its own, and a leg above that restores from it: neither hears for the other.
  struct Untold {
    bool host = false, above = false;
  };
  // Whether zeroes may become a hole.
  enum class Holes : uint8_t { kAllowed, kFilled };

  // Of what is to pass the gate. kNot: nothing has changed, and it has to begin again, with what is
  // missing there brought back, or in shorter steps.
  enum class Passed : uint8_t { kYes, kNot };
  static Result<Passed> passed(Result<void> stored) {
    if (!stored) return std::unexpected(std::move(stored).error());
    return Passed::kYes;
  }

  // write_path.cc, in the order of the path.
  // `root`: the epoch of a write that another volume forwards; a host's is stamped at the gate.
  using Root = std::optional<Epoch>;
  rt::Task<Result<void>> zero_in_order(ByteRange range, pool::ZeroMode mode);
  rt::Task<Result<Passed>> write_bounced(uint64_t offset, const std::byte* from, uint64_t length,
                                         Holes holes);
  rt::Task<Result<Passed>> write_blocks(uint64_t offset, std::span<const std::byte> from,
                                        Holes holes, Root root = {});
  rt::Task<Result<Passed>> zero_blocks(ByteRange range, pool::ZeroMode mode, Root root = {});
  rt::Task<Result<void>> flush_legs();

  // target_legs.cc: the same with mirrors below.
  struct LegJoin;
  // A write on its way to the own backing and to targets: which side has it already is open.
  class Landing {
   public:
    Landing(VolumeImpl& volume, ByteRange range);
    Landing(const Landing&) = delete;
    Landing& operator=(const Landing&) = delete;
    ~Landing();

    const ByteRange range;
    Landing* next;

   private:
    VolumeImpl& volume_;
    Landing* before_ = nullptr;
  };
  bool is_landing(ByteRange range) const;
  template <class F>
  rt::Task<Result<void>> forward(ByteRange range, F step);
  rt::Task<Result<void>> write_all(Epoch epoch, uint64_t offset, std::span<const std::byte> from);
  rt::Task<Result<void>> zero_all(Epoch epoch, ByteRange range, pool::ZeroMode mode);
  rt::Task<Result<void>> flush_all();
  template <class Send, class Store>
  rt::Task<Result<void>> change_all(Epoch epoch, ByteRange range, Send send, Store store);
  static rt::Task<> change_target(const TargetLeg& leg, rt::Task<bool> sent, LegJoin& join);
  rt::Task<> flush_target(TargetLeg& leg, LegJoin& join);
  void start_flush(TargetLeg& leg, LegJoin& join);
  rt::Task<> flush_targets(ByteRange range, bool (TargetLeg::*owes)(ByteRange) const);
  void refused_by_own(ByteRange range, const Error& why);
  rt::Task<Result<void>> flush_since(uint64_t losses);
  rt::Task<Result<void>> flush_and_tell(bool& untold);

  // own_leg.cc
  // Is any region that `range` touches missing? The look of every request.
  bool is_missing(ByteRange range) const {
    return tracker_ != nullptr && tracker_->is_anything_missing() && is_missing_slow(range);
  }
  bool is_missing_slow(ByteRange range) const;
  // Is any of it missing at a leg that takes no writes? A restore may begin between the lock of a
  // write and its gate; or the leg has left.
  bool has_to_come_back(ByteRange range) const;
  // The leg where the region at range.offset is missing, or none, and how far that is so.
  struct Route {
    TargetLeg* leg;
    uint64_t length;
  };
  Route route(ByteRange range) const;
  // Whole regions, as far as the volume goes.
  ByteRange regions_of(ByteRange range) const;
  // When the own backing cannot be read (read_repair.cc).
  enum class Rescue : uint8_t {
    kLocks,     // a target answers, under the range lock, which this takes
    kIsLocked,  // the caller has the range lock
    kNever,     // the error is what the caller wants to know
  };
  rt::Task<Result<void>> read_blocks(uint64_t offset, std::span<std::byte> into, Rescue how);
  // For a write that has looked under its range lock and given it back. The wider one, with all
  // regions back that can be.
  rt::Task<Result<RangeLock::Held>> lock_and_bring_back(ByteRange range);
  rt::Task<Result<void>> bring_back(ByteRange range);
  struct Returned {
    Result<void> result;
    bool is_own_error = false;  // the own backing, not the target
    uint64_t moved_bytes = 0;
  };
  rt::Task<Returned> bring_run_back(TargetLeg& leg, ByteRange run);
  rt::Task<Result<void>> store_returned(uint64_t offset, std::span<const std::byte> from,
                                        uint64_t& moved_bytes);
  Result<void> verdict(ByteRange range, const Result<void>& own, uint64_t took, uint64_t losses);
  rt::Task<Result<void>> conclude(ByteRange range, Result<void> own, uint64_t took,
                                  uint64_t losses);
  rt::Task<Result<void>> write_missing_back(ByteRange range);
  rt::Task<Result<void>> write_missing_back();
  void forget_earlier_holders(MapId holder);
  rt::Task<Result<void>> flush_own();
  void own_lost(const Error& why);
  void lost_for_good(HotExtent stretch, uint64_t regions, const Error& why);
  // Who reads the own backing asks this afterwards, and reads again when it is settled.
  bool has_untold_loss() const { return tracker_ != nullptr && backing_.has_untold_loss(); }
  rt::Task<> tell_loss();

  // read_repair.cc
  static constexpr uint32_t kMostRepairs = 4;
  struct Rescued {
    uint64_t length;
    bool from_target;
  };
  Route rescuer(ByteRange range, uint64_t tried) const;
  rt::Task<Result<void>> rescue(uint64_t offset, std::span<std::byte> into, Rescue how, Error why);
  rt::Task<Result<Rescued>> rescue_part(uint64_t offset, std::span<std::byte> into);
  void start_repair(ByteRange range);
  rt::Task<> repair(ByteRange range);
  rt::Task<bool> repair_region(ByteRange region);

  // copy_path.cc
  static rt::Task<bool> send_copy(TargetLeg& leg, Epoch root, uint64_t offset,
                                  std::span<const std::byte> from, uint64_t& moved_bytes);

  // volume_impl.cc
  rt::Task<Result<void>> read_bounced(uint64_t offset, std::span<std::byte> into);
  uint64_t mapped_bytes(ByteRange range) const;
  bool is_inside(ByteRange range) const {
    return range_fits(range.offset, range.length, size_bytes());
  }

  // Written on core(), read anywhere.
  struct Counters {
    using Count = std::atomic<uint64_t>;
    Count reads = 0, writes = 0, trims = 0, flushes = 0;
    Count read_bytes = 0, written_bytes = 0;
    Count errors = 0, repaired = 0;
    // One writer: no locked instruction needed.
    static void add(Count& count, uint64_t amount) {
      count.store(count.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
    }
  };
  // Every request ends here.
  Result<void> ended(Result<void> result) {
    if (!result) [[unlikely]]
      Counters::add(counters_.errors, 1);
    return result;
  }

  const std::string name_;
  const VolumeNumber number_;
  std::atomic<uint64_t> size_;
  rt::Core& core_;
  pool::Backing& backing_;
  RangeLock locks_;
  Gate gate_;
  BackingLeg own_;
  OwnDebtor own_debtor_{*this};
  std::vector<TargetLeg*> legs_;  // of mirrors below
  std::vector<MapId> recorded_;
  struct Context {
    uint64_t id;
    MapId map;
  };
  std::vector<Context> contexts_;
  uint64_t last_context_ = 0;
  Tracker* tracker_ = nullptr;
  uint32_t marked_ = 0;    // requests that use it, or wait for it
  rt::Event marked_left_;  // pulsed when marked_ becomes 0
  Untold untold_;
  uint32_t repairs_ = 0;  // under way
  Readers readers_;
  Counters counters_;
  std::optional<rt::TaskGroup> tasks_;  // what goes to targets
  Landing* landings_ = nullptr;
};

}  // namespace duplex::volume
