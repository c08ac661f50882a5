// Cuts over several volumes on several reactors, under the adversarial scheduler of the simulator:
// what the targets hold is a prefix of each chain of dependent writes.
#include "mirror/cut_round.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "base/log.h"
#include "sim/machine.h"
#include "sim/simulation.h"
#include "volume/target_leg.h"
#include "volume/volume_test_kit.h"

namespace duplex::mirror {
namespace {

using volume::ChangeMap;
using volume::HotExtent;
using volume::MapId;
using volume::MapKind;
using volume::TargetLeg;
using volume::Tracker;
using volume::VolumeImpl;
using volume::testing::FakeBacking;

constexpr uint64_t kExtent = 64 * kKiB;
constexpr uint64_t kSize = 16 * kExtent;
constexpr uint64_t kChains = 3;
constexpr Epoch kBefore{1}, kAfter{2};

class NoStore final : public volume::MarkStore {
 public:
  rt::Task<Result<void>> mark(std::span<const HotExtent> /*e*/) override {
    co_return Result<void>();
  }
  rt::Task<Result<void>> cool(HotExtent /*e*/, std::vector<format::MapWord> /*w*/) override {
    co_return Result<void>();
  }
  rt::Task<Result<void>> write_words(MapId /*m*/, std::vector<ChangeMap::Word> /*w*/) override {
    co_return Result<void>();
  }
};

// A volume and its target on another reactor, in sync.
struct Pair {
  Pair(rt::Core& here, rt::Core& there)
      : core(here),
        there_core(there),
        tracker(here, store, kSize),
        source("p", VolumeNumber(1), kSize, here, backing, kBefore),
        target("s", VolumeNumber(2), kSize, there, target_backing, kBefore),
        leg(tracker, MapId(1), MapId(2), target, [](const Error&) {}, [] {}) {
    backing.slow = target_backing.slow = true;
    tracker.add_map(MapId(1), MapKind::kCopyAway, ChangeMap(kSize));
    tracker.add_map(MapId(2), MapKind::kMissing, ChangeMap(kSize));
    tracker.set_windows(MapId(1), nullptr, &leg.window());
    tracker.add_debtor(leg);
  }

  rt::Core& core;
  rt::Core& there_core;
  NoStore store;
  FakeBacking backing{kSize, kExtent}, target_backing{kSize, kExtent};
  Tracker tracker;
  VolumeImpl source, target;
  TargetLeg leg;
};

// Write n of chain c goes to a block of its own and is issued after n - 1 was answered.
struct Place {
  size_t volume;
  uint64_t offset;
};

class World {
 public:
  explicit World(uint64_t seed, size_t pairs)
      : sim(seed), box(sim.add_machine("a", {.reactors = 3})), dice(sim.dice(1)) {
    for (size_t i = 0; i < pairs; ++i) {
      all.push_back(std::make_unique<Pair>(box.reactor(i % 3), box.reactor((i + seed) % 3)));
    }
  }
  ~World() { box.power_cut(); }

  Place place(uint64_t chain, uint64_t n) const {
    const uint64_t turn = n / all.size();
    return {(n + chain) % all.size(), (turn * kChains + chain) * kBlockBytes};
  }
  uint64_t longest() const { return all.size() * (kSize / kBlockBytes / kChains - 1); }

  rt::Task<bool> connect() {
    for (auto& pair : all) {
      co_await rt::hop(pair->core);
      pair->source.set_tracker(pair->tracker);
      pair->source.add_leg(pair->leg);
      pair->leg.set_mode(TargetLeg::Mode::kSend);
    }
    co_await rt::hop(box.control());
    co_return true;
  }
  rt::Task<bool> rest(rt::Micros time) {
    co_await rt::sleep_for(box.control().clock(), time);
    co_return true;
  }
  // The host of one chain on one volume. It looks again and again whether its turn has come, like a
  // client that hears of the answer by a way of its own: not behind what the cut has posted.
  rt::Task<bool> client(uint64_t c, size_t v) {
    Pair& pair = *all[v];
    co_await rt::hop(pair.core);
    for (uint64_t n = 0; n < longest(); ++n) {
      const Place at = place(c, n);
      if (at.volume != v) continue;
      while (answered[c] < n) co_await rt::yield();
      issued[c] = n + 1;
      rt::Buffer buffer = pair.core.buffers().get(kBlockBytes);
      std::memset(buffer.data(), static_cast<int>(n % 251 + 1), kBlockBytes);
      const auto done = co_await pair.source.write(at.offset, buffer.span(), false);
      EXPECT_TRUE(done);
      answered[c] = n + 1;
    }
    co_await rt::hop(box.control());
    co_return true;
  }
  void start_clients() {
    for (uint64_t c = 0; c < kChains; ++c) {
      for (size_t v = 0; v < all.size(); ++v) {
        clients.push_back(sim.start(box.control(), client(c, v)));
      }
    }
  }
  bool finish_clients() {
    return std::ranges::all_of(clients, [&](auto& each) { return sim.finish(*each); });
  }
  rt::Task<bool> split(rt::Micros lease) {
    std::map<rt::Core*, CutRound::Roots> roots;
    for (auto& pair : all) {
      co_await rt::hop(pair->core);
      pair->leg.arm(kAfter);
      CutRound::Roots& on_core = roots[&pair->core];
      on_core.core = &pair->core;
      on_core.volumes.push_back(&pair->source);
      on_core.is_ready = [] { return true; };
    }
    co_await rt::hop(box.control());
    answered_before = answered;
    std::vector<CutRound::Roots> list;
    for (auto& [core, each] : roots) list.push_back(std::move(each));
    CutRound round(box.control(), std::move(list), kAfter);
    outcome = co_await round.stamp(lease);
    issued_after = issued;
    for (auto& pair : all) {
      co_await rt::hop(pair->core);
      if (outcome.is_cut) co_await pair->source.gate().old_drained();
      pair->leg.disarm();
      if (outcome.is_cut) pair->leg.set_mode(TargetLeg::Mode::kMark);
    }
    co_await rt::hop(box.control());
    co_return true;
  }
  rt::Task<bool> has(Pair& pair, uint64_t offset) {
    co_await rt::hop(pair.there_core);
    rt::Buffer buffer = pair.there_core.buffers().get(kBlockBytes);
    EXPECT_TRUE(co_await pair.target.read(offset, buffer.span()));
    const bool is_written = buffer.data()[0] != std::byte(0);
    co_await rt::hop(box.control());
    co_return is_written;
  }
  // How many writes of the chain the targets hold; fails when they are no prefix.
  uint64_t image(uint64_t c) {
    uint64_t length = 0;
    for (uint64_t n = 0; n < issued[c]; ++n) {
      const Place at = place(c, n);
      const bool is_there = *sim.run(box.control(), has(*all[at.volume], at.offset));
      if (is_there) EXPECT_EQ(length, n) << "chain " << c << " has a gap before write " << n;
      if (is_there) length = n + 1;
    }
    return length;
  }

  sim::Simulation sim;
  sim::Machine& box;
  sim::Dice dice;
  std::vector<std::unique_ptr<Pair>> all;
  std::vector<std::shared_ptr<sim::detail::Outcome<bool>>> clients;
  std::array<uint64_t, kChains> issued{}, answered{}, answered_before{}, issued_after{};
  CutRound::Outcome outcome;
};

// Mutation: close_gates() opens its gates at once instead of waiting for the outcome.
TEST(CutRound, TheTargetsHoldAPrefixOfEveryChainOfDependentWrites) {
  uint64_t with_both_sides = 0;
  for (uint64_t seed = 1; seed <= 1000 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    World world(seed, 1 + seed % 7);
    ASSERT_TRUE(world.sim.run(world.box.control(), world.connect()));
    world.start_clients();
    ASSERT_TRUE(world.sim.run(world.box.control(), world.rest(world.dice.below(300))));
    ASSERT_TRUE(world.sim.run(world.box.control(), world.split(rt::kSecond)));
    ASSERT_TRUE(world.outcome.is_cut);
    ASSERT_TRUE(world.finish_clients());
    for (uint64_t c = 0; c < kChains; ++c) {
      const uint64_t length = world.image(c);
      EXPECT_GE(length, world.answered_before[c]);
      EXPECT_LE(length, world.issued_after[c]);
      with_both_sides += length > 0 && length < world.longest();
    }
  }
  EXPECT_GT(with_both_sides, 1000u) << "the cuts fall into the middle of the chains";
}

TEST(CutRound, ALeaseThatEndsFirstOpensEveryGateWithTheOldEpoch) {
  uint64_t voided = 0;
  for (uint64_t seed = 1; seed <= 300 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    World world(seed, 6);
    ASSERT_TRUE(world.sim.run(world.box.control(), world.connect()));
    world.start_clients();
    ASSERT_TRUE(world.sim.run(world.box.control(), world.split(world.dice.below(20))));
    ASSERT_TRUE(world.finish_clients()) << "a gate stayed closed";
    for (auto& pair : world.all) {
      EXPECT_TRUE(pair->source.gate().is_open());
      EXPECT_EQ(pair->source.gate().epoch(), world.outcome.is_cut ? kAfter : kBefore);
    }
    if (world.outcome.is_cut) continue;
    ++voided;
    EXPECT_TRUE(world.outcome.was_late);
    for (uint64_t c = 0; c < kChains; ++c) EXPECT_EQ(world.image(c), world.longest());
  }
  EXPECT_GT(voided, 20u);
}

}  // namespace
}  // namespace duplex::mirror
