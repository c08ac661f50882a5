// Planted bugs: canaries for the simulator. Each is one place where a build made for it alone
// leaves out a step; a simulator that does not notice is too weak. tests/sim/canary/canary.cmake
// builds one program per bug, tests/lib/canary.sh runs them.
//
// In every other build planted() is false and nothing of it is in the program. It has internal
// linkage and is evaluated by the compiler only, because a canary links sources with and without
// the bug.
#pragma once

namespace duplex {

enum class Bug {
  kNone,
  kSkipScrub,             // a released extent is free without having been zeroed
  kFlushSkipsDevice,      // FLUSH does not reach the device
  kMapBeforeCommit,       // an extent is handed out before its map is durable
  kNoRangeLock,           // read-modify-write of a block without its lock
  kCommitWithoutSync,     // a commit of the store is not flushed
  kFailedFlushForgotten,  // a failed flush does not count as a loss of the device's cache
  kReadyBeforeLabels,     // a device takes extents before all labels name it (trace F35)
  kRealClock,             // something looks at a clock of the machine, not at its own
  // Of mirrors.
  kNewWriteToTarget,       // a write with the epoch of a cut still goes to its targets
  kUnsentWithoutBit,       // what is not sent to a target gets no bit
  kTargetErrorIgnored,     // a write that fails at a target counts as stored there
  kWindowForgotten,        // what a target that left had not flushed is not put into the map
  kCutNotDrained,          // a cut does not wait for the writes from before it
  kCutNotFlushed,          // a cut is recorded before its targets are flushed
  kCutAtManyPoints,        // the first reactor decides a cut before others have closed
  kWriteBeforeMark,        // a write begins before its stretch is marked on disk
  kCoolInDebt,             // a stretch cools while a leg owes a flush
  kClearedLeavesDisk,      // a cleared bit leaves the disk before a flush has covered the copy
  kTargetMapForgotten,     // a resync forgets what hosts wrote to the target
  kTargetWriteUnrecorded,  // a write to a split target gets no bit
  kRestoreUntold,          // a restore does not tell the other targets of the volume
  kGatesOpenEarly,         // a session begins or ends with its gates open
  kRootEpochLost,          // a write sent on takes the epoch of the volume it passes
  kMissingIgnored,         // what is missing is read at the own backing
  kReadBesideLanding,      // a read of what is missing does not wait for a write under way there
  kMissingNotDurable,      // FLUSH does not write down what is missing
  kWriteOverMissing,       // a write to a missing region does not bring it back first
  kCopyWithoutLock,        // a step of a copy works without its range lock
  kRestoreWithoutLock,     // the same of a copy back
};

#ifdef DUPLEX_PLANTED_BUG
static constexpr Bug kPlantedBug = Bug::DUPLEX_PLANTED_BUG;
#else
static constexpr Bug kPlantedBug = Bug::kNone;
#endif

[[maybe_unused]] static consteval bool planted(Bug bug) { return bug == kPlantedBug; }

}  // namespace duplex
