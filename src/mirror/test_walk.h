// A world small enough to be walked to its end, driven by the real tables: one mirror, one region,
// a volatile cache on both sides, one write in flight, two faults.
//
// The tables say where the mirror goes and which actions are due; the world carries these out on
// values, so a missing action or a wrong cell shows as a wrong value. `Rule` switches one duty off
// in the world, never in the tables: the walk has to fail then.
#pragma once

#include <cstring>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "mirror/access.h"
#include "mirror/region.h"
#include "mirror/relation.h"

namespace duplex::mirror::test {

enum class Rule : uint8_t {
  kNone,
  kOwnWindow,
  kUnion,
  kFlushBeforeRestore,
  kSplitRefusesMissing,
  kWindowBits,
  kSplitFlushesTarget,
  kFlushClearsMissing,
  kCrashWidensTargetMap,
  kCancelMarks,
};

using Value = uint8_t;  // of the region; a set of values is a mask
inline constexpr Value kGarbage = 15;
constexpr uint16_t only(Value value) { return static_cast<uint16_t>(1u << value); }

struct Side {
  Value cache = 0;
  Value disk = 0;
  void flush() { disk = cache; }
};

// All members are bytes or masks without padding: compared and hashed as bytes.
struct State {
  uint16_t expect = only(0);  // what a read of P may give
  uint16_t expect_crash = only(0);
  uint16_t image = 0;      // what S may hold in SPLIT and REVERSE; 0: not looked at
  uint16_t cut_image = 0;  // the same, fixed at the stamp
  Relation relation = Relation::kSync;
  Side p, s;
  bool bit = false, bit_disk = false;
  bool s_bit = false, s_bit_disk = false;  // the S map
  bool missing = false, missing_disk = false;
  bool hot = false, s_hot = false;  // written since the last flush
  bool flying = false, old = false, to_s = false, p_done = false, s_done = false;
  Value flying_value = 0;
  bool then_sync = false;
  bool attached = true;
  bool record = false;   // the decision of the cut is on disk
  bool by_hand = false;  // SUSPENDED waits for a resync
  uint8_t writes = 0, s_writes = 0;
  uint8_t faults = 2;

  bool operator==(const State& other) const {
    return std::memcmp(this, &other, sizeof(State)) == 0;
  }
  bool is(std::initializer_list<Relation> states) const {
    for (const Relation one : states)
      if (relation == one) return true;
    return false;
  }
  RegionBits bits() const { return {.missing = missing, .bit = bit}; }
  bool held() const { return holds(relation, bits(), attached); }
};
static_assert(std::has_unique_object_representations_v<State>);

struct Step {
  std::string label;
  State state;
};

// Every step that can happen in `state`; `off` is the duty the world neglects.
std::vector<Step> steps(const State& state, Rule off);
// Which invariant `state` breaks; empty: none.
std::string broken(const State& state);

struct WalkResult {
  size_t states = 0;
  std::string why;  // empty: all invariants hold everywhere
  std::vector<std::string> trace;
};
// Breadth first, so the trace is a shortest one.
WalkResult walk(Rule off);

}  // namespace duplex::mirror::test
