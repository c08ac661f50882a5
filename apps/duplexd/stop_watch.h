// StopWatch: a stop that hangs (a disk that never answers) ends the process all the same.
//
// The state is safe against a crash at any moment, so an end without a clean stop costs a longer
// start, while a daemon that never ends keeps the devices locked and the machine from going down.
// Owner: stop() in main. Threads: waits_for() from any; its own one ends the process with 1.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace duplex {

class StopWatch {
 public:
  explicit StopWatch(std::chrono::milliseconds limit);
  // The stop came to its end.
  ~StopWatch();
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;

  // What is being stopped now, for people.
  void waits_for(const char* what) { what_ = what; }

 private:
  void watch(std::chrono::milliseconds limit);

  std::atomic<const char*> what_ = "the start of the stop";
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace duplex
