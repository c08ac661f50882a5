// The acknowledgement rule: what the host is told, as a pure function of what the legs answered.
//
//   request        own backing   reply
//   write, zero    stored        success
//   write, zero    failed        its error; each block holds the old or the new bytes
//   flush          flushed       success
//   flush          failed        its error, once; kFlushLost: earlier writes may be gone
//   FUA            failed        its error, and the next flush fails likewise: the host of
//                                a refused write does not know that others are concerned
//
// "Own backing" includes the targets that have for it what it failed to store or lost (own_leg.cc).
// Nothing else changes on an error: the volume stays usable, and whoever repeats the request gets
// what the backing then answers.
#pragma once

#include "base/error.h"

namespace duplex::volume {

struct LegOutcomes {
  Result<void> own;
};

inline Result<void> acknowledge(LegOutcomes legs) { return std::move(legs.own); }

}  // namespace duplex::volume
