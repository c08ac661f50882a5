// The simulator is judged before it judges: same seed same run, power cuts hurt only what is
// unflushed, connections carry their bytes in order, and objects may die at any await.
#include <gtest/gtest.h>

#include <cstring>

#include "rt/task_group.h"
#include "sim/machine.h"
#include "sim/net.h"

namespace duplex::sim {
namespace {

rt::Task<std::unique_ptr<rt::File>> opened(rt::Core& core, std::string path) {
  auto file = co_await core.files().open(path, {.create = true, .create_bytes = 1 << 20});
  EXPECT_TRUE(file);
  co_return std::move(*file);
}

rt::Task<int> fill(rt::Core& core, rt::File& file, uint64_t block, uint8_t value, bool flush) {
  rt::Buffer buffer = core.buffers().get(4096);
  std::memset(buffer.data(), value, 4096);
  const int error = co_await file.write(block * 4096, buffer.span());
  if (error == 0 && flush) co_return co_await file.flush();
  co_return error;
}

rt::Task<std::vector<std::byte>> block_of(rt::Core& core, rt::File& file, uint64_t block) {
  rt::Buffer buffer = core.buffers().get(4096);
  EXPECT_EQ(co_await file.read(block * 4096, buffer.span()), 0);
  co_return std::vector<std::byte>(buffer.span().begin(), buffer.span().end());
}

rt::Task<> hop_about(Machine& machine, int rounds) {
  rt::TaskGroup tasks(machine.control());
  struct Local {
    static rt::Task<> lane(Machine& machine, int count) {
      for (int i = 0; i < count; ++i) {
        co_await rt::hop(machine.reactor(static_cast<size_t>(i) % machine.reactor_count()));
        co_await rt::sleep_for(
            machine.reactor(static_cast<size_t>(i) % machine.reactor_count()).clock(), 7);
        co_await rt::hop(machine.store());
      }
      co_await rt::hop(machine.control());
    }
  };
  for (int i = 0; i < 5; ++i) tasks.spawn(Local::lane(machine, rounds));
  co_await tasks.close();
}

uint64_t hash_of(uint64_t seed) {
  Simulation sim(seed);
  Machine& box = sim.add_machine("a", {.reactors = 3});
  EXPECT_TRUE(sim.run(box.control(), hop_about(box, 50)));
  return sim.hash();
}

TEST(Simulation, TheSameSeedGivesTheSameRunAndAnotherSeedAnother) {
  EXPECT_EQ(hash_of(1), hash_of(1));
  EXPECT_NE(hash_of(1), hash_of(2));
}

TEST(Simulation, ARunThatCanNeverEndIsReportedAsStuck) {
  Simulation sim(1);
  Machine& box = sim.add_machine("a", {});
  rt::Event never;
  struct Local {
    static rt::Task<> wait(rt::Event& event) { co_await event.wait(); }
  };
  EXPECT_FALSE(sim.run(box.control(), Local::wait(never)));
  EXPECT_EQ(sim.last_end(), Simulation::End::kStuck);
}

TEST(Disk, FlushedWritesSurviveEveryPowerCutAndUnflushedOnesAreLostKeptOrTorn) {
  std::set<int> seen;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Simulation sim(seed);
    Machine& box = sim.add_machine("a", {});
    auto file = sim.run(box.control(), opened(box.control(), "/d"));
    EXPECT_EQ(sim.run(box.control(), fill(box.control(), **file, 0, 1, true)), 0);
    EXPECT_EQ(sim.run(box.control(), fill(box.control(), **file, 1, 2, false)), 0);
    box.power_cut();
    file.reset();
    box.power_on({});
    file = sim.run(box.control(), opened(box.control(), "/d"));
    const auto flushed = *sim.run(box.control(), block_of(box.control(), **file, 0));
    for (const std::byte b : flushed) ASSERT_EQ(b, std::byte{1}) << seed;
    const auto loose = *sim.run(box.control(), block_of(box.control(), **file, 1));
    int units = 0;
    for (size_t at = 0; at < 4096; at += 512) {
      for (size_t i = 1; i < 512; ++i)
        ASSERT_EQ(loose[at], loose[at + i]) << "torn inside 512 bytes";
      units += loose[at] == std::byte{2};
    }
    seen.insert(units == 0 ? 0 : units == 8 ? 2 : 1);
  }
  EXPECT_EQ(seen.size(), 3u) << "lost, torn and kept must all happen";
}

TEST(Disk, AKillKeepsEverythingThatWasAnswered) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Simulation sim(seed);
    Machine& box = sim.add_machine("a", {});
    auto file = sim.run(box.control(), opened(box.control(), "/d"));
    EXPECT_EQ(sim.run(box.control(), fill(box.control(), **file, 3, 9, false)), 0);
    box.kill();
    file.reset();
    box.power_on({});
    file = sim.run(box.control(), opened(box.control(), "/d"));
    ASSERT_EQ((*sim.run(box.control(), block_of(box.control(), **file, 3)))[100], std::byte{9});
  }
}

TEST(Disk, AFailedFlushTellsItsListenerWhenItLosesWrites) {
  Simulation sim(3);
  Machine& box = sim.add_machine("a", {});
  auto file = sim.run(box.control(), opened(box.control(), "/d"));
  DiskFile& disk = *box.disk().find("/d");
  bool lost = false;
  disk.faults.flush_error = 1;
  disk.faults.object = &lost;
  disk.faults.cache_lost = [](void* object) { *static_cast<bool*>(object) = true; };
  EXPECT_EQ(sim.run(box.control(), fill(box.control(), **file, 0, 1, true)), EIO);
  EXPECT_TRUE(lost);
  EXPECT_EQ(sim.counts().at("flush error"), 1u);
}

// Mutation: tear_change() keeps the whole change.
TEST(Disk, WhatIsReadAfterAFailedWriteAndAFlushStaysSoWhenTheCacheIsLost) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Simulation sim(seed);
    DiskFile disk("/d", 16 * kPage, true);
    const std::vector<std::byte> bytes(kPage, std::byte{7});
    disk.tear_change(disk.begin_write(0, bytes), sim.disk());
    std::vector<std::byte> found(kPage), after(kPage);
    disk.read(0, found);
    // Still on its way, so that the flush leaves something behind.
    const uint64_t other = disk.begin_write(kPage, bytes);
    disk.flush(disk.flush_point());
    disk.end_change(other, true);
    static_cast<void>(disk.lose_cache(sim.disk()));
    disk.read(0, after);
    ASSERT_EQ(found, after) << seed;
  }
}

TEST(Disk, APowerCutInsideTheBlockingDoorFailsEveryLaterCall) {
  Simulation sim(4);
  Machine& box = sim.add_machine("a", {});
  int error = 0;
  auto file = box.sync_files().open("/state", true, &error);
  const std::array<std::byte, 8> bytes{};
  EXPECT_EQ(file->write(0, bytes), 0);
  box.cut_at_sync_io(2);
  EXPECT_EQ(file->write(8, bytes), 0);
  EXPECT_EQ(file->sync(), EIO);
  EXPECT_EQ(file->write(0, bytes), EIO);
  EXPECT_FALSE(box.running());
}

rt::Task<> serve_echo(rt::Listener& listener) {
  auto stream = co_await listener.accept();
  if (!stream) co_return;
  std::array<std::byte, 3000> bytes;
  while (true) {
    const int64_t got = co_await (*stream)->recv(bytes);
    if (got <= 0) co_return;
    iovec part{bytes.data(), static_cast<size_t>(got)};
    if (co_await (*stream)->send(std::span(&part, 1)) != 0) co_return;
  }
}

rt::Task<bool> echo(rt::Core& server, rt::Core& client, size_t bytes) {
  auto listener = co_await server.net().listen(*rt::Address::parse("unix:/s"));
  rt::TaskGroup tasks(server);
  tasks.spawn(serve_echo(**listener));
  co_await rt::hop(client);
  auto stream = co_await client.net().connect(*rt::Address::parse("unix:/s"));
  rt::TaskGroup sending(client);
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(i * 31 + i / 997);
  struct Local {
    static rt::Task<> send(rt::Stream& to, std::span<std::byte> all) {
      iovec part{all.data(), all.size()};
      EXPECT_EQ(co_await to.send(std::span(&part, 1)), 0);
    }
  };
  sending.spawn(Local::send(**stream, out));
  std::vector<std::byte> in(bytes);
  size_t done = 0;
  while (done < bytes) {
    const int64_t got = co_await (*stream)->recv(std::span(in).subspan(done));
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  co_await sending.close();
  stream->reset();
  co_await rt::hop(server);
  co_await tasks.close();
  co_return in == out;
}

TEST(Network, AMegabyteComesBackInOrderThroughSmallPipes) {
  Simulation sim(5);
  Machine& server = sim.add_machine("server", {});
  Machine& client = sim.add_machine("client", {});
  EXPECT_EQ(sim.run(server.control(), echo(server.control(), client.control(), 1 << 20)), true);
}

TEST(Network, AConnectionToAMachineThatLostPowerEnds) {
  Simulation sim(6);
  Machine& server = sim.add_machine("server", {});
  Machine& client = sim.add_machine("client", {});
  struct Local {
    static rt::Task<int64_t> wait_for_end(rt::Core& core) {
      auto stream = co_await core.net().connect(*rt::Address::parse("unix:/s"));
      std::array<std::byte, 8> bytes;
      co_return co_await (*stream)->recv(bytes);
    }
    static rt::Task<std::unique_ptr<rt::Listener>> listen(rt::Core& core) {
      auto listener = co_await core.net().listen(*rt::Address::parse("unix:/s"));
      co_return std::move(*listener);
    }
  };
  auto listener = sim.run(server.control(), Local::listen(server.control()));
  rt::TaskGroup echoes(server.control());
  struct Start {
    static rt::Task<> go(rt::TaskGroup& group, rt::Listener& l) {
      group.spawn(serve_echo(l));
      co_return;
    }
  };
  sim.run(server.control(), Start::go(echoes, **listener));
  sim.at(sim.now() + 100 * rt::kMillisecond,
         {.fire = [](void* machine, uint64_t) { static_cast<Machine*>(machine)->power_cut(); },
          .object = &server});
  const auto got = sim.start(client.control(), Local::wait_for_end(client.control()));
  EXPECT_FALSE(sim.finish(*got));
  EXPECT_EQ(sim.last_end(), Simulation::End::kPowerCut);
  EXPECT_TRUE(sim.finish(*got));
  EXPECT_LE(*got->value, 0);
}

// Tasks that stand at every kind of await when the power goes; ASan and LSan are the judges.
struct Stuff {
  explicit Stuff(rt::Core& c) : core(c), tasks(c) {}
  rt::Core& core;
  rt::Event event;
  rt::Mutex mutex;
  rt::Limit limit{10};
  std::unique_ptr<rt::File> file;
  rt::TaskGroup tasks;
};

rt::Task<> churn(Stuff& stuff, int kind) {
  rt::Buffer buffer = stuff.core.buffers().get(8192);
  while (true) {
    switch (kind) {
      case 0:
        co_await stuff.event.wait_until(stuff.core.clock(), stuff.core.clock().now() + 50);
        break;
      case 1: {
        const auto held = co_await stuff.mutex.lock();
        co_await rt::sleep_for(stuff.core.clock(), 20);
        break;
      }
      case 2: {
        co_await stuff.limit.acquire(7);
        co_await rt::yield();
        stuff.limit.release(7);
        break;
      }
      case 3:
        co_await stuff.file->write(0, buffer.span());
        break;
      case 4:
        co_await stuff.file->flush();
        break;
      default:
        co_await rt::sleep_for(stuff.core.clock(), 33);
        break;
    }
  }
}

TEST(Crash, ObjectsMayDieWhereverTheirTasksStand) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Simulation sim(seed);
    Machine& box = sim.add_machine("a", {});
    auto stuff = std::make_unique<Stuff>(box.control());
    stuff->file = std::move(*sim.run(box.control(), opened(box.control(), "/d")));
    struct Local {
      static rt::Task<> start(Stuff& all) {
        for (int i = 0; i < 18; ++i) all.tasks.spawn(churn(all, i % 6));
        co_await all.tasks.close();
      }
    };
    sim.cut_after_steps(box, 5 + seed * 7);
    EXPECT_FALSE(sim.run(box.control(), Local::start(*stuff)));
    EXPECT_EQ(sim.last_end(), Simulation::End::kPowerCut);
    stuff.reset();
    box.power_on({});
  }
}

}  // namespace
}  // namespace duplex::sim
