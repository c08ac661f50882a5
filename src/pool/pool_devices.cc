// Devices are added, removed, resized.
//
// Order of add: label on the new device -> store -> labels of the others -> extents of it may be
// used. A crash after the first step leaves a file with a label that the store does not know (a
// second add asks for --overwrite); after the second, the next start rewrites the labels first.
// Order of remove: store -> labels of the others -> label wiped. A crash after the first step
// leaves a label with an old list on it; a rebuild does not take it, for newer labels do not
// name it.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <set>
#include <utility>

#include "base/text.h"
#include "pool/labels.h"
#include "pool/layout.h"
#include "pool/pool_impl.h"

namespace duplex::pool {
namespace {

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// Devices of this size are cheap to zero in one operation; longer ranges go in steps of it.
constexpr uint64_t kZeroStep = kGiB;

rt::Task<int> zero_range(DevicePort& port, uint64_t from, uint64_t to) {
  int error = 0;
  for (uint64_t at = from; at < to && error == 0; at += kZeroStep) {
    error = co_await port.zero(at, std::min(kZeroStep, to - at), rt::FileOp::Kind::kZero);
  }
  if (error == 0) error = co_await port.flush();
  co_return error;
}

Error device_error(int error, std::string_view what, const std::string& path) {
  return system_error(error, fmt::format("{} {}", what, path));
}

}  // namespace

struct PoolImpl::NewDevice {
  meta::DeviceRow row;
  std::unique_ptr<rt::File> file;
  std::unique_ptr<Member> member;
  bool created = false;
};

Member* PoolImpl::find_member(const std::string& name) const {
  for (const auto& [id, member] : members_) {
    if (member->row.name == name) return member.get();
  }
  return nullptr;
}

Member* PoolImpl::find_member_at(const std::string& path) const {
  for (const auto& [id, member] : members_) {
    if (member->row.path == path) return member.get();
  }
  return nullptr;
}

// `overwrite` was a consent about what stood there before; it asks for nothing now.
Result<Pool::AddedDevice> PoolImpl::added_before(const Member& member,
                                                 const AddDevice& request) const {
  const meta::DeviceRow& row = member.row;
  const uint64_t bytes = round_down(request.create_bytes, kBlockBytes);
  const bool same = (request.name.empty() || request.name == row.name) &&
                    (request.create_bytes == 0 || bytes == row.size_bytes) &&
                    (request.extent_bytes == 0 || request.extent_bytes == row.extent_bytes);
  if (same) return AddedDevice{info_of(member), false};
  return fail(
      Code::kExists,
      fmt::format("{} is device {} already, with another definition ({}, extents of {})", row.path,
                  row.name, format_size(row.size_bytes), format_size(row.extent_bytes)),
      fmt::format("duplex device show {}", row.name));
}

Result<void> PoolImpl::check_new_device(const AddDevice& request) const {
  const std::string name = request.name.empty() ? file_name(request.path) : request.name;
  TRY(check_name(name, "device"));
  if (find_member(name) != nullptr) {
    return fail(Code::kExists, fmt::format("there is a device {} already", name),
                "choose another name with --name");
  }
  if (members_.size() >= format::kMaxDevices) {
    return fail(Code::kState, fmt::format("an array has at most {} devices", format::kMaxDevices));
  }
  if (extent_bytes() != 0 && extent_bytes() != request.extent_bytes) {
    return fail(Code::kSize,
                fmt::format("the devices of this array have extents of {}, not {}",
                            format_size(extent_bytes()), format_size(request.extent_bytes)),
                "leave the extent size out");
  }
  return {};
}

// Opens or creates it and refuses what cannot be taken; nothing that exists is changed.
rt::Task<Result<PoolImpl::NewDevice>> PoolImpl::open_new_device(AddDevice request) {
  rt::Files& files = world_.control().files();
  NewDevice fresh;
  auto file = co_await files.open(request.path, {.write = true});
  if (request.create_bytes != 0) {
    if (file) {
      co_return fail(
          Code::kExists, fmt::format("{} exists already", request.path),
          fmt::format("without --size it is taken as it is: duplex device add {}", request.path));
    }
    CO_TRY(make_layout(request.create_bytes, request.extent_bytes));
    file = co_await files.open(
        request.path,
        {.write = true, .create = true, .exclusive = true, .create_bytes = request.create_bytes});
    fresh.created = file.has_value();
  } else if (!file && file.error().code() == Code::kNoDevice) {
    co_return fail(Code::kNoDevice, fmt::format("{} does not exist", request.path),
                   fmt::format("to create it: duplex device add {} --size SIZE", request.path));
  }
  if (!file) co_return std::unexpected(file.error());
  fresh.file = std::move(*file);
  fresh.row.name = request.name.empty() ? file_name(request.path) : request.name;
  fresh.row.path = request.path;
  fresh.row.size_bytes = round_down(fresh.file->info().size, kBlockBytes);
  fresh.row.extent_bytes = request.extent_bytes;
  Result<void> usable = fresh.file->lock();
  if (usable && !request.overwrite) usable = co_await check_unused(*fresh.file, array_.uuid);
  const auto layout = make_layout(fresh.row.size_bytes, request.extent_bytes);
  if (usable && !layout) usable = std::unexpected(layout.error());
  if (!usable) {
    co_await undo_new_device(fresh);
    co_return std::unexpected(usable.error());
  }
  fresh.row.extent_count = layout->extent_count;
  fresh.row.log_offset = layout->log_offset;
  fresh.row.log_bytes = layout->log_bytes;
  fresh.row.data_offset = layout->data_offset;
  co_return fresh;
}

// A file made for this is removed again; anything else keeps at most no label.
rt::Task<> PoolImpl::undo_new_device(NewDevice& fresh) {
  const std::string path = fresh.row.path;
  if (fresh.member) {
    co_await fresh.member->stop();
    if (fresh.member->device->control_port().is_open()) {
      co_await wipe_label(fresh.member->device->control_port());
    }
    co_await fresh.member->device->detach();
    fresh.member.reset();
  }
  fresh.file.reset();
  if (fresh.created) co_await world_.control().files().remove(path);
}

// Gives it to all cores, clears what has to read as zeroes, writes its label.
rt::Task<Result<void>> PoolImpl::prepare_new_device(NewDevice& fresh) {
  rt::Rng& rng = world_.control().rng();
  uint16_t id = 1;
  while (members_.contains(DeviceId(id))) ++id;
  fresh.row.id = DeviceId(id);
  const uint64_t high = rng.next();
  fresh.row.uuid = Uuid::from_random(high, rng.next());
  // Not below the others: the device with the highest sequence knows all volumes (mapper.h).
  for (const auto& [other, member] : members_) {
    fresh.row.log_sequence = std::max(fresh.row.log_sequence, member->row.log_sequence);
  }
  fresh.row.life = life_;
  const bool is_block_device = fresh.file->info().is_block_device;
  // A file can be emptied as a whole; a disk is cleaned ahead of need.
  fresh.row.clean_extents = is_block_device ? 0 : fresh.row.extent_count;
  fresh.member = std::make_unique<Member>(
      world_, fresh.row, mapper_,
      [this, device = fresh.row.id] { return checkpoint_contents(device); });
  CO_TRY(co_await fresh.member->device->attach(fresh.row.path, std::move(fresh.file)));
  DevicePort& port = fresh.member->device->control_port();
  if (!fresh.created) {
    const uint64_t to = is_block_device ? fresh.row.data_offset : fresh.row.size_bytes;
    if (const int error = co_await zero_range(port, 0, to); error != 0) {
      co_return std::unexpected(device_error(error, "clear", fresh.row.path));
    }
  }
  format::DeviceLabel label = make_label(*fresh.member);
  label.sequence = label_sequence_ + 1;
  label.devices.push_back(
      {fresh.row.id, fresh.row.uuid, fresh.row.name, fresh.row.path.substr(0, 255)});
  if (const int error = co_await write_label(port, label); error != 0) {
    co_return std::unexpected(device_error(error, "write the label of", fresh.row.path));
  }
  // A device without a readable log is damaged (rebuild.cc): there is one before it belongs to us.
  fresh.member->device->set_state(DeviceState::kOnline);
  fresh.member->log.attached(FoundLog{}, fresh.row.log_sequence);
  fresh.member->start();
  co_return co_await fresh.member->log.written(fresh.row.log_sequence);
}

rt::Task<Result<void>> PoolImpl::join(NewDevice& fresh) {
  const auto held = co_await mapper_.lock();
  // Commits went on while it was prepared. Its log would lack their volumes, and pass for the one
  // that knows all as soon as it has the highest number (mapper.h, invariant 3).
  for (const auto& [other, joined] : members_) {
    fresh.row.log_sequence = std::max(fresh.row.log_sequence, joined->row.log_sequence);
  }
  CO_TRY(co_await store_.commit({meta::PutDevice{fresh.row}}));
  Member& member = *fresh.member;
  member.row.log_sequence = fresh.row.log_sequence;
  member.log.skip_to(fresh.row.log_sequence);
  for (uint32_t pe = 0; pe < fresh.row.clean_extents; ++pe) {
    member.space.add_free(PhysicalExtent(pe));
  }
  member.device->on_trouble([this, id = fresh.row.id] { on_trouble(id); });
  member.cleaner.set_watermark(fresh.row.clean_extents);
  members_[fresh.row.id] = std::move(fresh.member);
  co_return Result<void>();
}

rt::Task<Result<Pool::AddedDevice>> PoolImpl::add_device(AddDevice request) {
  const auto held = co_await device_verbs_.lock();
  if (const Member* same = find_member_at(request.path)) co_return added_before(*same, request);
  if (request.extent_bytes == 0) {
    request.extent_bytes = members_.empty() ? kDefaultExtentBytes : extent_bytes();
  }
  CO_TRY(check_new_device(request));
  CO_TRY_ASSIGN(NewDevice fresh, co_await open_new_device(request));
  Result<void> result = co_await prepare_new_device(fresh);
  if (result) result = co_await join(fresh);
  if (!result) {
    co_await undo_new_device(fresh);
    co_return std::unexpected(result.error());
  }
  co_await refresh_labels();
  co_return AddedDevice{info_of(*members_.at(fresh.row.id)), true};
}

std::vector<std::string> PoolImpl::volumes_on(const Member& member) const {
  std::set<BackingId> found;
  for (const PhysicalExtent pe : member.space.in_state(DeviceSpace::State::kUsed)) {
    found.insert(member.space.owner(pe).backing);
  }
  for (const auto& [id, container] : containers_) {
    if (container.row.device == member.row.id) found.insert(id);
  }
  std::vector<std::string> names;
  for (const BackingId id : found) {
    const auto container = containers_.find(id);
    names.push_back(container != containers_.end() ? container->second.volume : "");
  }
  return names;
}

// In one transaction: what was to be cleaned on it, and the device. Its member leaves the pool.
rt::Task<Result<std::unique_ptr<Member>>> PoolImpl::commit_removal(DeviceId id) {
  const auto held = co_await mapper_.lock();
  Member& member = *members_.at(id);
  const auto volumes = volumes_on(member);
  if (!volumes.empty()) {
    co_return fail(
        Code::kBusy,
        fmt::format("device {} is in use by volume {}", member.row.name, fmt::join(volumes, ", ")),
        "delete these volumes first: duplex volume delete NAME");
  }
  // The volumes, also those without data, stand in the map logs: one device must be there for that.
  const bool others = std::ranges::any_of(members_, [&](const auto& entry) {
    return entry.first != id && (entry.second->takes_allocations() || member.device->is_absent());
  });
  if (!others && !containers_.empty()) {
    co_return fail(
        Code::kState,
        fmt::format("device {} is the last one that is there, and there are volumes",
                    member.row.name),
        "delete the volumes, or add another device first: duplex device add PATH --size SIZE");
  }
  if (member.busy) {
    co_return fail(Code::kBusy, fmt::format("device {} is being attached", member.row.name),
                   "try again");
  }
  meta::Transaction transaction;
  for (const PhysicalExtent pe : member.space.in_state(DeviceSpace::State::kReleased)) {
    transaction.push_back(meta::Scrubbed{{id, pe}});
  }
  transaction.push_back(meta::DropDevice{id});
  member.busy = true;
  const auto committed = co_await store_.commit(std::move(transaction));
  member.busy = false;
  if (!committed) co_return std::unexpected(committed.error());
  auto gone = std::move(members_.at(id));
  members_.erase(id);
  co_return gone;
}

rt::Task<Result<void>> PoolImpl::remove_device(std::string name) {
  const auto held = co_await device_verbs_.lock();
  const Member* found = find_member(name);
  if (found == nullptr)
    co_return fail(Code::kNoDevice, fmt::format("there is no device {}", name),
                   "duplex device list");
  CO_TRY_ASSIGN(const auto gone, co_await commit_removal(found->row.id));
  for (auto& [id, member] : members_) member->label_sequence = 0;
  co_await refresh_labels();
  {
    const auto stays = co_await backing_verbs_.lock();
    for (auto& [id, container] : containers_) {
      if (!container.backing) continue;
      co_await rt::hop(container.backing->core());
      container.backing->forget(gone->row.id);
      co_await rt::hop(world_.control());
    }
  }
  co_await gone->stop();
  if (gone->device->control_port().is_open()) {
    co_await wipe_label(gone->device->control_port());
  }
  co_await gone->device->detach();
  co_return Result<void>();
}

rt::Task<Result<DeviceInfo>> PoolImpl::resize_device(std::string name) {
  const auto held = co_await device_verbs_.lock();
  Member* member = find_member(name);
  if (member == nullptr)
    co_return fail(Code::kNoDevice, fmt::format("there is no device {}", name),
                   "duplex device list");
  CO_TRY_ASSIGN(const uint64_t bytes, co_await member->device->refresh_size());
  const uint64_t size = round_down(bytes, kBlockBytes);
  const meta::DeviceRow& row = member->row;
  const uint64_t used_end = row.data_offset + row.extent_count * row.extent_bytes;
  if (size < used_end) {
    co_return fail(Code::kSize,
                   fmt::format("{} has become smaller than device {} is", row.path, name));
  }
  const uint64_t extents = (size - row.data_offset) / row.extent_bytes;
  const uint64_t most = log_capacity(row.log_bytes, containers_.size());
  if (extents > most) {
    co_return fail(
        Code::kSize,
        fmt::format("device {} can grow to {} at most: its map log has room for {} extents", name,
                    format_size(row.data_offset + most * row.extent_bytes), most),
        "add the new space as a device of its own");
  }
  const bool was_clean = row.clean_extents == row.extent_count;
  const bool is_file = !member->device->control_port().info()->is_block_device;
  if (is_file && was_clean && extents > row.extent_count) {
    const int error = co_await zero_range(member->device->control_port(), used_end,
                                          row.data_offset + extents * row.extent_bytes);
    if (error != 0) co_return std::unexpected(device_error(error, "clear", row.path));
  }
  {
    const auto committing = co_await mapper_.lock();
    meta::DeviceRow grown = row;
    grown.size_bytes = size;
    grown.extent_count = static_cast<uint32_t>(extents);
    if (is_file && was_clean) grown.clean_extents = grown.extent_count;
    CO_TRY(co_await store_.commit({meta::PutDevice{grown}}));
    member->row = grown;
  }
  // The label first: a rebuild must expect the new extents before they hold anything.
  member->label_sequence = 0;
  co_await refresh_labels();
  const uint32_t before = member->space.size();
  member->space.resize(row.extent_count);
  for (uint32_t pe = before; pe < row.clean_extents; ++pe) {
    member->space.add_free(PhysicalExtent(pe));
  }
  member->cleaner.set_watermark(row.clean_extents);
  mapper_.poke();
  co_return info_of(*member);
}

DeviceInfo PoolImpl::info_of(const Member& member) const {
  Device& device = *member.device;
  const rt::FileInfo* file = device.control_port().info();
  return {.id = member.row.id,
          .name = member.row.name,
          .path = member.row.path,
          .uuid = member.row.uuid,
          .state = device.state(),
          .reason = member.reason,
          .size_bytes = member.row.size_bytes,
          .extent_bytes = member.row.extent_bytes,
          .extent_count = member.row.extent_count,
          .used_extents = member.space.used(),
          .scrubbing_extents = member.space.resting(),
          .read_errors = device.read_errors(),
          .write_errors = device.write_errors(),
          .flush_errors = device.flush_errors(),
          .is_direct = file != nullptr && file->is_direct,
          .engine = file != nullptr ? file->engine : ""};
}

std::vector<DeviceInfo> PoolImpl::devices() const {
  std::vector<DeviceInfo> infos;
  for (const auto& [id, member] : members_) infos.push_back(info_of(*member));
  return infos;
}

Result<DeviceInfo> PoolImpl::device(const std::string& name) const {
  const Member* member = find_member(name);
  if (member == nullptr)
    return fail(Code::kNoDevice, fmt::format("there is no device {}", name), "duplex device list");
  return info_of(*member);
}

}  // namespace duplex::pool
