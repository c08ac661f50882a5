// Readers: counts the reads of a volume, so that a shrink can wait for those that began before
// it. Reads never wait here.
//
// Owner: a volume. Thread: the volume's core. Two counters that take turns: new reads count on
// the current one, drain() switches and waits for the other to fall to zero, so a steady stream
// of reads cannot hold it up.
#pragma once

#include <array>
#include <cstdint>

#include "base/assert.h"
#include "rt/task.h"
#include "volume/list_wait.h"

namespace duplex::volume {

class Readers {
 public:
  class [[nodiscard]] Inside {
   public:
    explicit Inside(Readers& readers) : readers_(readers), turn_(readers.turn_) {
      ++readers_.count_[turn_];
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside() {
      if (--readers_.count_[turn_] == 0) readers_.draining_.wake_all();
    }

   private:
    Readers& readers_;
    uint8_t turn_;
  };

  // Returns when every read that began before the call has ended. One caller at a time.
  rt::Task<> drain() {
    const uint8_t old = turn_;
    turn_ ^= 1;
    ASSERT(count_[turn_] == 0);
    while (count_[old] > 0) co_await ListWait(draining_);
  }

 private:
  std::array<uint32_t, 2> count_{};
  uint8_t turn_ = 0;
  rt::WaitList draining_;
};

}  // namespace duplex::volume
