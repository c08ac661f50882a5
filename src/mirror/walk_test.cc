// The walk over every order of events of one small mirror, driven by the real tables, and the proof
// that each of nine duties is needed: without it the walk fails.
#include <gtest/gtest.h>

#include "base/assert.h"
#include "mirror/test_walk.h"

namespace duplex::mirror::test {
namespace {

using enum Relation;
using E = RelationEvent;

// What the actions of the table do to the values of this world.
class Hand {
 public:
  Hand(State& state, Rule off, E event) : w_(state), off_(off), event_(event) {}

  void act(Action action) {
    switch (action) {
      case Action::kDrainBoth:
      case Action::kDrainSource:
      case Action::kEndOldSession:
        ASSERT(!w_.flying);  // such a step is offered when nothing is under way
        return;
      case Action::kFlushSource:
        return w_.p.flush();
      case Action::kFlushTarget:
        return flush_target();
      case Action::kClearMaps:
        w_.bit = w_.bit_disk = w_.hot = false;
        w_.s_bit = w_.s_bit_disk = false;
        return;
      case Action::kClearTargetMap:
        w_.s_bit = w_.s_bit_disk = false;
        return;
      case Action::kBitsOffDisk:
        w_.bit_disk = false;
        return;
      case Action::kClearMissing:
        w_.missing = w_.missing_disk = false;
        return;
      case Action::kMissingOffDisk:
        w_.missing_disk = false;
        return;
      case Action::kMissingFromUnion:
        w_.missing = w_.missing_disk = any_map() || w_.hot;
        return;
      case Action::kReasonOperator:
      case Action::kReasonDiffers:
        w_.by_hand = true;
        return;
      case Action::kStartCopy:
      case Action::kReasonFault:
        w_.by_hand = false;
        return;
      default:
        return mark(action);
    }
  }

 private:
  bool on(Rule rule) const { return off_ != rule; }
  bool any_map() const { return w_.bit || w_.bit_disk || w_.s_bit || w_.s_bit_disk || w_.s_hot; }
  void flush_target() {
    if (event_ == E::kDecided) return;  // done before the record: step "decision on disk"
    if (event_ == E::kRestore && !on(Rule::kFlushBeforeRestore)) return;
    w_.s.flush();
    w_.s_hot = false;
  }
  void mark(Action action) {
    switch (action) {
      case Action::kUniteMaps:
        w_.bit = w_.bit_disk = on(Rule::kUnion) ? any_map() : w_.bit || w_.bit_disk;
        w_.s_hot = false;
        return;
      case Action::kMarkWindow:
        w_.bit |= w_.flying && w_.to_s && (!w_.s_done || on(Rule::kWindowBits));
        w_.bit |= w_.hot && on(Rule::kWindowBits);
        return;
      case Action::kMarkSourceMarks:
        w_.bit |= w_.hot;
        w_.bit_disk = w_.bit;
        return;
      case Action::kMarkTargetMarks:
        w_.s_bit |= w_.s_hot && on(Rule::kCrashWidensTargetMap);
        w_.s_bit_disk = w_.s_bit;
        return;
      case Action::kMarkTargetWindow:
        w_.s_bit |= w_.s_hot;
        w_.s_bit_disk |= w_.s_bit;
        return;
      case Action::kMarkMissing:
        w_.bit |= (w_.missing || w_.missing_disk) && on(Rule::kCancelMarks);
        w_.bit_disk |= w_.bit;
        return;
      default:
        return;  // of hosts, jobs and words: nothing in this world
    }
  }

  State& w_;
  Rule off_;
  E event_;
};

class Stepper {
 public:
  Stepper(const State& state, Rule off) : w_(state), off_(off) {}

  std::vector<Step> all() {
    host_write();
    flight();
    target_host();
    flush();
    missing_back();
    cut();
    copy();
    verbs();
    leg();
    own_window();
    crash();
    return std::move(out_);
  }

 private:
  bool on(Rule rule) const { return off_ != rule; }
  bool quiet() const { return !w_.flying; }
  void add(std::string label, const State& state) {
    out_.push_back({fmt::format("{} {}", state_name(w_.relation), label), state});
  }
  Facts facts() const {
    Facts f;
    f.set(Guard::kBitsLeft, w_.bit || w_.bit_disk);
    f.set(Guard::kTargetAway, !w_.attached);
    f.set(Guard::kOnlyTargetHolds,
          (w_.missing || w_.missing_disk) && on(Rule::kSplitRefusesMissing));
    f.set(Guard::kThenSync, w_.then_sync);
    f.set(Guard::kThenSyncTargetAway, w_.then_sync && !w_.attached);
    f.set(Guard::kNotByItself, w_.by_hand);
    f.set(Guard::kDecisionRecord, w_.record);
    return f;
  }
  // `event` comes: the table decides, the world does the actions. False: refused.
  bool apply(State& t, E event, Facts f) const {
    const Outcome& outcome = next(t.relation, event, f);
    if (outcome.kind == Kind::kRefused) return false;
    Hand hand(t, off_, event);
    for (const Action action : outcome.actions()) hand.act(action);
    t.relation = state_after(t.relation, outcome);
    if (t.relation != kSplitting) t.record = false;
    if (!t.is({kSplit, kReverse})) t.image = 0;
    if (t.relation != kSplitting) t.cut_image = 0;
    return true;
  }
  bool event(std::string label, E event, State t) {
    if (!apply(t, event, facts())) return false;
    add(std::move(label), t);
    return true;
  }

  void host_write() {
    if (!quiet() || w_.writes == 2 || (w_.missing && !w_.attached)) return;
    State t = w_;
    const Value value = ++t.writes;
    t.hot = true;
    t.expect |= only(value);
    t.expect_crash |= only(value);
    Conditions conditions = w_.missing ? Conditions{When::kMissing} : Conditions{};
    const AccessRow* row = &access_rule(w_.relation, Access::kWriteSource, conditions);
    if (row->does(Deed::kBringBack)) {
      t.p.cache = t.s.cache;
      t.missing = false;
    }
    conditions = t.bit ? Conditions{} : Conditions{When::kClear};
    row = &access_rule(w_.relation, Access::kWriteSource, conditions);
    t.to_s = row->does(Deed::kToTarget);
    t.bit |= row->does(Deed::kSetBit);
    t.flying = true;
    t.flying_value = value;
    t.old = w_.is({kSync, kArmed, kCopying});
    t.p_done = false;
    t.s_done = !t.to_s;
    add(fmt::format("host writes {}", value), t);
  }

  static void land(State& t) {
    t.flying = t.old = t.to_s = t.p_done = t.s_done = false;
    t.flying_value = 0;
  }

  void flight() {
    if (quiet()) return;
    State t = w_;
    if (!w_.p_done) {
      t.p.cache = w_.flying_value;
      t.p_done = true;
      add("P takes the write", t);
      if (w_.faults > 0) own_write_error();
    }
    t = w_;
    if (!w_.s_done && w_.attached) {
      t.s.cache = w_.flying_value;
      t.s_hot = t.s_done = true;
      add("S takes the write", t);
    }
    t = w_;
    if (!w_.p_done || !w_.s_done) return;
    t.expect = only(w_.flying_value);
    land(t);
    add("write acknowledged", t);
  }

  // The rule of `access` with what a void before it changes; `t` is voided if the rule says so.
  const AccessRow& own_error(State& t, Access access) const {
    const auto conditions = [&] {
      const bool took = t.held() && (access != Access::kOwnWriteError || (t.to_s && t.s_done));
      Conditions c;
      if (took) c = c.with(When::kHeld);
      if (t.missing || t.missing_disk) c = c.with(When::kMissing);
      if (t.flying && t.old) c = c.with(When::kOldWrite);
      if (t.record) c = c.with(When::kDecided);
      return c;
    };
    const AccessRow& row = access_rule(t.relation, access, conditions());
    if (row.does(Deed::kVoidCut)) ASSERT(apply(t, E::kVoid, facts()));
    return row.does(Deed::kAsCopying) ? access_rule(t.relation, access, conditions()) : row;
  }

  void own_write_error() {
    if (w_.to_s && !w_.s_done) return;  // the answer waits for S
    State t = w_;
    --t.faults;
    const AccessRow& row = own_error(t, Access::kOwnWriteError);
    if (row.does(Deed::kMakeMissing)) {
      t.p = {kGarbage, kGarbage};
      t.missing = t.missing_disk = true;
      t.p_done = true;
    } else {
      t.bit |= row.does(Deed::kSetBit);
      land(t);  // an error: old or new, nobody knows
    }
    add("own write error", t);
  }

  void own_window() {
    if (w_.faults == 0 || !quiet() || !w_.hot || w_.p.cache == w_.p.disk) return;
    State t = w_;
    --t.faults;
    const AccessRow& row = own_error(t, Access::kOwnWindowLost);
    t.p.cache = t.p.disk;
    if (on(Rule::kOwnWindow) && row.does(Deed::kMakeMissing)) t.missing = t.missing_disk = true;
    if (on(Rule::kOwnWindow) && row.does(Deed::kSetBit)) t.bit = true;
    if (!row.does(Deed::kSucceed) || !on(Rule::kOwnWindow)) t.expect = t.expect_crash;
    add("own window lost", t);
  }

  void target_host() {
    if (w_.relation != kSplit || !w_.attached) return;
    State t = w_;
    const AccessRow& row = access_rule(w_.relation, Access::kWriteTarget, {When::kOpenedReadWrite});
    if (w_.s_writes == 0 && !w_.s_hot && row.does(Deed::kTargetPath)) {
      t.s.cache = 9;
      t.s_hot = true;
      t.s_bit |= row.does(Deed::kTargetMap);
      t.s_writes = 1;
      t.image = only(9);
      add("S's host writes", t);
    }
    t = w_;
    if (!w_.s_hot) return;
    t.s.flush();
    t.s_hot = false;
    t.s_bit_disk |= t.s_bit;
    add("S cools", t);
  }

  void flush() {
    if (!quiet() || !w_.hot || (w_.missing && !w_.attached)) return;
    State t = w_;
    t.p.flush();
    t.hot = false;
    t.bit_disk |= t.bit;
    t.expect_crash = t.expect;
    if ((w_.is({kSync, kArmed, kSplitting, kCopying}) && w_.attached) || w_.missing) {
      t.s.flush();
      t.s_hot = false;
    }
    if (on(Rule::kFlushClearsMissing) && !w_.missing) t.missing_disk = false;
    add("FLUSH acknowledged", t);
  }

  void missing_back() {
    if (!quiet()) return;
    State t = w_;
    if (w_.attached && region_rule(w_.relation, w_.bits()).mover == Mover::kTargetToSource) {
      t.p.cache = w_.s.cache;
      t.missing = false;
      t.hot = true;
      add("region back at P", t);
    }
    t = w_;
    if (w_.missing_disk && !w_.missing) {
      t.p.flush();
      t.missing_disk = false;
      add("own flush, missing leaves the disk", t);
    }
  }

  void cut() {
    if (w_.relation == kSync) event("arm", E::kArm, w_);
    if (w_.relation == kArmed) {
      State t = w_;
      if (apply(t, E::kStamp, facts())) {
        t.cut_image = w_.flying ? only(w_.flying_value) : w_.expect;
        add("stamp", t);
      }
    }
    if (w_.is({kArmed, kSplitting})) {
      if (!w_.record) event("void", E::kVoid, w_);
      event("upstream leaves SYNC", E::kUpstreamLeft, w_);
    }
    if (w_.relation != kSplitting) return;
    State t = w_;
    if (w_.record) {
      const uint16_t image = w_.cut_image;
      ASSERT(apply(t, E::kDecided, facts()));
      t.image = image;
      add("decided", t);
    } else if (quiet() || !w_.old || (w_.p_done && w_.s_done)) {
      ASSERT(next(kSplitting, E::kDecided, {}).does(Action::kFlushTarget));
      if (on(Rule::kSplitFlushesTarget)) {
        t.s.flush();
        t.s_hot = false;
      }
      t.record = true;
      add("decision on disk", t);
    }
  }

  void copy() {
    if (!quiet() || !w_.attached || w_.relation != kCopying) return;
    State t = w_;
    if (region_rule(w_.relation, w_.bits()).mover == Mover::kSourceToTarget) {
      t.s = {w_.p.cache, w_.p.cache};
      t.bit = t.bit_disk = false;
      add("copier, S flushed", t);
    }
    if (!w_.bit) event("last region done", E::kLastRegionDone, w_);
  }

  void verbs() {
    if (!quiet()) {
      if (w_.relation == kCopying) event("job cancel", E::kJobCancel, w_);
      return;
    }
    if (w_.is({kSplit, kSuspended})) event("resync", E::kResync, w_);
    if (w_.relation == kCopying) event("job cancel", E::kJobCancel, w_);
    for (const bool then_sync : {false, true}) {
      State t = w_;
      if (w_.relation != kSplit || !apply(t, E::kRestore, facts())) continue;
      t.then_sync = then_sync;
      if (t.missing) t.expect = t.expect_crash = only(t.s.cache);
      t.image = only(t.s.cache);
      add(then_sync ? "restore, then sync" : "restore", t);
    }
    if (w_.relation != kReverse) return;
    if (!w_.missing && !w_.missing_disk) {
      event(w_.then_sync ? "restore done, then sync" : "restore done", E::kLastRegionDone, w_);
    }
    State t = w_;
    if (w_.missing) t.expect = only(w_.p.cache);
    ASSERT(apply(t, E::kJobCancel, facts()));
    t.expect_crash = t.expect;
    add("job cancel", t);
  }

  void leg() {
    if (!w_.attached) {
      State t = w_;
      t.attached = true;
      if (w_.is({kSplit, kReverse}) || (w_.relation == kSuspended && quiet()))
        event("leg back", E::kLegBack, t);
      return;
    }
    if (w_.faults == 0) return;
    for (const Value keep : {w_.s.cache, w_.s.disk}) {
      // A region whose only copy sat in a cache that is gone is lost by two faults: EIO.
      if (w_.missing && keep != w_.s.cache && !w_.is({kSplit, kReverse})) continue;
      State t = w_;
      --t.faults;
      t.attached = false;
      if (w_.relation == kSplit && w_.s_hot && w_.s_writes > 0) t.image |= only(keep);
      const uint16_t image = w_.record ? w_.cut_image : t.image;
      ASSERT(apply(t, E::kLegLost, facts()));
      if (t.relation == kSplit) t.image = image;
      t.s = {keep, keep};
      t.s_hot = false;
      if (t.flying) t.s_done = true;
      add(fmt::format("leg lost, S keeps {}", keep), t);
      if (w_.s.cache == w_.s.disk) return;
    }
  }

  void crash() {
    if (w_.faults == 0) return;
    for (const Value p : {w_.p.cache, w_.p.disk}) {
      for (const Value s : {w_.s.cache, w_.s.disk}) {
        State t = w_;
        --t.faults;
        t.p = {p, p};
        t.s = {s, s};
        t.bit = w_.bit_disk;
        t.s_bit = w_.s_bit_disk;
        t.missing = w_.missing_disk;
        land(t);
        const uint16_t image = w_.record ? w_.cut_image : w_.image;
        Facts f = facts();
        f.set(Guard::kBitsLeft, t.bit || t.hot);
        ASSERT(apply(t, E::kCrashRestart, f));
        if (t.is({kSplit, kReverse})) {
          t.image = image;
          if (w_.s_hot && w_.s_writes > 0) t.image |= only(s);
        }
        t.hot = t.s_hot = false;
        t.expect = w_.expect_crash;
        add(fmt::format("crash, P keeps {}, S keeps {}", p, s), t);
      }
    }
  }

  const State& w_;
  Rule off_;
  std::vector<Step> out_;
};

struct Hash {
  size_t operator()(const State& state) const {
    return std::hash<std::string_view>()(
        {reinterpret_cast<const char*>(&state), sizeof(State)});  // NOLINT: bytes without padding
  }
};

std::string values(uint16_t mask) {
  std::string out;
  for (Value v = 0; v < 16; ++v)
    if ((mask >> v & 1) != 0) out += fmt::format("{} ", v);
  return out;
}

bool settled(const State& w) { return w.is({kSimplex, kSync, kSplit}) && !w.flying && !w.missing; }

}  // namespace

std::vector<Step> steps(const State& state, Rule off) { return Stepper(state, off).all(); }

std::string broken(const State& w) {
  const std::string_view name = state_name(w.relation);
  const bool from_s = region_rule(w.relation, w.bits()).read == ReadFrom::kTarget;
  const Value read = from_s ? w.s.cache : w.p.cache;
  if ((!from_s || w.attached) && (w.expect >> read & 1) == 0)
    return fmt::format("5: {}: P reads {}, expected {}", name, read, values(w.expect));
  if (w.image != 0 && w.attached && (w.image >> w.s.cache & 1) == 0)
    return fmt::format("4, 7: {}: S holds {}, expected {}", name, w.s.cache, values(w.image));
  if (w.missing && w.attached && !w.held())
    return fmt::format("3: {}: a missing region that nobody holds", name);
  if (w.flying || w.missing || w.p.cache == w.s.cache) return {};
  if (w.is({kSync, kArmed}) || (w.relation == kCopying && !w.bit))
    return w.attached ? fmt::format("1: {}: P {}, S {}", name, w.p.cache, w.s.cache) : "";
  if (!w.bit && !w.s_bit)
    return fmt::format("2: {}: P {}, S {}, no bit", name, w.p.cache, w.s.cache);
  return {};
}

WalkResult walk(Rule off) {
  struct Seen {
    uint32_t from;
    std::string label;
  };
  std::vector<State> states{State{}};
  std::vector<Seen> seen{{0, ""}};
  std::vector<std::vector<uint32_t>> back(1);
  std::unordered_map<State, uint32_t, Hash> number{{states[0], 0}};
  const auto result = [&](uint32_t at, std::string why) {
    WalkResult r{.states = states.size(), .why = std::move(why), .trace = {}};
    for (; at != 0; at = seen[at].from) r.trace.insert(r.trace.begin(), seen[at].label);
    return r;
  };
  for (uint32_t at = 0; at < states.size(); ++at) {
    const State now = states[at];
    if (std::string why = broken(now); !why.empty()) return result(at, std::move(why));
    for (Step& step : steps(now, off)) {
      const auto [it, fresh] = number.emplace(step.state, static_cast<uint32_t>(states.size()));
      if (fresh) {
        states.push_back(step.state);
        seen.push_back({at, std::move(step.label)});
        back.emplace_back();
      }
      back[it->second].push_back(at);
    }
  }
  // Invariant 6: backwards from the settled states, everything must be met.
  std::vector<bool> good(states.size());
  std::vector<uint32_t> queue;
  for (uint32_t i = 0; i < states.size(); ++i) {
    if (settled(states[i])) queue.push_back(i);
  }
  for (const uint32_t i : queue) good[i] = true;
  while (!queue.empty()) {
    const uint32_t i = queue.back();
    queue.pop_back();
    for (const uint32_t from : back[i]) {
      if (good[from]) continue;
      good[from] = true;
      queue.push_back(from);
    }
  }
  for (uint32_t i = 0; i < states.size(); ++i)
    if (!good[i]) return result(i, "6: no way to SYNC, SPLIT or SIMPLEX");
  return result(0, "");
}

namespace {

std::string story(const WalkResult& result) {
  std::string out = result.why;
  for (const std::string& line : result.trace) out += "\n  " + line;
  return out;
}

TEST(Walk, EveryOrderOfEventsKeepsTheInvariants) {
  const WalkResult result = walk(Rule::kNone);
  EXPECT_EQ(result.why, "") << story(result);
  EXPECT_GT(result.states, 30'000u) << "the walk covers less than it did";
  RecordProperty("states", static_cast<int>(result.states));
}

struct Duty {
  Rule off;
  const char* name;
};
class WalkDuty : public testing::TestWithParam<Duty> {};

TEST_P(WalkDuty, WithoutItTheWalkFails) {
  const WalkResult result = walk(GetParam().off);
  EXPECT_NE(result.why, "") << "the walk does not notice that this duty is neglected";
  EXPECT_FALSE(result.trace.empty());
  RecordProperty("story", story(result));
}

INSTANTIATE_TEST_SUITE_P(
    Each, WalkDuty,
    testing::Values(Duty{Rule::kOwnWindow, "OwnWindow"}, Duty{Rule::kUnion, "Union"},
                    Duty{Rule::kFlushBeforeRestore, "FlushTargetBeforeARestore"},
                    Duty{Rule::kSplitRefusesMissing, "SplitRefusesMissing"},
                    Duty{Rule::kWindowBits, "WindowBitsWhenALegLeaves"},
                    Duty{Rule::kSplitFlushesTarget, "SplitFlushesTarget"},
                    Duty{Rule::kFlushClearsMissing, "FlushClearsMissing"},
                    Duty{Rule::kCrashWidensTargetMap, "CrashWidensTheTargetMap"},
                    Duty{Rule::kCancelMarks, "ACancelledRestoreMarksTheRest"}),
    [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace duplex::mirror::test
