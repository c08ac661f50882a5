// Timers of one reactor: a binary heap by deadline; a timer's slot is its place in the heap + 1.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "rt/clock.h"

namespace duplex::os {

class Timers {
 public:
  void arm(rt::Timer& timer, rt::Micros deadline) {
    ASSERT(timer.timer_slot == 0);
    timer.deadline = deadline;
    heap_.push_back(&timer);
    timer.timer_slot = heap_.size();
    sift_up(heap_.size() - 1);
  }
  void cancel(rt::Timer& timer) {
    if (timer.timer_slot == 0) return;
    remove(timer.timer_slot - 1);
  }
  std::optional<rt::Micros> next() const {
    if (heap_.empty()) return std::nullopt;
    return heap_.front()->deadline;
  }
  // The earliest timer if it is due, taken out.
  rt::Timer* take_due(rt::Micros now) {
    if (heap_.empty() || heap_.front()->deadline > now) return nullptr;
    rt::Timer* timer = heap_.front();
    remove(0);
    return timer;
  }

 private:
  bool before(size_t a, size_t b) const { return heap_[a]->deadline < heap_[b]->deadline; }
  void swap_slots(size_t a, size_t b) {
    std::swap(heap_[a], heap_[b]);
    heap_[a]->timer_slot = a + 1;
    heap_[b]->timer_slot = b + 1;
  }
  void sift_up(size_t i) {
    while (i > 0 && before(i, (i - 1) / 2)) {
      swap_slots(i, (i - 1) / 2);
      i = (i - 1) / 2;
    }
  }
  void sift_down(size_t i) {
    while (true) {
      size_t least = i;
      for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < heap_.size(); ++child) {
        if (before(child, least)) least = child;
      }
      if (least == i) return;
      swap_slots(i, least);
      i = least;
    }
  }
  void remove(size_t i) {
    heap_[i]->timer_slot = 0;
    const size_t last = heap_.size() - 1;
    if (i != last) {
      heap_[i] = heap_[last];
      heap_[i]->timer_slot = i + 1;
    }
    heap_.pop_back();
    if (i < heap_.size()) {
      sift_up(i);
      sift_down(i);
    }
  }

  std::vector<rt::Timer*> heap_;
};

}  // namespace duplex::os
