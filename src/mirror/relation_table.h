// The rows of the relation table (relation.h explains them), event by event.
//
// Owner: relation.cc, which is the only one to include it. Every check of a verb is a row: the
// first one that applies names the reason of the refusal. The compiler checks that each cell ends
// with exactly one row without a guard.
#pragma once

#include "mirror/relation.h"

namespace duplex::mirror::table {

using enum Relation;
using A = Action;
using E = RelationEvent;
using G = Guard;

template <class... State>
constexpr uint8_t in(State... states) {
  return static_cast<uint8_t>(((1u << static_cast<unsigned>(states)) | ...));
}
inline constexpr uint8_t kMirrors = 0xFE;  // every state but SIMPLEX
inline constexpr uint8_t kEverywhere = 0xFF;

constexpr Outcome with(Kind kind, Relation to, std::initializer_list<Action> actions) {
  Outcome outcome{.kind = kind, .to = to};
  size_t i = 0;
  for (const Action action : actions) outcome.list.at(i++) = action;
  return outcome;
}
constexpr Outcome goes(Relation to, std::initializer_list<Action> actions = {}) {
  return with(Kind::kGoes, to, actions);
}
constexpr Outcome stays(std::initializer_list<Action> actions = {}) {
  return with(Kind::kStays, kSimplex, actions);
}
constexpr Outcome refused(Code code, std::string_view text, std::string_view next) {
  return {.kind = Kind::kRefused, .refusal = {code, text, next}};
}
constexpr Outcome never(std::string_view why) { return {.kind = Kind::kNever, .remark = why}; }

inline constexpr Outcome kNoMirror =
    refused(Code::kNoName, "{mirror} is no mirror", "duplex mirror list");
inline constexpr Outcome kCutRuns =
    refused(Code::kBusy, "cut {cut} of {mirror} is running", "try again: it ends within 5 s");
inline constexpr Outcome kOther =
    refused(Code::kState, "the mirror {mirror} exists with another definition",
            "duplex mirror show {mirror}");
inline constexpr Outcome kNoJob =
    refused(Code::kState, "no job of {mirror} runs", "duplex mirror show {mirror}");
inline constexpr Outcome kRestoreRuns =
    refused(Code::kState, "a restore of {source} from {target} runs",
            "duplex job wait {mirror}, or duplex job cancel {mirror}");
inline constexpr Outcome kRepairRuns =
    refused(Code::kState, "{count} of {source} are read from {target}: its repair runs",
            "duplex job wait {mirror}");
inline constexpr Outcome kAway =
    refused(Code::kNoDevice, "the device of {target} is away", "duplex device list");
inline constexpr Outcome kInUse =
    refused(Code::kBusy, "{target} is open: {client}", "close it, or add --disconnect");
inline constexpr Outcome kHeld =
    refused(Code::kBusy, "{target} belongs to {other}", "end or delete {other} first");

inline constexpr RelationRow kRows[] = {
    // --- create with a full copy
    {E::kCreateFull, in(kSimplex), G::kTargetHasMirror,
     refused(Code::kState, "{target} is already the target of {other}",
             "duplex mirror delete {other}, or take another volume")},
    {E::kCreateFull, in(kSimplex), G::kCycle,
     refused(Code::kState, "{source} already follows {target}: the mirrors would form a circle",
             "duplex mirror list")},
    {E::kCreateFull, in(kSimplex), G::kSizeDiffers,
     refused(Code::kSize, "{source} and {target} differ in size", "duplex volume list")},
    {E::kCreateFull, in(kSimplex), G::kTargetOpen,
     refused(Code::kBusy, "{target} is open: {client}", "close it")},
    {E::kCreateFull, in(kSimplex), G::kInCut,
     refused(Code::kBusy, "cut {cut} of {source} or {target} is running",
             "try again: it ends within 5 s")},
    {E::kCreateFull, in(kSimplex), G::kInRestore,
     refused(Code::kState, "a restore of {other} runs", "duplex job wait {other}")},
    {E::kCreateFull, in(kSimplex), G::kTargetAway, kAway},
    {E::kCreateFull, in(kSimplex), G::kTargetHoldsData,
     refused(Code::kState, "{target} holds {count} of data, all of which would be lost",
             "add --overwrite")},
    {E::kCreateFull, in(kSimplex), G::kAlways,
     goes(kCopying,
          {A::kDrainBoth, A::kSetAllBits, A::kTargetInconsistent, A::kShutTarget, A::kStartCopy})},
    {E::kCreateFull, kMirrors, G::kSameDefinition, stays()},
    {E::kCreateFull, kMirrors, G::kAlways, kOther},

    // --- create of two volumes that are said to be equal
    {E::kCreateNoCopy, in(kSimplex), G::kTargetHasMirror,
     refused(Code::kState, "{target} is already the target of {other}",
             "duplex mirror delete {other}, or take another volume")},
    {E::kCreateNoCopy, in(kSimplex), G::kCycle,
     refused(Code::kState, "{source} already follows {target}: the mirrors would form a circle",
             "duplex mirror list")},
    {E::kCreateNoCopy, in(kSimplex), G::kSizeDiffers,
     refused(Code::kSize, "{source} and {target} differ in size", "duplex volume list")},
    {E::kCreateNoCopy, in(kSimplex), G::kTargetOpen,
     refused(Code::kBusy, "{target} is open: {client}", "close it")},
    {E::kCreateNoCopy, in(kSimplex), G::kInCut,
     refused(Code::kBusy, "cut {cut} of {source} or {target} is running",
             "try again: it ends within 5 s")},
    {E::kCreateNoCopy, in(kSimplex), G::kInRestore,
     refused(Code::kState, "a restore of {other} runs", "duplex job wait {other}")},
    {E::kCreateNoCopy, in(kSimplex), G::kTargetAway, kAway},
    {E::kCreateNoCopy, in(kSimplex), G::kMapsUnknown,
     refused(Code::kState, "nothing shows that {target} ever was a copy of {source}",
             "use --copy full")},
    {E::kCreateNoCopy, in(kSimplex), G::kMapsDiffer,
     goes(kCopying, {A::kDrainBoth, A::kFlushBothLegs, A::kUniteMaps, A::kTargetInconsistent,
                     A::kShutTarget, A::kStartCopy})},
    {E::kCreateNoCopy, in(kSimplex), G::kAlways,
     goes(kSync,
          {A::kDrainBoth, A::kFlushBothLegs, A::kClearMaps, A::kTargetAsSource, A::kShutTarget})},
    {E::kCreateNoCopy, kMirrors, G::kSameDefinition, stays()},
    {E::kCreateNoCopy, kMirrors, G::kAlways, kOther},

    // --- split: arm
    {E::kArm, in(kSimplex), G::kAlways, kNoMirror},
    {E::kArm, in(kCopying), G::kAlways,
     refused(Code::kState, "{mirror} is copied to {count}", "duplex job wait {mirror}")},
    {E::kArm, in(kSync), G::kPathNotSync,
     refused(Code::kState, "{other}, on the path to {mirror}, is not SYNC",
             "duplex mirror show {other}")},
    {E::kArm, in(kSync), G::kInCut,
     refused(Code::kBusy, "cut {cut} of the same root is running",
             "try again: it ends within 5 s")},
    {E::kArm, in(kSync), G::kTargetAway, kAway},
    {E::kArm, in(kSync), G::kOnlyTargetHolds, kRepairRuns},
    {E::kArm, in(kSync), G::kAlways, goes(kArmed, {A::kPin})},
    {E::kArm, in(kArmed, kSplitting), G::kAlways, kCutRuns},
    {E::kArm, in(kSplit), G::kAlways,
     refused(Code::kState, "{mirror} is split at cut {cut}", "duplex mirror resync {mirror}")},
    {E::kArm, in(kReverse), G::kAlways, kRestoreRuns},
    {E::kArm, in(kSuspended), G::kAlways,
     refused(Code::kState, "{mirror} is suspended: {reason}", "duplex mirror resync {mirror}")},

    // --- the cut goes on
    {E::kStamp, in(kArmed), G::kPathOnly, stays()},
    {E::kStamp, in(kArmed), G::kAlways, goes(kSplitting, {A::kForwardOldOnly})},
    {E::kStamp, in(kSuspended), G::kAlways, stays()},
    {E::kStamp, in(kSimplex, kCopying, kSync, kSplitting, kSplit, kReverse), G::kAlways,
     never("only an armed mirror is stamped")},

    {E::kDecided, in(kArmed), G::kPathOnly, goes(kSync, {A::kUnpin})},
    {E::kDecided, in(kArmed), G::kAlways, never("a member is stamped before the decision")},
    {E::kDecided, in(kSplitting), G::kAlways,
     goes(kSplit,
          {A::kFlushTarget, A::kClearTargetMap, A::kNewTargetContent, A::kOpenTarget, A::kUnpin})},
    {E::kDecided, in(kSimplex, kCopying, kSync, kSplit, kReverse, kSuspended), G::kAlways,
     never("the mirror is in no cut")},

    {E::kVoid, in(kArmed), G::kAlways, goes(kSync, {A::kUnpin})},
    {E::kVoid, in(kSplitting), G::kDecisionRecord, never("a decided cut stays decided")},
    {E::kVoid, in(kSplitting), G::kBitsLeft,
     goes(kCopying, {A::kUnpin, A::kTargetInconsistent, A::kStartCopy})},
    {E::kVoid, in(kSplitting), G::kAlways, goes(kSync, {A::kUnpin})},
    {E::kVoid, in(kSuspended), G::kAlways, stays()},
    {E::kVoid, in(kSimplex, kCopying, kSync, kSplit, kReverse), G::kAlways,
     never("the mirror is in no cut")},

    // --- resync forward
    {E::kResync, in(kSimplex), G::kAlways, kNoMirror},
    {E::kResync, in(kCopying), G::kAlways, stays({A::kRetryJob})},
    {E::kResync, in(kSync), G::kAlways, stays()},
    {E::kResync, in(kArmed, kSplitting), G::kAlways, kCutRuns},
    {E::kResync, in(kReverse), G::kAlways, kRestoreRuns},
    {E::kResync, in(kSplit), G::kTargetOpen, kInUse},
    {E::kResync, in(kSplit), G::kTargetRestoring,
     refused(Code::kState, "{target} is being restored from {other}", "duplex job wait {other}")},
    {E::kResync, in(kSplit), G::kTargetPinned, kHeld},
    {E::kResync, in(kSplit, kSuspended), G::kTargetAway, kAway},
    {E::kResync, in(kSplit), G::kAlways,
     goes(kCopying, {A::kDrainTarget, A::kUniteMaps, A::kClearTargetMap, A::kTargetInconsistent,
                     A::kShutTarget, A::kStartCopy})},
    {E::kResync, in(kSuspended), G::kAlways,
     goes(kCopying, {A::kEndOldSession, A::kRepairFirst, A::kTargetInconsistent, A::kStartCopy})},

    // --- restore, resync in reverse
    {E::kRestore, in(kSimplex), G::kAlways, kNoMirror},
    {E::kRestore, in(kCopying, kSync), G::kAlways,
     refused(Code::kState, "{target} is no point in time while {mirror} is not split",
             "duplex split {mirror}")},
    {E::kRestore, in(kArmed, kSplitting), G::kAlways, kCutRuns},
    {E::kRestore, in(kSplit), G::kUpstreamBinds,
     refused(Code::kState, "{source} is itself the target of {other}", "duplex split {other}")},
    {E::kRestore, in(kSplit), G::kInRestore,
     refused(Code::kState, "{source} or {target} is in another restore: {other}",
             "duplex job wait {other}")},
    {E::kRestore, in(kSplit), G::kTargetAway, kAway},
    {E::kRestore, in(kSplit), G::kTargetInconsistent,
     refused(Code::kState, "{target} is not consistent", "duplex mirror resync {mirror}")},
    {E::kRestore, in(kSplit), G::kTargetOpen,
     refused(Code::kBusy, "{target} is open for writing: {client}", "close it")},
    {E::kRestore, in(kSplit), G::kSourceOpenForWriting,
     refused(Code::kBusy, "{source} is open for writing: {client}", "close it, or add --online")},
    {E::kRestore, in(kSplit), G::kAlways,
     goes(kReverse, {A::kDrainBoth, A::kFlushTarget, A::kMissingFromUnion, A::kMissingDownstream,
                     A::kClearMaps, A::kNewSourceContent, A::kStartRestore})},
    {E::kRestore, in(kReverse), G::kAlways, stays()},
    {E::kRestore, in(kSuspended), G::kAlways,
     refused(Code::kState, "{target} is no known point in time", "duplex mirror resync {mirror}")},

    // --- a copy ends
    {E::kLastRegionDone, in(kCopying), G::kAlways,
     goes(kSync, {A::kFlushTarget, A::kBitsOffDisk, A::kTargetAsSource, A::kEndJob})},
    {E::kLastRegionDone, in(kReverse), G::kThenSyncTargetAway,
     goes(kSuspended,
          {A::kFlushSource, A::kMissingOffDisk, A::kReasonFault, A::kShutTarget, A::kEndJob})},
    {E::kLastRegionDone, in(kReverse), G::kThenSync,
     goes(kCopying, {A::kFlushSource, A::kMissingOffDisk, A::kTargetInconsistent, A::kShutTarget,
                     A::kEndJob, A::kStartCopy})},
    {E::kLastRegionDone, in(kReverse), G::kAlways,
     goes(kSplit, {A::kFlushSource, A::kMissingOffDisk, A::kEndJob})},
    {E::kLastRegionDone, in(kSimplex, kSync, kArmed, kSplitting, kSplit, kSuspended), G::kAlways,
     never("no copy runs")},

    // --- verify
    {E::kVerify, in(kSimplex), G::kAlways, kNoMirror},
    {E::kVerify, in(kCopying), G::kAlways, stays({A::kCompareClear})},
    {E::kVerify, in(kSync), G::kAlways, stays({A::kCompareAll})},
    {E::kVerify, in(kArmed, kSplitting), G::kAlways, kCutRuns},
    {E::kVerify, in(kSplit), G::kTargetAway, kAway},
    {E::kVerify, in(kSplit), G::kAlways, stays({A::kCompareClearBoth})},
    {E::kVerify, in(kReverse), G::kAlways, kRestoreRuns},
    {E::kVerify, in(kSuspended), G::kTargetAway, kAway},
    {E::kVerify, in(kSuspended), G::kAlways, stays({A::kCompareClear})},

    {E::kDifference, in(kCopying), G::kAlways,
     goes(kSuspended,
          {A::kMarkWindow, A::kMarkDifference, A::kTellDifference, A::kReasonDiffers, A::kEndJob})},
    {E::kDifference, in(kSync), G::kAlways,
     goes(kSuspended, {A::kMarkWindow, A::kMarkDifference, A::kTellDifference, A::kReasonDiffers})},
    {E::kDifference, in(kSplit, kSuspended), G::kAlways,
     stays({A::kMarkDifference, A::kTellDifference})},
    {E::kDifference, in(kSimplex, kArmed, kSplitting, kReverse), G::kAlways,
     never("no verify runs")},

    // --- delete
    {E::kDelete, in(kSimplex), G::kAlways, kNoMirror},
    {E::kDelete, in(kArmed, kSplitting), G::kAlways, kCutRuns},
    {E::kDelete, in(kReverse), G::kAlways, kRestoreRuns},
    {E::kDelete, in(kCopying, kSync), G::kMissingLeft, kRepairRuns},
    {E::kDelete, in(kCopying), G::kAlways,
     goes(kSimplex, {A::kDrainSource, A::kEndJob, A::kTargetInconsistent, A::kRemove})},
    {E::kDelete, in(kSync), G::kAlways,
     goes(kSimplex,
          {A::kDrainSource, A::kFlushTarget, A::kTargetAsSource, A::kOpenTarget, A::kRemove})},
    {E::kDelete, in(kSplit), G::kTargetPinned, kHeld},
    {E::kDelete, in(kSplit), G::kAlways, goes(kSimplex, {A::kRemove})},
    {E::kDelete, in(kSuspended), G::kNotConfirmed,
     refused(Code::kState, "{count} of {source} exist only on {target} and would be lost",
             "duplex mirror resync {mirror}, or add --yes")},
    {E::kDelete, in(kSuspended), G::kAlways, goes(kSimplex, {A::kOpenTarget, A::kRemove})},

    // --- S goes and comes
    {E::kLegLost, in(kCopying), G::kAlways,
     goes(kSuspended, {A::kMarkWindow, A::kReasonFault, A::kStallJob})},
    {E::kLegLost, in(kSync), G::kAlways, goes(kSuspended, {A::kMarkWindow, A::kReasonFault})},
    // After the record nothing can void the cut: S keeps its point in time.
    {E::kLegLost, in(kSplitting), G::kDecisionRecord,
     goes(kSplit, {A::kClearTargetMap, A::kMarkTargetWindow, A::kNewTargetContent, A::kOpenTarget,
                   A::kUnpin})},
    {E::kLegLost, in(kArmed, kSplitting), G::kAlways,
     goes(kSuspended, {A::kVoidCut, A::kMarkWindow, A::kReasonFault, A::kUnpin})},
    {E::kLegLost, in(kSplit), G::kAlways, stays({A::kMarkTargetWindow})},
    {E::kLegLost, in(kReverse), G::kAlways, stays({A::kStallJob})},
    {E::kLegLost, in(kSuspended), G::kAlways, stays()},
    {E::kLegLost, in(kSimplex), G::kAlways, never("there is no leg")},

    {E::kLegBack, in(kSplit), G::kAlways, stays()},
    {E::kLegBack, in(kReverse), G::kAlways, stays({A::kContinueJob})},
    {E::kLegBack, in(kSuspended), G::kNotByItself, stays()},
    {E::kLegBack, in(kSuspended), G::kAlways,
     goes(kCopying, {A::kEndOldSession, A::kRepairFirst, A::kTargetInconsistent, A::kStartCopy})},
    {E::kLegBack, in(kSimplex, kCopying, kSync, kArmed, kSplitting), G::kAlways,
     never("the leg is there in this state")},

    // --- cancel
    {E::kJobCancel, in(kSimplex), G::kAlways, kNoMirror},
    {E::kJobCancel, in(kSync, kSplit, kSuspended), G::kAlways, kNoJob},
    {E::kJobCancel, in(kArmed, kSplitting), G::kAlways, kCutRuns},
    {E::kJobCancel, in(kCopying), G::kAlways,
     goes(kSuspended, {A::kMarkWindow, A::kReasonOperator, A::kEndJob})},
    {E::kJobCancel, in(kReverse), G::kNotConfirmed,
     refused(Code::kState, "{source} would stay half restored and not consistent",
             "duplex job wait {mirror}, or add --yes")},
    {E::kJobCancel, in(kReverse), G::kAlways,
     goes(kSplit, {A::kDrainSource, A::kFlushSource, A::kMarkMissing, A::kMissingDownstream,
                   A::kClearMissing, A::kSourceInconsistent, A::kEndJob})},

    // --- restart
    {E::kCleanRestart, in(kSimplex, kSync, kSplit, kSuspended), G::kAlways, stays()},
    {E::kCleanRestart, in(kCopying, kReverse), G::kAlways, stays({A::kContinueJob})},
    {E::kCleanRestart, in(kArmed, kSplitting), G::kAlways, never("a clean stop ends cuts first")},

    {E::kCrashRestart, in(kSimplex), G::kAlways, stays()},
    {E::kCrashRestart, in(kSplitting), G::kDecisionRecord,
     goes(kSplit, {A::kMarkSourceMarks, A::kClearTargetMap, A::kMarkTargetMarks,
                   A::kNewTargetContent, A::kOpenTarget})},
    {E::kCrashRestart, in(kCopying, kSync, kArmed, kSplitting), G::kTargetAway,
     goes(kSuspended, {A::kMarkSourceMarks, A::kReasonFault})},
    {E::kCrashRestart, in(kCopying), G::kAlways, stays({A::kMarkSourceMarks, A::kContinueJob})},
    {E::kCrashRestart, in(kSync, kArmed, kSplitting), G::kBitsLeft,
     goes(kCopying, {A::kMarkSourceMarks, A::kTargetInconsistent, A::kStartCopy})},
    {E::kCrashRestart, in(kSync), G::kAlways, stays()},
    {E::kCrashRestart, in(kArmed, kSplitting), G::kAlways, goes(kSync)},
    {E::kCrashRestart, in(kSplit), G::kAlways, stays({A::kMarkSourceMarks, A::kMarkTargetMarks})},
    {E::kCrashRestart, in(kReverse), G::kAlways,
     stays({A::kMarkSourceMarks, A::kKeepMissing, A::kContinueJob})},
    {E::kCrashRestart, in(kSuspended), G::kAlways, stays({A::kMarkSourceMarks})},

    // --- the mirror whose target is this P leaves SYNC
    {E::kUpstreamLeft, in(kSimplex), G::kAlways, never("there is no mirror below")},
    {E::kUpstreamLeft, in(kCopying, kSplit, kSuspended), G::kAlways, stays()},
    {E::kUpstreamLeft, in(kSync), G::kAlways, stays({A::kTargetAsSource})},
    {E::kUpstreamLeft, in(kArmed), G::kAlways, goes(kSync, {A::kVoidCut, A::kUnpin})},
    {E::kUpstreamLeft, in(kSplitting), G::kDecisionRecord, stays()},
    {E::kUpstreamLeft, in(kSplitting), G::kBitsLeft,
     goes(kCopying, {A::kVoidCut, A::kUnpin, A::kTargetInconsistent, A::kStartCopy})},
    {E::kUpstreamLeft, in(kSplitting), G::kAlways, goes(kSync, {A::kVoidCut, A::kUnpin})},
    {E::kUpstreamLeft, in(kReverse), G::kAlways,
     never("a restore needs an upstream mirror that is split or absent")},
};

// Every cell has rows and exactly one without a guard, the last.
consteval bool complete() {
  for (size_t event = 0; event < kRelationEvents; ++event) {
    for (size_t state = 0; state < kRelations; ++state) {
      bool ended = false;
      for (const RelationRow& row : kRows) {
        if (row.event != static_cast<E>(event) || !row.covers(static_cast<Relation>(state)))
          continue;
        if (ended) return false;
        ended = row.when == G::kAlways;
      }
      if (!ended) return false;
    }
  }
  return true;
}
static_assert(complete());

}  // namespace duplex::mirror::table
