#include "volume/gate.h"

#include <gtest/gtest.h>

#include "volume/readers.h"
#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using testing::TestWorld;

struct Entered {
  int name;
  uint64_t epoch;
  bool operator==(const Entered&) const = default;
};

rt::Task<bool> writer(Gate* gate, int name, rt::Event* end, std::vector<Entered>* log) {
  Gate::Pass pass = gate->try_pass();
  while (!pass) {
    co_await gate->opening();
    pass = gate->try_pass();
  }
  log->push_back({name, pass.epoch().value()});
  co_await end->wait();
  co_return true;
}

class GateTest : public ::testing::Test {
 protected:
  void write(int name) {
    world.start(world.reactor(0), writer(&gate, name, &ends[name], &log));
    world.run();
  }
  void end(int name) {
    world.reactor(0).inside([&] { ends[name].set(); });
    world.run();
  }
  template <class F>
  void act(F f) {
    world.reactor(0).inside(f);
    world.run();
  }
  TestWorld world;
  Gate gate{Epoch(7)};
  std::map<int, rt::Event> ends;
  std::vector<Entered> log;
};

TEST_F(GateTest, AnOpenGateStampsTheCurrentEpoch) {
  write(1);
  EXPECT_EQ(log, (std::vector<Entered>{{1, 7}}));
  end(1);
}

TEST_F(GateTest, ClosersAreCountedAndWritersPassInOrderWhenTheLastOneOpens) {
  std::optional<Gate::Closer> first(gate.close());
  std::optional<Gate::Closer> second(gate.close());
  write(1);
  write(2);
  act([&] { first.reset(); });
  EXPECT_TRUE(log.empty());
  act([&] { second.reset(); });
  EXPECT_EQ(log, (std::vector<Entered>{{1, 7}, {2, 7}}));
  end(1);
  end(2);
}

TEST_F(GateTest, AWriterThatIsWokenIntoAClosedGateWaitsAgainAndGetsTheLaterEpoch) {
  std::optional<Gate::Closer> first(gate.close());
  write(1);
  std::optional<Gate::Closer> second;
  act([&] {
    first.reset();                 // wakes the writer
    second.emplace(gate.close());  // before it runs
    gate.advance(Epoch(8));
  });
  EXPECT_TRUE(log.empty());
  act([&] { second.reset(); });
  EXPECT_EQ(log, (std::vector<Entered>{{1, 8}}));
  end(1);
}

TEST_F(GateTest, DrainedWaitsForEveryWriterInside) {
  write(1);
  write(2);
  const Gate::Closer closer = gate.close();
  const auto drained = world.start(world.reactor(0), testing::ended(gate.drained()));
  world.run();
  EXPECT_FALSE(drained->has_value());
  end(2);
  EXPECT_FALSE(drained->has_value());
  end(1);
  EXPECT_TRUE(drained->has_value());
}

TEST_F(GateTest, OldDrainedWaitsOnlyForWritersStampedBeforeTheEpoch) {
  write(1);
  {
    const Gate::Closer closer = gate.close();
    gate.advance(Epoch(8));
  }
  write(2);
  const auto drained = world.start(world.reactor(0), testing::ended(gate.old_drained()));
  world.run();
  EXPECT_FALSE(drained->has_value());
  end(1);
  EXPECT_TRUE(drained->has_value());
  EXPECT_EQ(log.back(), (Entered{2, 8}));
  end(2);
}

rt::Task<bool> reader(Readers* readers, rt::Event* end) {
  const Readers::Inside inside(*readers);
  co_await end->wait();
  co_return true;
}

TEST_F(GateTest, ReadersThatComeLaterDoNotHoldUpADrain) {
  Readers readers;
  world.start(world.reactor(0), reader(&readers, &ends[1]));
  const auto drained = world.start(world.reactor(0), testing::ended(readers.drain()));
  world.start(world.reactor(0), reader(&readers, &ends[2]));
  world.run();
  EXPECT_FALSE(drained->has_value());
  end(1);
  EXPECT_TRUE(drained->has_value());
  end(2);
  const auto again = world.start(world.reactor(0), testing::ended(readers.drain()));
  EXPECT_TRUE(again->has_value());
}

}  // namespace
}  // namespace duplex::volume
