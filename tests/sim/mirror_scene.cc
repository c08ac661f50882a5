#include "sim/mirror_scene.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "sim/disk.h"

namespace duplex::simtest {
namespace {

constexpr const char* kDevicePaths[] = {"/dev/a", "/dev/b", "/dev/c"};
constexpr uint64_t kDeviceBytes = 48 * kMiB;
constexpr uint64_t kLargeDeviceBytes = 160 * kMiB;  // for volumes of several stretches
constexpr rt::Micros kBootLimit = 600 * rt::kSecond;
constexpr rt::Micros kLifeLimit = 4 * 3600 * rt::kSecond;

}  // namespace

MirrorScene::MirrorScene(uint64_t seed)
    : seed_(seed), simulation_(seed), dice_(simulation_.dice(2)), side_dice_(simulation_.dice(4)) {
  draw();
  make_machine();
}

MirrorScene::~MirrorScene() { tear_down(); }

// Swarm testing: each run has its own mix; many have faults of one kind only, some have none.
void MirrorScene::draw() {
  plan_.reactors = dice_.chance(0.5) ? 1 : dice_.between(2, 4);
  plan_.devices = dice_.between(2, 3);
  plan_.extent_bytes = (64 * kKiB) << dice_.below(3);
  plan_.volume_bytes = 256 * kKiB * dice_.between(1, 8);
  if (dice_.chance(0.3)) plan_.volume_bytes += kBlockBytes * dice_.between(1, 100);
  plan_.roots = dice_.between(1, 3);
  plan_.lives = dice_.between(2, 5);
  plan_.operations = dice_.between(100, 1000);
  plan_.writers = dice_.below(4);
  plan_.turns = dice_.between(5, 40);
  const auto rate = [&](double share, double most) {
    return dice_.chance(share) ? most * static_cast<double>(dice_.between(1, 100)) / 100 : 0;
  };
  plan_.disk_error = rate(0.3, 0.02);
  plan_.flush_error = rate(0.2, 0.05);
  plan_.slow = rate(0.3, 0.05);
  plan_.away = rate(0.3, 0.2);
  plan_.restores = dice_.chance(0.6);
  plan_.cancels = dice_.chance(0.3);
  plan_.deletes = dice_.chance(0.3);
  plan_.target_hosts = dice_.chance(0.6);
  RequestMix& mix = plan_.mix;
  mix.write = static_cast<double>(dice_.between(20, 70)) / 100;
  mix.zero = rate(0.5, 0.1);
  mix.trim = rate(0.5, 0.1);
  mix.flush = rate(0.8, 0.1);
  mix.fua = rate(0.5, 0.3);
  mix.max_sectors = uint64_t{1} << dice_.between(0, 7);
  mix.depth = static_cast<uint32_t>(dice_.between(1, 8));
  mix.unaligned = dice_.chance(0.6);
  mix.hot_spot = static_cast<double>(dice_.below(100)) / 100;
  draw_large();
  draw_trees();
}

// In a small volume hosts soon write every region again, and one mark covers all of it: both hide
// a region whose bit was forgotten. Drawn apart, so that the other seeds stay as they are.
void MirrorScene::draw_large() {
  sim::Dice dice = simulation_.dice(3);
  plan_.is_large = dice.chance(0.25);
  if (!plan_.is_large) return;
  plan_.volume_bytes += volume::kHotBytes * dice.between(1, 2);
  plan_.operations = dice.between(50, 300);
  plan_.restores = dice.chance(0.8);
  if (dice.chance(0.5)) plan_.flush_error = 0.1;
}

// Each root: a target; two of them; one and its own target; both.
void MirrorScene::draw_trees() {
  const auto volume = [&](std::string name, size_t device) {
    const size_t index = volumes_.size();
    const uint64_t sectors = plan_.volume_bytes / kSector;
    volumes_.push_back(
        {.name = name,
         .device = device,
         .oracle = std::make_unique<Oracle>(static_cast<uint16_t>(index + 1), sectors),
         .source = cuts_.add(name, sectors),
         .known = true});
    return index;
  };
  const auto mirror = [&](size_t source, size_t target) {
    mirrors_.push_back({.name = fmt::format("m{}", mirrors_.size()),
                        .source = source,
                        .target = target,
                        .point = {},
                        .frozen = {}});
    // A flush that cannot write the map log fails. Then what came back from the target is read
    // there again, without what was written since.
    if (plan_.disk_error > 0) volumes_[source].oracle->expect_told_losses();
  };
  for (size_t r = 0; r < plan_.roots; ++r) {
    const uint64_t shape = dice_.below(4);
    const size_t root = volume(fmt::format("v{}", r), 0);
    const size_t first = volume(fmt::format("v{}-s", r), 1);
    mirror(root, first);
    if (shape == 1 || shape == 3) mirror(root, volume(fmt::format("v{}-t", r), plan_.devices - 1));
    if (shape >= 2) mirror(first, volume(fmt::format("v{}-ss", r), plan_.devices - 1));
  }
}

std::string MirrorScene::describe() const {
  return fmt::format(
      "seed {} with mirrors: {} reactors, {} devices, extents {} KiB, {} roots, {} mirrors, "
      "volumes "
      "of {}, {} dependent writers, {} operations, {} lives, {} turns; disk errors {:.4f}, flush "
      "errors {:.4f}, slow {:.4f}, away {:.4f}; restores {}, cancels {}, deletes {}, hosts on "
      "targets {}",
      seed_, plan_.reactors, plan_.devices, plan_.extent_bytes / kKiB, plan_.roots, mirrors_.size(),
      format_size(plan_.volume_bytes), plan_.writers, plan_.operations, plan_.lives, plan_.turns,
      plan_.disk_error, plan_.flush_error, plan_.slow, plan_.away, plan_.restores, plan_.cancels,
      plan_.deletes, plan_.target_hosts);
}

void MirrorScene::make_machine() {
  box_ = &simulation_.add_machine("box", {.reactors = plan_.reactors});
  for (size_t i = 0; i < plan_.devices; ++i) {
    box_->add_device(kDevicePaths[i], plan_.is_large ? kLargeDeviceBytes : kDeviceBytes, true);
    device_faults_.push_back({this, i});
  }
}

SceneResult MirrorScene::run() {
  for (size_t life = 0; life <= plan_.lives && result_.violation.empty(); ++life) {
    ++result_.lives;
    if (!live(life, life == plan_.lives)) break;
  }
  tear_down();
  for (const Volume& volume : volumes_) {
    if (!volume.oracle->violation().empty())
      violate(fmt::format("{}: {}", volume.name, volume.oracle->violation()));
  }
  result_.hash = simulation_.hash();
  result_.virtual_time = simulation_.now();
  result_.counts = simulation_.counts();
  for (const auto& [what, count] : result_.counts) result_.faults += count;
  return std::move(result_);
}

// Runs a task that nothing may keep from ending. False when power was cut, or it never ends.
template <class T>
bool MirrorScene::must_end(rt::Task<T> task, const char* what) {
  if (simulation_.run(box_->control(), std::move(task), kLifeLimit)) return true;
  if (simulation_.last_end() == sim::Simulation::End::kStuck)
    violate(fmt::format("{} never ends", what));
  return false;
}

// One life. False when the run is over (a violation).
bool MirrorScene::live(size_t life, bool last) {
  set_faults(false);
  if (!box_->running()) box_->power_on({.reactors = plan_.reactors});
  if (!boot(life)) {
    if (last) violate("the last start was cut short: nothing was judged");
    return result_.violation.empty();
  }
  if (!must_end(refresh(), "looking at the mirrors") ||
      !must_end(settle_roots(), "reading everything") || !must_end(read_points(), "reading cuts"))
    return false;
  if (last) {
    if (must_end(last_judgement(), "coming to rest") && result_.violation.empty()) stop_cleanly();
    return false;
  }
  set_faults(true);
  const uint64_t ending = dice_.below(5);
  if (ending == 1) box_->cut_at_sync_io(dice_.between(1, 400));
  if (ending >= 2) simulation_.cut_after_steps(*box_, dice_.skewed(200, 200'000), ending == 4);
  start_clients();
  verbs_stop_ = false;
  verbs_running_ = simulation_.start(box_->control(), verbs());
  if (!wait_for_clients()) {
    if (simulation_.last_end() == sim::Simulation::End::kStuck) {
      violate(fmt::format("life {} is stuck: clients or verbs never end", life));
      return false;
    }
    crash(ending != 4);
    return result_.violation.empty();
  }
  box_->cut_at_sync_io(0);
  simulation_.cut_after_steps(*box_, 0, false);
  set_faults(false);
  if (!must_end(quiet(), "coming to rest")) return false;
  return result_.violation.empty() && stop_cleanly();
}

// Opens the array. False: power was cut on the way (the next life goes on), or a violation.
bool MirrorScene::boot(size_t life) {
  // Never in the last life: a run that ends here has not been judged.
  if (life > 0 && life < plan_.lives && dice_.chance(0.2))
    box_->cut_at_sync_io(dice_.between(1, 60));
  auto opened = simulation_.run(
      box_->control(),
      control::Array::open(
          *box_, {.name = "sim", .id = kArray, .state_directory = "/state", .engine = "simulated"}),
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
  return set_up_ || first_setup();
}

rt::Task<Result<void>> MirrorScene::set_up() {
  std::vector<std::string> devices;
  for (size_t i = 0; i < plan_.devices; ++i) {
    CO_TRY_ASSIGN(const auto device,
                  co_await array_->pool().add_device({.path = kDevicePaths[i],
                                                      .name = {},
                                                      .create_bytes = 0,
                                                      .extent_bytes = plan_.extent_bytes,
                                                      .overwrite = true}));
    devices.push_back(device.info.name);
  }
  for (const Volume& volume : volumes_) {
    CO_TRY(co_await array_->volumes().create({.name = volume.name,
                                              .size_bytes = plan_.volume_bytes,
                                              .number = {},
                                              .backing = {},
                                              .device = devices[volume.device],
                                              .thick = false}));
  }
  for (Mirror& one : mirrors_) {
    CO_TRY(co_await array_->mirrors().create({.name = one.name,
                                              .source = volumes_[one.source].name,
                                              .target = volumes_[one.target].name}));
    one.exists = true;
  }
  Names all;
  for (const Mirror& one : mirrors_) all.push_back(one.name);
  CO_TRY(co_await array_->mirrors().create_group(kGroup, all));
  group_ = {std::move(all)};
  co_return Result<void>();
}

bool MirrorScene::first_setup() {
  const auto made = simulation_.run(box_->control(), set_up(), kBootLimit);
  if (!made || !*made) {
    violate("setting up: " + (made ? made->error().describe() : std::string("never ends")));
    return false;
  }
  set_up_ = true;
  for (size_t i = 0; i < plan_.devices; ++i) {
    sim::DiskFile& disk = *box_->disk().find(kDevicePaths[i]);
    disk.faults.object = &device_faults_[i];
    disk.faults.cache_lost = &MirrorScene::on_cache_lost;
  }
  return true;
}

// What the own backing has not is read at a target, and what that one has not further down.
bool MirrorScene::may_be_read_at(size_t volume, size_t device) const {
  return volumes_[volume].device == device || std::ranges::any_of(mirrors_, [&](const Mirror& one) {
           return one.source == volume && may_be_read_at(one.target, device);
         });
}

// Where a target holds what was lost, FLUSH may go well: so no volume must tell of it. And a write
// that only a target took is lost with the cache of that one's device: so the volumes above have
// lost something, too, whatever is on the device they are on.
void MirrorScene::on_cache_lost(void* fault) {
  const auto& [scene, device] = *static_cast<DeviceFault*>(fault);
  scene->expect_losses(device);
  for (const Volume& volume : scene->volumes_) {
    if (volume.device == device) volume.oracle->cache_lost(scene->moments_.next(), false);
  }
}

// Of a device that loses its cache, or was away: what the volumes that may be read there have not
// flushed.
void MirrorScene::expect_losses(size_t device) {
  for (size_t v = 0; v < volumes_.size(); ++v) {
    if (!may_be_read_at(v, device)) continue;
    cuts_.loss(volumes_[v].source);
    volumes_[v].oracle->expect_losses();
  }
}

void MirrorScene::set_faults(bool on) {
  for (const char* path : kDevicePaths) {
    sim::DiskFile* disk = box_->disk().find(path);
    if (disk == nullptr) continue;
    disk->faults.read_error = disk->faults.write_error = on ? plan_.disk_error : 0;
    disk->faults.zero_error = on ? plan_.disk_error / 4 : 0;
    disk->faults.flush_error = on ? plan_.flush_error : 0;
    disk->faults.slow = on ? plan_.slow : 0;
    disk->faults.gone = false;
  }
}

void MirrorScene::crash(bool power) {
  box_->cut_at_sync_io(0);
  simulation_.cut_after_steps(*box_, 0, false);
  if (pending_) {
    // The array may have decided this cut, or may not: the next start shows it.
    new_point(pending_->asked, pending_->members);
    crash_point_ = mirrors_[pending_->members.front()].point;
    crash_members_ = pending_->members;
    for (const size_t i : crash_members_) mirrors_[i].point.reset();
    pending_.reset();
  }
  // What came back from a target and was not flushed is missing again, with what was written there
  // since: then a kill loses what was not flushed, too.
  const bool may_miss = plan_.restores || plan_.disk_error > 0 || plan_.flush_error > 0;
  for (const Volume& volume : volumes_) {
    if (power || may_miss) {
      volume.oracle->power_cut(moments_.next());
    } else {
      volume.oracle->killed(moments_.next());
    }
  }
  cuts_.stopped(moments_.next(), power || may_miss);
  if (half_restored_) volumes_[*half_restored_].known = false;
  half_restored_.reset();
  tear_down();
}

// Objects die where they stand, users before what they use.
void MirrorScene::tear_down() {
  if (box_->running() && array_) box_->power_cut();
  simulation_.sweep();
  verbs_running_.reset();
  drop_clients();
  array_.reset();
}

bool MirrorScene::stop_cleanly() {
  if (!must_end(array_->stop(), "a clean stop")) return false;
  array_.reset();
  // A clean stop is a kill for what nobody flushed: nothing is lost, nothing more is promised.
  for (const Volume& volume : volumes_) volume.oracle->killed(moments_.next());
  cuts_.stopped(moments_.next(), false);
  return true;
}

void MirrorScene::violate(std::string text) {
  if (result_.violation.empty()) result_.violation = std::move(text);
}

}  // namespace duplex::simtest
