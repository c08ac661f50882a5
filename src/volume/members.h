// Member: a volume as part of mirrors. The door through which the room `mirror` uses volumes.
//
// Owner: Volumes. Thread: control core, except what volume() and tracker() say. It exists from the
// first join() of its volume to the last leave(), and with it the volume's tracker; meanwhile the
// volume keeps its core, its size and its name: remove, resize and import are refused.
//
//   state     event                   next      action
//   (none)    first join              kOpening  on the volume's core: a tracker is made, and set
//   kOpening  the tracker is set      kOpen     join returns
//   kOpen     join, leave not last    kOpen     its mirror joins the list, or leaves it
//   kOpen     last leave              kClosing  on the volume's core: writes end, the tracker is
//                                               taken away and closed
//   kClosing  join meanwhile          kClosing  waits for its turn
//   kClosing  closed, nobody waits    (none)    the member is gone
//   kClosing  closed, a join waits    kOpening  a new tracker
//
// Invariants:
// 1. A mirror stands in the list before its join waits for anything, and until its leave has done
//    all: while anybody opens, closes or waits, the volume is not dropped.
// 2. In kOpen a write that passes the gate is marked (VolumeImpl::set_tracker()). One that passed
//    before may not be: who adds the first leg closes the gate and drains it.
// 3. What hosts may do with the volume (Access) counts for those who open it from then on; those
//    who have it open keep what they have until disconnect().
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "meta/rows.h"
#include "rt/clock.h"
#include "rt/task.h"
#include "rt/world.h"
#include "volume/tracker.h"
#include "volume/volume.h"

namespace duplex::volume {

class VolumeImpl;

// What a host may do with a volume. A mirror says it of its target.
class Access {
 public:
  enum class Kind : uint8_t { kReadWrite, kReadOnly, kRefused };

  static Access read_write() { return Access(Kind::kReadWrite, {}); }
  static Access read_only() { return Access(Kind::kReadOnly, {}); }
  // `why`: what the host is told, with the next step.
  static Access refused(Error why) { return Access(Kind::kRefused, std::move(why)); }

  Kind kind() const { return kind_; }
  // Only of kRefused.
  const Error& why() const { return *why_; }

 private:
  Access(Kind kind, std::optional<Error> why) : kind_(kind), why_(std::move(why)) {}
  Kind kind_;
  std::optional<Error> why_;
};

// The largest volume a mirror takes. A map of it that is full is the largest that the store takes
// as one row: 2^24 words of 4 MiB.
inline constexpr uint64_t kMaxMemberBytes = 64 * kTiB;

class Member {
 public:
  // How long disconnect() waits: as long as a stop lets requests end.
  static constexpr rt::Micros kDisconnectTime = 5 * rt::kSecond;

  struct Client {
    std::string name;  // for people
    bool read_only = false;
  };

  virtual ~Member() = default;

  // As the store has it.
  virtual const meta::VolumeRow& row() const = 0;
  VolumeNumber number() const { return row().number; }
  const std::string& name() const { return row().name; }
  uint64_t size_bytes() const { return row().size_bytes; }
  // A transaction that puts row() with these two is durable. Until the volume is consistent nobody
  // opens it, also when it is in no mirror any more (trace F37).
  virtual void committed(Uuid content_id, bool consistent) = 0;

  virtual rt::Core& core() const = 0;
  virtual VolumeImpl& volume() = 0;  // used on core()
  virtual Tracker& tracker() = 0;    // used on core()
  // Names of the mirrors that have joined, in order; one stands there once for each join.
  virtual const std::vector<std::string>& mirrors() const = 0;

  // What `mirror` offers of a change map to clients that come from now on, until it leaves.
  virtual void set_context(std::string mirror, ContextId id) = 0;
  virtual void drop_context(const std::string& mirror) = 0;

  // In order of opening.
  virtual std::vector<Client> clients() const = 0;
  virtual const Access& access() const = 0;
  // kReadWrite when the first mirror joins, and when the last one has left.
  virtual void set_access(Access access) = 0;
  // Has every client disconnected and waits for the end of their requests. New ones come unless
  // the access refuses them. kTimeout, naming those who are still there.
  virtual rt::Task<Result<void>> disconnect() = 0;
};

// Clients may read `map` of the member's tracker as what `mirror` says has changed; those who read
// it before are told from now on that everything has (VolumeImpl::offer()). On the control core,
// where it returns, by way of the volume's.
rt::Task<> offer_changed(Member& member, std::string mirror, MapId map, rt::Executor& control);

// For verbs that a volume in mirrors refuses: kState, with the command that frees it.
Error in_mirror(const std::string& volume, const std::vector<std::string>& mirrors);

}  // namespace duplex::volume
