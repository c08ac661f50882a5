// The tables of access and of jobs, cell by cell, against a listing written by hand.
#include "mirror/access.h"

#include <gtest/gtest.h>

#include "mirror/job_state.h"

namespace duplex::mirror {
namespace {

using A = Access;

constexpr std::string_view kBack = "missing?region back first,then as not missing|";
constexpr std::string_view kAgain = "missing?missing, durably,bit,FLUSH fails once|";
constexpr std::string_view kBitFails = "bit,FLUSH fails once";
constexpr std::string_view kVerify = "missing?EIO|verify rewrites the region from P";
constexpr std::string_view kErrors = "each request by the rows above";

std::string operator+(std::string_view a, std::string_view b) { return std::string(a).append(b); }

struct Line {
  A access;
  std::array<std::string, kRelations> cells;
};

// SIMPLEX, COPYING, SYNC, ARMED, SPLITTING, SPLIT, REVERSE, SUSPENDED. "condition?deeds|deeds".
std::vector<Line> listing() {
  const std::string by = "by the region's bits", no = "refused", all = "all EIO", eio = "EIO";
  const std::string sync = kBack + "own,S", eio_bit = "EIO,bit", lost = "target lost";
  const std::string from_s = "S holds it?from S,repaired|EIO", full = "ENOSPC";
  const std::string took = "S holds it?missing, durably,success|";
  const std::string repair = "repair of missing regions", again(kAgain + kBitFails);
  const std::string fails(kBitFails), verify(kVerify), errors(kErrors);
  return {
      {A::kReadSource, {"own", by, by, by, "own", "own", by, by}},
      {A::kWriteSource,
       {"own", kBack + "bit clear?own,S|own,bit", sync, sync, "old write?own,S|own,bit", "own,bit",
        kBack + "own,bit", kBack + "own,bit"}},
      {A::kReadTarget,
       {"yes", no, no, no, no, "split for writing?yes|split for reading?yes|refused", "yes", no}},
      {A::kWriteTarget,
       {"yes", no, no, no, no, "split for writing?S's own path,S map|refused", no, no}},
      {A::kClose, {"-", "-", "-", "-", "-", "a waiting resync may pass", "-", "-"}},
      {A::kOwnReadError,
       {eio, from_s, from_s, from_s, "another target holds it?from it|EIO", eio, "missing?-|EIO",
        "missing?from S|EIO"}},
      {A::kOwnWriteError,
       {eio, took + eio_bit, took + eio_bit,
        "S holds it?cut void,missing, durably,success|cut void,EIO,bit",
        "old write?cut void,then as COPYING|EIO,bit", eio_bit, "missing?EIO|EIO,bit", eio_bit}},
      {A::kOwnWindowLost,
       {"FLUSH fails once", took + again, "missing, durably,success",
        "cut void,missing, durably,success",
        "the decision is on disk?bit,FLUSH fails once|cut void,then as COPYING", fails, again,
        again}},
      {A::kOwnDeviceGone,
       {all, errors, errors, "cut void," + errors,
        "the decision is on disk?all EIO|cut void," + errors, all, "all EIO,job STALLED", all}},
      {A::kOwnDeviceBack,
       {"served again", repair, repair, repair, "-", "served again", "served again,job goes on",
        "served again," + repair}},
      {A::kTargetReadError,
       {"-", verify, verify, verify, "-", "S's host gets the error", "EIO,job goes on",
        "missing?EIO|-"}},
      {A::kTargetWriteError,
       {"-", lost, lost, lost, lost, "S's host gets the error,S map += S's window", "job STALLED",
        "-"}},
      {A::kSourceFull, {full, full, full, full, full, full, "ENOSPC,job STALLED", full}},
  };
}

TEST(Access, EveryCellSaysWhatTheListingSays) {
  const auto lines = listing();
  ASSERT_EQ(lines.size(), kAccesses);
  for (const Line& line : lines) {
    for (size_t s = 0; s < kRelations; ++s) {
      std::string cell;
      for (const AccessRow& row : access_rows()) {
        if (row.access != line.access || !row.covers(static_cast<Relation>(s))) continue;
        if (!cell.empty()) cell += "|";
        if (row.when != When::kAlways) cell += std::string(when_text(row.when)) + "?";
        std::string_view between;
        for (const Deed deed : row.deeds()) {
          cell.append(between).append(deed_text(deed));
          between = ",";
        }
      }
      EXPECT_EQ(cell, line.cells.at(s))
          << access_name(line.access) << ", " << state_name(static_cast<Relation>(s));
    }
  }
}

TEST(Access, TheFirstRowWhoseConditionHoldsDecides) {
  for (const AccessRow& row : access_rows()) {
    for (size_t s = 0; s < kRelations; ++s) {
      if (!row.covers(static_cast<Relation>(s))) continue;
      const Conditions conditions = row.when == When::kAlways ? Conditions{} : Conditions{row.when};
      EXPECT_EQ(&access_rule(static_cast<Relation>(s), row.access, conditions), &row);
    }
  }
  EXPECT_TRUE(access_rule(Relation::kCopying, Access::kOwnWindowLost, {When::kHeld, When::kMissing})
                  .does(Deed::kSucceed));
}

TEST(Access, WhoeverMayNotUseATargetIsToldWhatToDo) {
  for (const AccessRow& row : access_rows()) {
    if (!row.does(Deed::kProtected)) continue;
    for (size_t s = 0; s < kRelations; ++s) {
      if (!row.covers(static_cast<Relation>(s))) continue;
      const Refusal refusal = target_refusal(static_cast<Relation>(s));
      EXPECT_EQ(refusal.code, Code::kWriteProtected);
      EXPECT_FALSE(refusal.text.empty());
      EXPECT_FALSE(refusal.next.empty());
    }
  }
}

TEST(JobState, EveryCellSaysWhatTheListingSays) {
  // pause, resume, fault, cause gone, cancel, restart; "+": it tries again at once.
  const std::string_view cells[kJobStates][kJobEvents] = {
      {"PAUSED", "=", "STALLED", "-", "ends", "RUNNING+"},
      {"=", "RUNNING+", "=", "=", "ends", "="},
      {"PAUSED", "RUNNING+", "=", "RUNNING+", "ends", "RUNNING+"},
  };
  for (size_t s = 0; s < kJobStates; ++s) {
    for (size_t e = 0; e < kJobEvents; ++e) {
      const auto state = static_cast<JobState>(s);
      const auto event = static_cast<JobEvent>(e);
      const JobOutcome& outcome = next(state, event);
      std::string word;
      switch (outcome.kind) {
        case JobOutcome::Kind::kGoes:
          word = std::string(state_name(outcome.to)) + (outcome.tries_again ? "+" : "");
          break;
        case JobOutcome::Kind::kStays:
          word = "=";
          break;
        case JobOutcome::Kind::kEnds:
          word = "ends";
          break;
        case JobOutcome::Kind::kNever:
          word = "-";
          break;
      }
      EXPECT_EQ(word, cells[s][e]) << state_name(state) << ", " << event_name(event);
    }
  }
}

}  // namespace
}  // namespace duplex::mirror
