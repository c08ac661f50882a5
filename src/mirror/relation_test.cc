// The relation table, cell by cell, against a listing written by hand, and the duties of its moves.
#include "mirror/relation.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "mirror/region.h"

namespace duplex::mirror {
namespace {

using enum Relation;
using E = RelationEvent;
using A = Action;
using G = Guard;

// A cell: what its rows say, from the first to the last. A state's name: goes there; "=": stays;
// "-": never; anything else: refused with this code.
struct Line {
  E event;
  std::array<std::string_view, kRelations> cells;
};
constexpr std::string_view kB = "e_busy", kN = "e_noname", kS = "e_state", kX = "-";
constexpr std::string_view kAgain = "=|e_state";
constexpr std::string_view kCreateCell =
    "e_state|e_state|e_size|e_busy|e_busy|e_state|e_nodev|e_state|COPYING";
constexpr std::string_view kNoCopyCell =
    "e_state|e_state|e_size|e_busy|e_busy|e_state|e_nodev|e_state|COPYING|SYNC";
// SIMPLEX, COPYING, SYNC, ARMED, SPLITTING, SPLIT, REVERSE, SUSPENDED
constexpr Line kListing[] = {
    {E::kCreateFull, {kCreateCell, kAgain, kAgain, kAgain, kAgain, kAgain, kAgain, kAgain}},
    {E::kCreateNoCopy, {kNoCopyCell, kAgain, kAgain, kAgain, kAgain, kAgain, kAgain, kAgain}},
    {E::kArm, {kN, kS, "e_state|e_busy|e_nodev|e_state|ARMED", kB, kB, kS, kS, kS}},
    {E::kStamp, {kX, kX, kX, "=|SPLITTING", kX, kX, kX, "="}},
    {E::kDecided, {kX, kX, kX, "SYNC|-", "SPLIT", kX, kX, kX}},
    {E::kVoid, {kX, kX, kX, "SYNC", "-|COPYING|SYNC", kX, kX, "="}},
    {E::kResync,
     {kN, "=", "=", kB, kB, "e_busy|e_state|e_busy|e_nodev|COPYING", kS, "e_nodev|COPYING"}},
    {E::kRestore,
     {kN, kS, kS, kB, kB, "e_state|e_state|e_nodev|e_state|e_busy|e_busy|REVERSE", "=", kS}},
    {E::kLastRegionDone, {kX, "SYNC", kX, kX, kX, kX, "SUSPENDED|COPYING|SPLIT", kX}},
    {E::kVerify, {kN, "=", "=", kB, kB, "e_nodev|=", kS, "e_nodev|="}},
    {E::kDifference, {kX, "SUSPENDED", "SUSPENDED", kX, kX, "=", kX, "="}},
    {E::kDelete,
     {kN, "e_state|SIMPLEX", "e_state|SIMPLEX", kB, kB, "e_busy|SIMPLEX", kS, "e_state|SIMPLEX"}},
    {E::kLegLost, {kX, "SUSPENDED", "SUSPENDED", "SUSPENDED", "SPLIT|SUSPENDED", "=", "=", "="}},
    {E::kLegBack, {kX, kX, kX, kX, kX, "=", "=", "=|COPYING"}},
    {E::kJobCancel, {kN, "SUSPENDED", kS, kB, kB, kS, "e_state|SPLIT", kS}},
    {E::kCleanRestart, {"=", "=", "=", kX, kX, "=", "=", "="}},
    {E::kCrashRestart,
     {"=", "SUSPENDED|=", "SUSPENDED|COPYING|=", "SUSPENDED|COPYING|SYNC",
      "SPLIT|SUSPENDED|COPYING|SYNC", "=", "=", "="}},
    {E::kUpstreamLeft, {kX, "=", "=", "SYNC", "=|COPYING|SYNC", "=", kX, "="}},
};
static_assert(std::size(kListing) == kRelationEvents);

std::string word(const Outcome& outcome) {
  switch (outcome.kind) {
    case Kind::kGoes:
      return std::string(state_name(outcome.to));
    case Kind::kStays:
      return "=";
    case Kind::kRefused:
      return std::string(code_name(outcome.refusal.code));
    case Kind::kNever:
      return "-";
  }
  return "?";
}

Relation state(size_t i) { return static_cast<Relation>(i); }

TEST(Relation, EveryCellSaysWhatTheListingSays) {
  for (const Line& line : kListing) {
    for (size_t s = 0; s < kRelations; ++s) {
      std::string cell;
      for (const RelationRow& row : relation_rows()) {
        if (row.event == line.event && row.covers(state(s)))
          cell += (cell.empty() ? "" : "|") + word(row.outcome);
      }
      EXPECT_EQ(cell, line.cells.at(s)) << event_name(line.event) << ", " << state_name(state(s));
    }
  }
}

TEST(Relation, TheFirstRowWhoseGuardHoldsDecides) {
  for (size_t e = 0; e < kRelationEvents; ++e) {
    for (size_t s = 0; s < kRelations; ++s) {
      Facts all;
      for (size_t g = 0; g < kGuards; ++g) all.set(static_cast<G>(g));
      const RelationRow* first = nullptr;
      for (const RelationRow& row : relation_rows()) {
        if (row.event != static_cast<E>(e) || !row.covers(state(s))) continue;
        if (first == nullptr) first = &row;
        if (row.when == G::kAlways) {
          EXPECT_EQ(&next(state(s), row.event, {}), &row.outcome);
        } else {
          EXPECT_EQ(&next(state(s), row.event, {row.when}), &row.outcome)
              << event_name(row.event) << ", " << guard_text(row.when);
        }
      }
      ASSERT_NE(first, nullptr);
      EXPECT_EQ(&next(state(s), first->event, all), &first->outcome);
    }
  }
}

struct Duty {
  Relation from;
  E event;
  G when;
  std::vector<A> due;  // in this order, maybe with others between them
};

TEST(Relation, EachMoveHasTheActionsItOwes) {
  const Duty duties[] = {
      {kSimplex,
       E::kCreateFull,
       G::kAlways,
       {A::kDrainBoth, A::kSetAllBits, A::kTargetInconsistent, A::kStartCopy}},
      {kSimplex, E::kCreateNoCopy, G::kAlways, {A::kDrainBoth, A::kFlushBothLegs, A::kClearMaps}},
      {kSimplex,
       E::kCreateNoCopy,
       G::kMapsDiffer,
       {A::kDrainBoth, A::kFlushBothLegs, A::kUniteMaps, A::kTargetInconsistent, A::kStartCopy}},
      {kSync, E::kArm, G::kAlways, {A::kPin}},
      {kArmed, E::kStamp, G::kAlways, {A::kForwardOldOnly}},
      {kArmed, E::kDecided, G::kPathOnly, {A::kUnpin}},
      {kSplitting,
       E::kDecided,
       G::kAlways,
       {A::kFlushTarget, A::kClearTargetMap, A::kNewTargetContent, A::kOpenTarget, A::kUnpin}},
      {kArmed, E::kVoid, G::kAlways, {A::kUnpin}},
      {kSplitting, E::kVoid, G::kBitsLeft, {A::kUnpin, A::kStartCopy}},
      {kCopying, E::kResync, G::kAlways, {A::kRetryJob}},
      {kSplit,
       E::kResync,
       G::kAlways,
       {A::kDrainTarget, A::kUniteMaps, A::kClearTargetMap, A::kTargetInconsistent, A::kShutTarget,
        A::kStartCopy}},
      {kSuspended,
       E::kResync,
       G::kAlways,
       {A::kEndOldSession, A::kRepairFirst, A::kTargetInconsistent, A::kStartCopy}},
      {kSplit,
       E::kRestore,
       G::kAlways,
       {A::kDrainBoth, A::kFlushTarget, A::kMissingFromUnion, A::kMissingDownstream, A::kClearMaps,
        A::kNewSourceContent, A::kStartRestore}},
      {kCopying,
       E::kLastRegionDone,
       G::kAlways,
       {A::kFlushTarget, A::kBitsOffDisk, A::kTargetAsSource, A::kEndJob}},
      {kReverse, E::kLastRegionDone, G::kAlways, {A::kFlushSource, A::kMissingOffDisk}},
      {kReverse,
       E::kLastRegionDone,
       G::kThenSync,
       {A::kFlushSource, A::kMissingOffDisk, A::kTargetInconsistent, A::kStartCopy}},
      {kSync,
       E::kDifference,
       G::kAlways,
       {A::kMarkWindow, A::kMarkDifference, A::kTellDifference, A::kReasonDiffers}},
      {kCopying, E::kDelete, G::kAlways, {A::kDrainSource, A::kTargetInconsistent, A::kRemove}},
      {kSync, E::kDelete, G::kAlways, {A::kDrainSource, A::kRemove}},
      {kCopying, E::kLegLost, G::kAlways, {A::kMarkWindow, A::kReasonFault}},
      {kSync, E::kLegLost, G::kAlways, {A::kMarkWindow, A::kReasonFault}},
      {kArmed, E::kLegLost, G::kAlways, {A::kVoidCut, A::kMarkWindow, A::kUnpin}},
      {kSplitting, E::kLegLost, G::kAlways, {A::kVoidCut, A::kMarkWindow, A::kUnpin}},
      {kSplitting,
       E::kLegLost,
       G::kDecisionRecord,
       {A::kClearTargetMap, A::kMarkTargetWindow, A::kNewTargetContent, A::kUnpin}},
      {kSplit, E::kLegLost, G::kAlways, {A::kMarkTargetWindow}},
      {kReverse, E::kLegLost, G::kAlways, {A::kStallJob}},
      {kReverse, E::kLegBack, G::kAlways, {A::kContinueJob}},
      {kSuspended,
       E::kLegBack,
       G::kAlways,
       {A::kEndOldSession, A::kRepairFirst, A::kTargetInconsistent, A::kStartCopy}},
      {kCopying, E::kJobCancel, G::kAlways, {A::kMarkWindow, A::kReasonOperator, A::kEndJob}},
      {kReverse,
       E::kJobCancel,
       G::kAlways,
       {A::kDrainSource, A::kFlushSource, A::kMarkMissing, A::kClearMissing,
        A::kSourceInconsistent}},
      {kCopying, E::kCrashRestart, G::kAlways, {A::kMarkSourceMarks, A::kContinueJob}},
      {kSync, E::kCrashRestart, G::kBitsLeft, {A::kMarkSourceMarks, A::kStartCopy}},
      {kSync, E::kCrashRestart, G::kTargetAway, {A::kMarkSourceMarks, A::kReasonFault}},
      {kSplitting,
       E::kCrashRestart,
       G::kDecisionRecord,
       {A::kMarkSourceMarks, A::kClearTargetMap, A::kMarkTargetMarks, A::kNewTargetContent}},
      {kSplit, E::kCrashRestart, G::kAlways, {A::kMarkSourceMarks, A::kMarkTargetMarks}},
      {kReverse, E::kCrashRestart, G::kAlways, {A::kMarkSourceMarks, A::kKeepMissing}},
      {kSuspended, E::kCrashRestart, G::kAlways, {A::kMarkSourceMarks}},
      {kArmed, E::kUpstreamLeft, G::kAlways, {A::kVoidCut, A::kUnpin}},
      {kSplitting, E::kUpstreamLeft, G::kBitsLeft, {A::kVoidCut, A::kUnpin, A::kStartCopy}},
  };
  for (const Duty& duty : duties) {
    const auto actions = next(duty.from, duty.event, {duty.when}).actions();
    auto at = actions.begin();
    for (const A due : duty.due) {
      at = std::find(at, actions.end(), due);
      EXPECT_NE(at, actions.end())
          << state_name(duty.from) << ", " << event_name(duty.event) << ": " << action_text(due);
    }
  }
}

TEST(Relation, EveryRefusalNamesItsObjectAndWhatToDoNext) {
  const Names names{.mirror = "M1",
                    .source = "SRC",
                    .target = "TGT",
                    .cut = "7",
                    .client = "CLI",
                    .reason = "full",
                    .other = "M2",
                    .count = "3"};
  for (const RelationRow& row : relation_rows()) {
    if (row.outcome.kind != Kind::kRefused) continue;
    const Error error = refusal_error(row.outcome.refusal, names);
    EXPECT_EQ(error.message().find('{'), std::string_view::npos) << error.message();
    EXPECT_EQ(error.next().find('{'), std::string_view::npos) << error.next();
    EXPECT_NE(error.next(), "");
    EXPECT_NE(error.message(), row.outcome.refusal.text) << "it names nothing";
  }
}

TEST(Relation, UnknownBracesStayAsTheyAre) {
  Names names{};
  names.mirror = "a{cut}";
  EXPECT_EQ(fill("{mirror} {x} {", names), "a{cut} {x} {");
}

TEST(Relation, AnArmedMirrorIsShownAsSync) {
  for (size_t s = 0; s < kRelations; ++s)
    EXPECT_EQ(shown_name(state(s)), state(s) == kArmed ? "SYNC" : state_name(state(s)));
}

TEST(Region, MissingIsReadFromTheTargetAndBroughtBackWhereTheMirrorMoves) {
  constexpr auto kNot = Mover::kNobody, kTo = Mover::kSourceToTarget,
                 kBack = Mover::kTargetToSource;
  // SIMPLEX, COPYING, SYNC, ARMED, SPLITTING, SPLIT, REVERSE, SUSPENDED
  const Mover none[] = {kNot, kNot, kNot, kNot, kNot, kNot, kNot, kNot};
  const Mover bit[] = {kNot, kTo, kNot, kNot, kNot, kNot, kNot, kNot};
  const Mover missing[] = {kNot, kBack, kBack, kNot, kNot, kNot, kBack, kNot};
  for (size_t s = 0; s < kRelations; ++s) {
    EXPECT_EQ(region_rule(state(s), {false, false}).mover, none[s]);
    EXPECT_EQ(region_rule(state(s), {false, true}).mover, bit[s]);
    EXPECT_EQ(region_rule(state(s), {true, false}).mover, missing[s]);
    EXPECT_EQ(region_rule(state(s), {true, true}).mover, missing[s]);
    for (const bool b : {false, true}) {
      EXPECT_EQ(region_rule(state(s), {false, b}).read, ReadFrom::kOwn);
      EXPECT_EQ(region_rule(state(s), {true, b}).read, ReadFrom::kTarget);
    }
  }
}

TEST(Region, OnlyAnAttachedTargetWithTheContentHoldsARegion) {
  struct Holding {
    RegionBits bits;
    std::array<bool, kRelations> held;
  };
  const Holding listing[] = {
      {{false, false}, {false, true, true, true, false, false, false, false}},
      {{false, true}, {false, false, true, true, false, false, false, false}},
      {{true, false}, {false, true, true, true, false, false, true, true}},
      {{true, true}, {false, true, true, true, false, false, true, true}},
  };
  for (const Holding& line : listing) {
    for (size_t s = 0; s < kRelations; ++s) {
      EXPECT_EQ(holds(state(s), line.bits, true), line.held.at(s)) << state_name(state(s));
      EXPECT_FALSE(holds(state(s), line.bits, false));
    }
  }
}

}  // namespace
}  // namespace duplex::mirror
