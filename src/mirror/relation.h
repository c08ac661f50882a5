// The life of a mirror as data: which event may happen in which state, what follows, and what to
// tell a person who asked for something that cannot be done now.
//
// Owner: the room `mirror`; nothing else decides where a mirror goes. The table is constant, the
// functions are pure, any thread may call them. A cell is a short list of rows; the first row whose
// guard holds decides, the last one has the guard kAlways. docs/REFERENCE.md, "Mirror states", is
// printed from this table (states_doc.h).
//
// P is the source volume, S the target, "the window" all regions written since the last good flush
// of a backing, "marks" the hot extents found after a crash.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace duplex::mirror {

enum class Relation : uint8_t {
  kSimplex,    // no mirror: P and S are two volumes
  kCopying,    // S is being made equal to P
  kSync,       // every write is on both
  kArmed,      // SYNC and pinned by a cut that has not been stamped, or on the path to a member
  kSplitting,  // stamped: old writes still go to S, new ones only set bits
  kSplit,      // S is a volume of its own
  kReverse,    // P is being restored from S
  kSuspended,  // S is left behind, for a reason
};
inline constexpr size_t kRelations = 8;

// What a restore ends in; numbers of MirrorRow::then.
enum class Then : uint8_t { kSplit, kSync };

enum class RelationEvent : uint8_t {
  kCreateFull,
  kCreateNoCopy,
  kArm,
  kStamp,
  kDecided,
  kVoid,
  kResync,
  kRestore,
  kLastRegionDone,
  kVerify,
  kDifference,
  kDelete,
  kLegLost,
  kLegBack,
  kJobCancel,
  kCleanRestart,
  kCrashRestart,
  kUpstreamLeft,
};
inline constexpr size_t kRelationEvents = 18;

// What the caller knows when an event comes. A fact that is not given counts as false.
enum class Guard : uint8_t {
  kAlways,
  // Checks of create.
  kSameDefinition,
  kTargetHasMirror,
  kCycle,
  kSizeDiffers,
  kTargetOpen,
  kInCut,
  kInRestore,
  kTargetHoldsData,
  kMapsUnknown,
  kMapsDiffer,
  // Checks of a split.
  kPathNotSync,
  kOnlyTargetHolds,
  kTargetAway,
  // Checks of resync, restore and delete.
  kTargetRestoring,
  kTargetPinned,
  kUpstreamBinds,
  kTargetInconsistent,
  kSourceOpenForWriting,
  kNotConfirmed,
  kMissingLeft,
  // Outcomes of the rest.
  kPathOnly,
  kBitsLeft,
  kThenSyncTargetAway,
  kThenSync,
  kNotByItself,
  kDecisionRecord,
};
inline constexpr size_t kGuards = static_cast<size_t>(Guard::kDecisionRecord) + 1;

class Facts {
 public:
  constexpr Facts() = default;
  constexpr Facts(std::initializer_list<Guard> facts) {
    for (const Guard fact : facts) set(fact);
  }
  constexpr void set(Guard fact, bool on = true) {
    const uint32_t bit = uint32_t{1} << static_cast<unsigned>(fact);
    bits_ = on ? bits_ | bit : bits_ & ~bit;
  }
  constexpr bool has(Guard fact) const {
    return fact == Guard::kAlways || (bits_ >> static_cast<unsigned>(fact) & 1) != 0;
  }

 private:
  uint32_t bits_ = 0;
};
static_assert(kGuards <= 32);

// Steps of an outcome, in the order in which they are done, before the new state is seen.
enum class Action : uint8_t {
  kNone,
  kDrainBoth,           // close both gates, wait for the writes under way
  kDrainSource,         // the same for P
  kDrainTarget,         // the same for S
  kEndOldSession,       // wait until every I/O of the old leg session has ended
  kFlushSource,         //
  kFlushTarget,         //
  kFlushBothLegs,       //
  kSetAllBits,          //
  kUniteMaps,           // bits := P map, S map and the window of S
  kMarkWindow,          // bits += window and writes under way
  kMarkSourceMarks,     // bits += marks of P
  kMarkTargetMarks,     // S map += marks of S
  kMarkTargetWindow,    // S map += the window of S
  kMarkDifference,      // the regions found different get bits
  kMarkMissing,         // bits += missing
  kClearMissing,        // missing := 0
  kMissingFromUnion,    // missing := P map, S map, and what P could lose or has not
  kMissingDownstream,   // the same regions are to be copied to P's other mirrors
  kClearMaps,           // both change maps are empty
  kClearTargetMap,      //
  kBitsOffDisk,         //
  kMissingOffDisk,      //
  kKeepMissing,         // missing stays as it is on disk
  kTargetInconsistent,  // durable
  kTargetAsSource,      // S is consistent if P is
  kSourceInconsistent,  // until its next resync or restore
  kNewTargetContent,    // new content id of S
  kNewSourceContent,    // new content id of P
  kPin,                 // the mirror is held by the cut
  kUnpin,               //
  kVoidCut,             //
  kForwardOldOnly,      // old writes go to S, new ones set bits
  kOpenTarget,          // hosts may open S as the split asked
  kShutTarget,          // hosts may not open S
  kStartCopy,           //
  kStartRestore,        //
  kEndJob,              //
  kRetryJob,            //
  kContinueJob,         //
  kStallJob,            //
  kRepairFirst,         // missing regions are brought back before others are copied
  kCompareAll,          // verify every region
  kCompareClear,        // verify the regions without a bit
  kCompareClearBoth,    // verify the regions without a bit on either side
  kTellDifference,      // event: the region and its place
  kReasonFault,         //
  kReasonDiffers,       //
  kReasonOperator,      //
  kRemove,              // the definition of the mirror is deleted
};
inline constexpr size_t kActions = static_cast<size_t>(Action::kRemove) + 1;

// A refusal as templates: {mirror}, {source}, {target}, {cut}, {client}, {reason}, {other} and
// {count} are filled in by the caller, who knows the names.
struct Refusal {
  Code code = Code::kState;
  std::string_view text;
  std::string_view next;
};
struct Names {
  std::string_view mirror;
  std::string_view source;
  std::string_view target;
  std::string_view cut;
  std::string_view client;
  std::string_view reason;
  std::string_view other;
  std::string_view count;
};
std::string fill(std::string_view text, const Names& names);
Error refusal_error(const Refusal& refusal, const Names& names);

enum class Kind : uint8_t {
  kGoes,     // to `to`, after `actions`
  kStays,    // in the same state, after `actions`
  kRefused,  // nothing is changed; `refusal` says why
  kNever,    // cannot happen: our own mistake
};

struct Outcome {
  static constexpr size_t kMaxActions = 8;
  Kind kind = Kind::kNever;
  Relation to = Relation::kSimplex;  // of kGoes
  std::array<Action, kMaxActions> list{};
  Refusal refusal{};
  std::string_view remark{};  // of kNever: why

  constexpr std::span<const Action> actions() const {
    size_t count = 0;
    while (count < kMaxActions && list[count] != Action::kNone) ++count;
    return std::span(list).first(count);
  }
  constexpr bool does(Action action) const {
    for (const Action one : actions())
      if (one == action) return true;
    return false;
  }
};

// One row: in each of `states` (a bit for each Relation) `event` has `outcome` if `when` holds and
// no earlier row did.
struct RelationRow {
  RelationEvent event;
  uint8_t states;
  Guard when;
  Outcome outcome;
  constexpr bool covers(Relation state) const {
    return (states >> static_cast<unsigned>(state) & 1) != 0;
  }
};
std::span<const RelationRow> relation_rows();

// What `event` does in `state`. Pure; the reference is to constant data.
const Outcome& next(Relation state, RelationEvent event, Facts facts);
// The state after `outcome`. ASSERTs that it is no kNever.
Relation state_after(Relation state, const Outcome& outcome);

std::string_view state_name(Relation state);  // "ARMED": logs and the reference
std::string_view shown_name(Relation state);  // ARMED is "SYNC" to people
std::string_view meaning(Relation state);     // one sentence for a person
std::string_view event_name(RelationEvent event);
std::string_view guard_text(Guard guard);  // empty for kAlways
std::string_view action_text(Action action);

}  // namespace duplex::mirror
