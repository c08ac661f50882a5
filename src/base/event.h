// Events: how facts travel up from the lower rooms (a device failed, the pool is nearly full).
//
// Lower rooms know nothing of those above; they hand an Event to the sink they were given.
#pragma once

#include <cstdint>
#include <string>

namespace duplex {

enum class Severity : uint8_t { kInfo, kWarning, kError };

struct Event {
  Severity severity = Severity::kInfo;
  std::string code;     // stable short word, e.g. "device_failed"; docs/REFERENCE.md lists them
  std::string subject;  // what it is about, e.g. "device fast" or "volume db"
  std::string text;     // one sentence for people
  std::string next;     // the command that helps, or empty
};

class EventSink {
 public:
  virtual ~EventSink() = default;
  // Any thread. Never blocks; the sink stores, logs and publishes it later.
  virtual void emit(Event event) = 0;
};

}  // namespace duplex
