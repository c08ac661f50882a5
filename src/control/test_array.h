// A whole array on one simulated machine, for the tests of the rooms above the volumes. It is
// started, stopped, killed and cut off power as often as a test likes; its disk stays.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "control/array.h"
#include "sim/machine.h"
#include "sim/simulation.h"

namespace duplex::control::test {

class TestArray {
 public:
  static constexpr uint64_t kExtent = 64 * kKiB;

  explicit TestArray(uint64_t seed = 1) : sim(seed), box(sim.add_machine("box", {.reactors = 2})) {
    set_log_sink([](LogLevel, std::string_view) {});
  }
  ~TestArray() {
    crash();
    set_log_sink({});
  }

  void start() {
    if (!box.running()) box.power_on({.reactors = 2});
    auto opened = sim.run(box.control(), Array::open(box, {.name = "a1",
                                                           .id = ArrayId(0x400104),
                                                           .state_directory = "/state",
                                                           .engine = "simulated"}));
    ASSERT_TRUE(opened && *opened) << (opened ? opened->error().describe() : "it never ends");
    array = std::move(**opened);
  }
  void stop() {
    ASSERT_TRUE(sim.run(box.control(), array->stop()));
    array.reset();
  }
  // Without power what was not flushed may be gone; after a kill all is still there.
  void crash(bool power = true) {
    if (power) box.power_cut();
    if (!power) box.kill();
    sim.sweep();
    array.reset();
  }
  template <class T>
  T run(rt::Task<T> task) {
    auto result = sim.run(box.control(), std::move(task));
    EXPECT_TRUE(result) << "it never ends";
    return *std::move(result);
  }
  // The world goes on for this long.
  void pass(rt::Micros time) { sim.run(box.control(), sleep(box.control().clock(), time)); }

  void add_device(const std::string& path = "/d1", uint64_t bytes = 16 * kMiB) {
    const auto added = run(array->pool().add_device(
        {.path = path, .name = "", .create_bytes = bytes, .extent_bytes = kExtent}));
    ASSERT_TRUE(added) << added.error().describe();
  }
  void add_volume(const std::string& name, uint64_t bytes) {
    const auto made = run(array->volumes().create(volume_of(name, bytes)));
    ASSERT_TRUE(made) << made.error().describe();
  }
  static volume::CreateVolume volume_of(const std::string& name, uint64_t bytes) {
    return {.name = name, .size_bytes = bytes, .number = {}, .backing = {}, .device = {}};
  }
  // A raw file of which each MiB holds its number, but the second, which is empty.
  void add_source(const std::string& path, uint64_t mib) {
    sim::DiskFile& file = box.add_device(path, mib * kMiB, false);
    for (uint64_t i = 0; i < mib; ++i) {
      if (i != 1) file.plant(i * kMiB, std::vector<std::byte>(kMiB, byte_of(i)));
    }
  }
  static std::byte byte_of(uint64_t mib) { return mib == 1 ? std::byte{0} : std::byte(mib + 1); }
  // Number of MiB that are as add_source() made them, from the first on.
  uint64_t imported(const std::string& name) { return run(imported_on(*array, name)); }

  Result<void> write(const std::string& name, uint64_t offset, uint64_t bytes) {
    return run(write_on(*array, name, offset, bytes));
  }
  std::vector<meta::EventRow> events(uint64_t after = 0, size_t limit = 1000) {
    pass(rt::kSecond);
    auto rows = run(array->events().after(after, limit, 0));
    EXPECT_TRUE(rows);
    return rows ? *rows : std::vector<meta::EventRow>();
  }
  size_t count_events(std::string_view code) {
    size_t found = 0;
    for (const meta::EventRow& row : events()) found += row.event.code == code ? 1 : 0;
    return found;
  }

  sim::Simulation sim;
  sim::Machine& box;
  std::unique_ptr<Array> array;

 private:
  static rt::Task<> sleep(rt::Clock& clock, rt::Micros time) {
    co_await rt::sleep_for(clock, time);
  }
  static rt::Task<Result<void>> write_on(Array& array, std::string name, uint64_t offset,
                                         uint64_t bytes) {
    CO_TRY_ASSIGN(auto open, array.volumes().open(name, "test", [] {}));
    volume::Volume& volume = open->volume();
    co_await rt::hop(volume.core());
    const std::vector<std::byte> data(bytes, std::byte{7});
    Result<void> result = co_await volume.write(offset, data, false);
    co_await rt::hop(array.world().control());
    array.volumes().close(std::move(open));
    co_return result;
  }
  static rt::Task<uint64_t> imported_on(Array& array, std::string name) {
    auto open = array.volumes().open(name, "test", [] {});
    if (!open) co_return 0;
    volume::Volume& volume = (*open)->volume();
    co_await rt::hop(volume.core());
    uint64_t good = 0;
    for (; (good + 1) * kMiB <= volume.size_bytes(); ++good) {
      std::vector<std::byte> data(kMiB);
      const auto result = co_await volume.read(good * kMiB, data);
      if (!result || data != std::vector<std::byte>(kMiB, byte_of(good))) break;
    }
    co_await rt::hop(array.world().control());
    array.volumes().close(std::move(*open));
    co_return good;
  }
};

}  // namespace duplex::control::test
