// Start and stop of the pool.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "pool/pool_impl.h"

namespace duplex::pool {

rt::Task<Result<std::unique_ptr<Pool>>> Pool::open(rt::World& world, meta::Store& store,
                                                   EventSink& events,
                                                   const meta::Snapshot& snapshot) {
  auto pool = std::make_unique<PoolImpl>(world, store, events, snapshot.array);
  const auto started = co_await pool->start(snapshot);
  if (!started) {
    co_await pool->close();
    co_return std::unexpected(started.error());
  }
  co_return std::unique_ptr<Pool>(std::move(pool));
}

PoolImpl::PoolImpl(rt::World& world, meta::Store& store, EventSink& events, meta::ArrayRow array)
    : world_(world),
      store_(store),
      events_(events),
      array_(std::move(array)),
      mapper_(world.control(), store, events, members_),
      last_backing_(array_.last_backing),
      tasks_(world.control()) {}

rt::Task<Result<void>> PoolImpl::start(meta::Snapshot snapshot) {
  CO_TRY(load(snapshot));
  for (auto& [id, member] : members_) {
    const auto attached = co_await attach_at_start(*member);
    if (attached) continue;
    // An old copy of the state directory must not touch the devices; anything else is a device
    // that may come back.
    if (attached.error().code() == Code::kStale) co_return attached;
    set_absent(*member, std::string(attached.error().message()));
  }
  CO_TRY(co_await begin_life());
  co_await refresh_labels();
  tasks_.spawn(mapper_.run());
  for (auto& [id, member] : members_) {
    member->start();
    member->cleaner.set_watermark(member->row.clean_extents);
    member->cleaner.add(member->space.in_state(DeviceSpace::State::kReleased));
  }
  tasks_.spawn(attach_loop());
  co_return Result<void>();
}

// After a kill the kernel keeps the files of the predecessor, and their locks, until its last I/O
// has ended: a device in use is asked for again for a while.
rt::Task<Result<void>> PoolImpl::attach_at_start(Member& member) {
  constexpr rt::Micros kPatience = 3 * rt::kSecond;
  constexpr rt::Micros kPause = 20 * rt::kMillisecond;
  rt::Clock& clock = world_.control().clock();
  const rt::Micros deadline = clock.now() + kPatience;
  while (true) {
    auto attached = co_await attach(member);
    const bool in_use = !attached && attached.error().code() == Code::kBusy;
    if (!in_use || clock.now() >= deadline) co_return attached;
    co_await rt::sleep_for(clock, kPause);
  }
}

Member& PoolImpl::add_member(const meta::DeviceRow& row) {
  auto member = std::make_unique<Member>(world_, row, mapper_,
                                         [this, id = row.id] { return checkpoint_contents(id); });
  member->device->on_trouble([this, id = row.id] { on_trouble(id); });
  return *(members_[row.id] = std::move(member));
}

format::LogCheckpoint PoolImpl::checkpoint_contents(DeviceId id) {
  format::LogCheckpoint checkpoint;
  for (const auto& [number, volume] : mapper_.volumes()) checkpoint.volumes.push_back(volume);
  const auto found = members_.find(id);
  if (found != members_.end()) checkpoint.maps = found->second->space.maps();
  return checkpoint;
}

uint64_t PoolImpl::extent_bytes() const {
  return members_.empty() ? 0 : members_.begin()->second->row.extent_bytes;
}

Result<void> PoolImpl::load(const meta::Snapshot& snapshot) {
  for (const meta::DeviceRow& row : snapshot.devices) add_member(row);
  for (const meta::BackingRow& row : snapshot.backings) {
    if (extent_bytes() == 0) {
      return fail(Code::kCorrupt, "the store has volumes but no device");
    }
    Container& container = containers_[row.id];
    container.row = row;
    container.map.resize(static_cast<uint32_t>(divide_up(row.size_bytes, extent_bytes())));
    last_backing_ = std::max(last_backing_, row.id.value());
  }
  for (const meta::VolumeRow& row : snapshot.volumes) {
    const auto found = containers_.find(row.backing);
    if (found == containers_.end()) {
      return fail(Code::kCorrupt, fmt::format("the store knows no backing of volume {}", row.name));
    }
    Container& container = found->second;
    container.volume = row.name;
    mapper_.volumes()[row.number] = log_volume(row, container.row);
  }
  return load_extents(snapshot);
}

Result<void> PoolImpl::load_extents(const meta::Snapshot& snapshot) {
  const auto unclean = [&](DeviceId device, PhysicalExtent pe) -> Member* {
    const auto found = members_.find(device);
    if (found == members_.end() || pe.value() >= found->second->space.size()) return nullptr;
    const bool known = found->second->space.state(pe) != DeviceSpace::State::kUnclean;
    return known ? nullptr : found->second.get();
  };
  const auto corrupt = [](DeviceId device, PhysicalExtent pe) {
    return fail(Code::kCorrupt,
                fmt::format("the store's map of extents is damaged at extent {} of "
                            "device number {}",
                            pe.value(), device.value()),
                "duplexd --rebuild with a new state directory");
  };
  for (const meta::ExtentRow& row : snapshot.extents) {
    Member* member = unclean(row.device, row.pe);
    const auto container = containers_.find(row.backing);
    if (member == nullptr || container == containers_.end() ||
        row.le.value() >= container->second.map.size() ||
        container->second.map.at(row.le).is_mapped()) {
      return corrupt(row.device, row.pe);
    }
    member->space.load_used(row.pe, {row.backing, row.le});
    container->second.map.map(row.le, {row.device, row.pe});
  }
  for (const meta::ScrubRow& row : snapshot.scrub) {
    Member* member = unclean(row.device, row.pe);
    if (member == nullptr) return corrupt(row.device, row.pe);
    member->space.load_released(row.pe);
  }
  for (auto& [id, member] : members_) {
    for (uint32_t pe = 0; pe < std::min(member->row.clean_extents, member->space.size()); ++pe) {
      if (member->space.state(PhysicalExtent(pe)) == DeviceSpace::State::kUnclean) {
        member->space.add_free(PhysicalExtent(pe));
      }
    }
  }
  return {};
}

rt::Task<> PoolImpl::close() {
  stopping_ = true;
  stop_.set();
  for (auto& [id, container] : containers_) {
    if (!container.backing) continue;
    co_await rt::hop(container.backing->core());
    co_await container.backing->close();
    co_await rt::hop(world_.control());
  }
  for (auto& [id, member] : members_) co_await member->stop();
  mapper_.stop();
  co_await tasks_.close();
  for (auto& [id, member] : members_) {
    // So that a rebuild after a clean stop knows all; a failure here loses nothing the store has.
    if (member->device->control_port().is_open()) co_await member->device->control_port().flush();
    co_await member->device->detach();
  }
}

}  // namespace duplex::pool
