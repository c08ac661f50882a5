// Rebuild: a new store from the labels and map logs of the devices.
//
// - Which devices belong to the array says the label with the highest sequence: labels of a set
//   carry one sequence, and a device has extents only while all attached labels name it.
// - Of the two halves of a map log the one with the higher generation counts.
// - Which volumes there are says the log with the highest sequence: a change of the volume list
//   gets the same number, above all others, on every device (mapper.h).
// - Two extents that claim the same place of a volume: one device was away when the other took
//   over. Nothing tells which is newer, so the volume is marked damaged.
// - A log with a hole is refused; when that is accepted, it may map extents to volumes that have
//   them no longer, so every volume it names is marked damaged, like those with unmapped places.
// - What no volume claims is not trusted to be clean: the watermark of every device is 0.
// The labels get the new incarnation before the store is written. A crash in between leaves no
// store, and the rebuild is started again.
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <utility>

#include "base/text.h"
#include "pool/labels.h"
#include "pool/map_log.h"
#include "pool/pool.h"

namespace duplex::pool {
namespace {

constexpr const char* kAcceptNext =
    "keep a copy of the devices; then --accept-missing goes on without what is lost and marks "
    "volumes that may miss data as damaged";

struct Source {
  std::string path;
  std::unique_ptr<rt::File> file;
  format::DeviceLabel label;
  format::LogCheckpoint log;
  bool is_partial = false;  // the log has a hole
};
using Sources = std::map<DeviceId, Source>;

class Rebuild {
 public:
  Rebuild(rt::World& world, meta::Store& store, bool accept_missing)
      : world_(world), store_(store), accept_missing_(accept_missing) {}

  rt::Task<Result<RebuildReport>> run(std::vector<std::string> paths);

 private:
  rt::Task<Result<Source>> read(std::string path);
  rt::Task<Result<void>> collect(std::vector<std::string> paths);
  Result<void> keep_members();
  void take_volumes();
  void take_maps();
  void judge_missing();
  rt::Task<Result<void>> write_labels();
  meta::Transaction make_store();
  void mark_damaged(BackingId backing) { damaged_.insert(backing); }

  rt::World& world_;
  meta::Store& store_;
  const bool accept_missing_;
  meta::ArrayRow array_;
  std::map<Uuid, Source> found_;
  Sources devices_;
  uint64_t highest_sequence_ = 0;
  std::map<BackingId, format::LogVolume> volumes_;
  std::map<std::pair<BackingId, LogicalExtent>, meta::ExtentRow> extents_;
  std::set<BackingId> damaged_;
  RebuildReport report_;
};

rt::Task<Result<Source>> Rebuild::read(std::string path) {
  Source source{.path = path, .file = nullptr, .label = {}, .log = {}};
  CO_TRY_ASSIGN(source.file, co_await world_.control().files().open(path, {.write = true}));
  CO_TRY(source.file->lock());
  if (const int error = co_await source.file->flush(); error != 0) {
    co_return std::unexpected(system_error(error, fmt::format("flush {}", path)));
  }
  CO_TRY_ASSIGN(FoundLabel found, co_await read_label(*source.file));
  source.label = std::move(found.label);
  const format::DeviceLabel& label = source.label;
  if (label.array_id != array_.id) {
    co_return fail(Code::kState,
                   fmt::format("{} belongs to array {} ({})", path, label.array_name,
                               format_id(label.array_id)),
                   fmt::format("start with --id {}", format_id(label.array_id)));
  }
  if (source.file->info().size < label.data_offset + label.extent_count * label.extent_bytes) {
    co_return fail(Code::kSize, fmt::format("{} is smaller than its label says", path));
  }
  CO_TRY_ASSIGN(auto log,
                co_await read_map_log(*source.file, label.log_offset, label.log_bytes, label.uuid));
  if (!log.valid) {
    co_return fail(Code::kCorrupt,
                   fmt::format("the map log of device {} ({}) is damaged", label.name, path),
                   kAcceptNext);
  }
  // A damaged block in the middle: what is recorded before it is an old state, and extents that
  // this state does not know would be cleaned.
  if (log.has_hole()) {
    if (!accept_missing_)
      co_return fail(Code::kCorrupt,
                     fmt::format("the map log of device {} ({}) has a hole: what happened after "
                                 "it is not known, and data written since would be lost",
                                 label.name, path),
                     kAcceptNext);
    report_.missing_devices.push_back(fmt::format("{} (in part)", label.name));
    source.is_partial = true;
  }
  source.log = std::move(log.content.checkpoint);
  co_return source;
}

// The devices at `paths`, which must be good, and those their labels name, as far as they are.
rt::Task<Result<void>> Rebuild::collect(std::vector<std::string> paths) {
  std::deque<std::pair<std::string, bool>> queue;
  for (std::string& path : paths) queue.emplace_back(std::move(path), true);
  std::set<std::string> seen;
  while (!queue.empty()) {
    const auto [path, is_named] = std::move(queue.front());
    queue.pop_front();
    if (!seen.insert(path).second) continue;
    auto source = co_await read(path);
    if (!source && !is_named) continue;
    if (!source && !(accept_missing_ && source.error().code() == Code::kCorrupt)) {
      co_return std::unexpected(source.error());
    }
    if (!source) continue;
    if (!found_.empty() && found_.begin()->second.label.array_uuid != source->label.array_uuid) {
      if (!is_named) continue;
      co_return fail(Code::kState,
                     fmt::format("{} belongs to another array with the same number, {}", path,
                                 source->label.array_name));
    }
    if (!found_.empty() && found_.begin()->second.label.extent_bytes != source->label.extent_bytes)
      co_return fail(Code::kCorrupt,
                     fmt::format("{} has extents of another size than the other devices", path),
                     "leave it out");
    for (const format::LabelDevice& device : source->label.devices) {
      queue.emplace_back(device.path, false);
    }
    found_.emplace(source->label.uuid, std::move(*source));
  }
  if (found_.empty())
    co_return fail(Code::kNoDevice, "no device to rebuild from",
                   "name at least one that can be read with --device");
  co_return Result<void>();
}

// Of the devices found those that the latest labels name; refuses when one of these is missing.
Result<void> Rebuild::keep_members() {
  const auto latest = std::ranges::max_element(
      found_, {}, [](const auto& entry) { return entry.second.label.sequence; });
  std::vector<std::string> missing;
  for (const format::LabelDevice& device : latest->second.label.devices) {
    const auto found = found_.find(device.uuid);
    if (found == found_.end()) {
      missing.push_back(fmt::format("{} ({})", device.name, device.path));
      report_.missing_devices.push_back(device.name);
    } else {
      report_.devices.push_back(device.name);
    }
  }
  if (!missing.empty() && !accept_missing_) {
    return fail(Code::kNoDevice,
                fmt::format("device {} is missing; volumes may have extents there",
                            fmt::join(missing, ", ")),
                "name its new path with --device, or mark volumes without it damaged with "
                "--accept-missing");
  }
  std::vector<format::LabelDevice> members = latest->second.label.devices;
  for (const format::LabelDevice& device : members) {
    const auto found = found_.find(device.uuid);
    if (found != found_.end()) devices_.emplace(device.id, std::move(found->second));
  }
  if (devices_.empty()) {
    return fail(Code::kCorrupt, "the latest label names none of the devices that were found");
  }
  return {};
}

void Rebuild::take_volumes() {
  const auto knows_all = std::ranges::max_element(
      devices_, {}, [](const auto& entry) { return entry.second.log.sequence; });
  highest_sequence_ = knows_all->second.log.sequence;
  for (const format::LogVolume& volume : knows_all->second.log.volumes) {
    volumes_[volume.backing] = volume;
    if (volume.damaged) mark_damaged(volume.backing);
    report_.volumes.push_back(volume.name);
  }
}

void Rebuild::take_maps() {
  for (const auto& [id, source] : devices_) {
    for (const format::LogMap& map : source.log.maps) {
      const auto volume = volumes_.find(map.backing);
      if (volume == volumes_.end() || map.pe.value() >= source.label.extent_count) continue;
      const uint64_t extents = divide_up(volume->second.size_bytes, source.label.extent_bytes);
      if (map.le.value() >= extents) continue;
      const bool is_first =
          extents_.try_emplace({map.backing, map.le}, map.backing, map.le, id, map.pe).second;
      if (!is_first || source.is_partial) mark_damaged(map.backing);
    }
  }
}

// A volume that is not mapped completely may have had extents on a missing device.
void Rebuild::judge_missing() {
  if (report_.missing_devices.empty()) return;
  std::map<BackingId, uint64_t> mapped;
  for (const auto& [key, row] : extents_) ++mapped[row.backing];
  const uint64_t extent_bytes = devices_.begin()->second.label.extent_bytes;
  for (const auto& [backing, volume] : volumes_) {
    if (mapped[backing] < divide_up(volume.size_bytes, extent_bytes)) mark_damaged(backing);
  }
}

rt::Task<Result<void>> Rebuild::write_labels() {
  std::vector<format::LabelDevice> members;
  uint64_t sequence = 0;
  for (const auto& [id, source] : devices_) {
    members.push_back({id, source.label.uuid, source.label.name, source.path.substr(0, 255)});
    sequence = std::max(sequence, source.label.sequence);
  }
  for (auto& [id, source] : devices_) {
    source.label.sequence = sequence + 1;
    source.label.incarnation = array_.incarnation;
    source.label.array_name = array_.name;
    source.label.devices = members;
    if (const int error = co_await write_label(*source.file, source.label); error != 0) {
      co_return std::unexpected(
          system_error(error, fmt::format("write the label of {}", source.path)));
    }
  }
  co_return Result<void>();
}

meta::Transaction Rebuild::make_store() {
  meta::Transaction transaction;
  rt::Core& control = world_.control();
  for (const auto& [backing, volume] : volumes_) {
    array_.last_backing = std::max(array_.last_backing, backing.value());
  }
  transaction.push_back(meta::PutArray{array_});
  for (const auto& [id, source] : devices_) {
    const format::DeviceLabel& label = source.label;
    transaction.push_back(meta::PutDevice{{.id = id,
                                           .uuid = label.uuid,
                                           .name = label.name,
                                           .path = source.path,
                                           .size_bytes = source.file->info().size,
                                           .extent_bytes = label.extent_bytes,
                                           .extent_count = label.extent_count,
                                           .log_offset = label.log_offset,
                                           .log_bytes = label.log_bytes,
                                           .data_offset = label.data_offset,
                                           .clean_extents = 0,
                                           // Above every log: the start writes new checkpoints.
                                           .log_sequence = highest_sequence_ + 1,
                                           .life = label.life}});
  }
  for (const auto& [backing, volume] : volumes_) {
    transaction.push_back(meta::PutBacking{
        {.id = backing,
         .uuid = volume.backing_uuid,
         .name = volume.backing_name,
         .size_bytes = volume.size_bytes,
         .thick = volume.thick,
         .device = devices_.contains(volume.only_device) ? volume.only_device : DeviceId{}}});
    const uint64_t high = control.rng().next();
    transaction.push_back(
        meta::PutVolume{{.number = volume.number,
                         .name = volume.name,
                         .size_bytes = volume.size_bytes,
                         .backing = backing,
                         .content_id = Uuid::from_random(high, control.rng().next()),
                         .damaged = damaged_.contains(backing),
                         .created_us = control.clock().wall_us()}});
    if (damaged_.contains(backing)) report_.damaged_volumes.push_back(volume.name);
  }
  for (const auto& [key, row] : extents_) transaction.push_back(meta::MapExtent{row});
  return transaction;
}

rt::Task<Result<RebuildReport>> Rebuild::run(std::vector<std::string> paths) {
  CO_TRY_ASSIGN(const meta::Snapshot before, co_await store_.load());
  if (!before.devices.empty() || !before.volumes.empty()) {
    co_return fail(Code::kState, "the state directory is not new: it knows devices and volumes",
                   "rebuild into a new state directory");
  }
  array_ = before.array;
  CO_TRY(co_await collect(std::move(paths)));
  CO_TRY(keep_members());
  array_.uuid = devices_.begin()->second.label.array_uuid;
  const uint64_t high = world_.control().rng().next();
  array_.incarnation = Uuid::from_random(high, world_.control().rng().next());
  take_volumes();
  take_maps();
  judge_missing();
  CO_TRY(co_await write_labels());
  CO_TRY(co_await store_.commit(make_store()));
  co_return std::move(report_);
}

}  // namespace

rt::Task<Result<RebuildReport>> Pool::rebuild(rt::World& world, meta::Store& store,
                                              std::vector<std::string> paths, bool accept_missing) {
  Rebuild rebuild(world, store, accept_missing);
  co_return co_await rebuild.run(std::move(paths));
}

}  // namespace duplex::pool
