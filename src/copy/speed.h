// Speed: bytes per second over the last seconds, for people.
//
// Owner: a copy. Thread: any one. Seven whole seconds and the current one, in a ring.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "rt/clock.h"

namespace duplex::copy {

class Speed {
 public:
  explicit Speed(rt::Micros now) : began_(now), second_(now / rt::kSecond) {}

  void add(rt::Micros now, uint64_t bytes) {
    roll(now / rt::kSecond);
    ring_[second_ % kSeconds] += bytes;
  }
  uint64_t bytes_per_second(rt::Micros now) const {
    Speed then = *this;
    then.roll(now / rt::kSecond);
    uint64_t bytes = 0;
    for (const uint64_t in_second : then.ring_) bytes += in_second;
    const rt::Micros first = (then.second_ - std::min(then.second_, kSeconds - 1)) * rt::kSecond;
    const rt::Micros time = now - std::max(first, began_);
    // Below a tenth of a second a step more or less is all there is.
    if (time < rt::kSecond / 10) return 0;
    return static_cast<uint64_t>(static_cast<double>(bytes) * 1e6 / static_cast<double>(time));
  }

 private:
  static constexpr uint64_t kSeconds = 8;
  void roll(uint64_t second) {
    if (second - second_ >= kSeconds) ring_ = {};
    while (second_ < second) {
      second_ = second - second_ > kSeconds ? second : second_ + 1;
      ring_[second_ % kSeconds] = 0;
    }
  }

  rt::Micros began_;
  uint64_t second_;
  std::array<uint64_t, kSeconds> ring_{};
};

}  // namespace duplex::copy
