// What a host's request and a fault of a device do in each state of a mirror, as data.
//
// Owner: the room `mirror`; pure functions. The write path of P and the door of S ask here. Cells
// are lists of rows like those of relation.h: the first row whose condition holds decides.
// docs/REFERENCE.md, "Mirror states", is printed from here.
//
// In a cascade each mirror asks its own table: a middle volume's own write error that its own
// target survives is a success for the mirror above.
#pragma once

#include "mirror/relation.h"

namespace duplex::mirror {

enum class Access : uint8_t {
  kReadSource,
  kWriteSource,
  kReadTarget,  // open and read S
  kWriteTarget,
  kClose,  // of P or S
  kOwnReadError,
  kOwnWriteError,
  kOwnWindowLost,  // flush failed, or the device came back without its cache
  kOwnDeviceGone,
  kOwnDeviceBack,
  kTargetReadError,
  kTargetWriteError,  // write or flush error, gone, full
  kSourceFull,        // a thin P finds no space
};
inline constexpr size_t kAccesses = 13;

// The conditions of rows; given by the caller, false otherwise.
enum class When : uint8_t {
  kAlways,
  kHeld,      // S holds the region and, for a write, took it: holds() of region.h
  kClear,     // bit clear
  kMissing,   // the region is missing at P, or was and has not been flushed
  kOldWrite,  // the write is older than the cut
  kOpenedReadWrite,
  kOpenedReadOnly,
  kDecided,      // the decision of the cut is on disk
  kOtherHolder,  // another target holds the region
};
inline constexpr size_t kWhens = static_cast<size_t>(When::kOtherHolder) + 1;

// What is done, in order.
enum class Deed : uint8_t {
  kNone,
  kNothing,            // the case does not arise, or nothing follows
  kOwn,                // P's own backing
  kByRegion,           // region_rule() of region.h
  kToTarget,           // to S as well
  kBringBack,          // the region is brought back from S first
  kSetBit,             //
  kMakeMissing,        // durably, before the answer
  kSucceed,            // the host sees success
  kFail,               // EIO
  kFailFlushOnce,      // the next FLUSH fails, those after it do not
  kFromTarget,         // served from S
  kFromOther,          // served from another target that holds it
  kRepair,             // and P's backing is rewritten from it
  kVoidCut,            //
  kAsCopying,          // then the row of COPYING holds
  kAsPresent,          // then the row for a region that is not missing holds
  kAllow,              //
  kProtected,          // refused: E_WP with the text of refusal()
  kTargetPath,         // S's own write path, as a root
  kTargetMap,          // S map += region
  kLetResyncPass,      // a waiting resync may go on
  kGoOnByErrors,       // each request meets the rows of own read and write errors
  kAllFail,            // every request fails with EIO
  kStallJob,           //
  kJobGoesOn,          // and ends STALLED, naming the regions it could not copy
  kStartRepair,        //
  kServedAgain,        //
  kLegLost,            // RelationEvent::kLegLost
  kTellTargetHost,     // S's host gets the error
  kTargetWindow,       // S map += S's window
  kRewriteFromSource,  // verify rewrites the region from P
  kNoSpace,            // ENOSPC for that write
};
inline constexpr size_t kDeeds = static_cast<size_t>(Deed::kNoSpace) + 1;

class Conditions {
 public:
  constexpr Conditions() = default;
  constexpr Conditions(std::initializer_list<When> all) {
    for (const When one : all) bits_ |= bit(one);
  }
  constexpr Conditions with(When one) const {
    Conditions more = *this;
    more.bits_ |= bit(one);
    return more;
  }
  constexpr bool has(When one) const { return one == When::kAlways || (bits_ & bit(one)) != 0; }

 private:
  static constexpr uint32_t bit(When one) { return uint32_t{1} << static_cast<unsigned>(one); }
  uint32_t bits_ = 0;
};

struct AccessRow {
  static constexpr size_t kMaxDeeds = 4;
  Access access;
  uint8_t states;  // a bit for each Relation
  When when;
  std::array<Deed, kMaxDeeds> list;

  constexpr std::span<const Deed> deeds() const {
    size_t count = 0;
    while (count < kMaxDeeds && list[count] != Deed::kNone) ++count;
    return std::span(list).first(count);
  }
  constexpr bool does(Deed deed) const {
    for (const Deed one : deeds())
      if (one == deed) return true;
    return false;
  }
  constexpr bool covers(Relation state) const {
    return (states >> static_cast<unsigned>(state) & 1) != 0;
  }
};
std::span<const AccessRow> access_rows();
const AccessRow& access_rule(Relation state, Access access, Conditions conditions);

// Why a host may not open, or write, the target in `state`; for rows with kProtected.
Refusal target_refusal(Relation state);

std::string_view access_name(Access access);
std::string_view when_text(When when);
std::string_view deed_text(Deed deed);

}  // namespace duplex::mirror
