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
#include "sim/cut_judge.h"
#include "sim/dice.h"
#include "sim/host.h"
#include "sim/oracle.h"

namespace duplex::simtest {

using sim::Dice;

struct Moments {
  Time now = 0;
  Time next() { return ++now; }
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
  bool unaligned = true;  // whole sectors only when false: 4 KiB blocks
  double hot_spot = 0.5;  // share of requests that go to the first sixteenth of the volume
};

struct ClientStats {
  uint64_t operations = 0;
  uint64_t errors = 0;
};

class VolumeClient {
 public:
  VolumeClient(rt::Core& core, Host& host, Oracle& oracle, Moments& moments, uint64_t seed,
               RequestMix mix)
      : core_(core),
        host_(host),
        oracle_(oracle),
        moments_(moments),
        dice_(seed),
        mix_(mix),
        tasks_(core) {}

  // Tells the judge of cuts as well, from now on.
  void also_tell(CutJudge& cuts, CutJudge::Source source) {
    cuts_ = &cuts;
    source_ = source;
  }
  // What runs ends with the requests that are under way.
  void stop() { gone_ = true; }

  // Issues `count` requests, `mix.depth` at a time; ends early when the host is gone. On `core`.
  rt::Task<> run(uint64_t count);
  // Reads all of the volume once, judging every sector. `image`: and tells what it holds.
  rt::Task<bool> verify_all(Image* image = nullptr);

  // One request, for those who decide themselves what to ask.
  struct Range {
    uint64_t first;
    uint64_t count;
  };
  rt::Task<Outcome> write_request(Range range);
  rt::Task<Outcome> read_request(Range range, Image* image = nullptr);

  const ClientStats& stats() const { return stats_; }

 private:
  rt::Task<> one_lane(uint64_t count);
  rt::Task<Outcome> one_request();
  rt::Task<Outcome> zero_request(Range range, bool trim);
  void tell_begin(Time started, Range range, uint32_t write);
  void tell_end(Time started, bool success);
  rt::Task<Outcome> flush_request();
  Range draw_range();

  rt::Core& core_;
  Host& host_;
  Oracle& oracle_;
  Moments& moments_;
  Dice dice_;
  RequestMix mix_;
  CutJudge* cuts_ = nullptr;
  CutJudge::Source source_ = 0;
  ClientStats stats_;
  bool gone_ = false;
  rt::TaskGroup tasks_;
};

}  // namespace duplex::simtest
