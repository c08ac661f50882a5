// The pool on the real store, in the simulator: power cuts between any two steps and inside
// commits of the store, torn and reordered writes.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "pool/aligned.h"
#include "pool/pool.h"
#include "rt/task_group.h"
#include "sim/machine.h"
#include "sim/simulation.h"

namespace duplex::pool {
namespace {

constexpr uint64_t kExtent = 64 * kKiB;
constexpr uint64_t kBlocks = 64;  // of each backing, one in each quarter extent
constexpr uint64_t kStride = kExtent / 4;
constexpr uint64_t kSize = kBlocks * kStride;

class Events final : public EventSink {
 public:
  void emit(Event) override {}
};

// What the first sector of each block may hold: the versions since the last durable one.
struct Block {
  std::vector<std::pair<uint64_t, uint64_t>> versions{{0, 1}};  // tag, when it ended (0: open)
};
using Content = std::array<Block, kBlocks>;

class Array {
 public:
  explicit Array(uint64_t seed) : sim(seed), box(sim.add_machine("a", {.reactors = 2})) {
    auto& disk = box.add_device("/dev/sda", 6 * kMiB, true);
    std::vector<std::byte> secret(kBlockBytes, std::byte(0x5e));
    for (uint64_t at = 0; at < 6 * kMiB; at += kBlockBytes) disk.plant(at, secret);
    box.add_device("/d2", 6 * kMiB, false);
  }
  ~Array() { crash(); }

  // False: power was cut on the way.
  bool start() {
    if (!box.running()) box.power_on({.reactors = 2});
    const auto done = sim.run(box.control(), open(*this));
    EXPECT_TRUE(!done || *done) << "refused to start";
    return done && *done;
  }
  void crash() {
    box.power_cut();
    clients.clear();
    backings = {};
    pool.reset();
    store.reset();
  }
  static rt::Task<bool> open(Array& self) {
    auto opened = co_await meta::Store::open(
        self.box.sync_files(), self.box.store(), self.box.control().rng(),
        {.directory = "/state", .array_id = ArrayId(1), .array_name = "a"});
    if (!opened) ADD_FAILURE() << opened.error().describe();
    if (!opened) co_return false;
    self.store = std::move(*opened);
    const auto snapshot = co_await self.store->load();
    auto pool = co_await Pool::open(self.box, *self.store, self.events, *snapshot);
    if (!pool) ADD_FAILURE() << pool.error().describe();
    if (!pool) co_return false;
    self.pool = std::move(*pool);
    if (snapshot->devices.size() < 2 && !co_await self.set_up()) co_return false;
    for (const meta::VolumeRow& volume : snapshot->volumes) {
      self.backings[volume.number.value() - 1] = *co_await self.pool->attach_backing(
          volume.backing, self.box.reactor(volume.number.value() - 1));
    }
    for (uint16_t v = 0; v < 2; ++v) {
      if (self.backings[v] == nullptr && !co_await self.make(v)) co_return false;
    }
    co_return true;
  }
  rt::Task<bool> set_up() {
    for (const char* path : {"/dev/sda", "/d2"}) {
      bool known = false;
      for (const DeviceInfo& device : pool->devices()) known = known || device.path == path;
      if (known) continue;
      const auto added = co_await pool->add_device({.path = path,
                                                    .name = "",
                                                    .create_bytes = 0,
                                                    .extent_bytes = kExtent,
                                                    .overwrite = true});
      if (!added) ADD_FAILURE() << added.error().describe();
      if (!added) co_return false;
    }
    co_return true;
  }
  rt::Task<bool> make(uint16_t v) {
    meta::VolumeRow row{.number = VolumeNumber(static_cast<uint16_t>(v + 1)),
                        .name = "v" + std::to_string(v),
                        .size_bytes = kSize,
                        .backing = {},
                        .content_id = {},
                        .damaged = false,
                        .created_us = 0};
    const auto made = co_await pool->create_backing(
        {.name = "", .size_bytes = kSize, .thick = false, .device = ""}, box.reactor(v), row);
    if (!made) ADD_FAILURE() << made.error().describe();
    if (!made) co_return false;
    backings[v] = *made;
    co_return true;
  }
  static rt::Task<> drop_and_make(Array& self, bool& done) {
    const BackingId id = self.backings[1]->id();
    const auto dropped = co_await self.pool->drop_backing(id, VolumeNumber(2));
    EXPECT_TRUE(dropped) << dropped.error().describe();
    self.backings[1] = nullptr;
    done = dropped && co_await self.make(1);
  }
  // Two writers, with extents of their own, and one that flushes.
  static rt::Task<> client(Array& self, uint16_t v, uint64_t which) {
    Backing& backing = *self.backings[v];
    Content& content = self.content[v];
    auto dice = self.sim.dice(self.sim.steps() + uint64_t{10} * v + which);
    while (true) {
      if (which == 2) {
        const uint64_t issued = self.time;
        const auto result = co_await backing.flush();
        if (result) settle(content, issued);
        co_await rt::sleep_for(self.box.reactor(v).clock(), dice.below(20) * rt::kMillisecond);
        continue;
      }
      const uint64_t extent = dice.below(kBlocks / 8) * 2 + which;
      const bool release = dice.below(3) == 0;
      const uint64_t first = extent * 4 + (release ? 0 : dice.below(4));
      const uint64_t count = release ? 4 : 1;
      const uint64_t tag = release ? 0 : ++self.tags;
      for (uint64_t i = first; i < first + count; ++i) content[i].versions.push_back({tag, 0});
      Result<void> result;
      if (release) {
        result = co_await backing.zero({extent * kExtent, kExtent}, ZeroMode::kMayUnmap);
      } else {
        const ByteRange range{first * kStride, kBlockBytes};
        AlignedBytes bytes(kBlockBytes);
        std::memcpy(bytes.span().data(), &tag, sizeof tag);
        if (!backing.is_mapped(range)) result = co_await backing.allocate(range);
        if (result) result = co_await backing.write(range.offset, bytes.span());
      }
      EXPECT_TRUE(result) << result.error().describe();
      ++self.time;
      for (uint64_t i = first; i < first + count; ++i)
        content[i].versions.back().second = self.time;
    }
  }
  static void settle(Content& content, uint64_t issued) {
    for (Block& block : content) {
      for (size_t i = block.versions.size(); i-- > 0;) {
        const uint64_t ended = block.versions[i].second;
        if (ended == 0 || ended > issued) continue;
        block.versions.erase(block.versions.begin(),
                             block.versions.begin() + static_cast<ptrdiff_t>(i));
        break;
      }
    }
  }
  void spawn_clients() {
    for (uint16_t v = 0; v < 2; ++v) {
      for (uint64_t which = 0; which < 3; ++which) sim.run(box.reactor(v), launch(*this, v, which));
    }
  }
  static rt::Task<> launch(Array& self, uint16_t v, uint64_t which) {
    self.clients.push_back(std::make_unique<rt::TaskGroup>(self.box.reactor(v)));
    self.clients.back()->spawn(client(self, v, which));
    co_return;
  }
  static rt::Task<> check(Array& self, uint16_t v, bool& done) {
    co_await rt::hop(self.box.reactor(v));
    for (uint64_t i = 0; i < kBlocks; ++i) {
      AlignedBytes memory(kStride);
      const auto bytes = memory.span();
      const auto result = co_await self.backings[v]->read(i * kStride, bytes);
      EXPECT_TRUE(result) << result.error().describe();
      uint64_t tag = 0;
      std::memcpy(&tag, bytes.data(), sizeof tag);
      auto& versions = self.content[v][i].versions;
      EXPECT_TRUE(std::ranges::any_of(versions, [&](auto& known) { return known.first == tag; }))
          << "volume " << v << " block " << i << " holds " << tag;
      for (size_t at = sizeof tag; at < bytes.size(); ++at) {
        if (bytes[at] != std::byte{0}) ADD_FAILURE() << "a foreign byte in block " << i;
        if (bytes[at] != std::byte{0}) break;
      }
      versions = {{tag, 1}};
    }
    co_await rt::hop(self.box.control());
    done = true;
  }

  sim::Simulation sim;
  sim::Machine& box;
  Events events;
  std::unique_ptr<meta::Store> store;
  std::unique_ptr<Pool> pool;
  std::array<Backing*, 2> backings{};
  std::array<Content, 2> content;
  uint64_t tags = 0;
  uint64_t time = 1;
  std::vector<std::unique_ptr<rt::TaskGroup>> clients;
};

TEST(PoolInSimulator, PowerCutsInsideCommitsKeepWhatWasFlushedAndShowNothingForeign) {
  set_log_sink([](LogLevel, std::string_view) {});  // a cut commit is logged as a failed one
  for (uint64_t seed = 1; seed <= 3 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Array array(seed);
    auto dice = array.sim.dice(1);
    for (int life = 0; life < 8 && !HasFailure(); ++life) {
      if (!array.start()) {
        array.crash();
        continue;
      }
      for (uint16_t v = 0; v < 2; ++v) {
        bool checked = false;
        array.sim.run(array.box.control(), Array::check(array, v, checked));
        ASSERT_TRUE(checked);
      }
      array.spawn_clients();
      if (dice.below(2) == 0) array.box.cut_at_sync_io(1 + dice.below(300));
      const bool never = false;
      array.sim.run_until(never, dice.below(2000) * rt::kMillisecond);
      if (dice.below(3) == 0) {
        array.crash();
        array.box.cut_at_sync_io(0);
        if (!array.start()) continue;
        bool made = false;
        array.sim.run(array.box.control(), Array::drop_and_make(array, made));
        if (made) array.content[1] = {};
        EXPECT_TRUE(made);
      }
      array.crash();
    }
    EXPECT_GT(array.tags, 100u);
  }
  set_log_sink({});
}

}  // namespace
}  // namespace duplex::pool
