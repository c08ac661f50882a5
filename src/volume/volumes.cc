// The verbs of the registry: create, remove, resize, and what is shown.
#include "volume/volumes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "base/text.h"
#include "volume/volumes_impl.h"

namespace duplex::volume {
namespace {

Result<uint64_t> whole_blocks(uint64_t size_bytes) {
  if (size_bytes == 0 || size_bytes > kMaxBytes) {
    return fail(Code::kSize,
                fmt::format("a volume has from 1 to {} bytes, not {}", kMaxBytes, size_bytes),
                "give a size such as --size 10G");
  }
  return round_up(size_bytes, kBlockBytes);
}

std::string subject_of(const std::string& name) { return "volume " + name; }

}  // namespace

rt::Task<Result<std::unique_ptr<Volumes>>> Volumes::open(rt::World& world, pool::Pool& pool,
                                                         EventSink& events, meta::Marks& marks,
                                                         const meta::Snapshot& snapshot) {
  auto volumes =
      std::make_unique<VolumesImpl>(world, pool, events, marks, Epoch(snapshot.array.epoch));
  const std::vector<meta::VolumeRow> rows = snapshot.volumes;
  for (const meta::VolumeRow& row : rows) CO_TRY(co_await volumes->attach(row));
  co_return volumes;
}

VolumesImpl::VolumesImpl(rt::World& world, pool::Pool& pool, EventSink& events, meta::Marks& marks,
                         Epoch epoch)
    : world_(world), pool_(pool), events_(events), marks_(marks), epoch_(epoch) {}

VolumesImpl::Entry::Entry(meta::VolumeRow r, rt::Core& c) : row(std::move(r)), core(c) {}
VolumesImpl::Entry::~Entry() = default;

rt::Task<Result<void>> VolumesImpl::attach(meta::VolumeRow row) {
  Entry& entry = add(row);
  Result<pool::Backing*> backing = co_await pool_.attach_backing(row.backing, entry.core);
  if (!backing) co_return std::unexpected(std::move(backing).error());
  for (const pool::Pool::BackingInfo& info : pool_.backings()) {
    if (info.id != row.backing) continue;
    entry.device = info.device;
    entry.thick = info.thick;
  }
  make_ready(entry, **backing);
  co_return Result<void>();
}

rt::Task<Result<Volumes::Created>> VolumesImpl::create(CreateVolume request) {
  if (stopping_) co_return fail(Code::kShutdown);
  CO_TRY(check_name(request.name, "volume"));
  if (!request.backing.empty()) CO_TRY(check_name(request.backing, "backing"));
  CO_TRY_ASSIGN(request.size_bytes, whole_blocks(request.size_bytes));
  if (const Entry* same = entry_named(request.name)) co_return created_before(*same, request);
  CO_TRY_ASSIGN(const VolumeNumber number, choose_number(request));

  rt::Core& control = world_.control();
  meta::VolumeRow row;
  row.number = number;
  row.name = request.name;
  row.size_bytes = request.size_bytes;
  row.content_id = Uuid::from_random(control.rng().next(), control.rng().next());
  row.created_us = control.clock().wall_us();
  Entry& entry = add(std::move(row));
  entry.device = request.device;
  entry.thick = request.thick;
  Result<pool::Backing*> backing = co_await pool_.create_backing({.name = request.backing,
                                                                  .size_bytes = request.size_bytes,
                                                                  .thick = request.thick,
                                                                  .device = request.device},
                                                                 entry.core, entry.row);
  if (!backing) {
    erase(entry);
    co_return std::unexpected(std::move(backing).error());
  }
  entry.row.backing = (*backing)->id();
  make_ready(entry, **backing);
  tell(entry, "volume_created",
       fmt::format("volume {} of {} was created", request.name, format_size(request.size_bytes)));
  co_return Created{info_of(entry), true};
}

Result<Volumes::Created> VolumesImpl::created_before(const Entry& entry,
                                                     const CreateVolume& request) const {
  if (entry.state != State::kReady) {
    return fail(Code::kBusy, fmt::format("volume {} is under another operation", request.name),
                "try again when it has ended");
  }
  const bool same = entry.row.size_bytes == request.size_bytes && entry.thick == request.thick &&
                    entry.device == request.device &&
                    (request.number == VolumeNumber{} || request.number == entry.row.number) &&
                    (request.backing.empty() || request.backing == entry.backing->name());
  if (!same) {
    return fail(Code::kExists,
                fmt::format("volume {} exists with another definition ({}, {}, backing {})",
                            request.name, format_id(entry.row.number),
                            format_size(entry.row.size_bytes), entry.backing->name()),
                "choose another name, or see: duplex volume show " + request.name);
  }
  return Created{info_of(entry), false};
}

Result<VolumeNumber> VolumesImpl::choose_number(const CreateVolume& request) const {
  if (request.number != VolumeNumber{}) {
    const auto taken = entries_.find(request.number);
    if (taken == entries_.end()) return request.number;
    return fail(Code::kExists,
                fmt::format("number {} belongs to volume {}", format_id(request.number),
                            taken->second->row.name),
                "leave --id out to get the lowest free number");
  }
  uint32_t number = 1;
  for (const auto& [used, entry] : entries_) {
    if (used.value() != number) break;
    ++number;
  }
  if (number > 0xffff) {
    return fail(Code::kState, "all 65535 volume numbers of this array are in use",
                "delete a volume");
  }
  return VolumeNumber(static_cast<uint16_t>(number));
}

rt::Task<Result<void>> VolumesImpl::remove(std::string name, bool disconnect) {
  CO_TRY_ASSIGN(Entry* const entry, ready_alone(name));
  if (!entry->clients.empty() && !disconnect) {
    std::vector<std::string> clients;
    for (const Opened* opened : entry->clients) clients.push_back(opened->client);
    co_return fail(
        Code::kBusy,
        fmt::format("volume {} is in use by {}", entry->row.name, fmt::join(clients, ", ")),
        "disconnect them, or repeat with --disconnect");
  }
  entry->state = State::kDeleting;
  disconnect_all(*entry);
  while (entry->is_used()) co_await entry->unused.wait();
  Result<void> dropped = co_await pool_.drop_backing(entry->row.backing, entry->row.number);
  if (!dropped) {
    // In doubt: the next start may find it gone, with all that is written to it until then.
    if (dropped.error().code() != Code::kInDoubt) entry->state = State::kReady;
    co_return dropped;
  }
  tell(*entry, "volume_deleted", fmt::format("volume {} was deleted", entry->row.name));
  erase(*entry);
  co_return Result<void>();
}

rt::Task<Result<VolumeInfo>> VolumesImpl::resize(std::string name, uint64_t size_bytes,
                                                 bool discard) {
  CO_TRY_ASSIGN(Entry* const entry, ready_alone(name));
  meta::VolumeRow row = entry->row;
  CO_TRY_ASSIGN(row.size_bytes, whole_blocks(size_bytes));
  const uint64_t old_bytes = entry->row.size_bytes;
  if (row.size_bytes == old_bytes) co_return info_of(*entry);
  entry->state = State::kResizing;
  Result<void> done;
  if (row.size_bytes < old_bytes) {
    done = co_await shrink(*entry, row, discard);
  } else {
    done = co_await pool_.resize_backing(row.backing, row);
    co_await rt::hop(entry->core);
    if (done) entry->volume->grow(row.size_bytes);
    if (!done && done.error().code() == Code::kFlushLost) entry->volume->owe_telling();
    co_await rt::hop(world_.control());
  }
  entry->state = State::kReady;
  if (!done) co_return std::unexpected(std::move(done).error());
  entry->row = row;
  tell(*entry, "volume_resized",
       fmt::format("volume {} has {} now, {} before", row.name, format_size(row.size_bytes),
                   format_size(old_bytes)));
  co_return info_of(*entry);
}

// What begin_shrink holds belongs to the volume's core and is given back there.
rt::Task<Result<void>> VolumesImpl::shrink(Entry& entry, meta::VolumeRow row, bool discard) {
  co_await rt::hop(entry.core);
  Result<VolumeImpl::Shrink> begun = co_await entry.volume->begin_shrink(row.size_bytes, discard);
  co_await rt::hop(world_.control());
  if (!begun) co_return std::unexpected(std::move(begun).error());
  Result<void> done = co_await pool_.resize_backing(row.backing, row);
  co_await rt::hop(entry.core);
  entry.volume->end_shrink(*std::move(begun), done.has_value());
  co_await rt::hop(world_.control());
  co_return done;
}

std::vector<VolumeInfo> VolumesImpl::infos() const {
  std::vector<VolumeInfo> all;
  for (const auto& [number, entry] : entries_) {
    if (entry->state != State::kCreating) all.push_back(info_of(*entry));
  }
  return all;
}

Result<VolumeInfo> VolumesImpl::info(const std::string& name) const {
  const Entry* entry = entry_named(name);
  if (entry == nullptr || entry->state == State::kCreating) {
    return fail(Code::kNoVolume, fmt::format("there is no volume {}", name), "duplex volume list");
  }
  return info_of(*entry);
}

rt::Task<Result<std::vector<pool::ExtentRun>>> VolumesImpl::extents(std::string name) {
  CO_TRY_ASSIGN(Entry* const entry, ready(name));
  const Looking looking(*entry);
  co_await rt::hop(entry->core);
  std::vector<pool::ExtentRun> runs = entry->backing->extents();
  co_await rt::hop(world_.control());
  co_return runs;
}

VolumesImpl::Entry* VolumesImpl::entry_named(const std::string& name) const {
  if (name.starts_with("0x")) {
    const Result<VolumeNumber> number = parse_volume_number(name);
    const auto found = number ? entries_.find(*number) : entries_.end();
    return found == entries_.end() ? nullptr : found->second.get();
  }
  const auto found =
      std::ranges::find_if(entries_, [&](const auto& e) { return e.second->row.name == name; });
  return found == entries_.end() ? nullptr : found->second.get();
}

Result<VolumesImpl::Entry*> VolumesImpl::ready(const std::string& name) const {
  if (stopping_) return fail(Code::kShutdown);
  Entry* entry = entry_named(name);
  if (entry == nullptr) {
    return fail(Code::kNoVolume, fmt::format("there is no volume {}", name), "duplex volume list");
  }
  if (entry->state != State::kReady) {
    return fail(Code::kBusy, fmt::format("volume {} is under another operation", name),
                "try again when it has ended");
  }
  return entry;
}

Result<VolumesImpl::Entry*> VolumesImpl::ready_alone(const std::string& name) const {
  TRY_ASSIGN(Entry* const entry, ready(name));
  if (!entry->member) return entry;
  return std::unexpected(in_mirror(entry->row.name, entry->member->mirrors()));
}

rt::Core& VolumesImpl::emptiest_reactor() const {
  std::vector<size_t> volumes(world_.core_count());
  for (const auto& [number, entry] : entries_) ++volumes[entry->core.index()];
  const auto least = std::ranges::min_element(volumes.begin() + 1, volumes.end());
  return world_.core(static_cast<size_t>(least - volumes.begin()));
}

VolumesImpl::Entry& VolumesImpl::add(meta::VolumeRow row) {
  const VolumeNumber number = row.number;
  auto entry = std::make_unique<Entry>(std::move(row), emptiest_reactor());
  const auto [at, is_new] = entries_.emplace(number, std::move(entry));
  ASSERT(is_new);
  return *at->second;
}

void VolumesImpl::make_ready(Entry& entry, pool::Backing& backing) {
  entry.backing = &backing;
  entry.volume = std::make_unique<VolumeImpl>(entry.row.name, entry.row.number,
                                              entry.row.size_bytes, entry.core, backing, epoch_);
  entry.state = State::kReady;
}

void VolumesImpl::erase(Entry& entry) { entries_.erase(entry.row.number); }

VolumeInfo VolumesImpl::info_of(const Entry& entry) const {
  VolumeInfo info{.number = entry.row.number,
                  .name = entry.row.name,
                  .size_bytes = entry.volume->size_bytes(),
                  .allocated_bytes = entry.backing->allocated_bytes(),
                  .backing = entry.backing->name(),
                  .device = entry.device,
                  .thick = entry.thick,
                  .damaged = entry.row.damaged,
                  .consistent = entry.row.consistent,
                  .mirrors = {},
                  .created_us = entry.row.created_us,
                  .core = entry.core.index(),
                  .clients = {},
                  .stats = entry.volume->stats()};
  if (entry.member) info.mirrors = entry.member->mirrors();
  for (const Opened* opened : entry.clients) info.clients.push_back(opened->client);
  return info;
}

void VolumesImpl::tell(const Entry& entry, std::string code, std::string text) {
  events_.emit({.severity = Severity::kInfo,
                .code = std::move(code),
                .subject = subject_of(entry.row.name),
                .text = std::move(text),
                .next = {}});
}

}  // namespace duplex::volume
