// Random numbers of a simulation. Every purpose (schedule, disk, network, faults, workload) has
// dice of its own, split off the seed, so that one draw more in one place shifts nothing elsewhere.
#pragma once

#include <cstdint>

namespace duplex::sim {

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}

  // SplitMix64.
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  // 0 .. bound - 1; bound > 0.
  uint64_t below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool chance(double p) { return static_cast<double>(next() >> 11) * 0x1.0p-53 < p; }
  // Times that are mostly short and sometimes long: low * 2^k.
  uint64_t skewed(uint64_t low, uint64_t high) {
    uint64_t value = low;
    while (value < high && chance(0.4)) value *= 2;
    return between(value, value * 2 < high ? value * 2 : high < value ? value : high);
  }

 private:
  uint64_t state_;
};

}  // namespace duplex::sim
