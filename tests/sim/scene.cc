#include "sim/scene.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "sim/disk.h"

namespace duplex::simtest {
namespace {

constexpr const char* kDevicePaths[] = {"/dev/a", "/dev/b"};
constexpr rt::Micros kBootLimit = 600 * rt::kSecond;
constexpr rt::Micros kLifeLimit = 4 * 3600 * rt::kSecond;

}  // namespace

Scene::Scene(uint64_t seed) : seed_(seed), simulation_(seed), dice_(simulation_.dice(1)) {
  draw();
  make_machine();
}

Scene::~Scene() { tear_down(); }

// Swarm testing: each run has its own mix; many have faults of one kind only, some have none.
void Scene::draw() {
  plan_.reactors = dice_.chance(0.5) ? 1 : dice_.between(2, 4);
  plan_.devices = dice_.chance(0.7) ? 1 : 2;
  plan_.block_devices = dice_.chance(0.4);
  plan_.extent_bytes = (64 * kKiB) << dice_.below(4);
  plan_.volumes = dice_.between(1, 3);
  plan_.volume_bytes = kMiB * dice_.between(1, 6);
  // Often the last extent is a short one.
  if (dice_.chance(0.5)) plan_.volume_bytes += kBlockBytes * dice_.between(1, 200);
  plan_.thick = dice_.chance(0.1);
  // Sometimes there is not enough for everybody.
  plan_.device_bytes = dice_.chance(0.15) ? 6 * kMiB : 48 * kMiB;
  plan_.nbd = dice_.chance(0.25);
  plan_.verbs = dice_.chance(0.4);
  plan_.clients = dice_.between(1, 2);
  plan_.operations = dice_.between(300, 3000);
  plan_.lives = dice_.between(2, 6);
  const auto rate = [&](double share, double most) {
    return dice_.chance(share) ? most * static_cast<double>(dice_.between(1, 100)) / 100 : 0;
  };
  plan_.disk_error = rate(0.35, 0.1);
  plan_.flush_error = rate(0.35, 0.1);
  plan_.slow = rate(0.4, 0.05);
  plan_.store_error = rate(0.1, 0.01);
  RequestMix& mix = plan_.mix;
  mix.write = static_cast<double>(dice_.between(20, 70)) / 100;
  mix.zero = rate(0.5, 0.1);
  mix.trim = rate(0.5, 0.1);
  mix.flush = rate(0.8, 0.1);
  mix.fua = rate(0.5, 0.3);
  mix.max_sectors = uint64_t{1} << dice_.between(0, 9);
  mix.depth = static_cast<uint32_t>(dice_.between(1, 16));
  mix.unaligned = dice_.chance(0.6);
  mix.hot_spot = static_cast<double>(dice_.below(100)) / 100;
}

std::string Scene::describe() const {
  return fmt::format(
      "seed {}: {} reactors, {} {} of {} MiB, extents {} KiB, {} volumes of {}{}, {} clients "
      "each{}, {} operations, {} lives, "
      "disk errors {:.4f}, flush errors {:.4f}, slow {:.4f}, store errors {:.4f}, verbs {}",
      seed_, plan_.reactors, plan_.devices, plan_.block_devices ? "disk(s)" : "file(s)",
      plan_.device_bytes / kMiB, plan_.extent_bytes / kKiB, plan_.volumes,
      format_size(plan_.volume_bytes), plan_.thick ? " thick" : "", plan_.clients,
      plan_.nbd ? " over NBD" : "", plan_.operations, plan_.lives, plan_.disk_error,
      plan_.flush_error, plan_.slow, plan_.store_error, plan_.verbs);
}

void Scene::make_machine() {
  box_ = &simulation_.add_machine("box", {.reactors = plan_.reactors});
  outside_ = &simulation_.add_machine("outside", {});
  for (size_t i = 0; i < plan_.devices; ++i) {
    if (!plan_.block_devices) continue;
    // Somebody's old data: if a single byte of it is ever read, the oracle does not know it.
    sim::DiskFile& disk = box_->add_device(kDevicePaths[i], plan_.device_bytes, true);
    std::vector<std::byte> secret(64 * kKiB);
    for (size_t b = 0; b < secret.size(); ++b) secret[b] = static_cast<std::byte>(0x80 | (b % 97));
    for (uint64_t at = kMiB; at + secret.size() <= plan_.device_bytes; at += 256 * kKiB)
      disk.plant(at, secret);
  }
  for (size_t v = 0; v < plan_.volumes; ++v) {
    judged_.push_back(
        {fmt::format("vol{}", v),
         std::make_unique<Oracle>(static_cast<uint16_t>(v + 1), plan_.volume_bytes / kSector)});
  }
}

SceneResult Scene::run() {
  for (size_t life = 0; life <= plan_.lives && result_.violation.empty(); ++life) {
    ++result_.lives;
    if (!live(life, life == plan_.lives)) break;
  }
  tear_down();
  for (const Judged& judged : judged_) {
    if (!judged.oracle->violation().empty()) violate(judged.oracle->violation());
  }
  result_.hash = simulation_.hash();
  result_.virtual_time = simulation_.now();
  result_.counts = simulation_.counts();
  for (const auto& [what, count] : result_.counts) result_.faults += count;
  return std::move(result_);
}

// One life. False when the run is over (a violation).
bool Scene::live(size_t life, bool last) {
  set_faults(false);
  if (!box_->running()) box_->power_on({.reactors = plan_.reactors});
  if (!boot(life)) {
    if (last && !hopeless_) violate("the last start was cut short: nothing was judged");
    return result_.violation.empty() && !hopeless_;
  }
  check_names();
  if (last) {
    final_checks();
    return result_.violation.empty();
  }
  set_faults(true);
  start_clients(false);
  const uint64_t ending = dice_.below(5);
  if (ending == 1) box_->cut_at_sync_io(dice_.between(1, 400));
  if (ending >= 2) simulation_.cut_after_steps(*box_, dice_.skewed(200, 200'000), ending == 4);
  if (!wait_for_clients()) {
    if (simulation_.last_end() == sim::Simulation::End::kStuck) {
      violate(fmt::format("life {} is stuck: clients never end", life));
      return false;
    }
    crash(ending != 4);
    return true;
  }
  box_->cut_at_sync_io(0);
  simulation_.cut_after_steps(*box_, 0, false);
  set_faults(false);
  return stop_cleanly();
}

// Opens the array. False: power was cut on the way (the next life goes on), or a violation.
bool Scene::boot(size_t life) {
  // Never in the last life: a run that ends here has not been judged.
  if (life > 0 && life < plan_.lives && dice_.chance(0.2))
    box_->cut_at_sync_io(dice_.between(1, 60));
  auto opened = simulation_.run(box_->control(),
                                control::Array::open(*box_, {.name = "sim",
                                                             .id = ArrayId(0x400104),
                                                             .state_directory = "/state",
                                                             .engine = "simulated"}),
                                kBootLimit);
  box_->cut_at_sync_io(0);
  if (!opened || !box_->running()) {
    if (simulation_.last_end() == sim::Simulation::End::kStuck)
      violate(fmt::format("life {}: the start never ends", life));
    if (opened && *opened) array_ = std::move(**opened);
    if (!box_->running()) crash(true);
    return false;
  }
  if (!*opened) {
    violate(fmt::format("life {}: the start was refused: {}", life, opened->error().describe()));
    return false;
  }
  array_ = std::move(**opened);
  if (!set_up_ && !first_setup()) return false;
  if (plan_.nbd && !simulation_.run(box_->control(), start_server(), kBootLimit)) {
    if (simulation_.last_end() == sim::Simulation::End::kStuck)
      violate(fmt::format("life {}: the front door never opens", life));
    crash(true);
    return false;
  }
  return true;
}

bool Scene::first_setup() {
  struct Local {
    static rt::Task<Result<void>> set_up(control::Array& array, const Plan& plan,
                                         const std::vector<Judged>& judged) {
      for (size_t i = 0; i < plan.devices; ++i) {
        CO_TRY(co_await array.pool().add_device(
            {.path = kDevicePaths[i],
             .name = {},
             .create_bytes = plan.block_devices ? 0 : plan.device_bytes,
             .extent_bytes = plan.extent_bytes,
             .overwrite = true}));
      }
      for (const Judged& volume : judged) {
        CO_TRY(co_await array.volumes().create({.name = volume.name,
                                                .size_bytes = plan.volume_bytes,
                                                .number = {},
                                                .backing = {},
                                                .device = {},
                                                .thick = plan.thick}));
      }
      co_return Result<void>();
    }
  };
  const auto done =
      simulation_.run(box_->control(), Local::set_up(*array_, plan_, judged_), kBootLimit);
  if (!done || !*done) {
    // A pool too small for thick volumes is a fair refusal; there is nothing to run then.
    if (done && done->error().code() != Code::kNoSpace)
      violate("setting up: " + done->error().describe());
    if (done) hopeless_ = true;
    return false;
  }
  set_up_ = true;
  for (size_t i = 0; i < plan_.devices; ++i) {
    sim::DiskFile& disk = *box_->disk().find(kDevicePaths[i]);
    disk.faults.object = this;
    disk.faults.cache_lost = &Scene::on_cache_lost;
  }
  return true;
}

void Scene::on_cache_lost(void* scene) {
  auto& self = *static_cast<Scene*>(scene);
  for (const Judged& judged : self.judged_)
    judged.oracle->cache_lost(self.moments_.next(), self.plan_.devices == 1);
}

void Scene::set_faults(bool on) {
  for (const char* path : kDevicePaths) {
    sim::DiskFile* disk = box_->disk().find(path);
    if (disk == nullptr) continue;
    disk->faults.read_error = disk->faults.write_error = on ? plan_.disk_error : 0;
    disk->faults.zero_error = on ? plan_.disk_error / 4 : 0;
    disk->faults.flush_error = on ? plan_.flush_error : 0;
    disk->faults.slow = on ? plan_.slow : 0;
  }
  for (const char* path : {"/state/state.db", "/state/state.db-wal"}) {
    if (sim::DiskFile* file = box_->disk().find(path))
      file->faults.write_error = on ? plan_.store_error : 0;
  }
}

rt::Task<> Scene::start_server() {
  server_ = std::make_unique<nbd::Server>(*box_, array_->volumes());
  const auto listening = co_await server_->listen(*rt::Address::parse("unix:/nbd"), false);
  if (!listening) violate("the front door does not open: " + listening.error().describe());
}

rt::Task<> Scene::stop_server() {
  co_await server_->stop();
  server_.reset();
}

rt::Task<> Scene::client_life(Client& client, const Judged& judged, uint64_t seed,
                              bool verify_only) {
  rt::Core* core = nullptr;
  if (plan_.nbd) {
    auto host = std::make_unique<NbdHost>(outside_->control());
    const bool open = co_await host->open(*rt::Address::parse("unix:/nbd"), judged.name);
    if (!open) {
      if (verify_only) violate("volume " + judged.name + " cannot be opened with all faults gone");
      co_return;
    }
    core = &outside_->control();
    client.host = std::move(host);
  } else {
    auto host = std::make_unique<DirectHost>(array_->volumes(), box_->control());
    if (!co_await host->open(judged.name)) {
      violate("volume " + judged.name + " cannot be opened");
      co_return;
    }
    core = &host->core();
    client.host = std::move(host);
  }
  co_await rt::hop(*core);
  client.client = std::make_unique<VolumeClient>(*core, *client.host, *judged.oracle, moments_,
                                                 seed, plan_.mix);
  if (verify_only) {
    if (!co_await client.client->verify_all())
      violate("volume " + judged.name + " cannot be read with all faults gone");
    if (co_await client.host->flush() != Outcome::kDone)
      violate("volume " + judged.name + " cannot be flushed with all faults gone");
  } else {
    co_await client.client->run(plan_.operations);
  }
  co_await client.host->close();
}

void Scene::start_clients(bool verify_only) {
  const size_t count = verify_only ? 1 : plan_.clients;
  clients_.resize(judged_.size() * count);
  for (size_t i = 0; i < clients_.size(); ++i) {
    rt::Core& core = plan_.nbd ? outside_->control() : box_->control();
    clients_[i].running = simulation_.start(
        core, client_life(clients_[i], judged_[i / count], dice_.next(), verify_only));
  }
  verbs_stop_ = false;
  if (plan_.verbs && !verify_only) verbs_running_ = simulation_.start(box_->control(), verbs());
}

bool Scene::wait_for_clients() {
  for (Client& client : clients_) {
    if (!simulation_.finish(*client.running, kLifeLimit)) return false;
  }
  collect_clients();
  verbs_stop_ = true;
  if (verbs_running_ && !simulation_.finish(*verbs_running_, kLifeLimit)) return false;
  verbs_running_.reset();
  return true;
}

void Scene::collect_clients() {
  for (Client& client : clients_) {
    if (!client.client) continue;
    result_.operations += client.client->stats().operations;
    result_.errors += client.client->stats().errors;
  }
  clients_.clear();
}

// Only the next life knows whether the change at which the store failed holds.
template <class T>
bool in_doubt(const Result<T>& result) {
  return !result && result.error().code() == Code::kInDoubt;
}

// Creates, resizes and deletes volumes of its own, one after the other.
rt::Task<> Scene::verbs() {
  for (int turn = 0; turn < 30 && !verbs_stop_; ++turn) {
    co_await rt::sleep_for(box_->control().clock(), dice_.skewed(100, 50'000));
    const std::string name = fmt::format("extra{}", dice_.below(3));
    const uint64_t size = kMiB * dice_.between(1, 4);
    const bool there = expected_.contains(name);
    if (!there) {
      verb_ = {name, size};
      const auto made = co_await array_->volumes().create({.name = name,
                                                           .size_bytes = size,
                                                           .number = {},
                                                           .backing = {},
                                                           .device = {},
                                                           .thick = dice_.chance(0.3)});
      if (made) expected_[name] = size;
      if (in_doubt(made)) co_return;
      if (!made && made.error().code() == Code::kExists)
        violate("create says that " + name + " exists");
    } else if (dice_.chance(0.5)) {
      verb_ = {name, std::nullopt};
      const auto removed = co_await array_->volumes().remove(name, false);
      if (removed) expected_.erase(name);
      if (in_doubt(removed)) co_return;
    } else {
      verb_ = {name, size};
      const auto resized = co_await array_->volumes().resize(name, size, true);
      if (resized) expected_[name] = size;
      if (in_doubt(resized)) co_return;
    }
    verb_.reset();
  }
}

// After a start: the volumes are those before the verb in flight, or those after it.
void Scene::check_names() {
  std::map<std::string, uint64_t> there;
  for (const auto& info : array_->volumes().infos()) {
    if (info.name.starts_with("extra")) there[info.name] = info.size_bytes;
  }
  std::map<std::string, uint64_t> after = expected_;
  if (verb_) {
    if (verb_->size_after) {
      after[verb_->name] = *verb_->size_after;
    } else {
      after.erase(verb_->name);
    }
  }
  if (there != expected_ && there != after)
    violate("a verb was not atomic: volumes are neither those before nor those after it");
  expected_ = there;
  verb_.reset();
  for (const Judged& judged : judged_) {
    if (!array_->volumes().find(judged.name)) violate("volume " + judged.name + " is gone");
  }
}

void Scene::crash(bool power) {
  box_->cut_at_sync_io(0);
  simulation_.cut_after_steps(*box_, 0, false);
  for (const Judged& judged : judged_) {
    if (power) {
      judged.oracle->power_cut(moments_.next());
    } else {
      judged.oracle->killed(moments_.next());
    }
  }
  tear_down();
}

// Objects die where they stand, users before what they use. Clients outside live on: each must see
// its connection end.
void Scene::tear_down() {
  if (box_->running() && array_) box_->power_cut();
  simulation_.sweep();
  verbs_running_.reset();
  if (!plan_.nbd) collect_clients();
  server_.reset();
  array_.reset();
  for (Client& client : clients_) {
    if (client.running && !simulation_.finish(*client.running, kLifeLimit)) {
      violate("a client never learns that its server is gone");
      outside_->power_cut();
      simulation_.sweep();
    }
  }
  collect_clients();
}

bool Scene::stop_cleanly() {
  struct Local {
    static rt::Task<> stop(Scene& scene) {
      if (scene.server_) co_await scene.stop_server();
      co_await scene.array_->stop();
    }
  };
  if (!simulation_.run(box_->control(), Local::stop(*this), kBootLimit)) {
    violate("a clean stop never ends");
    return false;
  }
  array_.reset();
  // A clean stop is a kill for what nobody flushed: nothing is lost, nothing more is promised.
  for (const Judged& judged : judged_) judged.oracle->killed(moments_.next());
  return true;
}

void Scene::final_checks() {
  start_clients(true);
  if (!wait_for_clients()) violate("reading everything never ends");
  check_pool();
  if (result_.violation.empty()) stop_cleanly();
}

void Scene::check_pool() {
  const auto good = simulation_.run(box_->control(), check_maps(), kBootLimit);
  if (!good || !*good) violate("the maps of volumes and devices contradict each other");
  const pool::PoolUsage usage = array_->pool().usage();
  if (usage.used_bytes + usage.free_bytes + usage.scrubbing_bytes != usage.total_bytes)
    violate("used, free and scrubbing space do not add up");
  uint64_t allocated = 0;
  for (const auto& info : array_->volumes().infos()) allocated += info.allocated_bytes;
  if (allocated != usage.used_bytes)
    violate(fmt::format("volumes hold {} bytes, the pool says {}", allocated, usage.used_bytes));
}

// Table 310 of every volume against table 410 of every device, both ways.
rt::Task<bool> Scene::check_maps() {
  std::map<std::tuple<std::string, uint32_t>, std::tuple<std::string, uint32_t>> by_device;
  for (const auto& device : array_->pool().devices()) {
    const auto runs = co_await array_->pool().device_map(device.name);
    if (!runs) co_return false;
    for (const auto& run : *runs) {
      for (uint32_t i = 0; i < run.count && !run.backing.empty(); ++i) {
        if (!by_device
                 .emplace(std::tuple(run.backing, run.le.value() + i),
                          std::tuple(device.name, run.pe.value() + i))
                 .second)
          co_return false;
      }
    }
  }
  size_t mapped = 0;
  for (const auto& info : array_->volumes().infos()) {
    const auto runs = co_await array_->volumes().extents(info.name);
    if (!runs) co_return false;
    for (const auto& run : *runs) {
      for (uint32_t i = 0; i < run.count && !run.device.empty(); ++i) {
        const auto it = by_device.find({info.backing, run.le.value() + i});
        if (it == by_device.end() || it->second != std::tuple(run.device, run.pe.value() + i))
          co_return false;
        ++mapped;
      }
    }
  }
  co_return mapped == by_device.size();
}

void Scene::violate(std::string text) {
  if (result_.violation.empty()) result_.violation = std::move(text);
}

}  // namespace duplex::simtest
