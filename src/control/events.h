// Events: every fact the lower rooms report, logged once, kept in the store, handed to followers.
//
// Owner: the array. Thread: emit() from any; the rest on the control core. The queue to the control
// core and the one to the store are bounded: above kMaxQueued new events are counted and dropped
// (those that only the store missed stand in the log), and the count is told.
#pragma once

#include <deque>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "base/event.h"
#include "meta/store.h"
#include "rt/task_group.h"
#include "rt/wait.h"
#include "rt/world.h"

namespace duplex::control {

class Events final : public EventSink {
 public:
  static constexpr size_t kMaxQueued = 1000;

  explicit Events(rt::Core& control);
  // Events that came before this are stored now; without a store they are only logged.
  void use_store(meta::Store& store);
  // Those who wait in after() come back at once from now on.
  void release_waiters();
  // Stores what is left; nothing is stored afterwards.
  rt::Task<> stop();

  void emit(Event event) override;

  // Events with an id above `after`, oldest first; 0: the newest `limit`. With a `deadline` in the
  // future it waits for the first one until then.
  rt::Task<Result<std::vector<meta::EventRow>>> after(uint64_t after, size_t limit,
                                                      rt::Micros deadline);
  uint64_t errors() const { return errors_; }
  uint64_t warnings() const { return warnings_; }

 private:
  struct Drain : rt::Work {
    explicit Drain(Events& e) : Work(&Drain::go), events(e) {}
    static void go(rt::Work& work) { static_cast<Drain&>(work).events.drain(); }
    Events& events;
  };
  void drain();
  rt::Task<> write_out();

  rt::Core& control_;
  meta::Store* store_ = nullptr;
  Drain drain_{*this};
  std::mutex mutex_;  // of the two fields below; events are rare
  std::deque<Event> queued_;
  uint64_t dropped_ = 0;
  std::vector<meta::EventRow> unwritten_;
  bool writing_ = false;
  bool waiters_released_ = false;
  uint64_t errors_ = 0;
  uint64_t warnings_ = 0;
  rt::Event stored_;
  rt::TaskGroup tasks_;
};

}  // namespace duplex::control
