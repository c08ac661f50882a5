// The doors on Linux, driven for real: both engines, tmpfs and disk, sockets between cores.
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "os/run_on.h"
#include "os/sync_files.h"
#include "os/world.h"
#include "rt/task_group.h"

namespace duplex::os {
namespace {

struct Place {
  EngineChoice engine;
  const char* directory;
};

class DoorTest : public testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    auto made =
        OsWorld::create({.reactors = 2, .engine = GetParam().engine, .arena_bytes = 2 << 20});
    ASSERT_TRUE(made) << made.error().describe();
    world = std::move(*made);
    std::string pattern = std::string(GetParam().directory) + "/duplex-doors-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory = pattern;
  }
  void TearDown() override {
    world.reset();
    std::filesystem::remove_all(directory);
  }
  std::string path(const char* name) const { return directory + "/" + name; }

  std::unique_ptr<OsWorld> world;
  std::string directory;
};

rt::Task<int> many_parallel_blocks(rt::Core& core, std::string path, bool direct) {
  auto opened =
      co_await core.files().open(path, {.create = true, .create_bytes = 4 << 20, .direct = direct});
  EXPECT_TRUE(opened) << opened.error().describe();
  rt::File& file = **opened;
  rt::TaskGroup tasks(core);
  int failures = 0;
  struct Local {
    static rt::Task<> block(rt::Core& core, rt::File& file, unsigned i, int& failures) {
      rt::Buffer out = core.buffers().get(65536);
      std::fill(out.span().begin(), out.span().end(), static_cast<std::byte>(i + 1));
      failures += co_await file.write(uint64_t{i} * 65536, out.span()) != 0;
      rt::Buffer in = core.buffers().get(65536);
      failures += co_await file.read(uint64_t{i} * 65536, in.span()) != 0;
      failures += std::memcmp(in.data(), out.data(), 65536) != 0;
    }
  };
  for (unsigned i = 0; i < 64; ++i) tasks.spawn(Local::block(core, file, i, failures));
  co_await tasks.close();
  failures += co_await file.flush() != 0;
  co_return failures;
}

TEST_P(DoorTest, SixtyFourBlocksAtOnceAreWrittenAndReadBack) {
  for (const bool direct : {true, false}) {
    EXPECT_EQ(run_on(world->reactor(0),
                     many_parallel_blocks(world->reactor(0), path(direct ? "d" : "b"), direct)),
              0);
  }
}

rt::Task<int> zeroing(rt::Core& core, std::string path) {
  auto opened = co_await core.files().open(path, {.create = true, .create_bytes = 1 << 20});
  rt::File& file = **opened;
  rt::Buffer block = core.buffers().get(8192);
  int failures = 0;
  for (const auto kind :
       {rt::FileOp::Kind::kZero, rt::FileOp::Kind::kZeroNoUnmap, rt::FileOp::Kind::kZeroFast}) {
    std::fill(block.span().begin(), block.span().end(), std::byte{7});
    failures += co_await file.write(4096, block.span()) != 0;
    failures += co_await file.zero(4096, 4096, kind) != 0;
    failures += co_await file.read(4096, block.span()) != 0;
    failures += block.data()[0] != std::byte{0} || block.data()[4095] != std::byte{0} ||
                block.data()[4096] != std::byte{7};
  }
  co_return failures;
}

TEST_P(DoorTest, ZeroingZeroesItsRangeAndNothingElse) {
  EXPECT_EQ(run_on(world->reactor(0), zeroing(world->reactor(0), path("z"))), 0);
}

rt::Task<std::vector<int>> refusals(rt::Core& core, std::string path) {
  std::vector<int> errors;
  auto file =
      co_await core.files().open(path, {.create = true, .exclusive = true, .create_bytes = 8192});
  EXPECT_TRUE(file);
  rt::Buffer block = core.buffers().get(4096);
  errors.push_back(co_await (*file)->read(8192, block.span()));
  auto again = co_await core.files().open(path, {.create = true, .exclusive = true});
  EXPECT_FALSE(again);
  auto absent = co_await core.files().open(path + "-absent", {});
  EXPECT_EQ(absent.error().code(), Code::kNoDevice);
  const std::string pipe = path + "-pipe";
  EXPECT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  auto waiting = co_await core.files().open(pipe, {.write = false, .direct = false});
  EXPECT_EQ(waiting.error().code(), Code::kInvalid);
  unlink(pipe.c_str());
  EXPECT_TRUE((*file)->lock());
  auto second = co_await core.files().open(path, {});
  EXPECT_EQ((*second)->lock().error().code(), Code::kBusy);
  co_return errors;
}

TEST_P(DoorTest, ReadingPastTheEndOpeningTwiceLockingTwiceAndPipesAreRefused) {
  const auto errors = run_on(world->reactor(0), refusals(world->reactor(0), path("r")));
  EXPECT_EQ(errors, std::vector<int>{EIO});
}

rt::Task<> echo(rt::Core& core, rt::Core& other, rt::Listener& listener) {
  auto accepted = co_await listener.accept();
  auto detached = (*accepted)->detach();
  co_await rt::hop(other);
  auto stream = other.net().adopt(std::move(detached));
  std::vector<std::byte> bytes(1 << 20);
  while (true) {
    const int64_t got = co_await stream->recv(bytes);
    if (got <= 0) break;
    iovec part{bytes.data(), static_cast<size_t>(got)};
    if (co_await stream->send(std::span(&part, 1)) != 0) break;
  }
  stream.reset();
  co_await rt::hop(core);
}

rt::Task<bool> talk(rt::Core& core, rt::Core& other, std::string address, size_t bytes) {
  auto listener = co_await core.net().listen(*rt::Address::parse(address));
  EXPECT_TRUE(listener) << listener.error().describe();
  rt::TaskGroup tasks(core);
  tasks.spawn(echo(core, other, **listener));
  auto stream = co_await core.net().connect((*listener)->address());
  EXPECT_TRUE(stream) << stream.error().describe();
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(i * 7 + i / 251);
  struct Local {
    static rt::Task<> send(rt::Stream& stream, std::span<std::byte> out) {
      iovec parts[2] = {{out.data(), out.size() / 2},
                        {out.data() + out.size() / 2, out.size() - out.size() / 2}};
      EXPECT_EQ(co_await stream.send(parts), 0);
    }
  };
  tasks.spawn(Local::send(**stream, out));
  std::vector<std::byte> in(bytes);
  size_t done = 0;
  while (done < bytes) {
    const int64_t got = co_await (*stream)->recv(std::span(in).subspan(done));
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  (*stream)->shutdown();
  co_await tasks.close();
  co_return in == out;
}

// Mutations: the block at the head is not read; the one at the tail is not; a read block keeps what
// the bounce held behind the end of the file.
TEST_P(DoorTest, WritesOfAnyRangeToASyncFileChangeNothingElse) {
  OsSyncFiles files;
  int errnum = 0;
  const auto file = files.open(path("state"), true, &errnum);
  ASSERT_NE(file, nullptr);
  std::vector<std::byte> model(3 << 20);
  std::mt19937_64 random(7);
  const auto draw = [&](size_t bound) { return static_cast<size_t>(random() % bound); };
  for (int i = 0; i < 200; ++i) {
    const size_t most = i % 8 == 0 ? 600'000 : 9000;
    const size_t length = 1 + draw(most), offset = draw(model.size() - length);
    for (size_t at = offset; at < offset + length; ++at)
      model[at] = static_cast<std::byte>(random());
    ASSERT_EQ(file->write(offset, std::span(model).subspan(offset, length)), 0);
    if (i % 16 == 0) ASSERT_EQ(file->sync(), 0);
  }
  std::vector<std::byte> found(model.size() + 4096);
  const int64_t got = file->read(0, found);
  ASSERT_GE(got, 0);
  found.resize(static_cast<size_t>(got));
  const size_t both = std::min(found.size(), model.size());
  EXPECT_TRUE(
      std::equal(found.begin(), found.begin() + static_cast<ptrdiff_t>(both), model.begin()));
  for (size_t at = both; at < found.size(); ++at) ASSERT_EQ(found[at], std::byte{});
  for (size_t at = both; at < model.size(); ++at) ASSERT_EQ(model[at], std::byte{});
}

TEST_P(DoorTest, ThirtyTwoMegabytesComeBackWholeFromAnotherCore) {
  EXPECT_TRUE(run_on(world->control(),
                     talk(world->control(), world->reactor(0), "unix:" + path("s"), 32 << 20)));
  EXPECT_TRUE(run_on(world->control(),
                     talk(world->control(), world->reactor(1), "tcp:127.0.0.1:0", 32 << 20)));
}

rt::Task<int64_t> shut_during_recv(rt::Core& core, std::string address) {
  auto listener = co_await core.net().listen(*rt::Address::parse(address));
  auto stream = co_await core.net().connect((*listener)->address());
  rt::TaskGroup tasks(core);
  struct Local {
    static rt::Task<> shut(rt::Core& core, rt::Stream& stream) {
      co_await rt::sleep_for(core.clock(), 20 * rt::kMillisecond);
      stream.shutdown();
    }
  };
  tasks.spawn(Local::shut(core, **stream));
  std::array<std::byte, 16> bytes;
  const int64_t result = co_await (*stream)->recv(bytes);
  co_await tasks.close();
  co_return result;
}

TEST_P(DoorTest, AShutdownEndsAReceiveInFlight) {
  EXPECT_LE(run_on(world->control(), shut_during_recv(world->control(), "unix:" + path("q"))), 0);
}

rt::Task<Code> close_during_accept(rt::Core& core, std::string address) {
  auto listener = co_await core.net().listen(*rt::Address::parse(address));
  rt::TaskGroup tasks(core);
  struct Local {
    static rt::Task<> close(rt::Core& core, rt::Listener& listener) {
      co_await rt::sleep_for(core.clock(), 20 * rt::kMillisecond);
      listener.close();
    }
  };
  tasks.spawn(Local::close(core, **listener));
  auto accepted = co_await (*listener)->accept();
  co_await tasks.close();
  co_return accepted.error().code();
}

TEST_P(DoorTest, ClosingAListenerEndsItsAccept) {
  EXPECT_EQ(run_on(world->control(), close_during_accept(world->control(), "unix:" + path("l"))),
            Code::kShutdown);
  EXPECT_FALSE(std::filesystem::exists(path("l")));
}

// While a receive has ended and waits to be seen, a listener is closed in whose accept somebody
// waits. True: the receiver went on after the call, not inside it.
rt::Task<bool> close_beside_a_receive(rt::Core& core, std::string address) {
  auto listener = co_await core.net().listen(*rt::Address::parse(address));
  auto out = co_await core.net().connect((*listener)->address());
  auto in = co_await (*listener)->accept();
  int received = 0;
  rt::TaskGroup tasks(core);
  struct Local {
    static rt::Task<> receive(rt::Stream& stream, int& received) {
      std::byte byte{};
      EXPECT_EQ(co_await stream.recv(std::span(&byte, 1)), 1);
      ++received;
    }
    static rt::Task<> accept(rt::Listener& listener) {
      EXPECT_EQ((co_await listener.accept()).error().code(), Code::kShutdown);
    }
  };
  tasks.spawn(Local::receive(**in, received));
  tasks.spawn(Local::accept(**listener));
  co_await rt::sleep_for(core.clock(), 5 * rt::kMillisecond);  // both wait in the kernel now
  std::byte byte{1};
  iovec part{&byte, 1};
  EXPECT_EQ(co_await (*out)->send(std::span(&part, 1)), 0);
  (*listener)->close();
  const int inside = received;
  co_await tasks.close();
  co_return inside == 0 && received == 1;
}

TEST_P(DoorTest, ClosingAListenerRunsNobodyElse) {
  EXPECT_TRUE(
      run_on(world->control(), close_beside_a_receive(world->control(), "unix:" + path("b"))));
}

rt::Task<Code> listen_code(rt::Core& core, std::string address,
                           std::unique_ptr<rt::Listener>& keep) {
  auto listener = co_await core.net().listen(*rt::Address::parse(address));
  if (!listener) co_return listener.error().code();
  keep = std::move(*listener);
  co_return Code::kState;
}
rt::Task<> drop(std::unique_ptr<rt::Listener>& keep) {
  keep.reset();
  co_return;
}

TEST_P(DoorTest, ALiveSocketIsBusyAndAStaleOneIsReplaced) {
  std::unique_ptr<rt::Listener> first;
  std::unique_ptr<rt::Listener> second;
  const std::string address = "unix:" + path("live");
  EXPECT_EQ(run_on(world->control(), listen_code(world->control(), address, first)), Code::kState);
  EXPECT_EQ(run_on(world->control(), listen_code(world->control(), address, second)), Code::kBusy);
  // A hard link keeps the file when the listener goes: that is what a crash leaves behind.
  std::filesystem::create_hard_link(path("live"), path("left"));
  run_on(world->control(), drop(first));
  EXPECT_EQ(run_on(world->control(), listen_code(world->control(), "unix:" + path("left"), second)),
            Code::kState);
  run_on(world->control(), drop(second));
}

rt::Task<std::vector<int>> timer_order(rt::Core& core) {
  std::vector<int> order;
  rt::TaskGroup tasks(core);
  struct Local {
    static rt::Task<> at(rt::Core& core, rt::Micros when, int tag, std::vector<int>& order) {
      co_await rt::sleep_until(core.clock(), when);
      order.push_back(tag);
    }
    static rt::Task<> timed(rt::Core& core, rt::Event& event, rt::Micros when,
                            std::vector<int>& order) {
      order.push_back(co_await event.wait_until(core.clock(), when) ? 100 : 101);
    }
  };
  const rt::Micros now = core.clock().now();
  rt::Event never;
  rt::Event soon;
  for (const int ms : {30, 10, 20, 5, 25}) {
    tasks.spawn(Local::at(core, now + static_cast<rt::Micros>(ms) * rt::kMillisecond, ms, order));
  }
  tasks.spawn(Local::timed(core, never, now + 15 * rt::kMillisecond, order));
  tasks.spawn(Local::timed(core, soon, now + rt::kSecond, order));
  soon.set();
  co_await tasks.close();
  co_return order;
}

TEST_P(DoorTest, TimersFireInOrderAndAWaitEndsByEventOrDeadline) {
  std::vector<int> order = run_on(world->reactor(0), timer_order(world->reactor(0)));
  ASSERT_EQ(order.size(), 7u);
  EXPECT_EQ(order.front(), 100) << "the event was set at once";
  // On a busy machine later timers may be due by the time the deadline's waiter gets its turn.
  const auto deadline = std::ranges::find(order, 101);
  EXPECT_GT(deadline, std::ranges::find(order, 10));
  std::erase_if(order, [](int tag) { return tag >= 100; });
  EXPECT_EQ(order, (std::vector<int>{5, 10, 20, 25, 30}));
}

rt::Task<uint64_t> ping_pong(rt::Core& a, rt::Core& b, rt::Executor& store, int rounds) {
  uint64_t count = 0;
  for (int i = 0; i < rounds; ++i) {
    co_await rt::hop(a);
    ++count;
    co_await rt::hop(b);
    ++count;
    co_await rt::hop(store);
    ++count;
  }
  co_await rt::hop(a);
  co_return count;
}

TEST_P(DoorTest, TasksHopBetweenCoresWithoutGettingLost) {
  EXPECT_EQ(run_on(world->reactor(0),
                   ping_pong(world->reactor(0), world->reactor(1), world->store(), 2000)),
            6000u);
}

INSTANTIATE_TEST_SUITE_P(Places, DoorTest,
                         testing::Values(Place{EngineChoice::kUring, "/dev/shm"},
                                         Place{EngineChoice::kUring, "/var/tmp"},
                                         Place{EngineChoice::kThreads, "/dev/shm"},
                                         Place{EngineChoice::kThreads, "/var/tmp"}),
                         [](const auto& param) {
                           return std::string(param.param.engine == EngineChoice::kUring
                                                  ? "uring"
                                                  : "threads") +
                                  (param.param.directory[1] == 'd' ? "_tmpfs" : "_disk");
                         });

}  // namespace
}  // namespace duplex::os
