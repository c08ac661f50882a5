#include "mirror/relation.h"

#include "base/assert.h"
#include "mirror/relation_table.h"

namespace duplex::mirror {
namespace {

struct StateWords {
  std::string_view name;
  std::string_view meaning;
};
constexpr StateWords kStateWords[] = {
    {"SIMPLEX", "There is no mirror: two volumes that know nothing of each other."},
    {"COPYING",
     "The target is being made equal to its source; until that is done it cannot be used."},
    {"SYNC", "Every write is on both volumes before it is acknowledged; the target is closed."},
    {"ARMED", "SYNC, and held by a cut for a few seconds at most. Commands show it as SYNC."},
    {"SPLITTING",
     "The point in time is chosen; the last writes before it are on their way to the target."},
    {"SPLIT",
     "The target is a volume of its own with the source's content at the cut. What either side "
     "writes since then is remembered for the next resync or restore."},
    {"REVERSE",
     "The source is being restored from the target. It can be used at once and reads as restored; "
     "the target is read only."},
    {"SUSPENDED",
     "The target is left behind: a fault, a full device, a difference that verify found, or an "
     "operator's wish. The source goes on and remembers what it writes."},
};
static_assert(std::size(kStateWords) == kRelations);

constexpr std::string_view kEventNames[] = {
    "create, full copy",
    "create, no copy",
    "split: arm",
    "split: stamp",
    "split: decided",
    "split: void",
    "resync",
    "restore, resync in reverse",
    "last region done",
    "verify",
    "verify finds a difference",
    "delete",
    "target lost",
    "target back",
    "job cancel",
    "restart after a clean stop",
    "restart after a crash",
    "upstream mirror leaves SYNC",
};
static_assert(std::size(kEventNames) == kRelationEvents);

constexpr std::string_view kGuardTexts[] = {
    "",
    "same definition",
    "S has a mirror above it",
    "it would close a circle",
    "sizes differ",
    "S is open",
    "one of them is in a cut",
    "one of them is in a restore",
    "S holds data and `--overwrite` was not given",
    "no common point known",
    "the maps since the common point are not empty",
    "a mirror on the path is not SYNC",
    "a region is only on S",
    "S is away",
    "S is being restored",
    "S is held by a backup, a twin or a group",
    "P follows another volume and that mirror is not split",
    "S is not consistent",
    "P is open for writing and `--online` was not given",
    "it loses data and `--yes` was not given",
    "regions are missing at P",
    "on the path only",
    "bits or marks are left",
    "then sync, and S is away",
    "then sync",
    "reason *differs*, *operator* or *doubt*",
    "the decision is on disk",
};
static_assert(std::size(kGuardTexts) == kGuards);

constexpr std::string_view kActionTexts[] = {
    "",
    "close both gates and drain them",
    "close P's gate and drain it",
    "close S's gate and drain it",
    "wait until all I/O of the old session has ended",
    "flush P",
    "flush S",
    "flush both",
    "set all bits",
    "bits := union of both maps and S's window",
    "bits += window and writes under way",
    "bits += marks of P",
    "S map += marks of S",
    "S map += S's window",
    "bits for the regions that differ",
    "bits += missing",
    "missing := 0",
    "missing := union of both maps and both windows",
    "the same regions are copied to P's other mirrors",
    "both maps := 0",
    "S map := 0",
    "bits leave the disk",
    "missing leaves the disk",
    "missing as on disk, never wider",
    "S *inconsistent*, durably",
    "S consistent if P is",
    "P *inconsistent* until its next resync or restore",
    "new content id for S",
    "new content id for P",
    "pin",
    "unpin",
    "void the cut",
    "old writes go to S, new ones set bits",
    "S opens as asked",
    "S is closed to hosts",
    "start the copy P to S",
    "start the restore S to P",
    "the job ends",
    "a stalled job tries again",
    "the job goes on",
    "the job is STALLED",
    "missing regions first",
    "compare all regions",
    "compare regions without a bit",
    "compare regions without a bit on either side",
    "event with their number and the first place",
    "reason *fault*",
    "reason *differs*",
    "reason *operator*",
    "the mirror is gone",
};
static_assert(std::size(kActionTexts) == kActions);

template <class Enum>
constexpr size_t index(Enum value) {
  return static_cast<size_t>(value);
}

}  // namespace

std::span<const RelationRow> relation_rows() { return table::kRows; }

const Outcome& next(Relation state, RelationEvent event, Facts facts) {
  for (const RelationRow& row : table::kRows)
    if (row.event == event && row.covers(state) && facts.has(row.when)) return row.outcome;
  ASSERT(!"the table is complete");
  __builtin_unreachable();
}

Relation state_after(Relation state, const Outcome& outcome) {
  ASSERT(outcome.kind != Kind::kNever);
  return outcome.kind == Kind::kGoes ? outcome.to : state;
}

std::string fill(std::string_view text, const Names& names) {
  const std::pair<std::string_view, std::string_view> words[] = {
      {"{mirror}", names.mirror}, {"{source}", names.source}, {"{target}", names.target},
      {"{cut}", names.cut},       {"{client}", names.client}, {"{reason}", names.reason},
      {"{other}", names.other},   {"{count}", names.count}};
  std::string out;
  while (!text.empty()) {
    bool found = false;
    for (const auto& [word, value] : words) {
      if (!text.starts_with(word)) continue;
      out += value;
      text.remove_prefix(word.size());
      found = true;
      break;
    }
    if (found) continue;
    out += text.front();
    text.remove_prefix(1);
  }
  return out;
}

Error refusal_error(const Refusal& refusal, const Names& names) {
  return {refusal.code, fill(refusal.text, names), fill(refusal.next, names)};
}

std::string_view state_name(Relation state) { return kStateWords[index(state)].name; }
std::string_view shown_name(Relation state) {
  return state_name(state == Relation::kArmed ? Relation::kSync : state);
}
std::string_view meaning(Relation state) { return kStateWords[index(state)].meaning; }
std::string_view event_name(RelationEvent event) { return kEventNames[index(event)]; }
std::string_view guard_text(Guard guard) { return kGuardTexts[index(guard)]; }
std::string_view action_text(Action action) { return kActionTexts[index(action)]; }

}  // namespace duplex::mirror
