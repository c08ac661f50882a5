#include "sim/scenario.h"

#include <set>

#include "base/log.h"
#include "rt/buffer.h"

namespace duplex::simtest {
namespace {

constexpr const char* kStateFiles[] = {"/state/state.db", "/state/state.db-wal", "/state/lock",
                                       "/state/marks-1", "/state/marks-2"};

control::ArrayOptions options() {
  return {.name = "a", .id = ArrayId(0x400104), .state_directory = "/state", .engine = "simulated"};
}

rt::Task<> sleep(rt::Clock& clock, rt::Micros time) { co_await rt::sleep_for(clock, time); }

}  // namespace

Box::Box(uint64_t seed)
    : simulation(seed), machine(simulation.add_machine("box", {.reactors = 2})) {
  set_log_sink([](LogLevel, std::string_view) {});
  start();
}

Box::~Box() {
  crash(Ending::kPower);
  set_log_sink({});
}

rt::Task<Result<std::unique_ptr<control::Array>>> Box::open() {
  return control::Array::open(machine, options());
}

Result<void> Box::try_start() {
  if (!machine.running()) machine.power_on({.reactors = 2});
  auto opened = run(open());
  if (!opened) return std::unexpected(opened.error());
  array = std::move(*opened);
  return {};
}

void Box::start() {
  const auto started = try_start();
  ASSERT_TRUE(started) << started.error().describe();
}

void Box::stop() {
  ASSERT_TRUE(simulation.run(machine.control(), array->stop())) << "the stop never ends";
  array.reset();
}

void Box::crash(Ending ending) {
  machine.cut_at_sync_io(0);
  simulation.cut_after_steps(machine, 0);
  if (machine.running()) ending == Ending::kKill ? machine.kill() : machine.power_cut();
  simulation.sweep();
  array.reset();
}

sim::DiskFile& Box::plug_in(const std::string& path, uint64_t bytes) {
  sim::DiskFile& file = machine.add_device(path, bytes, true);
  file.plant(0, std::vector<std::byte>(bytes, std::byte('#')));
  return file;
}

void Box::add_disk(const std::string& path, uint64_t bytes, uint64_t extent_bytes) {
  plug_in(path, bytes);
  const auto added = run(array->pool().add_device({.path = path,
                                                   .name = {},
                                                   .create_bytes = 0,
                                                   .extent_bytes = extent_bytes,
                                                   .overwrite = true}));
  ASSERT_TRUE(added) << added.error().describe();
}

void Box::add_volume(const std::string& name, uint64_t bytes, bool thick) {
  const auto made = run(array->volumes().create({.name = name,
                                                 .size_bytes = bytes,
                                                 .number = {},
                                                 .backing = {},
                                                 .device = {},
                                                 .thick = thick}));
  ASSERT_TRUE(made) << made.error().describe();
}

pool::DeviceInfo Box::device(const std::string& path) {
  for (const pool::DeviceInfo& info : array->pool().devices()) {
    if (info.path == path) return info;
  }
  ADD_FAILURE() << "the array has no device at " << path;
  return {};
}

Box::State Box::copy_state() {
  State state;
  for (const char* path : kStateFiles) {
    const sim::DiskFile* file = machine.disk().find(path);
    if (file == nullptr) continue;
    std::vector<std::byte>& bytes = state[path];
    bytes.resize(file->size());
    file->read(0, bytes);
  }
  return state;
}

void Box::lose_state() {
  for (const char* path : kStateFiles) machine.disk().remove(path);
}

void Box::put_state(const State& state) {
  lose_state();
  for (const auto& [path, bytes] : state) {
    sim::DiskFile& file = machine.add_device(path, bytes.size(), false);
    file.plant(0, bytes);
  }
}

Result<pool::RebuildReport> Box::rebuild(std::vector<std::string> paths, bool accept_missing) {
  if (!machine.running()) machine.power_on({.reactors = 2});
  return run(control::Array::rebuild(
      machine, options(), {.devices = std::move(paths), .accept_missing = accept_missing}));
}

// One client that opens the volume, asks once and goes.
template <class Request>
rt::Task<Result<void>> Box::ask(std::string volume, Request request) {
  CO_TRY_ASSIGN(auto open, array->volumes().open(volume, "test", [] {}));
  co_await rt::hop(open->volume().core());
  Result<void> result = co_await request(open->volume());
  co_await rt::hop(machine.control());
  array->volumes().close(std::move(open));
  co_return result;
}

rt::Task<Result<void>> Box::write(std::string volume, uint64_t offset, uint64_t bytes, char letter,
                                  bool fua) {
  const std::vector<std::byte> data(bytes, std::byte(letter));
  co_return co_await ask(std::move(volume),
                         [offset, span = std::span(data), fua](volume::Volume& v) {
                           return v.write(offset, span, fua);
                         });
}

rt::Task<Result<void>> Box::trim(std::string volume, uint64_t offset, uint64_t bytes) {
  return ask(std::move(volume),
             [offset, bytes](volume::Volume& v) { return v.trim({offset, bytes}, false); });
}

rt::Task<Result<void>> Box::flush(std::string volume) {
  return ask(std::move(volume), [](volume::Volume& v) { return v.flush(); });
}

rt::Task<std::string> Box::read(std::string volume, uint64_t offset, uint64_t bytes) {
  std::vector<std::byte> data(bytes);
  const auto result = co_await ask(
      std::move(volume), [offset, &data](volume::Volume& v) { return v.read(offset, data); });
  if (!result) co_return "error";
  std::set<char> seen;
  for (const std::byte b : data) seen.insert(b == std::byte{0} ? '.' : static_cast<char>(b));
  co_return std::string(seen.begin(), seen.end());
}

void Box::pass(rt::Micros time) {
  ASSERT_TRUE(simulation.run(machine.control(), sleep(machine.control().clock(), time)));
}

}  // namespace duplex::simtest
