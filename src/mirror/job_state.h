// The states of a copy, a repair or a verify as data. The job knows nothing of the mirror's state;
// what its fault or its end means for the mirror is an event of relation.h.
//
// Owner: the room `mirror`; pure functions. docs/REFERENCE.md, "Mirror states", is printed from
// here. Writes to missing regions bring them back in every state of the job.
#pragma once

#include <cstdint>
#include <string_view>

namespace duplex::mirror {

enum class JobState : uint8_t {
  kRunning,
  kPaused,   // by the operator, who alone lets it go on
  kStalled,  // by a fault; goes on by itself when the cause is gone
};
inline constexpr size_t kJobStates = 3;

enum class JobEvent : uint8_t { kPause, kResume, kFault, kCauseGone, kCancel, kRestart };
inline constexpr size_t kJobEvents = 6;

struct JobOutcome {
  enum class Kind : uint8_t {
    kGoes,   // to `to`
    kStays,  // nothing changes
    kEnds,   // the job is over; the mirror gets RelationEvent::kJobCancel
    kNever,  // cannot happen
  };
  Kind kind = Kind::kNever;
  JobState to = JobState::kRunning;  // of kGoes
  bool tries_again = false;          // start at once where it stopped
};

const JobOutcome& next(JobState state, JobEvent event);

std::string_view state_name(JobState state);
std::string_view meaning(JobState state);
std::string_view event_name(JobEvent event);

}  // namespace duplex::mirror
