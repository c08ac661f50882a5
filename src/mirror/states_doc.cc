#include "mirror/states_doc.h"

#include <fmt/format.h>

#include "mirror/access.h"
#include "mirror/job_state.h"
#include "mirror/region.h"
#include "mirror/relation.h"

namespace duplex::mirror {
namespace {

constexpr std::string_view kHead =
    R"(A mirror has a source volume P and a target volume S. Four small tables rule it, and they do not look into each other: the state of the mirror, two bits for each region, the state of the job that copies, and what a host's request or a device's fault does.

"Window": all regions written since the last good flush of a backing. "Marks": the stretches found hot after a crash. *Consistent*: the volume as a whole is the content of one point in time.

)";
constexpr std::string_view kRegions =
    R"(### A region

Two bits: *bit*, S lacks what P has; *missing*, P's own backing lacks it and S has it. A region becomes missing only while a target holds it, and a crash adds bits but never makes a region missing. A host write to a missing region brings it back first. *Missing* leaves the disk after P's own flush and before a FLUSH is acknowledged; *bit* leaves it after S's flush.

)";
constexpr std::string_view kMoves =
    R"(### What happens to a mirror

Rows of a cell are read from the left; the first one whose condition (before the arrow) holds decides. **Bold**: the next state, then what is done before it is seen. "Refused": exit 1 and nothing was changed. "Never": cannot happen.

)";
constexpr std::string_view kJobs =
    R"(### A job

"Ends": the mirror goes on as the line "job cancel" above says. Writes to missing regions bring them back whatever the job does. The column "restart" is that of copies, restores and repairs; a verify does not go on after a restart, also after a clean one: its job is *cancelled*.

)";
constexpr std::string_view kAccess =
    R"(### Hosts and faults

"Own" is P's own backing. "Target lost" and "cut void" are the lines of the table above. If a write is answered with an error although a target took it, that target gets the bit and its mirror leaves SYNC. In a chain of mirrors each one runs its own table.

)";

std::string state_header(std::string_view corner) {
  std::string out = fmt::format("| {} |", corner);
  std::string line = "|---|";
  for (size_t i = 0; i < kRelations; ++i) {
    out += fmt::format(" {} |", state_name(static_cast<Relation>(i)));
    line += "---|";
  }
  return out + "\n" + line + "\n";
}

void states(std::string& out) {
  out += "### The states\n\n| state | what it means |\n|---|---|\n";
  for (size_t i = 0; i < kRelations; ++i) {
    const auto state = static_cast<Relation>(i);
    out += fmt::format("| {} | {} |\n", state_name(state), meaning(state));
  }
  out += "\n";
}

void regions(std::string& out) {
  out += kRegions;
  out += "| missing | bit | a read of P comes from | P to S is copied in | S to P is copied in |\n";
  out += "|---|---|---|---|---|\n";
  for (const RegionBits bits : {RegionBits{false, false}, RegionBits{false, true},
                                RegionBits{true, false}, RegionBits{true, true}}) {
    std::string forward, backward;
    for (size_t i = 0; i < kRelations; ++i) {
      const auto state = static_cast<Relation>(i);
      const Mover mover = region_rule(state, bits).mover;
      if (mover == Mover::kNobody) continue;
      std::string& list = mover == Mover::kSourceToTarget ? forward : backward;
      list += fmt::format("{}{}", list.empty() ? "" : ", ", state_name(state));
    }
    const bool target = region_rule(Relation::kSync, bits).read == ReadFrom::kTarget;
    out += fmt::format("| {:d} | {:d} | {} | {} | {} |\n", bits.missing, bits.bit,
                       target ? "S; EIO while S is away" : "its own backing",
                       forward.empty() ? "-" : forward, backward.empty() ? "-" : backward);
  }
  out += "\n";
}

std::string outcome_text(const Outcome& outcome) {
  switch (outcome.kind) {
    case Kind::kRefused:
      return fmt::format("refused, `{}`", code_name(outcome.refusal.code));
    case Kind::kNever:
      return "never";
    case Kind::kGoes:
    case Kind::kStays:
      break;
  }
  std::string out = outcome.kind == Kind::kStays ? std::string("stays")
                                                 : fmt::format("**{}**", state_name(outcome.to));
  std::string_view between = ": ";
  for (const Action action : outcome.actions()) {
    out += fmt::format("{}{}", between, action_text(action));
    between = ", ";
  }
  return out;
}

void moves(std::string& out) {
  out += kMoves;
  out += state_header("event");
  for (size_t e = 0; e < kRelationEvents; ++e) {
    const auto event = static_cast<RelationEvent>(e);
    out += fmt::format("| {} |", event_name(event));
    for (size_t s = 0; s < kRelations; ++s) {
      std::string cell;
      for (const RelationRow& row : relation_rows()) {
        if (row.event != event || !row.covers(static_cast<Relation>(s))) continue;
        if (!cell.empty()) cell += "; else ";
        if (row.when != Guard::kAlways) cell += fmt::format("{} → ", guard_text(row.when));
        cell += outcome_text(row.outcome);
      }
      out += fmt::format(" {} |", cell);
    }
    out += "\n";
  }
  out += "\n";
}

void job_cell(std::string& out, const JobOutcome& outcome) {
  switch (outcome.kind) {
    case JobOutcome::Kind::kGoes:
      out += fmt::format(" **{}**{} |", state_name(outcome.to),
                         outcome.tries_again ? ", where it stopped" : "");
      return;
    case JobOutcome::Kind::kStays:
      out += " stays |";
      return;
    case JobOutcome::Kind::kEnds:
      out += " ends |";
      return;
    case JobOutcome::Kind::kNever:
      out += " never |";
      return;
  }
}

void jobs(std::string& out) {
  out += kJobs;
  out += "| state | what it means |";
  std::string line = "|---|---|";
  for (size_t e = 0; e < kJobEvents; ++e) {
    out += fmt::format(" {} |", event_name(static_cast<JobEvent>(e)));
    line += "---|";
  }
  out += "\n" + line + "\n";
  for (size_t s = 0; s < kJobStates; ++s) {
    const auto state = static_cast<JobState>(s);
    out += fmt::format("| {} | {} |", state_name(state), meaning(state));
    for (size_t e = 0; e < kJobEvents; ++e) job_cell(out, next(state, static_cast<JobEvent>(e)));
    out += "\n";
  }
  out += "\n";
}

void accesses(std::string& out) {
  out += kAccess;
  out += state_header("what");
  for (size_t a = 0; a < kAccesses; ++a) {
    const auto access = static_cast<Access>(a);
    out += fmt::format("| {} |", access_name(access));
    for (size_t s = 0; s < kRelations; ++s) {
      std::string cell;
      for (const AccessRow& row : access_rows()) {
        if (row.access != access || !row.covers(static_cast<Relation>(s))) continue;
        if (!cell.empty()) cell += "; else ";
        if (row.when != When::kAlways) cell += fmt::format("{} → ", when_text(row.when));
        std::string_view between;
        for (const Deed deed : row.deeds()) {
          cell += fmt::format("{}{}", between, deed_text(deed));
          between = ", ";
        }
      }
      out += fmt::format(" {} |", cell);
    }
    out += "\n";
  }
}

void refusals(std::string& out) {
  out += "\n### Refusals\n\nNames in braces are filled in.\n\n";
  out += "| event | state | code | message | next |\n|---|---|---|---|---|\n";
  for (const RelationRow& row : relation_rows()) {
    if (row.outcome.kind != Kind::kRefused) continue;
    std::string in;
    for (size_t s = 0; s < kRelations; ++s) {
      const auto state = static_cast<Relation>(s);
      if (row.covers(state)) in += fmt::format("{}{}", in.empty() ? "" : ", ", state_name(state));
    }
    const Refusal& refusal = row.outcome.refusal;
    out += fmt::format("| {} | {} | `{}` | {} | {} |\n", event_name(row.event), in,
                       code_name(refusal.code), refusal.text, refusal.next);
  }
}

}  // namespace

std::string states_markdown() {
  std::string out(kHead);
  states(out);
  regions(out);
  moves(out);
  jobs(out);
  accesses(out);
  refusals(out);
  return out;
}

}  // namespace duplex::mirror
