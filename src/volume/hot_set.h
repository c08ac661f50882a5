// HotSet: which stretches of 4 MiB of a volume may have writes in flight or not yet flushed.
//
// A volume with a mirror below has one. Before the first write into a stretch ("extent" here) a
// mark is durable; the mark leaves the disk only after every leg has flushed what it owes. So a
// crash costs the copy of the marked extents and never of the volume (docs/ARCHITECTURE.md
// "Write path"; traces F13 and F32).
//
// Owner: the volume. Thread: the volume's core. use() comes between range lock and gate: who
// holds marks never waits for a range lock of the same volume.
//
// The table of an extent; there is no other state:
//
//   state     event                         next      action
//   COLD      a request takes it            MARKING   its mark goes into the request's record
//   MARKING   the record is durable         HOT       requests that wait for it look again
//   MARKING   the record failed             COLD      its request fails; others mark it themselves
//   HOT       a request is admitted         HOT       most recently written
//   HOT       chosen as a victim            COOLING   closed to requests; cools when unused
//   COOLING   the last request in it ends   COOLING   the cooling record begins
//   COOLING   the record is durable         COLD      its slot is free
//   COOLING   the record failed             HOT       the request that needs room fails
//
// Invariants:
// 1. At most `limit` extents are not COLD (or COLD and still wanted); limit >= kMaxPerRequest.
// 2. A write runs only while all its extents are HOT, or COOLING since it was admitted: then the
//    cooling record waits for it. No request is admitted to an extent in COOLING.
// 3. A request takes all its extents at once, or none: nobody holds some and waits for slots.
// 4. Requests with an extent that is not HOT are served in order of arrival; those whose extents
//    are all HOT pass. So a waiting request is overtaken, but never starved.
// 5. What an admitted request waits for or has marked is no victim until that request runs, and
//    while it runs the victim's record waits for its end: no request marks the same extent twice.
// 6. The victim is the least recently written HOT extent that 5 and the request in need allow.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "rt/executor.h"
#include "rt/task.h"
#include "rt/task_group.h"
#include "volume/list_wait.h"

namespace duplex::volume {

// Length of what one mark covers.
inline constexpr uint64_t kHotBytes = 4 * kMiB;
// Index of such a stretch inside its volume.
using HotExtent = Tagged<struct HotExtentTag, uint64_t>;

// Where marks become durable. All calls on the volume's core; concurrent ones may share a record.
class MarkSink {
 public:
  virtual ~MarkSink() = default;
  // One record: all of them or none.
  virtual rt::Task<Result<void>> mark(std::span<const HotExtent> extents) = 0;
  // Flushes every leg that owes a flush, then one record writes the change bits of the extent
  // out and takes its mark off.
  virtual rt::Task<Result<void>> cool(HotExtent extent) = 0;
};

class HotSet {
 public:
  static constexpr size_t kMaxPerRequest = 16;
  static constexpr size_t kDefaultLimit = 1024;

  enum class State : uint8_t { kCold, kMarking, kHot, kCooling };

  // `limit`: kMaxPerRequest..65535.
  HotSet(rt::Executor& home, MarkSink& sink, size_t limit = kDefaultLimit);
  HotSet(const HotSet&) = delete;
  HotSet& operator=(const HotSet&) = delete;

  // The extents of one request stay hot while this exists.
  class [[nodiscard]] Use {
   public:
    Use(Use&& other) noexcept
        : set_(std::exchange(other.set_, nullptr)), first_(other.first_), count_(other.count_) {}
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (set_ != nullptr) set_->end(first_, count_);
    }

   private:
    friend class HotSet;
    Use(HotSet& set, uint64_t first, size_t count) : set_(&set), first_(first), count_(count) {}
    HotSet* set_;
    uint64_t first_;
    size_t count_;
  };
  // Waits until all extents of `range` are hot. `range` touches 1 to kMaxPerRequest of them: the
  // write path cuts longer requests up. An error is the sink's: the write has not begun.
  rt::Task<Result<Use>> use(ByteRange range);

  // Ends the cooling that is under way. No request is waiting or running any more.
  rt::Task<> close() { return cooling_.close(); }

  State state(HotExtent extent) const;
  size_t slots_used() const { return slots_.size() - free_.size(); }

 private:
  using SlotIndex = uint16_t;
  static constexpr SlotIndex kNone = 0xffff;
  struct Slot {
    HotExtent extent;
    State state = State::kCold;
    uint32_t users = 0;                      // admitted requests: running or waiting for marks
    uint32_t waiting = 0;                    // those of them that wait for marks
    SlotIndex older = kNone, newer = kNone;  // by last write
  };
  // One call of use() that has not been admitted yet; lives in the queue.
  struct Request : rt::Waiter {
    Request(HotSet& s, uint64_t f, size_t n) : set(s), first(f), count(n) {}
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    ~Request() {
      if (list != nullptr) list->remove(*this);
    }
    bool await_ready() {
      set.queue_.push(*this);
      set.serve();
      return list == nullptr;
    }
    void await_suspend(std::coroutine_handle<> h) {
      handle = h;
      is_suspended = true;
    }
    void await_resume() const {}

    HotSet& set;
    uint64_t first;  // extents first .. first + count - 1
    size_t count;
    uint32_t marks = 0;          // bit i: this request marks extent first + i
    bool is_waited_for = false;  // admitted before all of them were hot: counted in Slot::waiting
    bool is_suspended = false;
    Result<void> outcome;
  };
  // Admits from the queue whoever can be, in order; closes victims for its head.
  void serve();
  bool try_pass(Request& request);
  bool try_take(Request& request);
  void make_room(const Request& head, size_t needed);
  void remove_from_queue(Request& request);

  rt::Task<Result<void>> become_hot(uint64_t first, size_t count, uint32_t marks);
  uint32_t take_cold(uint64_t first, size_t count);
  bool all_hot(uint64_t first, size_t count) const;
  void end(uint64_t first, size_t count);

  void start_cooling(Slot& slot);
  rt::Task<> cool(SlotIndex index);

  Slot* find(uint64_t extent);
  const Slot* find(uint64_t extent) const;
  Slot& occupy(uint64_t extent);
  void vacate(Slot& slot);
  SlotIndex index_of(const Slot& slot) const {
    return static_cast<SlotIndex>(&slot - slots_.data());
  }
  void unlink(Slot& slot);
  void link_newest(Slot& slot);

  rt::Executor& home_;
  MarkSink& sink_;
  std::vector<Slot> slots_;  // never resized
  std::vector<SlotIndex> free_;
  std::unordered_map<uint64_t, SlotIndex> where_;  // looked up, never walked
  SlotIndex oldest_ = kNone, newest_ = kNone;      // all occupied slots, by last write
  rt::WaitList queue_;                             // of Request
  rt::WaitList changes_;                           // of admitted requests that wait for marks
  rt::TaskGroup cooling_;
};

}  // namespace duplex::volume
