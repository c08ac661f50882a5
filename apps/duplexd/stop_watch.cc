#include "duplexd/stop_watch.h"

#include <cstdlib>

#include "base/log.h"

namespace duplex {

StopWatch::StopWatch(std::chrono::milliseconds limit) : thread_([this, limit] { watch(limit); }) {}

StopWatch::~StopWatch() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StopWatch::watch(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, limit, [this] { return over_; })) return;
  log_error(
      "the stop has taken {} s and still waits for {}: duplexd ends without it; what was "
      "acknowledged is safe, and the next start repairs the rest",
      std::chrono::ceil<std::chrono::seconds>(limit).count(), what_.load());
  std::_Exit(1);
}

}  // namespace duplex
