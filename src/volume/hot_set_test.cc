// The hot set: named cases, and a walk over every order of events of small worlds.
#include "volume/hot_set.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>

#include "volume/volume_test_kit.h"

namespace duplex::volume {
namespace {

using testing::TestCore;
using testing::TestWorld;
using State = HotSet::State;

// A sink whose records end when the test says so.
class ManualSink final : public MarkSink {
 public:
  struct Record {
    bool is_mark;
    std::vector<uint64_t> extents;
    std::optional<Result<void>> outcome;
    rt::Event ended;
  };
  bool automatic = true;
  int ticks = 0;
  std::deque<Record> records;  // in order of arrival; those that ended stay
  std::map<uint64_t, bool> on_disk;

  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override {
    std::vector<uint64_t> list;
    for (const HotExtent e : extents) list.push_back(e.value());
    return append(true, std::move(list));
  }
  rt::Task<Result<void>> cool(HotExtent extent) override { return append(false, {extent.value()}); }
  void end(size_t i, Result<void> outcome = {}) {
    records[i].outcome = std::move(outcome);
    records[i].ended.set();
  }
  std::vector<size_t> open() const {
    std::vector<size_t> list;
    for (size_t i = 0; i < records.size(); ++i) {
      if (!records[i].outcome) list.push_back(i);
    }
    return list;
  }

 private:
  rt::Task<Result<void>> append(bool is_mark, std::vector<uint64_t> extents) {
    Record& record = records.emplace_back();
    record.is_mark = is_mark;
    record.extents = std::move(extents);
    if (automatic) record.outcome.emplace();
    if (!record.outcome) co_await record.ended.wait();
    if (*record.outcome) {
      for (const uint64_t e : record.extents) on_disk[e] = is_mark;
    }
    co_return *record.outcome;
  }
};

ByteRange extents(uint64_t first, uint64_t count = 1) {
  return {first * kHotBytes, count * kHotBytes};
}

// One write: takes its extents, runs until told to end.
struct Writer {
  enum class Phase : uint8_t { kIdle, kWaits, kRuns, kEnded, kFailed };
  ByteRange range;
  Phase phase = Phase::kIdle;
  rt::Event end;
  int arrived = 0, ran = 0;  // when, for the last time; 0: never
};
rt::Task<bool> write(HotSet* set, ManualSink* sink, Writer* writer) {
  writer->phase = Writer::Phase::kWaits;
  writer->arrived = ++sink->ticks;
  const Result<HotSet::Use> use = co_await set->use(writer->range);
  if (!use) {
    writer->phase = Writer::Phase::kFailed;
    co_return false;
  }
  writer->phase = Writer::Phase::kRuns;
  writer->ran = ++sink->ticks;
  const uint64_t first = writer->range.offset / kHotBytes;
  for (uint64_t e = first; e < writer->range.end() / kHotBytes; ++e) {
    EXPECT_TRUE(sink->on_disk[e]) << "a write to extent " << e << " runs without a durable mark";
  }
  co_await writer->end.wait();
  for (uint64_t e = first; e < writer->range.end() / kHotBytes; ++e) {
    EXPECT_TRUE(sink->on_disk[e]) << "the mark of " << e << " was taken off under a write";
  }
  writer->phase = Writer::Phase::kEnded;
  co_return true;
}

class HotSetTest : public ::testing::Test {
 protected:
  Writer& start(ByteRange range) {
    Writer& writer = writers.emplace_back();
    writer.range = range;
    world.start(world.reactor(0), write(&set, &sink, &writer));
    world.run();
    return writer;
  }
  void end(Writer& writer) {
    world.reactor(0).inside([&] { writer.end.set(); });
    world.run();
  }
  void end_record(size_t i, Result<void> outcome = {}) {
    world.reactor(0).inside([&] { sink.end(i, std::move(outcome)); });
    world.run();
  }
  void fill(uint64_t from, uint64_t to) {
    for (uint64_t e = from; e < to; ++e) end(start(extents(e)));
  }
  State state(uint64_t e) const { return set.state(HotExtent(e)); }

  TestWorld world;
  ManualSink sink;
  HotSet set{world.reactor(0), sink, 16};
  std::deque<Writer> writers;
};

TEST_F(HotSetTest, AHotExtentCostsNoSecondRecord) {
  end(start(extents(3)));
  end(start(extents(3)));
  EXPECT_EQ(sink.records.size(), 1u);
  EXPECT_EQ(state(3), State::kHot);
}

TEST_F(HotSetTest, ARequestMarksAllItsExtentsInOneRecordBeforeItRuns) {
  sink.automatic = false;
  Writer& writer = start(extents(0, 16));
  EXPECT_EQ(writer.phase, Writer::Phase::kWaits);
  EXPECT_EQ(state(5), State::kMarking);
  ASSERT_EQ(sink.records.size(), 1u);
  EXPECT_EQ(sink.records[0].extents.size(), 16u);
  end_record(0);
  EXPECT_EQ(writer.phase, Writer::Phase::kRuns);
  end(writer);
}

TEST_F(HotSetTest, TheLeastRecentlyWrittenExtentCoolsFirst) {
  fill(0, 16);
  end(start(extents(0)));  // 1 is the oldest now
  end(start(extents(100)));
  EXPECT_EQ(state(0), State::kHot);
  EXPECT_EQ(state(1), State::kCold);
  EXPECT_EQ(state(100), State::kHot);
  EXPECT_EQ(set.slots_used(), 16u);
}

TEST_F(HotSetTest, AVictimIsClosedFirstThenItsWritesEndThenItCools) {
  sink.automatic = true;
  Writer& busy = start(extents(0, 16));  // every slot has a write in it
  Writer& needs_room = start(extents(100));
  EXPECT_EQ(state(0), State::kCooling);
  Writer& comes_back = start(extents(0));
  EXPECT_EQ(comes_back.phase, Writer::Phase::kWaits);  // a write never starts in COOLING
  EXPECT_EQ(sink.on_disk[0], true);
  end(busy);
  EXPECT_EQ(needs_room.phase, Writer::Phase::kRuns);
  EXPECT_EQ(comes_back.phase, Writer::Phase::kRuns);  // marked anew
  end(needs_room);
  end(comes_back);
}

TEST_F(HotSetTest, AllHotRequestsPassTheQueueAndColdOnesKeepTheirOrder) {
  fill(0, 15);
  Writer& holds = start(extents(15));
  sink.automatic = false;
  Writer& first = start(extents(100, 16));  // needs every slot: waits for `holds`
  Writer& cold = start(extents(200));
  EXPECT_EQ(state(0), State::kCooling);
  EXPECT_EQ(first.phase, Writer::Phase::kWaits);
  for (size_t i = 16; i < sink.records.size(); ++i) end_record(i);
  EXPECT_EQ(cold.phase, Writer::Phase::kWaits);  // room for it, but `first` came first
  end(holds);
  while (!sink.open().empty()) end_record(sink.open().front());
  EXPECT_EQ(first.phase, Writer::Phase::kRuns);
  EXPECT_EQ(cold.phase, Writer::Phase::kWaits);
  end(first);
  while (!sink.open().empty()) end_record(sink.open().front());
  EXPECT_EQ(cold.phase, Writer::Phase::kRuns);
  Writer& hot = start(extents(200));
  EXPECT_EQ(hot.phase, Writer::Phase::kRuns);
  end(hot);
  end(cold);
}

TEST_F(HotSetTest, AFailedMarkFailsItsRequestAndAnotherThatSharesTheExtentMarksItItself) {
  sink.automatic = false;
  Writer& first = start(extents(0, 2));
  Writer& second = start(extents(1, 2));
  ASSERT_EQ(sink.records.size(), 2u);
  EXPECT_EQ(sink.records[1].extents, (std::vector<uint64_t>{2}));
  end_record(1);
  end_record(0, fail(Code::kMediumWrite));
  EXPECT_EQ(first.phase, Writer::Phase::kFailed);
  EXPECT_EQ(state(0), State::kCold);
  ASSERT_EQ(sink.records.size(), 3u);
  EXPECT_EQ(sink.records[2].extents, (std::vector<uint64_t>{1}));
  end_record(2);
  EXPECT_EQ(second.phase, Writer::Phase::kRuns);
  end(second);
  EXPECT_EQ(set.slots_used(), 2u);
}

TEST_F(HotSetTest, AFailedCoolingKeepsTheMarkAndFailsTheRequestThatNeedsRoom) {
  fill(0, 16);
  sink.automatic = false;
  Writer& cold = start(extents(100));
  end_record(16, fail(Code::kMediumWrite));
  EXPECT_EQ(cold.phase, Writer::Phase::kFailed);
  EXPECT_EQ(state(0), State::kHot);
  EXPECT_EQ(start(extents(0)).phase, Writer::Phase::kRuns);  // hot ones go on
  end(writers.back());
}

TEST_F(HotSetTest, CloseWaitsForTheCoolingUnderWay) {
  fill(0, 16);
  sink.automatic = false;
  Writer& cold = start(extents(100));
  const auto closed = world.start(world.reactor(0), testing::ended(set.close()));
  EXPECT_FALSE(closed->has_value());
  end_record(16);
  EXPECT_TRUE(closed->has_value());
  end_record(17);
  end(cold);
}

TEST_F(HotSetTest, APowerCutDestroysRequestsWhereverTheyWait) {
  fill(0, 16);
  start(extents(0));  // runs
  sink.automatic = false;
  start(extents(100));  // for room: 1 is cooling
  start(extents(1));    // in the queue
  end_record(16);
  start(extents(101));  // in the queue
  world.cut_power();
}

// The walk. A state is reached by a path of events; each path is replayed on a fresh world, and
// states that look alike are visited once. Every reachable state must allow all one-shot clients
// to end (no deadlock, no request that never gets its extents), checked backwards from the ends.
struct Client {
  ByteRange range;
  bool is_loop;  // comes again for ever
};

class Walk {
 public:
  explicit Walk(std::vector<Client> clients) : clients_(std::move(clients)) {}

  size_t states() const { return seen_.size(); }
  // Empty, or what is wrong and how it came about.
  std::string run() {
    std::deque<std::string> todo{""};
    std::map<std::string, std::vector<std::string>> came_from;
    std::set<std::string> good;
    const std::string start = replay("").signature;
    seen_[start] = "";
    while (!todo.empty()) {
      const std::string path = todo.front();
      todo.pop_front();
      const Reached here = replay(path);
      if (!here.wrong.empty()) return here.wrong + " after " + path;
      if (here.is_end) good.insert(here.signature);
      for (const char event : here.events) {
        const Reached next = replay(path + event);
        came_from[next.signature].push_back(here.signature);
        if (seen_.emplace(next.signature, path + event).second) todo.push_back(path + event);
      }
    }
    std::deque<std::string> back(good.begin(), good.end());
    while (!back.empty()) {
      const std::string state = back.front();
      back.pop_front();
      for (const std::string& before : came_from[state]) {
        if (good.insert(before).second) back.push_back(before);
      }
    }
    for (const auto& [signature, path] : seen_) {
      if (!good.contains(signature)) return fmt::format("stuck in {} after {}", signature, path);
    }
    return {};
  }

 private:
  struct Reached {
    std::string signature;
    std::string
        events;  // 'a'..: client arrives; 'A'..: its write ends; '0'..: n-th open record ends
    std::string wrong;
    bool is_end = true;
  };

  Reached replay(const std::string& path) {
    TestWorld world;
    TestCore& core = world.reactor(0);
    ManualSink sink;
    HotSet set(core, sink, HotSet::kMaxPerRequest);
    std::deque<Writer> writers(clients_.size());
    sink.automatic = false;
    for (const char event : path) {
      if (event >= 'a') {
        Writer& writer = writers[static_cast<size_t>(event - 'a')];
        writer.range = clients_[static_cast<size_t>(event - 'a')].range;
        writer.end.reset();
        world.start(core, write(&set, &sink, &writer));
      } else if (event >= 'A') {
        core.inside([&] { writers[static_cast<size_t>(event - 'A')].end.set(); });
      } else {
        core.inside([&] { sink.end(sink.open()[static_cast<size_t>(event - '0')]); });
      }
      world.run();
    }
    Reached here = look(set, sink, writers);
    // Let everything end, so that the world can be taken down.
    sink.automatic = true;
    for (int i = 0; i < 100; ++i) {
      core.inside([&] {
        for (const size_t r : sink.open()) sink.end(r);
        for (Writer& writer : writers) writer.end.set();
      });
      world.run();
    }
    for (const Writer& writer : writers) {
      if (writer.phase == Writer::Phase::kWaits) here.wrong = "a request never got its extents";
    }
    return here;
  }

  Reached look(const HotSet& set, const ManualSink& sink, const std::deque<Writer>& writers) {
    Reached here;
    if (set.slots_used() > HotSet::kMaxPerRequest) here.wrong = "more slots than the limit";
    for (size_t c = 0; c < clients_.size(); ++c) {
      const Writer& writer = writers[c];
      const uint64_t first = clients_[c].range.offset / kHotBytes;
      here.signature += static_cast<char>('0' + static_cast<int>(writer.phase));
      for (uint64_t e = first; e < clients_[c].range.end() / kHotBytes; ++e) {
        const State state = set.state(HotExtent(e));
        here.signature += "cmhk"[static_cast<int>(state)];
        if (writer.phase == Writer::Phase::kRuns && state != State::kHot &&
            state != State::kCooling) {
          here.wrong = "a write runs in an extent that is neither hot nor closed";
        }
      }
      if (writer.phase == Writer::Phase::kFailed) here.wrong = "a request failed";
      if (!clients_[c].is_loop) here.is_end &= writer.phase == Writer::Phase::kEnded;
      const bool is_free = writer.phase == Writer::Phase::kIdle ||
                           (clients_[c].is_loop && writer.phase == Writer::Phase::kEnded);
      if (is_free) here.events += static_cast<char>('a' + c);
      if (writer.phase == Writer::Phase::kRuns) here.events += static_cast<char>('A' + c);
    }
    here.signature += order_of(writers, &Writer::arrived) + order_of(writers, &Writer::ran);
    const std::vector<size_t> open = sink.open();
    for (size_t i = 0; i < open.size(); ++i) {
      const ManualSink::Record& record = sink.records[open[i]];
      here.signature += record.is_mark ? 'M' : 'K';
      for (const uint64_t e : record.extents) here.signature += std::to_string(e) + ",";
      here.events += static_cast<char>('0' + i);
    }
    return here;
  }

  // The queue and the order of victims are part of the state.
  static std::string order_of(const std::deque<Writer>& writers, int Writer::* when) {
    std::map<int, char> by_time;
    for (size_t c = 0; c < writers.size(); ++c) {
      if (writers[c].*when != 0) by_time[writers[c].*when] = static_cast<char>('a' + c);
    }
    std::string order = "/";
    for (const auto& [time, client] : by_time) order += client;
    return order;
  }

  std::vector<Client> clients_;
  std::map<std::string, std::string> seen_;
};

TEST(HotSetWalk, TwoSpansThatCrossAndASmallRequestThatComesForEver) {
  Walk walk({{extents(0, 12), false}, {extents(8, 12), false}, {extents(0), true}});
  EXPECT_EQ(walk.run(), "");
  EXPECT_GT(walk.states(), 100u);
}

TEST(HotSetWalk, AnExtentThatAlwaysHasAWriteInFlightStillCools) {
  Walk walk({{extents(0, 16), true}, {extents(0, 16), true}, {extents(16), false}});
  EXPECT_EQ(walk.run(), "");
  EXPECT_GT(walk.states(), 30u);
}

TEST(HotSetWalk, ALargeRequestIsNotStarvedBySmallOnes) {
  Walk walk({{extents(0, 16), false}, {extents(16), true}, {extents(17), true}});
  EXPECT_EQ(walk.run(), "");
  EXPECT_GT(walk.states(), 100u);
}

}  // namespace
}  // namespace duplex::volume
