// VolumeClient: one client of one volume in a simulated run. Issues random requests, keeps several
// in flight, and lets the oracle judge every reply.
//
// Thread: everything in a simulation is one real thread; the oracle is shared by all clients of a
// volume. `Moments` is the oracle's clock.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "rt/buffer.h"
#include "rt/task.h"
#include "rt/task_group.h"
#include "rt/wait.h"
#include "sim/host.h"
#include "sim/oracle.h"

namespace duplex::simtest {

struct Moments {
  Time now = 0;
  Time next() { return ++now; }
};

// Splittable random numbers of the workload (its own stream of the seed).
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  // 0 .. bound - 1
  uint64_t below(uint64_t bound) { return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64); }
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool chance(double p) { return static_cast<double>(next() >> 11) * 0x1.0p-53 < p; }
  uint64_t split() { return next(); }

 private:
  uint64_t state_;
};

// What kinds of requests a run makes; drawn once per run, printed with it.
struct RequestMix {
  double write = 0.45;
  double zero = 0.05;
  double trim = 0.05;
  double flush = 0.05;
  double fua = 0.05;          // of the writes
  uint64_t max_sectors = 64;  // length of a request, 1..
  uint32_t depth = 8;
  bool unaligned = true;      // whole sectors only when false: 4 KiB blocks
  double hot_spot = 0.5;      // share of requests that go to the first sixteenth of the volume
};

// Where the client's memory comes from: the requests of the direct form need buffers.
struct ClientStats {
  uint64_t operations = 0;
  uint64_t errors = 0;
  uint64_t bytes = 0;
};

class VolumeClient {
 public:
  VolumeClient(rt::Core& core, Host& host, Oracle& oracle, Moments& moments, uint64_t seed, RequestMix mix)
      : core_(core), host_(host), oracle_(oracle), moments_(moments), dice_(seed), mix_(mix), tasks_(core) {}

  // Issues `count` requests, `mix.depth` at a time; ends early when the host is gone or stop() was
  // called. On `core`.
  rt::Task<> run(uint64_t count);
  void stop() { stopping_ = true; }
  // Reads all of the volume once, judging every sector.
  rt::Task<bool> verify_all();

  const ClientStats& stats() const { return stats_; }
  bool gone() const { return gone_; }

 private:
  struct Range {
    uint64_t first;
    uint64_t count;
  };
  rt::Task<> one_lane(uint64_t count);
  rt::Task<Outcome> one_request();
  rt::Task<Outcome> write_request(Range range);
  rt::Task<Outcome> zero_request(Range range, bool trim);
  rt::Task<Outcome> read_request(Range range);
  rt::Task<Outcome> flush_request();
  Range draw_range();

  rt::Core& core_;
  Host& host_;
  Oracle& oracle_;
  Moments& moments_;
  Dice dice_;
  RequestMix mix_;
  ClientStats stats_;
  bool stopping_ = false;
  bool gone_ = false;
  rt::TaskGroup tasks_;
};

}  // namespace duplex::simtest
