#include "mirror/access.h"

#include "base/assert.h"

namespace duplex::mirror {
namespace {

using enum Relation;
using A = Access;
using D = Deed;
using W = When;

template <class... State>
constexpr uint8_t in(State... states) {
  return static_cast<uint8_t>(((1u << static_cast<unsigned>(states)) | ...));
}
constexpr uint8_t kAll = 0xFF;
constexpr uint8_t kTogether = in(kSync, kArmed);

constexpr AccessRow kRows[] = {
    {A::kReadSource, in(kSimplex, kSplitting, kSplit), W::kAlways, {D::kOwn}},
    {A::kReadSource, in(kCopying, kSync, kArmed, kReverse, kSuspended), W::kAlways, {D::kByRegion}},

    {A::kWriteSource, in(kSimplex), W::kAlways, {D::kOwn}},
    {A::kWriteSource,
     in(kCopying, kSync, kArmed, kReverse, kSuspended),
     W::kMissing,
     {D::kBringBack, D::kAsPresent}},
    {A::kWriteSource, in(kCopying), W::kClear, {D::kOwn, D::kToTarget}},
    {A::kWriteSource, kTogether, W::kAlways, {D::kOwn, D::kToTarget}},
    {A::kWriteSource, in(kSplitting), W::kOldWrite, {D::kOwn, D::kToTarget}},
    {A::kWriteSource,
     in(kCopying, kSplitting, kSplit, kReverse, kSuspended),
     W::kAlways,
     {D::kOwn, D::kSetBit}},

    {A::kReadTarget, in(kSimplex, kReverse), W::kAlways, {D::kAllow}},
    {A::kReadTarget, in(kSplit), W::kOpenedReadWrite, {D::kAllow}},
    {A::kReadTarget, in(kSplit), W::kOpenedReadOnly, {D::kAllow}},
    {A::kReadTarget,
     in(kCopying, kSync, kArmed, kSplitting, kSplit, kSuspended),
     W::kAlways,
     {D::kProtected}},

    {A::kWriteTarget, in(kSimplex), W::kAlways, {D::kAllow}},
    {A::kWriteTarget, in(kSplit), W::kOpenedReadWrite, {D::kTargetPath, D::kTargetMap}},
    {A::kWriteTarget,
     in(kCopying, kSync, kArmed, kSplitting, kSplit, kReverse, kSuspended),
     W::kAlways,
     {D::kProtected}},

    {A::kClose, in(kSplit), W::kAlways, {D::kLetResyncPass}},
    {A::kClose,
     in(kSimplex, kCopying, kSync, kArmed, kSplitting, kReverse, kSuspended),
     W::kAlways,
     {D::kNothing}},

    {A::kOwnReadError, in(kCopying, kSync, kArmed), W::kHeld, {D::kFromTarget, D::kRepair}},
    {A::kOwnReadError, in(kSplitting), W::kOtherHolder, {D::kFromOther}},
    {A::kOwnReadError, in(kReverse), W::kMissing, {D::kNothing}},
    {A::kOwnReadError, in(kSuspended), W::kMissing, {D::kFromTarget}},
    {A::kOwnReadError, kAll, W::kAlways, {D::kFail}},

    {A::kOwnWriteError, in(kSplitting), W::kOldWrite, {D::kVoidCut, D::kAsCopying}},
    {A::kOwnWriteError, in(kArmed), W::kHeld, {D::kVoidCut, D::kMakeMissing, D::kSucceed}},
    {A::kOwnWriteError, in(kCopying, kSync), W::kHeld, {D::kMakeMissing, D::kSucceed}},
    {A::kOwnWriteError, in(kReverse), W::kMissing, {D::kFail}},
    {A::kOwnWriteError, in(kSimplex), W::kAlways, {D::kFail}},
    {A::kOwnWriteError, in(kArmed), W::kAlways, {D::kVoidCut, D::kFail, D::kSetBit}},
    {A::kOwnWriteError,
     in(kCopying, kSync, kSplitting, kSplit, kReverse, kSuspended),
     W::kAlways,
     {D::kFail, D::kSetBit}},

    {A::kOwnWindowLost, in(kSplitting), W::kDecided, {D::kSetBit, D::kFailFlushOnce}},
    {A::kOwnWindowLost, in(kSplitting), W::kAlways, {D::kVoidCut, D::kAsCopying}},
    {A::kOwnWindowLost, in(kArmed), W::kAlways, {D::kVoidCut, D::kMakeMissing, D::kSucceed}},
    {A::kOwnWindowLost, in(kSync), W::kAlways, {D::kMakeMissing, D::kSucceed}},
    {A::kOwnWindowLost, in(kCopying), W::kHeld, {D::kMakeMissing, D::kSucceed}},
    {A::kOwnWindowLost,
     in(kCopying, kReverse, kSuspended),
     W::kMissing,
     {D::kMakeMissing, D::kSetBit, D::kFailFlushOnce}},
    {A::kOwnWindowLost, in(kSimplex), W::kAlways, {D::kFailFlushOnce}},
    {A::kOwnWindowLost,
     in(kCopying, kSplit, kReverse, kSuspended),
     W::kAlways,
     {D::kSetBit, D::kFailFlushOnce}},

    {A::kOwnDeviceGone, in(kCopying, kSync), W::kAlways, {D::kGoOnByErrors}},
    {A::kOwnDeviceGone, in(kSplitting), W::kDecided, {D::kAllFail}},
    {A::kOwnDeviceGone, in(kArmed, kSplitting), W::kAlways, {D::kVoidCut, D::kGoOnByErrors}},
    {A::kOwnDeviceGone, in(kReverse), W::kAlways, {D::kAllFail, D::kStallJob}},
    {A::kOwnDeviceGone, in(kSimplex, kSplit, kSuspended), W::kAlways, {D::kAllFail}},

    {A::kOwnDeviceBack, in(kSimplex, kSplit), W::kAlways, {D::kServedAgain}},
    {A::kOwnDeviceBack, in(kCopying, kSync, kArmed), W::kAlways, {D::kStartRepair}},
    {A::kOwnDeviceBack, in(kSplitting), W::kAlways, {D::kNothing}},
    {A::kOwnDeviceBack, in(kReverse), W::kAlways, {D::kServedAgain, D::kJobGoesOn}},
    {A::kOwnDeviceBack, in(kSuspended), W::kAlways, {D::kServedAgain, D::kStartRepair}},

    {A::kTargetReadError, in(kCopying, kSync, kArmed), W::kMissing, {D::kFail}},
    {A::kTargetReadError, in(kCopying, kSync, kArmed), W::kAlways, {D::kRewriteFromSource}},
    {A::kTargetReadError, in(kSplit), W::kAlways, {D::kTellTargetHost}},
    {A::kTargetReadError, in(kReverse), W::kAlways, {D::kFail, D::kJobGoesOn}},
    {A::kTargetReadError, in(kSuspended), W::kMissing, {D::kFail}},
    {A::kTargetReadError, in(kSimplex, kSplitting, kSuspended), W::kAlways, {D::kNothing}},

    {A::kTargetWriteError, in(kCopying, kSync, kArmed, kSplitting), W::kAlways, {D::kLegLost}},
    {A::kTargetWriteError, in(kSplit), W::kAlways, {D::kTellTargetHost, D::kTargetWindow}},
    {A::kTargetWriteError, in(kReverse), W::kAlways, {D::kStallJob}},
    {A::kTargetWriteError, in(kSimplex, kSuspended), W::kAlways, {D::kNothing}},

    {A::kSourceFull, in(kReverse), W::kAlways, {D::kNoSpace, D::kStallJob}},
    {A::kSourceFull,
     in(kSimplex, kCopying, kSync, kArmed, kSplitting, kSplit, kSuspended),
     W::kAlways,
     {D::kNoSpace}},
};

// Every cell has rows, the last one without a condition.
consteval bool complete() {
  for (size_t access = 0; access < kAccesses; ++access) {
    for (size_t state = 0; state < kRelations; ++state) {
      bool ended = false;
      for (const AccessRow& row : kRows) {
        if (row.access != static_cast<A>(access) || !row.covers(static_cast<Relation>(state)))
          continue;
        if (ended) return false;
        ended = row.when == W::kAlways;
      }
      if (!ended) return false;
    }
  }
  return true;
}
static_assert(complete());

constexpr std::string_view kAccessNames[] = {
    "host reads P",    "host writes P",      "host opens or reads S",
    "host writes S",   "host closes P or S", "own read error",
    "own write error", "own window lost",    "own device gone",
    "own device back", "S: read error",      "S: write or flush error, gone, full",
    "P is full"};
static_assert(std::size(kAccessNames) == kAccesses);

constexpr std::string_view kWhenTexts[] = {"",
                                           "S holds it",
                                           "bit clear",
                                           "missing",
                                           "old write",
                                           "split for writing",
                                           "split for reading",
                                           "the decision is on disk",
                                           "another target holds it"};
static_assert(std::size(kWhenTexts) == kWhens);

constexpr std::string_view kDeedTexts[] = {
    "",
    "-",
    "own",
    "by the region's bits",
    "S",
    "region back first",
    "bit",
    "missing, durably",
    "success",
    "EIO",
    "FLUSH fails once",
    "from S",
    "from it",
    "repaired",
    "cut void",
    "then as COPYING",
    "then as not missing",
    "yes",
    "refused",
    "S's own path",
    "S map",
    "a waiting resync may pass",
    "each request by the rows above",
    "all EIO",
    "job STALLED",
    "job goes on",
    "repair of missing regions",
    "served again",
    "target lost",
    "S's host gets the error",
    "S map += S's window",
    "verify rewrites the region from P",
    "ENOSPC",
};
static_assert(std::size(kDeedTexts) == kDeeds);

}  // namespace

std::span<const AccessRow> access_rows() { return kRows; }

const AccessRow& access_rule(Relation state, Access access, Conditions conditions) {
  for (const AccessRow& row : kRows)
    if (row.access == access && row.covers(state) && conditions.has(row.when)) return row;
  ASSERT(!"the table is complete");
  __builtin_unreachable();
}

Refusal target_refusal(Relation state) {
  const auto refusal = [](std::string_view text, std::string_view next) {
    return Refusal{Code::kWriteProtected, text, next};
  };
  switch (state) {
    case kCopying:
      return refusal("{target} is being copied from {source}",
                     "duplex job wait {mirror}, then duplex split {mirror}");
    case kSync:
    case kArmed:
      return refusal("{target} is a mirror of {source}", "duplex split {mirror}");
    case kSplitting:
      return refusal("cut {cut} of {mirror} is running", "try again: it ends within 5 s");
    case kSplit:
      return refusal("{mirror} was split without leave for this",
                     "duplex mirror resync {mirror}, then duplex split {mirror}");
    case kReverse:
      return refusal("{source} is being restored from {target}, which is read only",
                     "duplex job wait {mirror}");
    case kSuspended:
      return refusal("{target} is left behind: {reason}",
                     "duplex mirror resync {mirror}, or duplex mirror delete {mirror}");
    case kSimplex:
      break;
  }
  ASSERT(!"a volume without a mirror is not refused");
  __builtin_unreachable();
}

std::string_view access_name(Access access) { return kAccessNames[static_cast<size_t>(access)]; }
std::string_view when_text(When when) { return kWhenTexts[static_cast<size_t>(when)]; }
std::string_view deed_text(Deed deed) { return kDeedTexts[static_cast<size_t>(deed)]; }

}  // namespace duplex::mirror
