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
};

#ifdef DUPLEX_PLANTED_BUG
static constexpr Bug kPlantedBug = Bug::DUPLEX_PLANTED_BUG;
#else
static constexpr Bug kPlantedBug = Bug::kNone;
#endif

[[maybe_unused]] static consteval bool planted(Bug bug) { return bug == kPlantedBug; }

}  // namespace duplex
