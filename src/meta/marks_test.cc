#include "meta/marks.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/log.h"
#include "meta/test_world.h"

namespace duplex::meta {
namespace {

using test::Loss;
using test::Machine;
using test::MemoryFiles;

constexpr const char* kCopies[] = {"/state/marks-1", "/state/marks-2"};

MarkedExtent at(uint16_t volume, uint32_t extent) {
  return {VolumeNumber(volume), LogicalExtent(extent)};
}
Transaction state(std::string name) {
  return {PutJob{{1, "state", "", "", std::move(name), "", 0, 0, 0, 0, 0}}};
}

// One life of the array, until something destroys it.
struct Life {
  MemoryFiles& files;
  Machine machine;
  std::unique_ptr<Store> store;
  std::unique_ptr<Marks> marks;
  Snapshot snapshot;
  Marks::Found found;

  explicit Life(MemoryFiles& f) : files(f) {
    set_log_sink([](LogLevel, std::string_view) {});
  }
  Result<void> open() {
    TRY_ASSIGN(store, machine.run(Store::open(files, machine.store, machine.rng,
                                              {"/state", ArrayId(1), "a"})));
    TRY_ASSIGN(snapshot, machine.run(store->load()));
    TRY_ASSIGN(auto opened,
               machine.run(Marks::open(files, machine.store, machine.rng, *store, snapshot,
                                       {"/state", MarkLog::kMaxBatchBytes})));
    marks = std::move(opened.marks);
    found = std::move(opened.found);
    return {};
  }
  Result<void> mark(std::vector<MarkedExtent> extents) { return machine.run(marks->mark(extents)); }
  Result<void> cool(uint16_t volume, uint32_t extent, std::vector<format::MapWord> words) {
    return machine.run(marks->cool(VolumeNumber(volume), LogicalExtent(extent), std::move(words)));
  }
  Result<void> words(uint32_t map, std::vector<ExtentWord> all) {
    return machine.run(marks->write_words(map, std::move(all)));
  }
  Result<void> commit(Transaction with, std::vector<WholeMap> maps,
                      std::vector<VolumeNumber> dropped = {}) {
    return machine.run(marks->commit(std::move(with), std::move(maps), std::move(dropped)));
  }
  // As many batches as a lap has: a new one begins.
  bool turn_lap() {
    for (int i = 0; i < 4; ++i) {
      if (!mark({at(9, 9)})) return false;
    }
    return true;
  }
};

// What a start should find, kept by plain means.
struct Model {
  std::map<uint16_t, std::set<uint32_t>> hot;
  std::map<uint32_t, std::map<uint32_t, uint64_t>> maps;
  std::string state;
  bool operator==(const Model&) const = default;

  static Model of(const Life& life) {
    Model model;
    for (const HotMarksRow& row : life.found.hot) {
      for (const LogicalExtent e : row.extents) model.hot[row.volume.value()].insert(e.value());
    }
    for (const MapRow& row : life.found.maps) {
      auto& map = model.maps[row.map];
      for (const ExtentWord& word : row.words) map[word.extent] = word.regions;
    }
    for (const JobRow& row : life.snapshot.jobs) model.state = row.state;
    return model;
  }
};

// --- a script of every call, cut anywhere

struct Step {
  std::function<Result<void>(Life&)> act;
  std::function<void(Model&)> expect;
};

std::vector<Step> script() {
  std::vector<Step> steps;
  const auto add = [&](auto act, auto expect) { steps.push_back({act, expect}); };
  const auto create = [&](uint32_t map, uint64_t regions, std::string name) {
    add([=](Life& l) { return l.commit(state(name), {{map, {{{5, regions}, {70, 1}}}}}); },
        [=](Model& m) {
          m.maps[map] = {{5, regions}, {70, 1}};
          m.state = name;
        });
  };
  const auto touch = [&](uint16_t volume, uint32_t extent) {
    add([=](Life& l) { return l.mark({at(volume, extent), at(volume, extent + 1)}); },
        [=](Model& m) { m.hot[volume].insert({extent, extent + 1}); });
  };
  const auto cool = [&](uint16_t volume, uint32_t extent, uint32_t map, uint64_t regions) {
    add([=](Life& l) { return l.cool(volume, extent, {{map, regions}}); },
        [=](Model& m) {
          m.hot[volume].erase(extent);
          if (m.hot[volume].empty()) m.hot.erase(volume);
          m.maps[map][extent] = regions;
          if (regions == 0) m.maps[map].erase(extent);
        });
  };
  create(1, 0xff, "copying");
  for (uint32_t round = 0; round < 2; ++round) {
    touch(1, 5);
    touch(2, 8 + round);
    create(2, 0xf0 + round, "sync");
    cool(1, 5, 1, round == 0 ? 0 : 7);
    add([=](Life& l) { return l.words(2, {{5, 0}, {6, 3}}); },
        [=](Model& m) {
          m.maps[2].erase(5);
          m.maps[2][6] = 3;
        });
    create(1, 0xf + round, "split");
    cool(1, 6, 1, 1);
    add([=](Life& l) { return l.commit(state("gone"), {{2, {}}}, {VolumeNumber(2)}); },
        [=](Model& m) {
          m.maps.erase(2);
          m.hot.erase(2);
          m.state = "gone";
        });
    touch(3, 1);
  }
  return steps;
}

std::vector<Model> models() {
  std::vector<Model> all(1);
  for (const Step& step : script()) {
    all.push_back(all.back());
    step.expect(all.back());
  }
  return all;
}

// Goes on with the script from step `*done`; counts what is known to be durable.
void run_script(Life& life, size_t* done) {
  static const std::vector<Step> steps = script();
  for (; *done < steps.size(); ++*done) {
    if (!steps[*done].act(life) || life.marks->failed()) return;
  }
}

// Opens with the power back. The number of steps that have happened: `done`, or one more.
void expect_found(Life& life, size_t* done) {
  static const std::vector<Model> expected = models();
  ASSERT_TRUE(life.found.trusted) << "no rot, a crash";
  const Model model = Model::of(life);
  if (*done + 1 < expected.size() && model == expected[*done + 1]) ++*done;
  ASSERT_EQ(model, expected[*done]) << "after step " << *done;
}

// A life that may be cut in its start as well.
void live(MemoryFiles& files, size_t* done) {
  Life life(files);
  if (!life.open()) return;
  expect_found(life, done);
  run_script(life, done);
}

// The last one goes to the end of the script.
void live_on(MemoryFiles& files, size_t* done) {
  Life life(files);
  const auto opened = life.open();
  ASSERT_TRUE(opened) << opened.error().describe();
  expect_found(life, done);
  if (testing::Test::HasFatalFailure()) return;
  run_script(life, done);
  ASSERT_EQ(*done, script().size());
}

uint64_t calls_of_script() {
  MemoryFiles files;
  size_t done = 0;
  live(files, &done);
  EXPECT_EQ(done, script().size());
  return files.calls;
}

// Mutations: in replay() each batch has position 0, or UINT64_MAX; appended() applies no words;
// commit_here() leaves the hot position as it was.
TEST(MarksCrash, PowerCutsAnywhereLeaveAPrefixOfTheCallsInMarksMapsAndStateAlike) {
  const uint64_t calls = calls_of_script();
  ASSERT_GT(calls, 90u);
  for (uint64_t cut = 1; cut <= calls; ++cut) {
    for (const auto& [loss, seed] :
         {std::pair(Loss::kNothingKept, 0u), {Loss::kAllKept, 0u}, {Loss::kMixed, 1u}}) {
      SCOPED_TRACE(testing::Message() << "cut at " << cut << ", loss " << static_cast<int>(loss));
      MemoryFiles files;
      size_t done = 0;
      files.faults.cut_at = cut;
      live(files, &done);
      files.restart(loss, seed);
      files.faults.cut_at = 1 + cut * 7 % 60;
      live(files, &done);
      files.restart(loss, seed + 1);
      live_on(files, &done);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// Mutations: cool() hands the error on when the log fails over its record; a failed transaction
// leaves `changed` down.
TEST(MarksCrash, AnErrorAnywhereLosesNothingThatWasAcknowledged) {
  const uint64_t calls = calls_of_script();
  for (const int errnum : {EIO, ENOSPC}) {
    for (uint64_t failing = 1; failing <= calls; ++failing) {
      SCOPED_TRACE(testing::Message() << "errno " << errnum << " at " << failing);
      MemoryFiles files;
      size_t done = 0;
      files.faults.fail_at = failing;
      files.faults.errnum = errnum;
      live(files, &done);
      files.restart(failing % 2 == 0 ? Loss::kAllKept : Loss::kMixed,
                    static_cast<unsigned>(failing));
      live_on(files, &done);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// --- the rules one by one

struct MarksTest : testing::Test {
  MemoryFiles files;
  std::unique_ptr<Life> life = open();

  std::unique_ptr<Life> open() {
    auto next = std::make_unique<Life>(files);
    const auto opened = next->open();
    EXPECT_TRUE(opened) << opened.error().describe();
    return next;
  }
  // The power goes; what the next life finds.
  Model crash(Loss loss = Loss::kNothingKept) {
    life.reset();
    files.restart(loss);
    life = open();
    return Model::of(*life);
  }
  // The next write or flush of the log fails, this one and no other: of a log with one copy only,
  // `call` 1 is the write of a batch, 2 its flush.
  void fail_call(uint64_t call) { files.faults.fail_at = files.calls + call; }
  void lose_a_copy() {
    fail_call(1);
    ASSERT_TRUE(life->mark({at(9, 1)}));
  }
  using Outcome = std::optional<Result<void>>;
  // Several calls under way at once, in this order.
  template <class... Tasks>
  std::vector<Outcome> together(Tasks... tasks) {
    std::vector<Outcome> outcomes(sizeof...(tasks));
    rt::TaskGroup group(life->machine.control);
    life->machine.control.enter([&] {
      size_t i = 0;
      (group.spawn(test::store_result(std::move(tasks), outcomes[i++])), ...);
    });
    life->machine.run_until_idle();
    return outcomes;
  }
};

TEST_F(MarksTest, WithoutAMarkThereIsNoLog) {
  ASSERT_TRUE(life->commit(state("a"), {{1, {{{1, 1}}}}}));
  crash();
  for (const char* path : kCopies) EXPECT_FALSE(files.exists(path));
  EXPECT_EQ(life->snapshot.mark_log, MarkLogRow{});
  ASSERT_TRUE(life->mark({at(1, 2)}));
  for (const char* path : kCopies) EXPECT_TRUE(files.exists(path));
  EXPECT_EQ(crash(), (Model{{{1, {2}}}, {{1, {{1, 1}}}}, "a"}));
}

TEST_F(MarksTest, MarksThatComeTogetherAtFirstBeginOneLap) {
  const MarkedExtent extents[] = {at(1, 1), at(1, 2), at(1, 3)};
  const std::span all(extents);
  for (const Outcome& done :
       together(life->marks->mark(all.subspan(0, 1)), life->marks->mark(all.subspan(1, 1)),
                life->marks->mark(all.subspan(2, 1)))) {
    EXPECT_TRUE(done && *done);
  }
  EXPECT_EQ(crash().hot[1].size(), 3u);
}

TEST_F(MarksTest, WhatDoesNotFitIntoOneBatchIsWrittenInSeveral) {
  std::vector<MarkedExtent> many;
  for (uint32_t i = 0; i < 5000; ++i) many.push_back(at(1, i));
  ASSERT_TRUE(life->mark(many));
  std::vector<WholeMap> maps;
  std::vector<format::MapWord> words;
  for (uint32_t i = 0; i < 600; ++i) {
    maps.push_back({i, {{}}});
    words.push_back({i, i + 1});
  }
  ASSERT_TRUE(life->commit({}, maps));
  ASSERT_TRUE(life->cool(1, 77, words));
  std::vector<ExtentWord> all;
  for (uint32_t i = 0; i < 3000; ++i) all.push_back({i, i + 1});
  ASSERT_TRUE(life->words(0, all));
  const Model found = crash();
  EXPECT_EQ(found.hot.at(1).size(), 4999u);
  EXPECT_FALSE(found.hot.at(1).contains(77));
  for (uint32_t i = 1; i < 600; ++i) ASSERT_EQ(found.maps.at(i).at(77), i + 1);
  ASSERT_EQ(found.maps.at(0).size(), 3000u);
  EXPECT_EQ(found.maps.at(0).at(2999), 3000u);
}

// Mutation: apply_words() does not look at the position of the row.
TEST_F(MarksTest, F28_WordsOlderThanAWholeMapDoNotComeBackOverIt) {
  ASSERT_TRUE(life->commit(state("split"), {{1, {{{5, 0xff}}}}, {2, {{{5, 1}}}}}));
  ASSERT_TRUE(life->mark({at(1, 5)}));
  ASSERT_TRUE(life->cool(1, 5, {{1, 1}, {2, 2}}));
  ASSERT_TRUE(life->commit(state("reverse"), {{1, {{{5, 0xf0}}}}}));
  EXPECT_EQ(crash(), (Model{{}, {{1, {{5, 0xf0}}}, {2, {{5, 2}}}}, "reverse"}));
}

// Mutation: included() is one more than it is.
TEST_F(MarksTest, F28_WordsNewerThanAWholeMapAreFound) {
  ASSERT_TRUE(life->mark({at(1, 5)}));
  ASSERT_TRUE(life->commit(state("reverse"), {{1, {{{5, 0xf0}}}}}));
  ASSERT_TRUE(life->cool(1, 5, {{1, 0x0f}}));
  EXPECT_EQ(crash(), (Model{{}, {{1, {{5, 0x0f}}}}, "reverse"}));
}

TEST_F(MarksTest, F28_WordsOfADroppedMapBelongToNoMapOfThatNumberLater) {
  ASSERT_TRUE(life->commit({}, {{1, {{}}}}));
  ASSERT_TRUE(life->words(1, {{5, 1}}));
  ASSERT_TRUE(life->commit({}, {{1, {}}}));
  ASSERT_TRUE(life->words(1, {{6, 1}})) << "asked for too late";
  EXPECT_EQ(crash(), Model{});
  ASSERT_TRUE(life->commit({}, {{1, {{}}}}));
  EXPECT_EQ(crash(), (Model{{}, {{1, {}}}, ""}));
  EXPECT_EQ(life->commit({}, {{7, {}}}).error().code(), Code::kState) << "no such map";
}

// Mutation: commit_here() leaves the hot position as it was.
TEST_F(MarksTest, DroppedMarksDoNotComeBackAndAllOthersStay) {
  ASSERT_TRUE(life->turn_lap());
  ASSERT_TRUE(life->mark({at(1, 1), at(2, 1)}));
  ASSERT_TRUE(life->turn_lap());  // in the store by now
  ASSERT_TRUE(life->mark({at(1, 2), at(2, 2)}));
  ASSERT_TRUE(life->commit(state("deleted"), {}, {VolumeNumber(2)}));
  ASSERT_TRUE(life->mark({at(1, 3)}));
  EXPECT_EQ(crash(), (Model{{{1, {1, 2, 3}}, {9, {9}}}, {}, "deleted"}));
  ASSERT_TRUE(life->mark({at(2, 3)}));
  EXPECT_EQ(crash().hot[2], std::set<uint32_t>{3}) << "the number may be used again";
}

// Mutation: store() does not note that a volume has no row any more.
TEST_F(MarksTest, MarksComeAndGoOverManyLaps) {
  for (uint32_t round = 0; round < 3; ++round) {
    ASSERT_TRUE(life->mark({at(1, 1)}));
    if (round == 0) ASSERT_TRUE(life->turn_lap());
    ASSERT_TRUE(life->cool(1, 1, {}));
    const auto turned = life->turn_lap();
    ASSERT_TRUE(turned) << round;
  }
  EXPECT_EQ(crash(), (Model{{{9, {9}}}, {}, ""}));
}

// Mutation: cool() and write_words() do not wait for commits.
TEST_F(MarksTest, CallsThatCrossTakeEffectInOrderOfArrival) {
  Marks& marks = *life->marks;
  ASSERT_TRUE(life->commit({}, {{1, {{}}}, {2, {{}}}}));
  ASSERT_TRUE(life->mark({at(1, 5)}));
  std::vector<WholeMap> whole = {{1, {{{5, 0xf0}}}}, {2, {{{5, 0xf0}}}}};
  for (const Outcome& done : together(
           marks.cool(VolumeNumber(1), LogicalExtent(5), {{1, 1}}), marks.write_words(1, {{5, 2}}),
           marks.commit(state("x"), std::move(whole), {}), marks.write_words(2, {{5, 3}}))) {
    EXPECT_TRUE(done && *done);
  }
  EXPECT_EQ(crash(), (Model{{}, {{1, {{5, 0xf0}}}, {2, {{5, 3}}}}, "x"}));
}

// The lap ends, and the log wants its checkpoint, while a whole map is on its way into the store.
// Mutation: checkpoint() does not wait for its turn.
TEST_F(MarksTest, ACheckpointDuringACommitDoesNotBringTheOldMapBack) {
  for (int filled = 0; filled < 12; ++filled) {
    Marks& marks = *life->marks;
    ASSERT_TRUE(life->commit({}, {{1, {{}}}}));
    for (int i = 0; i < filled / 2; ++i) ASSERT_TRUE(life->mark({at(9, 9)}));
    ASSERT_TRUE(life->words(1, {{5, 1}}));
    const MarkedExtent cold[] = {at(3, 3)};
    std::vector<WholeMap> whole = {{1, {{{5, 0xf0}}}}};
    const std::vector<VolumeNumber> nine = {VolumeNumber(9)};
    const auto outcomes =
        filled % 2 == 0
            ? together(marks.mark(cold), marks.commit(state("x"), std::move(whole), nine))
            : together(marks.commit(state("x"), std::move(whole), nine), marks.mark(cold));
    for (const Outcome& done : outcomes) EXPECT_TRUE(done && *done);
    EXPECT_EQ(crash(), (Model{{{3, {3}}}, {{1, {{5, 0xf0}}}}, "x"})) << filled;
  }
}

// A checkpoint includes batches whose callers do not know of it yet.
// Mutation: the shadow is changed where append() returns, not in appended().
TEST_F(MarksTest, RecordsThatWaitTogetherOverALapAreAllFound) {
  ASSERT_TRUE(life->commit({}, {{1, {{}}}}));
  std::vector<Outcome> outcomes(40);
  rt::TaskGroup group(life->machine.control);
  life->machine.control.enter([&] {
    for (uint32_t i = 0; i < 40; ++i) {
      std::vector<ExtentWord> words;
      for (uint32_t n = 0; n < 300; ++n) words.push_back({i * 300 + n, 1});
      group.spawn(test::store_result(life->marks->write_words(1, std::move(words)), outcomes[i]));
    }
  });
  life->machine.run_until_idle();
  for (const Outcome& done : outcomes) EXPECT_TRUE(done && *done);
  EXPECT_EQ(crash().maps.at(1).size(), 12'000u);
}

// --- what fails

// Mutation: the shadow is changed before the store has answered.
TEST_F(MarksTest, ARefusedCommitChangesNeitherMapsNorMarks) {
  ASSERT_TRUE(life->commit(state("a"), {{1, {{{5, 1}}}}, {2, {{}}}}));
  ASSERT_TRUE(life->mark({at(1, 5)}));
  const auto refused =
      life->commit({DropJob{77}}, {{1, {{{5, 2}}}}, {2, {}}, {3, {{}}}}, {VolumeNumber(1)});
  EXPECT_EQ(refused.error().code(), Code::kState);
  ASSERT_TRUE(life->turn_lap());
  EXPECT_EQ(crash(), (Model{{{1, {5}}, {9, {9}}}, {{1, {{5, 1}}}, {2, {}}}, "a"}));
}

// Mutation: store() leaves `changed` down when it fails.
TEST_F(MarksTest, AFullStoreStopsMarksAtTheEndOfTheLapAndNothingIsLost) {
  ASSERT_TRUE(life->commit(state("a"), {{1, {{}}}}));
  ASSERT_TRUE(life->mark({at(1, 0)}));
  ASSERT_TRUE(life->words(1, {{5, 1}}));
  uint64_t used = 0;
  for (const auto& [path, bytes] : files.image()) used += bytes.size();
  files.faults.capacity = used;
  uint32_t marked = 1;
  Result<void> done;
  while ((done = life->mark({at(1, marked)}))) ++marked;
  EXPECT_EQ(marked, 3u) << "the rest of the lap";
  EXPECT_EQ(done.error().code(), Code::kNoSpace);
  EXPECT_FALSE(life->marks->failed());
  EXPECT_EQ(life->commit(state("b"), {{1, {}}}, {VolumeNumber(1)}).error().code(), Code::kNoSpace);
  EXPECT_EQ(life->cool(1, 0, {{1, 1}}).error().code(), Code::kNoSpace) << "its mark still counts";
  files.faults.capacity = UINT64_MAX;
  ASSERT_TRUE(life->turn_lap());
  EXPECT_EQ(crash(), (Model{{{1, {0, 1, 2}}, {9, {9}}}, {{1, {{5, 1}}}}, "a"}));
}

// Mutation: prepare_copy() takes ENOSPC for a broken copy.
TEST_F(MarksTest, AFirstMarkWithoutRoomForTheLogFailsAndTheNextOneWithRoomDoesNot) {
  files.faults.capacity = 0;
  EXPECT_EQ(life->mark({at(1, 1)}).error().code(), Code::kNoSpace);
  EXPECT_FALSE(life->marks->failed());
  files.faults.capacity = UINT64_MAX;
  ASSERT_TRUE(life->mark({at(1, 2)}));
  EXPECT_EQ(crash().hot[1], std::set<uint32_t>{2});
}

// Mutation: record_out() is not durable, or the start reads a copy that is out.
TEST_F(MarksTest, F34_ACopyThatFailedIsLeftOutAndNotBelievedAfterwards) {
  ASSERT_TRUE(life->mark({at(1, 1)}));
  ASSERT_TRUE(life->commit(state("a"), {{1, {{}}}}, {VolumeNumber(7)}));
  lose_a_copy();
  EXPECT_FALSE(life->marks->failed());
  ASSERT_TRUE(life->cool(1, 1, {{1, 3}}));
  ASSERT_TRUE(life->commit(state("b"), {}));
  // The copy that is left is whole, the other one ends before the cool record.
  EXPECT_EQ(crash(), (Model{{{9, {1}}}, {{1, {{1, 3}}}}, "b"}));
  EXPECT_TRUE(life->snapshot.mark_log.out_1);
  EXPECT_FALSE(life->snapshot.mark_log.out_2);
  crash();
  EXPECT_FALSE(life->snapshot.mark_log.out_1) << "a new lap lets it in again";
}

TEST_F(MarksTest, F20_WhenBothCopiesFailMarksFailAndVerbsGoOn) {
  ASSERT_TRUE(life->commit(state("a"), {{1, {{}}}}));
  ASSERT_TRUE(life->mark({at(1, 1)}));
  lose_a_copy();
  fail_call(2);
  EXPECT_FALSE(life->mark({at(1, 2)}));
  EXPECT_TRUE(life->marks->failed());
  EXPECT_FALSE(life->mark({at(1, 1)}));
  EXPECT_FALSE(life->cool(1, 1, {{1, 1}})) << "its mark still counts";
  EXPECT_FALSE(life->words(1, {{1, 1}}));
  ASSERT_TRUE(life->commit(state("suspended"), {{1, {{{9, 9}}}}}));
  EXPECT_EQ(crash(), (Model{{{1, {1}}, {9, {1}}}, {{1, {{9, 9}}}}, "suspended"}));
  EXPECT_FALSE(life->marks->failed());
  EXPECT_TRUE(life->mark({at(1, 2)}));
}

// The flush of the last copy fails, the bytes reach the disk all the same.
// Mutations: included() is position_ in a log that has failed; cool() hands the error on.
TEST_F(MarksTest, ARecordTheLogFailedOverIsRightWhetherItIsFoundOrNot) {
  for (const Loss loss : {Loss::kNothingKept, Loss::kAllKept}) {
    for (const bool then_commit : {false, true}) {
      ASSERT_TRUE(life->commit(state("a"), {{1, {{{5, 0xff}}}}}, {VolumeNumber(9)}));
      ASSERT_TRUE(life->mark({at(1, 5)}));
      lose_a_copy();
      fail_call(2);
      EXPECT_TRUE(life->cool(1, 5, {{1, 0x0f}})) << "cold from now on, for whoever writes";
      EXPECT_FALSE(life->mark({at(1, 5)}));
      if (then_commit) ASSERT_TRUE(life->commit(state("b"), {{1, {{{5, 0xf0}}}}}));
      const Model found = crash(loss);
      const bool ghost = loss == Loss::kAllKept;
      EXPECT_EQ(found.hot.contains(1), !ghost);
      EXPECT_EQ(found.maps.at(1).at(5), then_commit ? 0xf0u : ghost ? 0x0fu : 0xffu);
      if (!ghost) ASSERT_TRUE(life->cool(1, 5, {}));
    }
  }
}

TEST_F(MarksTest, F34_RotInBothCopiesIsToldUntilTheOwnerHasSaidSo) {
  ASSERT_TRUE(life->commit(state("a"), {{1, {{{5, 1}}}}}));
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(life->mark({at(1, i)}));
  ASSERT_TRUE(life->words(1, {{5, 2}}));
  std::vector<std::byte> whole[2];
  for (int c = 0; c < 2; ++c) {
    whole[c] = files.content(kCopies[c]);
    files.content(kCopies[c])[kBlockBytes + 40] ^= std::byte{1};
  }
  for (int start = 0; start < 2; ++start) {
    life.reset();
    life = open();
    EXPECT_FALSE(life->found.trusted);
    EXPECT_EQ(Model::of(*life).maps.at(1).at(5), 1u) << "what the store has";
  }
  ASSERT_TRUE(life->commit(state("full"), {{1, {{{5, UINT64_MAX}}}}}));
  // The copies can be read again: what was said stands. Mutation: included() is position_.
  for (int c = 0; c < 2; ++c) files.content(kCopies[c]) = whole[c];
  life.reset();
  life = open();
  EXPECT_TRUE(life->found.trusted);
  EXPECT_EQ(Model::of(*life).maps.at(1).at(5), UINT64_MAX);
  ASSERT_TRUE(life->words(1, {{5, 4}}));
  EXPECT_EQ(crash().maps.at(1).at(5), 4u);
}

TEST_F(MarksTest, F34_RotInOneCopyCostsNothing) {
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(life->mark({at(1, i)}));
  files.content(kCopies[0])[kBlockBytes + 40] ^= std::byte{1};
  EXPECT_EQ(Model::of(*(life.reset(), life = open())).hot[1].size(), 3u);
  EXPECT_TRUE(life->found.trusted);
}

TEST_F(MarksTest, AMapOfMoreThanARowHoldsIsRefusedAndBreaksNothing) {
  std::vector<ExtentWord> words;
  for (uint32_t i = 0; i <= 1u << 24; ++i) words.push_back({i, 1});
  EXPECT_EQ(life->commit(state("x"), {{1, std::move(words)}}).error().code(), Code::kNotSupported);
  EXPECT_TRUE(life->commit(state("a"), {}));
  EXPECT_EQ(crash().state, "a");
}

TEST_F(MarksTest, ObjectsLeftBehindByAPowerCutAreSafeToDestroy) {
  for (int steps = 0; steps < 40; ++steps) {
    files.restart(Loss::kMixed, static_cast<unsigned>(steps));
    life = open();
    ASSERT_TRUE(life->commit({}, {{1, {{}}}}));
    const MarkedExtent extents[] = {at(1, 1)};
    Marks& marks = *life->marks;
    Outcome outcomes[4];
    auto group = std::make_unique<rt::TaskGroup>(life->machine.control);
    life->machine.control.enter([&] {
      group->spawn(test::store_result(marks.mark(extents), outcomes[0]));
      group->spawn(test::store_result(marks.commit(state("x"), {{1, {}}}, {}), outcomes[1]));
      group->spawn(test::store_result(marks.write_words(1, {{1, 1}}), outcomes[2]));
      group->spawn(test::store_result(marks.commit(state("y"), {}, {}), outcomes[3]));
    });
    for (int i = 0; i < steps; ++i) {
      if (!life->machine.control.run_one()) life->machine.store.run_one();
    }
    life->machine.control.abandon();
    life->machine.store.abandon();
    files.cut = true;
    if (steps % 2 == 0) group.reset();
    life->marks.reset();
    life->store.reset();
    group.reset();
    life.reset();
  }
}

}  // namespace
}  // namespace duplex::meta
