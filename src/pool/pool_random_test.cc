// Random work on several backings of two devices, with power cuts, lost caches, failed flushes,
// a device that goes away and lost state directories. Judged sector by sector: what was flushed
// stays, nothing but own bytes is ever read, a flush never claims what a cache has lost.
#include <gtest/gtest.h>

#include <algorithm>

#include "pool/test_world.h"

namespace duplex::pool {
namespace {

using test::Rig;

constexpr uint64_t kExtents = 16;  // of each backing
constexpr uint64_t kSize = kExtents * Rig::kExtent;
constexpr uint64_t kSector = 512;

// What one sector may hold. The last version is the newest; those before `base` are impossible.
struct Sector {
  struct Version {
    uint64_t tag;
    uint64_t ended = 0;      // 0: in flight, or failed
    bool uncertain = false;  // a failed flush has told that it may be lost
  };
  std::vector<Version> versions{{0, 1, false}};  // from the last durable one on
  uint64_t losses_at_write = 0;                  // of caches, when the newest write began
};

class Workload {
 public:
  Workload(Rig& r, uint64_t seed) : rig(r), random(seed) {}

  void run_round(uint64_t steps) {
    const uint64_t stop_at = 200 + random() % steps;
    std::vector<std::unique_ptr<rt::TaskGroup>> groups;
    stopping = false;
    for (auto& [number, backing] : rig.backings) {
      auto& core = dynamic_cast<test::TestCore&>(rig.core(number));
      for (uint64_t client = 0; client < 3; ++client) {
        groups.push_back(std::make_unique<rt::TaskGroup>(core));
        core.run([&] { groups.back()->spawn(this->client(number, *backing, client)); });
      }
    }
    for (uint64_t i = 0; i < stop_at; ++i) {
      rig.world.step();
      inject();
    }
    ending = random() % 4;
    if (ending == 0) {  // a clean stop
      stopping = true;
      const auto busy = [](const auto& group) { return group->size() > 0; };
      while (std::ranges::any_of(groups, busy)) ASSERT_TRUE(rig.world.step());
      repair();
      rig.stop();
      return;
    }
    rig.world.kill();
    groups.clear();
    repair();
    rig.power_cut(ending != 1);
  }

  // After a restart: everything is read, and what is there is what there is from now on.
  void settle() {
    for (auto& [number, backing] : rig.backings) {
      for (uint64_t at = 0; at < kSize; at += kBlockBytes) {
        std::vector<std::byte> data(kBlockBytes);
        ASSERT_TRUE(
            rig.world.run(read_block(rig.core(number), rig.world.control(), *backing, at, data)));
        for (uint64_t i = 0; i < kBlockBytes; i += kSector) {
          Sector& sector = sectors[{number, (at + i) / kSector}];
          const uint64_t tag = tag_of(number, at + i, &data[i]);
          const bool known =
              std::ranges::any_of(sector.versions, [&](auto& v) { return v.tag == tag; });
          ASSERT_TRUE(known) << "volume " << number << " sector " << (at + i) / kSector << " holds "
                             << tag << ", flushed was " << sector.versions[0].tag << ", newest "
                             << sector.versions.back().tag;
          sector.versions = {{tag, 1, false}};
          sector.losses_at_write = losses();
        }
      }
    }
  }
  void forget(uint16_t number) {
    std::erase_if(sectors, [&](const auto& entry) { return entry.first.first == number; });
  }

  uint64_t flushes_ok = 0, flushes_failed = 0, writes_ok = 0, releases = 0;
  uint64_t ending = 0;
  bool faults = true;

 private:
  static rt::Task<Result<void>> read_block(rt::Core& core, rt::Executor& home, Backing& backing,
                                           uint64_t at, std::span<std::byte> into) {
    co_await rt::hop(core);
    auto result = co_await backing.read(at, into);
    co_await rt::hop(home);
    co_return result;
  }
  // A sector of zeroes has the tag 0; anything that is neither zero nor whole and ours has ~0.
  static uint64_t tag_of(uint16_t number, uint64_t offset, const std::byte* at) {
    uint64_t words[kSector / 8];
    std::memcpy(words, at, kSector);
    const uint64_t tag = words[0];
    for (size_t i = 0; i < kSector / 8; ++i) {
      const uint64_t expected = tag == 0 ? 0 : i % 2 == 0 ? tag : place_of(number, offset);
      if (words[i] != expected) return ~uint64_t{0};
    }
    return tag;
  }
  static uint64_t place_of(uint16_t number, uint64_t offset) {
    return uint64_t{number} << 48 | offset / kSector;
  }
  uint64_t losses() const {
    uint64_t all = 0;
    for (const auto& [path, disk] : rig.world.disks) all += disk->losses;
    return all;
  }
  void inject() {
    if (!faults) return;
    const uint64_t dice = random() % 2000;
    const std::string name = random() % 2 == 0 ? "sda" : "d2";
    auto& disk = *rig.world.disks["/" + name];
    if (dice == 0) disk.failing_flushes = 1;
    if (dice == 1 && !disk.gone) {
      disk.gone = true;
      disk.lose_cache(nullptr);
    }
    // A loss that nobody could notice is nobody's fault: it comes back after it was missed.
    const bool missed = rig.pool->device(name)->state == DeviceState::kAbsent;
    if (dice < 10 && dice > 5 && missed) disk.gone = false;
    if (dice == 11) disk.write_error = EIO;
    if (dice < 20 && dice > 15) disk.write_error = 0;
  }
  void repair() {
    for (auto& [path, disk] : rig.world.disks) {
      disk->gone = false;
      disk->write_error = 0;
      disk->failing_flushes = 0;
    }
  }

  template <class F>
  void each(uint16_t number, ByteRange range, F&& f) {
    for (uint64_t at = range.offset; at < range.end(); at += kSector)
      f(at, sectors[{number, at / kSector}]);
  }

  // Client 2 flushes; 0 and 1 have the even and the odd extents to themselves.
  rt::Task<> client(uint16_t number, Backing& backing, uint64_t which) {
    while (!stopping) {
      if (which == 2) {
        co_await flush(number, backing);
        continue;
      }
      const uint64_t le = random() % (kExtents / 2) * 2 + which;
      const uint64_t dice = random() % 10;
      ByteRange range{le * Rig::kExtent, Rig::kExtent};
      if (dice > 1) {
        const uint64_t blocks = Rig::kExtent / kBlockBytes;
        const uint64_t first = random() % blocks;
        range.offset += first * kBlockBytes;
        range.length = (1 + random() % std::min<uint64_t>(4, blocks - first)) * kBlockBytes;
      }
      if (dice < 4) {
        co_await change(number, backing, range, true);
      } else if (dice < 8) {
        co_await change(number, backing, range, false);
      } else {
        co_await read(number, backing, range);
      }
    }
  }
  rt::Task<> change(uint16_t number, Backing& backing, ByteRange range, bool zero) {
    const uint64_t tag = zero ? 0 : ++tags;
    std::vector<std::byte> data(range.length);
    each(number, range, [&](uint64_t at, Sector& sector) {
      sector.versions.push_back({tag, 0, false});
      sector.losses_at_write = losses();
      for (size_t i = 0; tag != 0 && i < kSector; i += 8) {
        const uint64_t word = i % 16 == 0 ? tag : place_of(number, at);
        std::memcpy(&data[at - range.offset + i], &word, 8);
      }
    });
    Result<void> result;
    if (zero) {
      result =
          co_await backing.zero(range, random() % 4 == 0 ? ZeroMode::kKeep : ZeroMode::kMayUnmap);
    } else {
      if (!backing.is_mapped(range)) result = co_await backing.allocate(range);
      if (result) result = co_await backing.write(range.offset, data);
    }
    ++time;
    // After an error the sector may hold the new or the old bytes.
    each(number, range, [&](uint64_t, Sector& sector) {
      if (result) sector.versions.back().ended = time;
      if (!result) sector.losses_at_write = ~uint64_t{0};
    });
    writes_ok += result ? 1 : 0;
    releases += result && zero ? 1 : 0;
    // A failed change costs no time; let others go on.
    if (!result) co_await rt::sleep_for(rig.core(number).clock(), 100 * rt::kMillisecond);
  }
  rt::Task<> read(uint16_t number, Backing& backing, ByteRange range) {
    std::vector<std::byte> data(range.length);
    const auto result = co_await backing.read(range.offset, data);
    if (!result) co_await rt::sleep_for(rig.core(number).clock(), 100 * rt::kMillisecond);
    if (!result) co_return;
    each(number, range, [&](uint64_t at, Sector& sector) {
      const uint64_t tag = tag_of(number, at, &data[at - range.offset]);
      if (sector.losses_at_write == losses()) {
        EXPECT_EQ(tag, sector.versions.back().tag) << "sector " << at / kSector;
      } else {
        const bool known =
            std::ranges::any_of(sector.versions, [&](auto& v) { return v.tag == tag; });
        EXPECT_TRUE(known) << "volume " << number << " sector " << at / kSector << " holds " << tag;
      }
    });
  }
  rt::Task<> flush(uint16_t number, Backing& backing) {
    const uint64_t issued = time;
    const auto result = co_await backing.flush();
    (result ? flushes_ok : flushes_failed) += 1;
    each(number, {0, kSize}, [&](uint64_t, Sector& sector) {
      auto& all = sector.versions;
      for (size_t i = all.size(); i-- > 0;) {
        if (all[i].ended == 0 || all[i].ended > issued) continue;
        if (!result) {
          all[i].uncertain = true;
        } else if (!all[i].uncertain) {
          all.erase(all.begin(), all.begin() + static_cast<ptrdiff_t>(i));
          break;
        }
      }
    });
    co_await rt::sleep_for(rig.core(number).clock(), random() % 50 * rt::kMillisecond);
  }

  Rig& rig;
  std::mt19937_64 random;
  std::map<std::pair<uint16_t, uint64_t>, Sector> sectors;
  uint64_t tags = 0;
  uint64_t time = 1;
  bool stopping = false;
};

void run_seed(uint64_t seed, bool faults, bool lose_store) {
  Rig rig(seed);
  Workload work(rig, seed);
  work.faults = faults;
  rig.world.add_disk("/sda", 4 * kMiB, true).fill("secret! ");
  ASSERT_TRUE(rig.start());
  ASSERT_TRUE(rig.add("/sda", true));
  ASSERT_TRUE(rig.add("/d2", false, 3 * kMiB));
  for (uint16_t v = 1; v <= 3; ++v) ASSERT_TRUE(rig.create(v, kSize));
  uint16_t next = 4;
  for (int round = 0; round < 6 && !testing::Test::HasFailure(); ++round) {
    work.run_round(6000);
    if (lose_store && round % 2 == 1) {
      rig.tables = {};
      rig.tables.array.id = ArrayId(0x400104);
      test::TestStore fresh(rig.world, rig.tables);
      const auto report = rig.world.run(Pool::rebuild(rig.world, fresh, {"/d2"}, false));
      ASSERT_TRUE(report) << report.error().describe();
      ASSERT_TRUE(report->damaged_volumes.empty());
    }
    const auto started = rig.start();
    ASSERT_TRUE(started) << started.error().describe();
    rig.attach_all();
    ASSERT_EQ(rig.backings.size(), 3u);
    work.settle();
    if (testing::Test::HasFatalFailure()) return;
    if (round == 2) {
      const uint16_t old = rig.backings.begin()->first;
      const BackingId id = rig.backings[old]->id();
      ASSERT_TRUE(rig.world.run(rig.pool->drop_backing(id, VolumeNumber(old))));
      rig.backings.erase(old);
      work.forget(old);
      ASSERT_TRUE(rig.create(next++, kSize));
      rig.stop();
      ASSERT_TRUE(rig.start());
      rig.attach_all();
    }
  }
  EXPECT_GT(work.flushes_ok, 0u);
  EXPECT_GT(work.writes_ok, 0u);
  EXPECT_GT(work.releases, 0u);
}

TEST(PoolRandom, PowerCutsLoseNothingFlushedAndShowNothingForeign) {
  for (uint64_t seed = 0; seed < 30 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    run_seed(seed, false, false);
  }
}

TEST(PoolRandom, FailingDevicesAndLostCachesAreToldByFlushes) {
  for (uint64_t seed = 1000; seed < 1030 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    run_seed(seed, true, false);
  }
}

TEST(PoolRandom, ALostStateDirectoryLosesNothingFlushed) {
  for (uint64_t seed = 2000; seed < 2030 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    run_seed(seed, false, true);
  }
}

}  // namespace
}  // namespace duplex::pool
