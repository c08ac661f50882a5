// The verifier over real volumes, legs and trackers; time is virtual.
#include "copy/verifier.h"

#include <utility>

#include "copy/copier_test_kit.h"

namespace duplex::copy {
namespace {

using testing::kBits;
using testing::Pair;
using Mode = volume::TargetLeg::Mode;
using End = Verifier::End;

constexpr volume::MapId kBehind{3};
constexpr ByteRange region(uint64_t number) { return {number * kRegionBytes, kRegionBytes}; }

class VerifierTest : public ::testing::Test {
 protected:
  void SetUp() override { put(0, pair.size, 1); }
  // On both sides, flushed, nothing of it marked.
  void put(uint64_t offset, uint64_t bytes, int value) {
    mode(Mode::kSend);
    for (uint64_t at = offset; at < offset + bytes; at += kMiB) {
      pair.write(at, std::min(kMiB, offset + bytes - at), value);
    }
    ASSERT_TRUE(pair.world.finish(pair.source.flush()));
    ASSERT_TRUE(pair.world.finish(pair.tracker.flush(pair.leg)));
    forget_counts();
  }
  void mode(Mode to) {
    pair.world.source.inside([&] { pair.leg.set_mode(to); });
  }
  void leave() {
    pair.world.source.inside([&] { pair.leg.leave(Error(Code::kState, "it differs")); });
  }
  void forget_counts() { pair.p.read_bytes = pair.s.read_bytes = pair.p.reads = pair.s.reads = 0; }
  // Behind the back of everybody.
  void spoil(std::initializer_list<uint64_t> regions) {
    const rt::Buffer buffer = pair.world.source.buffers().get(kBlockBytes);
    std::memset(buffer.data(), 0x55, kBlockBytes);
    for (const uint64_t number : regions) {
      ASSERT_TRUE(
          pair.world.finish(pair.s.write(number * kRegionBytes + 3 * kBlockBytes, buffer.span())));
    }
  }
  void begin(Verifier::Target target = {}) {
    pair.world.source.inside([&] {
      verifier.emplace(pair.source, pair.leg, pair.tracker, Copier::Start{}, std::move(target));
    });
  }
  End go_on() { return pair.world.finish(verifier->run()); }
  // What the owner does: the mirror is suspended, with these bits.
  void suspend() {
    leave();
    pair.world.source.inside([&] {
      for (uint64_t number = 0; number < pair.regions(); ++number) {
        if (verifier->unmarked().any(region(number))) pair.tracker.set(kBits, region(number));
      }
      verifier->have_bits();
    });
  }
  std::set<uint64_t> marked() const {
    std::set<uint64_t> found;
    for (uint64_t number = 0; number < pair.regions(); ++number) {
      if (pair.leg.bits().any(region(number))) found.insert(number);
    }
    return found;
  }
  using Regions = std::set<uint64_t>;

  Pair pair;
  std::optional<Verifier> verifier;
};

TEST_F(VerifierTest, EqualSidesAreReadOnceAndNothingIsFound) {
  begin();
  EXPECT_EQ(go_on(), End::kDone);
  EXPECT_EQ(verifier->found().regions, 0u);
  EXPECT_EQ(pair.p.read_bytes, pair.size);
  EXPECT_EQ(pair.s.read_bytes, pair.size);
  EXPECT_EQ(verifier->progress().done_bytes, pair.size);
}

// Mutation: run() returns kFound at the end only.
TEST_F(VerifierTest, TheFirstDifferenceIsToldAtOnceAndTheRestHasBitsInTheEnd) {
  spoil({3, 5, 20, 21, 511});
  forget_counts();
  begin();
  EXPECT_EQ(go_on(), End::kFound);
  EXPECT_EQ(verifier->progress().done_bytes, kMiB) << "not at the end";
  EXPECT_EQ(verifier->unmarked().count(), 2u);
  EXPECT_TRUE(verifier->unmarked().all(region(3)));
  EXPECT_TRUE(pair.leg.bits().empty()) << "in kSend a bit would be nobody's to copy";
  suspend();
  EXPECT_EQ(go_on(), End::kDone);
  EXPECT_EQ(marked(), (Regions{3, 5, 20, 21, 511}));
  EXPECT_EQ(verifier->found().regions, 5u);
  EXPECT_EQ(verifier->found().bytes, 5 * kRegionBytes);
  EXPECT_EQ(verifier->found().text(), "5 regions (327680 bytes), the first at 196608");
  // All of it once, and what differs once more.
  EXPECT_EQ(pair.p.read_bytes, pair.size + 5 * kRegionBytes);
  EXPECT_EQ(pair.s.read_bytes, pair.size + 5 * kRegionBytes);
}

// In a mirror that counts as equal again, because somebody has resynchronised it meanwhile.
// Mutation: run() returns kFound for the first one only.
TEST_F(VerifierTest, EachOneIsToldWhileTheMirrorCountsAsEqual) {
  spoil({3, 40});
  begin();
  EXPECT_EQ(go_on(), End::kFound);
  verifier->have_bits();
  EXPECT_EQ(go_on(), End::kFound);
  EXPECT_TRUE(verifier->unmarked().all(region(40)));
  EXPECT_FALSE(verifier->unmarked().any(region(3))) << "that one has been told";
  verifier->have_bits();
  EXPECT_EQ(go_on(), End::kDone);
}

// Mutation: run() does not write the bits when it returns.
TEST_F(VerifierTest, BitsOfASuspendedMirrorAreDurableWhenItReturns) {
  spoil({3, 200, 300});
  leave();
  begin();
  EXPECT_EQ(go_on(), End::kFound) << "also here the mirror hears of the first one at once";
  EXPECT_TRUE(verifier->unmarked().empty());
  EXPECT_TRUE(pair.store.disk.covers(3));
  EXPECT_EQ(go_on(), End::kDone);
  for (const uint64_t number : {3, 200, 300}) EXPECT_TRUE(pair.store.disk.covers(number)) << number;
  EXPECT_FALSE(pair.tracker.is_pending(kBits));
}

// Mutation: differing() returns every error of the target.
TEST_F(VerifierTest, WhatOnlyTheTargetCannotReadDiffers) {
  pair.s.bad = {33, 34, 100};
  pair.p.bad = {34, 200};
  leave();
  begin();
  EXPECT_EQ(go_on(), End::kFound);
  EXPECT_EQ(go_on(), End::kDone);
  EXPECT_EQ(marked(), (Regions{33, 100}));
  EXPECT_EQ(verifier->found().unreadable_bytes, 2 * kRegionBytes);
  EXPECT_EQ(verifier->unread_bytes(), 2 * kRegionBytes) << "those of the source: 34 and 200";
  // What was read in vain is not counted. Of the megabyte around 100 all is read twice, and the
  // region once more; around 33 there are 15 regions and one of them again, around 200 there
  // are 15.
  EXPECT_EQ(pair.p.read_bytes, pair.size + kMiB);
  EXPECT_LE(pair.s.read_bytes, pair.size);
}

// Mutation: counts() does not ask.
TEST_F(VerifierTest, ATargetWhoseDeviceIsAwayIsNotAccused) {
  pair.s.fails_all_reads = true;
  begin({.behind = kBehind, .tracker = nullptr, .is_attached = []() -> rt::Task<bool> {
           co_return false;
         }});
  EXPECT_EQ(go_on(), End::kDone);
  EXPECT_EQ(verifier->found().regions, 0u);
  EXPECT_TRUE(pair.leg.bits().empty());
  EXPECT_EQ(verifier->unread_bytes(), pair.size);
  EXPECT_NE(verifier->progress().reason.find("away"), std::string::npos);
}

// Mutation: counts() does not look at the map of the target.
TEST_F(VerifierTest, WhatTheTargetsHostsHaveChangedIsNoDifference) {
  spoil({7, 9});
  leave();
  volume::Tracker there{pair.world.target, pair.store, pair.size, volume::HotSet::kMaxPerRequest};
  pair.world.target.inside([&] {
    there.add_map(kBehind, volume::MapKind::kCopyAway, volume::ChangeMap(pair.size));
    there.set(kBehind, region(7));
  });
  begin({.behind = kBehind, .tracker = &there, .is_attached = nullptr});
  EXPECT_EQ(go_on(), End::kFound);
  EXPECT_EQ(go_on(), End::kDone);
  EXPECT_EQ(marked(), (Regions{9}));
}

// Four regions, over and over.
rt::Task<bool> write_until(Pair* pair, const bool* over, uint64_t* written) {
  for (uint64_t n = 0; !*over; ++n) {
    const uint64_t offset = n % 4 * 5 * kRegionBytes;
    EXPECT_TRUE(co_await pair->write_task(offset, kRegionBytes, static_cast<int>(n % 200)));
    ++*written;
    co_await rt::sleep_for(pair->world.source.clock(), 20);
  }
  co_return true;
}

// Mutation: accuse() takes no lock.
TEST_F(VerifierTest, WritesUnderWayAreNoDifference) {
  pair.p.read_time = 300;
  pair.s.read_time = 500;
  bool over = false;
  uint64_t written = 0;
  const auto host = pair.world.start(write_until(&pair, &over, &written));
  begin();
  EXPECT_EQ(go_on(), End::kDone) << verifier->found().text();
  over = true;
  pair.world.finish(host);
  EXPECT_GT(written, 100u);
  EXPECT_GT(pair.s.read_bytes, pair.size) << "nothing was suspected";
}

// While a copy runs the bit is its to copy, and the mirror need not leave its state. Mutation:
// accuse() sets the bit in kMark only.
TEST_F(VerifierTest, ACopyBesideItTakesWhatItFinds) {
  spoil({3, 200, 300});
  pair.begin({.is_paused = true});
  begin();
  EXPECT_EQ(go_on(), End::kFound);
  EXPECT_TRUE(verifier->unmarked().empty());
  EXPECT_EQ(go_on(), End::kDone);
  pair.tell([](Copier& copier) { copier.resume(); });
  EXPECT_EQ(pair.finish(), Copier::End::kDone);
  EXPECT_EQ(pair.s.written_bytes, 3 * kRegionBytes);
  pair.expect_equal();
}

// Mutation: neither differing() nor accuse() looks at the bits.
TEST_F(VerifierTest, WhatIsToBeCopiedIsNoDifference) {
  spoil({3, 4, 5, 6});
  pair.set({3 * kRegionBytes, 4 * kRegionBytes});
  pair.begin({.is_paused = true});
  begin();
  EXPECT_EQ(go_on(), End::kDone) << verifier->found().text();
  EXPECT_EQ(pair.leg.bits().count(), 4u);
}

TEST_F(VerifierTest, OneThatIsCancelledEndsAndKeepsTheBits) {
  spoil({3, 400});
  leave();
  begin();
  EXPECT_EQ(go_on(), End::kFound);
  pair.world.source.inside([&] { verifier->cancel(); });
  EXPECT_EQ(go_on(), End::kCancelled);
  EXPECT_EQ(marked(), (Regions{3}));
}

}  // namespace
}  // namespace duplex::copy
