// Named scenarios: ways in which an obvious design of a storage array loses or mixes data
// ("traces", numbered F1 to F37), each played in the simulator and checked against its promise. The
// tests of this suite, `Traces`, carry the number of their trace.
//
// A trace has a form for one volume of one array, or it waits for what it is about:
//
//   trace      one-volume form                                            test
//   F13        legs and marks, cut anywhere (the second leg a plain file) scenarios_marks_test.cc
//   F15        an extent that is new, changes hands, is read meanwhile,   scenarios_extents_test.cc
//              is cut by a shrink
//   F16        TRIM on several extent sizes, thin and thick               scenarios_extents_test.cc
//   F17        old copy of the state directory, also with mirrors; a cut   scenarios_state_test.cc
//              inside a start; the lost one turns up
//   F19        a payload that trickles in, a shrink that closes the gate  scenarios_extents_test.cc
//   F20        state directory full or broken; mark log full or broken    scenarios_state_test.cc,
//                                                                         scenarios_marks_test.cc
//   F21        a device comes back without its cache                      scenarios_extents_test.cc
//   F23        the own backing loses its cache, nobody else has the data: this is F21
//   F32        more requests than slots for marks, crossing               scenarios_marks_test.cc
//   F33        order in the life of an extent, start and rebuild          scenarios_state_test.cc
//   F34        which copy of the mark log wins                            scenarios_marks_test.cc
//   F35        rebuild with a device missing; when a device takes extents scenarios_labels_test.cc
//
// Traces about mirrors of one array: scenarios_mirror_cut_test.cc has the table.
//
//   trace      waits for                and will need in the simulator
//   F6 F8      several arrays           a coordinator that crashes; a client that reads and writes
//                                       on both arrays
//   F7 F9 F10  mirrors over a link      links that fail one by one; the secondary set as one image
//   F18        generations              two sides that both go on alone
//   of F17     generations, mirrors     a rebuilt array whose peer still has its old generation
#include <gtest/gtest.h>

#include <chrono>

#include "base/log.h"
#include "sim/scene.h"

namespace duplex::simtest {
namespace {

// Promise P13: a run is repeated by its seed. What follows sees that a run that is not would be
// noticed, so that equal hashes mean something.
class Repeated : public testing::Test {
 protected:
  Repeated() {
    set_log_sink([](LogLevel, std::string_view) {});
  }
  ~Repeated() override { set_log_sink({}); }
  static uint64_t hash_of(uint64_t seed) {
    const SceneResult result = Scene(seed).run();
    EXPECT_EQ(result.violation, "") << "seed " << seed;
    return result.hash;
  }
};

TEST_F(Repeated, ASeedEndsTheSameWayTwiceAndOtherSeedsDoNot) {
  std::map<uint64_t, uint64_t> seed_by_hash;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const uint64_t hash = hash_of(seed);
    EXPECT_EQ(hash_of(seed), hash) << "seed " << seed;
    const auto [place, is_new] = seed_by_hash.emplace(hash, seed);
    EXPECT_TRUE(is_new) << "seeds " << seed << " and " << place->second;
  }
}

// Two of these at the same time on one core, which sleep by the clock given and then write.
rt::Task<> write_now_and_then(rt::Core& core, bool by_real_time) {
  auto file = co_await core.files().open("/f", {.create = true, .create_bytes = kMiB});
  if (!file) co_return;
  const rt::Buffer buffer = core.buffers().get(kBlockBytes);
  for (int i = 0; i < 20; ++i) {
    uint64_t micros = core.rng().next() % 100;
    if (by_real_time) {
      const auto since = std::chrono::steady_clock::now().time_since_epoch();
      micros = static_cast<uint64_t>(std::chrono::nanoseconds(since).count()) % 100;
    }
    co_await rt::sleep_for(core.clock(), micros);
    co_await (*file)->write(0, buffer.span());
  }
}

uint64_t hash_of_writers(bool by_real_time) {
  sim::Simulation simulation(7);
  sim::Machine& box = simulation.add_machine("box", {});
  const auto one = simulation.start(box.control(), write_now_and_then(box.control(), by_real_time));
  const auto two = simulation.start(box.control(), write_now_and_then(box.control(), by_real_time));
  EXPECT_TRUE(simulation.finish(*one) && simulation.finish(*two));
  return simulation.hash();
}

TEST_F(Repeated, AProgramThatLooksAtTheRealClockHasAnotherHashEachTime) {
  EXPECT_EQ(hash_of_writers(false), hash_of_writers(false));
  EXPECT_NE(hash_of_writers(true), hash_of_writers(true));
}

}  // namespace
}  // namespace duplex::simtest
