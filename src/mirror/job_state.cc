#include "mirror/job_state.h"

#include <iterator>

namespace duplex::mirror {
namespace {

using Kind = JobOutcome::Kind;

constexpr JobOutcome goes(JobState to) { return {.kind = Kind::kGoes, .to = to}; }
constexpr JobOutcome goes_on() {
  return {.kind = Kind::kGoes, .to = JobState::kRunning, .tries_again = true};
}
constexpr JobOutcome kStays{.kind = Kind::kStays};
constexpr JobOutcome kEnds{.kind = Kind::kEnds};
constexpr JobOutcome kNever{.kind = Kind::kNever};

// Columns: pause, resume, fault, cause gone, cancel, restart.
constexpr JobOutcome kTable[kJobStates][kJobEvents] = {
    {goes(JobState::kPaused), kStays, goes(JobState::kStalled), kNever, kEnds, goes_on()},
    {kStays, goes_on(), kStays, kStays, kEnds, kStays},
    {goes(JobState::kPaused), goes_on(), kStays, goes_on(), kEnds, goes_on()},
};

struct Words {
  std::string_view name;
  std::string_view meaning;
};
constexpr Words kWords[kJobStates] = {
    {"RUNNING", "The job works, and yields to hosts."},
    {"PAUSED", "The operator stopped it; it waits for the operator, over restarts as well."},
    {"STALLED", "A fault stopped it; it goes on by itself when the cause is gone."},
};
constexpr std::string_view kEvents[] = {"pause",      "resume", "fault on its way",
                                        "cause gone", "cancel", "restart"};
static_assert(std::size(kEvents) == kJobEvents);

}  // namespace

const JobOutcome& next(JobState state, JobEvent event) {
  return kTable[static_cast<size_t>(state)][static_cast<size_t>(event)];
}
std::string_view state_name(JobState state) { return kWords[static_cast<size_t>(state)].name; }
std::string_view meaning(JobState state) { return kWords[static_cast<size_t>(state)].meaning; }
std::string_view event_name(JobEvent event) { return kEvents[static_cast<size_t>(event)]; }

}  // namespace duplex::mirror
