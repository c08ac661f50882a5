// Devices come and go: labels checked and rewritten, attaching, losing, finding again.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/planted_bug.h"
#include "pool/labels.h"
#include "pool/pool_impl.h"

namespace duplex::pool {
namespace {

constexpr rt::Micros kAttachPeriod = rt::kSecond;

std::vector<Uuid> named_by(const format::DeviceLabel& label) {
  std::vector<Uuid> named;
  for (const format::LabelDevice& device : label.devices) named.push_back(device.uuid);
  std::ranges::sort(named);
  return named;
}

Error stale(const meta::DeviceRow& row) {
  return {Code::kStale,
          fmt::format("the state directory is older than device {} ({}): it is a copy from an "
                      "earlier time, and using it would mix up volumes",
                      row.name, row.path),
          fmt::format("duplexd --rebuild --device {} with a new state directory", row.path)};
}

}  // namespace

// Opens and checks the device and gives it to all cores. kStale: its map log, or its label, is
// from a later time than the store.
rt::Task<Result<void>> PoolImpl::attach(Member& member) {
  const meta::DeviceRow row = member.row;
  CO_TRY_ASSIGN(auto file, co_await world_.control().files().open(row.path, {.write = true}));
  CO_TRY(file->lock());
  // What an earlier run of this program left in the device's cache is durable from here on, so a
  // FLUSH of today covers writes answered before a kill. If that fails, a later attempt may well
  // succeed without them: the volumes with extents here are told by their next FLUSH.
  if (const int error = co_await file->flush(); error != 0) {
    member.device->count_loss();
    co_return std::unexpected(system_error(error, fmt::format("flush {}", row.path)));
  }
  CO_TRY_ASSIGN(FoundLabel found_label, co_await read_label(*file));
  format::DeviceLabel& label = found_label.label;
  CO_TRY(check_label(member, label));
  if (file->info().size < row.data_offset + row.extent_count * row.extent_bytes) {
    co_return fail(Code::kSize,
                   fmt::format("{} has become smaller than device {} is", row.path, row.name));
  }
  CO_TRY_ASSIGN(const auto found,
                co_await read_map_log(*file, row.log_offset, row.log_bytes, row.uuid));
  if (found.valid && found.content.checkpoint.sequence > row.log_sequence) {
    co_return std::unexpected(stale(row));
  }
  CO_TRY(co_await renew_label(member, *file, label));
  CO_TRY(co_await member.device->attach(row.path, std::move(file)));
  member.device->count_loss();
  member.device->forget_errors();
  member.device->set_state(DeviceState::kOnline);
  member.reason.clear();
  member.log.attached(found, member.row.log_sequence);
  member.named = named_by(label);
  label_sequence_ = std::max(label_sequence_, label.sequence);
  format::DeviceLabel wanted = make_label(member);
  wanted.sequence = label.sequence;
  member.label_sequence = wanted == label && !found_label.is_alone ? label.sequence : 0;
  if (found_label.is_alone) {
    events_.emit({.severity = Severity::kWarning,
                  .code = "label_repaired",
                  .subject = fmt::format("device {}", row.name),
                  .text = fmt::format("one of the two labels of device {} was damaged: both are "
                                      "written again",
                                      row.name),
                  .next = fmt::format("if it comes again, check {}", row.path)});
  }
  member.cleaner.poke();
  mapper_.poke();
  co_return Result<void>();
}

Result<void> PoolImpl::check_label(const Member& member, const format::DeviceLabel& label) const {
  const meta::DeviceRow& row = member.row;
  if (label.array_uuid != array_.uuid || label.uuid != row.uuid || label.id != row.id) {
    return fail(Code::kNoDevice,
                fmt::format("what is at {} is not device {} but device {} of array {}", row.path,
                            row.name, label.name, label.array_name));
  }
  if (label.incarnation != array_.incarnation) {
    return fail(
        Code::kStale,
        fmt::format("device {} ({}) belongs to another state directory: the array was "
                    "rebuilt since this one was in use",
                    row.name, row.path),
        fmt::format("start with that state directory, or duplexd --rebuild --device {}", row.path));
  }
  if (label.life > row.life) return std::unexpected(stale(row));
  if (label.extent_bytes != row.extent_bytes || label.log_offset != row.log_offset ||
      label.log_bytes != row.log_bytes || label.data_offset != row.data_offset ||
      label.extent_count > row.extent_count) {
    return fail(Code::kCorrupt,
                fmt::format("the label of device {} contradicts the state directory", row.name));
  }
  return {};
}

// Each start leaves a trace on the devices before it serves anybody: changes that touch neither
// map logs nor the set of labels (a split, and what is written after it) are known to the state
// directory alone, and a copy of it from before would not show them. The number is the time, so
// that two state directories that went on from the same one do not meet at the same number; a
// clock that was set back costs no more than that.
rt::Task<Result<void>> PoolImpl::begin_life() {
  uint64_t life = static_cast<uint64_t>(std::max<int64_t>(world_.control().clock().wall_us(), 1));
  std::vector<DeviceId> attached;
  for (const auto& [id, member] : members_) {
    life = std::max(life, member->row.life + 1);
    if (!member->device->is_absent()) attached.push_back(id);
  }
  life_ = life;
  co_return co_await store_life(std::move(attached));
}

// Success with a full state directory as well: what is mapped is served all the same, and the
// attach loop tries again.
rt::Task<Result<void>> PoolImpl::store_life(std::vector<DeviceId> devices) {
  if (devices.empty()) co_return Result<void>();
  // Not beside a change of a device's row, which would put the old life back.
  const auto held = co_await mapper_.lock();
  meta::Transaction transaction;
  for (const DeviceId id : devices) {
    if (members_.contains(id)) transaction.push_back(meta::SetLife{id, life_});
  }
  const auto stored = co_await store_.commit(std::move(transaction));
  if (!stored && stored.error().code() == Code::kNoSpace) co_return Result<void>();
  if (!stored) co_return stored;
  for (const DeviceId id : devices) {
    const auto found = members_.find(id);
    if (found == members_.end()) continue;
    found->second->row.life = life_;
    found->second->label_sequence = 0;
  }
  co_return Result<void>();
}

// A device that was absent at the start gets the life before it is used. A label that cannot be
// written is tried again with the others (refresh_labels): a disk that only reads is still read.
rt::Task<Result<void>> PoolImpl::renew_label(Member& member, rt::File& file,
                                             format::DeviceLabel& label) {
  if (life_ == 0) co_return Result<void>();
  if (member.row.life != life_) CO_TRY(co_await store_life({member.row.id}));
  if (label.life == member.row.life) co_return Result<void>();
  format::DeviceLabel renewed = label;
  renewed.life = member.row.life;
  if (co_await write_label(file, renewed) == 0) label.life = renewed.life;
  co_return Result<void>();
}

void PoolImpl::set_absent(Member& member, std::string reason) {
  member.device->set_state(DeviceState::kAbsent);
  member.reason = std::move(reason);
  events_.emit({.severity = Severity::kError,
                .code = "device_absent",
                .subject = fmt::format("device {}", member.row.name),
                .text = fmt::format("device {} is absent, I/O to its extents fails: {}",
                                    member.row.name, member.reason),
                .next = fmt::format("make {} available again; it is taken back by itself",
                                    member.row.path)});
}

void PoolImpl::on_trouble(DeviceId id) {
  const auto found = members_.find(id);
  if (found == members_.end() || found->second->device->is_absent()) return;
  Member& member = *found->second;
  char buffer[128];
  const std::string what = strerror_r(member.device->last_error(), buffer, sizeof buffer);
  if (member.device->seen_gone()) {
    member.busy = true;
    set_absent(member, what);
    if (!tasks_.spawn(detach_lost(id))) member.busy = false;
  } else if (member.device->state() == DeviceState::kOnline) {
    member.device->set_state(DeviceState::kFailing);
    member.reason = what;
    events_.emit(
        {.severity = Severity::kError,
         .code = "device_failing",
         .subject = fmt::format("device {}", member.row.name),
         .text = fmt::format("device {} answered with an error: {}", member.row.name, what),
         .next = fmt::format("duplex device show {}", member.row.name)});
  }
}

rt::Task<> PoolImpl::detach_lost(DeviceId id) {
  Member& member = *members_.at(id);  // stays: it is busy
  co_await member.device->detach();
  member.busy = false;
}

rt::Task<> PoolImpl::attach_loop() {
  while (!stopping_) {
    co_await stop_.wait_until(world_.control().clock(),
                              world_.control().clock().now() + kAttachPeriod);
    std::vector<DeviceId> absent;
    std::vector<DeviceId> without_life;  // the state directory was full
    bool labels = false;
    for (const auto& [id, member] : members_) {
      if (member->device->is_absent()) {
        absent.push_back(id);
        continue;
      }
      labels = labels || member->label_sequence != label_sequence_;
      if (member->row.life != life_) without_life.push_back(id);
    }
    labels = labels || !without_life.empty();
    if (!stopping_) static_cast<void>(co_await store_life(std::move(without_life)));  // or later
    for (const DeviceId id : absent) {
      if (!stopping_) co_await try_attach(id);
    }
    if (!stopping_ && (labels || !absent.empty())) co_await refresh_labels();
  }
}

rt::Task<> PoolImpl::try_attach(DeviceId id) {
  const auto found = members_.find(id);
  if (found == members_.end() || found->second->busy) co_return;
  Member& member = *found->second;
  member.busy = true;  // it stays in the pool while this runs
  const auto attached = co_await attach(member);
  member.busy = false;
  if (attached) {
    events_.emit({.severity = Severity::kInfo,
                  .code = "device_back",
                  .subject = fmt::format("device {}", member.row.name),
                  .text = fmt::format("device {} is back", member.row.name),
                  .next = ""});
  } else {
    member.reason = attached.error().message();
  }
}

format::DeviceLabel PoolImpl::make_label(const Member& member) const {
  const meta::DeviceRow& row = member.row;
  format::DeviceLabel label{.sequence = label_sequence_,
                            .array_id = array_.id,
                            .array_name = array_.name,
                            .array_uuid = array_.uuid,
                            .incarnation = array_.incarnation,
                            .id = row.id,
                            .uuid = row.uuid,
                            .name = row.name,
                            .extent_bytes = row.extent_bytes,
                            .extent_count = row.extent_count,
                            .log_offset = row.log_offset,
                            .log_bytes = row.log_bytes,
                            .data_offset = row.data_offset,
                            .life = row.life,
                            .devices = {}};
  for (const auto& [id, other] : members_) {
    label.devices.push_back({id, other->row.uuid, other->row.name, other->row.path.substr(0, 255)});
  }
  return label;
}

// Writes every label that is not what it should be. All labels of a set carry one sequence, so
// the highest one among the devices names the latest set.
rt::Task<> PoolImpl::refresh_labels() {
  const auto held = co_await labels_.lock();
  const auto is_stale = [&](const auto& entry) {
    return !entry.second->device->is_absent() && entry.second->label_sequence == 0;
  };
  if (std::ranges::any_of(members_, is_stale)) {
    ++label_sequence_;
    for (auto& [id, member] : members_) member->label_sequence = 0;
  }
  std::vector<DeviceId> stale;
  for (const auto& [id, member] : members_) {
    if (!member->device->is_absent() && member->label_sequence != label_sequence_) {
      stale.push_back(id);
    }
  }
  for (const DeviceId id : stale) {
    const auto found = members_.find(id);
    if (found == members_.end()) continue;
    std::shared_ptr<Device> device = found->second->device;
    const format::DeviceLabel label = make_label(*found->second);
    const int error = co_await write_label(device->control_port(), label);
    const auto again = members_.find(id);
    if (error != 0 || again == members_.end()) continue;
    again->second->label_sequence = label.sequence;
    again->second->named = named_by(label);
  }
  update_ready();
}

void PoolImpl::update_ready() {
  for (auto& [id, member] : members_) {
    member->ready = std::ranges::all_of(members_, [&](const auto& other) {
      return other.second->device->is_absent() || planted(Bug::kReadyBeforeLabels) ||
             std::ranges::binary_search(other.second->named, member->row.uuid);
    });
    if (member->ready) member->cleaner.poke();
  }
  mapper_.poke();
}

}  // namespace duplex::pool
