// Backings are created, dropped, resized; what the pool lists.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "pool/layout.h"
#include "pool/pool_impl.h"

namespace duplex::pool {
format::LogVolume log_volume(const meta::VolumeRow& volume, const meta::BackingRow& backing) {
  return {.number = volume.number,
          .name = volume.name,
          .size_bytes = volume.size_bytes,
          .backing = backing.id,
          .backing_name = backing.name,
          .backing_uuid = backing.uuid,
          .only_device = backing.device,
          .thick = backing.thick,
          .damaged = volume.damaged};
}

// Every device's map log lists all volumes of the array.
Result<void> PoolImpl::check_log_room(size_t volumes) const {
  for (const auto& [id, member] : members_) {
    if (log_capacity(member->row.log_bytes, volumes) < member->row.extent_count) {
      return fail(Code::kNoSpace,
                  fmt::format("the map log of device {} has no room for more than {} volumes",
                              member->row.name, volumes - 1),
                  "delete volumes that are not needed, or replace the device by a larger one");
    }
  }
  return {};
}

Result<void> PoolImpl::check_size(uint64_t size_bytes, bool thick) const {
  if (extent_bytes() == 0) {
    return fail(Code::kState, "the array has no device yet", "duplex device add PATH --size SIZE");
  }
  if (size_bytes == 0 || size_bytes > kMaxBytes ||
      divide_up(size_bytes, extent_bytes()) > UINT32_MAX) {
    return fail(Code::kSize, fmt::format("a volume of {} is not possible with extents of {}",
                                         format_size(size_bytes), format_size(extent_bytes())));
  }
  // Known before its extents are listed: the list of a mistyped size could fill the memory.
  if (thick && size_bytes > usage().total_bytes) {
    return fail(Code::kNoSpace,
                fmt::format("a thick volume of {} does not fit into a pool of {}",
                            format_size(size_bytes), format_size(usage().total_bytes)),
                "leave --thick out, or add a device (duplex device add)");
  }
  return {};
}

// Takes the next number. "PD<number>" may have been given to another backing by hand: then that
// number is left out.
Result<std::string> PoolImpl::choose_backing_name(std::string wanted) {
  const auto is_taken = [&](const std::string& name) {
    return std::ranges::any_of(containers_,
                               [&](const auto& c) { return c.second.row.name == name; });
  };
  std::string name = std::move(wanted);
  if (name.empty()) {
    do {
      name = fmt::format("PD{}", ++last_backing_);
    } while (is_taken(name));
    return name;
  }
  TRY(check_name(name, "backing"));
  if (is_taken(name)) {
    return fail(Code::kExists, fmt::format("there is a backing {} already", name),
                "choose another name with --backing");
  }
  ++last_backing_;
  return name;
}

std::unique_ptr<BackingImpl> PoolImpl::make_backing(const meta::BackingRow& row, rt::Core& core,
                                                    ExtentMap map) {
  std::vector<std::shared_ptr<Device>> devices;
  for (const auto& [id, member] : members_) devices.push_back(member->device);
  return std::make_unique<BackingImpl>(world_.control(), core, mapper_, row, extent_bytes(),
                                       std::move(map), std::move(devices));
}

rt::Task<Result<Backing*>> PoolImpl::create_backing(BackingSpec spec, rt::Core& core,
                                                    meta::VolumeRow volume) {
  CO_TRY(check_size(spec.size_bytes, spec.thick));
  CO_TRY(check_log_room(containers_.size() + 1));
  CO_TRY_ASSIGN(const std::string name, choose_backing_name(spec.name));
  const BackingId id(last_backing_);
  DeviceId only;
  if (!spec.device.empty()) {
    const Member* member = find_member(spec.device);
    if (member == nullptr) {
      co_return fail(Code::kNoDevice, fmt::format("there is no device {}", spec.device),
                     "duplex device list");
    }
    only = member->row.id;
  }
  rt::Rng& rng = world_.control().rng();
  const uint64_t high = rng.next();
  const meta::BackingRow row{.id = id,
                             .uuid = Uuid::from_random(high, rng.next()),
                             .name = name,
                             .size_bytes = spec.size_bytes,
                             .thick = spec.thick,
                             .device = only};
  volume.backing = id;
  ExtentMap map(static_cast<uint32_t>(divide_up(spec.size_bytes, extent_bytes())));
  MapRequest request;
  request.backing = id;
  request.only = only;
  request.with = {meta::PutBacking{row}, meta::PutVolume{volume}};
  request.volumes = {log_volume(volume, row)};
  for (uint32_t le = 0; spec.thick && le < map.size(); ++le) {
    request.map.push_back(LogicalExtent(le));
  }
  // Known before the commit, so that its device cannot be removed meanwhile.
  containers_[id] = {.row = row, .volume = volume.name, .map = {}, .backing = nullptr};
  if (const auto done = co_await mapper_.submit(request); !done) {
    containers_.erase(id);
    co_return std::unexpected(done.error());
  }
  for (size_t i = 0; i < request.map.size(); ++i) map.map(request.map[i], request.placed[i]);
  Container& container = containers_.at(id);
  container.backing = make_backing(row, core, std::move(map));
  container.backing->note_touched(request);
  co_return container.backing.get();
}

rt::Task<Result<Backing*>> PoolImpl::attach_backing(BackingId id, rt::Core& core) {
  const auto found = containers_.find(id);
  if (found == containers_.end()) {
    co_return fail(Code::kNoName, fmt::format("no backing number {}", id.value()));
  }
  Container& container = found->second;
  ASSERT(container.backing == nullptr);
  container.backing = make_backing(container.row, core, std::exchange(container.map, ExtentMap()));
  container.backing->owe_earlier_run();
  co_return container.backing.get();
}

rt::Task<Result<void>> PoolImpl::drop_backing(BackingId id, VolumeNumber volume) {
  const auto held = co_await backing_verbs_.lock();
  const auto found = containers_.find(id);
  if (found == containers_.end()) {
    co_return fail(Code::kNoName, fmt::format("no backing number {}", id.value()));
  }
  MapRequest request;
  request.with = {meta::DropVolume{volume}};
  request.then = {meta::DropBacking{id}};
  request.volumes = {format::LogVolumeDrop{volume}};
  for (const auto& [device, member] : members_) {
    for (const PhysicalExtent pe : member->space.in_state(DeviceSpace::State::kUsed)) {
      const DeviceSpace::Owner owner = member->space.owner(pe);
      if (owner.backing == id) request.unmap.push_back({id, owner.le, device, pe});
    }
  }
  CO_TRY(co_await mapper_.submit(request));
  for (const meta::ExtentRow& row : request.unmap) mapper_.clean(row.device, {row.pe});
  if (BackingImpl* backing = containers_.at(id).backing.get()) {
    co_await rt::hop(backing->core());
    co_await backing->close();
    co_await rt::hop(world_.control());
  }
  containers_.erase(id);
  co_return Result<void>();
}

rt::Task<Result<void>> PoolImpl::resize_backing(BackingId id, meta::VolumeRow volume) {
  const auto held = co_await backing_verbs_.lock();
  const auto found = containers_.find(id);
  if (found == containers_.end() || !found->second.backing) {
    co_return fail(Code::kNoName, fmt::format("no backing number {}", id.value()));
  }
  CO_TRY(check_size(volume.size_bytes, found->second.row.thick));
  BackingImpl& backing = *found->second.backing;
  meta::BackingRow row = found->second.row;
  const uint64_t before = divide_up(row.size_bytes, extent_bytes());
  const uint64_t after = divide_up(volume.size_bytes, extent_bytes());
  row.size_bytes = volume.size_bytes;
  volume.backing = id;
  MapRequest request;
  request.backing = id;
  request.only = row.device;
  request.with = {meta::PutBacking{row}, meta::PutVolume{volume}};
  request.volumes = {log_volume(volume, row)};
  for (uint64_t le = before; row.thick && le < after; ++le) {
    request.map.push_back(LogicalExtent(static_cast<uint32_t>(le)));
  }
  co_await rt::hop(backing.core());
  const auto done = co_await backing.resize(volume.size_bytes, request);
  co_await rt::hop(world_.control());
  if (done) containers_.at(id).row = row;
  co_return done;
}

rt::Task<Result<std::vector<PhysicalRun>>> PoolImpl::device_map(std::string name) {
  const Member* member = find_member(name);
  if (member == nullptr)
    co_return fail(Code::kNoDevice, fmt::format("there is no device {}", name),
                   "duplex device list");
  const DeviceSpace& space = member->space;
  std::vector<PhysicalRun> runs;
  for (uint32_t pe = 0; pe < space.size();) {
    const DeviceSpace::Owner owner = space.owner(PhysicalExtent(pe));
    const bool used = owner.backing != BackingId{};
    uint32_t end = pe + 1;
    for (; end < space.size(); ++end) {
      const DeviceSpace::Owner next = space.owner(PhysicalExtent(end));
      if (next.backing != owner.backing) break;
      if (used && next.le.value() != owner.le.value() + (end - pe)) break;
    }
    const auto container = containers_.find(owner.backing);
    runs.push_back({.pe = PhysicalExtent(pe),
                    .backing = container != containers_.end() ? container->second.row.name : "",
                    .le = owner.le,
                    .count = end - pe});
    pe = end;
  }
  co_return runs;
}

PoolUsage PoolImpl::usage() const {
  PoolUsage usage;
  for (const auto& [id, member] : members_) {
    const uint64_t extent = member->row.extent_bytes;
    usage.total_bytes += member->space.size() * extent;
    usage.used_bytes += member->space.used() * extent;
    usage.scrubbing_bytes += member->space.resting() * extent;
    if (!member->device->is_absent()) usage.free_bytes += member->space.free() * extent;
  }
  for (const auto& [id, container] : containers_) usage.promised_bytes += container.row.size_bytes;
  return usage;
}

std::vector<Pool::BackingInfo> PoolImpl::backings() const {
  std::vector<BackingInfo> infos;
  for (const auto& [id, container] : containers_) {
    const auto device = members_.find(container.row.device);
    const uint64_t mapped = container.backing ? container.backing->allocated_bytes()
                                              : container.map.mapped() * extent_bytes();
    infos.push_back({.id = id,
                     .name = container.row.name,
                     .size_bytes = container.row.size_bytes,
                     .allocated_bytes = mapped,
                     .thick = container.row.thick,
                     .device = device != members_.end() ? device->second->row.name : ""});
  }
  return infos;
}

}  // namespace duplex::pool
