#include "pool/mapper.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/planted_bug.h"
#include "base/text.h"

namespace duplex::pool {
namespace {

constexpr rt::Micros kSpaceWait = 2 * rt::kSecond;
// Most changes in one transaction of requests that commit together.
constexpr size_t kMaxTogether = 4096;
// Percent of the pool in use at which to warn, and how far it must fall to warn again.
constexpr std::array<uint64_t, 3> kWarnPercent = {80, 90, 95};
constexpr uint64_t kRearmPercent = 2;

size_t weight(const MapRequest& r) { return r.map.size() + r.unmap.size() + r.scrubbed.size() + 1; }
bool commits_alone(const MapRequest& r) { return !r.with.empty() || !r.volumes.empty(); }
// The store refused, and is as it was before (any other error leaves that open).
bool nothing_changed(const Error& error) { return error.code() != Code::kInDoubt; }
// For the planted bug only: a commit that nobody waits for.
[[maybe_unused]] rt::Task<> leave_alone(rt::Task<Result<void>> commit) {
  static_cast<void>(co_await std::move(commit));
}

}  // namespace

Mapper::Mapper(rt::Core& control, meta::Store& store, EventSink& events, Members& members)
    : control_(control), store_(store), events_(events), members_(members) {}

uint64_t Mapper::DeviceChange::sequence() const {
  return member->row.log_sequence + records.size();
}

rt::Task<Result<void>> Mapper::submit(MapRequest& request) {
  if (stopping_) co_return fail(Code::kShutdown);
  request.asked_at = control_.clock().now();
  queue_.push_back(&request);
  wake_.set();
  co_await request.done.wait();
  co_return request.result;
}

void Mapper::clean(DeviceId device, const std::vector<PhysicalExtent>& released) {
  const auto found = members_.find(device);
  if (found != members_.end()) found->second->cleaner.add(released);
}

rt::Task<Result<void>> Mapper::log_written(DeviceId device, uint64_t sequence) {
  const auto found = members_.find(device);
  if (found == members_.end()) co_return Result<void>();  // removed: nothing of anybody is there
  co_return co_await found->second->log.written(sequence);
}

void Mapper::stop() {
  stopping_ = true;
  wake_.set();
}

rt::Task<> Mapper::run() {
  while (!stopping_ || !queue_.empty()) {
    wake_.reset();
    if (queue_.empty()) {
      co_await wake_.wait();
      continue;
    }
    bool idle = false;
    {
      auto held = co_await committing_.lock();
      auto batch = take_batch();
      idle = batch.empty();
      if (!idle) co_await commit(std::move(batch));
    }
    if (idle && !queue_.empty()) co_await wait_for_space();
  }
}

// The requests that can be done now, in order of arrival; those that cannot wait any longer are
// answered. What stays in the queue waits for space, or to commit alone.
std::vector<MapRequest*> Mapper::take_batch() {
  std::vector<MapRequest*> batch;
  std::deque<MapRequest*> later;
  size_t total = 0;
  bool closed = false;
  for (MapRequest* request : queue_) {
    if (closed || (commits_alone(*request) && !batch.empty())) {
      later.push_back(request);
      continue;
    }
    if (!knows_devices(*request)) {
      request->result = fail(Code::kNoDevice);
      request->done.set();
    } else if (place(*request)) {
      batch.push_back(request);
      total += weight(*request);
      closed = commits_alone(*request) || total >= kMaxTogether;
    } else if (stopping_ || !may_get_space(*request) ||
               control_.clock().now() >= deadline(*request)) {
      request->result = fail(Code::kNoSpace, "the pool has no free extent left",
                             "add a device (duplex device add) or free space (trim, delete)");
      request->done.set();
    } else {
      later.push_back(request);
    }
  }
  queue_ = std::move(later);
  return batch;
}

// False if a device left the pool while the request waited.
bool Mapper::knows_devices(const MapRequest& request) const {
  const auto known = [&](const auto& row) { return members_.contains(row.device); };
  return std::ranges::all_of(request.unmap, known) &&
         std::ranges::all_of(request.scrubbed, known) &&
         (request.clean.device == DeviceId{} || known(request.clean));
}

bool Mapper::place(MapRequest& request) {
  Member* member = nullptr;
  std::optional<Location> last = request.after;
  std::optional<LogicalExtent> last_le;
  if (last) {
    const auto found = members_.find(last->device);
    if (found != members_.end()) member = found->second.get();
  }
  for (const LogicalExtent le : request.map) {
    const bool follows = !last_le || last_le->value() + 1 == le.value();
    // Within a request the device changes only when it is full.
    const bool stay = last_le && member != nullptr && member->space.free() > 0;
    if (!stay) member = choose(request, member);
    if (member == nullptr) {
      unplace(request);
      return false;
    }
    std::optional<PhysicalExtent> wish;
    if (follows && last && last->device == member->device->id() && last->pe.value() < UINT32_MAX) {
      wish = PhysicalExtent(last->pe.value() + 1);
    }
    last = Location{member->device->id(), *member->space.take(wish)};
    last_le = le;
    request.placed.push_back(*last);
  }
  return true;
}

void Mapper::unplace(MapRequest& request) {
  for (const Location& location : request.placed) {
    members_.at(location.device)->space.add_free(location.pe);
  }
  request.placed.clear();
}

// The device with the most free extents; the one before stays while it has nearly as many, so
// that a volume that grows lies in few pieces. A failing one only when no other has space.
Member* Mapper::choose(const MapRequest& request, Member* before) {
  const auto eligible = [&](const Member& m, DeviceState state) {
    return m.takes_allocations() && m.device->state() == state && m.space.free() > 0 &&
           (request.only == DeviceId{} || m.device->id() == request.only);
  };
  for (const DeviceState state : {DeviceState::kOnline, DeviceState::kFailing}) {
    Member* best = nullptr;
    for (const auto& [id, member] : members_) {
      if (!eligible(*member, state)) continue;
      if (best == nullptr || member->space.free() > best->space.free()) best = member.get();
    }
    if (best == nullptr) continue;
    const uint64_t nearly = uint64_t{best->space.free()} * 7 / 8;
    if (before != nullptr && eligible(*before, state) && before->space.free() >= nearly) {
      return before;
    }
    return best;
  }
  return nullptr;
}

bool Mapper::may_get_space(const MapRequest& request) const {
  uint64_t possible = 0;
  for (const auto& [id, member] : members_) {
    if (request.only != DeviceId{} && id != request.only) continue;
    if (member->takes_allocations()) possible += member->space.free() + member->space.resting();
  }
  return possible >= request.map.size();
}

rt::Micros Mapper::deadline(const MapRequest& request) const {
  return std::max(request.asked_at, last_freed_) + kSpaceWait;
}

rt::Task<> Mapper::wait_for_space() {
  size_t largest = 0;
  for (const MapRequest* request : queue_) largest = std::max(largest, request->map.size());
  for (const auto& [id, member] : members_) member->cleaner.want(largest);
  rt::Micros first = deadline(*queue_.front());
  for (const MapRequest* request : queue_) first = std::min(first, deadline(*request));
  co_await wake_.wait_until(control_.clock(), first);
}

rt::Task<> Mapper::commit(std::vector<MapRequest*> batch) {
  meta::Transaction transaction;
  DeviceChanges devices;
  for (const MapRequest* request : batch) add_changes(*request, transaction, devices);
  // Volume records come alone and name the same number on every device.
  const std::vector<format::LogRecord>& volumes = batch.front()->volumes;
  uint64_t first_volume = 0;
  if (!volumes.empty()) {
    for (const auto& [id, member] : members_) {
      devices[id].member = member.get();
      first_volume = std::max(first_volume, devices[id].sequence() + 1);
    }
  }
  const auto last_sequence = [&](const DeviceChange& change) {
    return volumes.empty() ? change.sequence() : first_volume + volumes.size() - 1;
  };
  for (const auto& [id, change] : devices) {
    transaction.push_back(meta::SetLogSequence{id, last_sequence(change)});
  }
  Result<void> result;
  if constexpr (planted(Bug::kMapBeforeCommit)) {
    members_.begin()->second->tasks.spawn(leave_alone(store_.commit(std::move(transaction))));
  } else {
    result = co_await store_.commit(std::move(transaction));
  }
  if (result) {
    for (auto& [id, change] : devices) {
      Member& member = *change.member;
      const uint64_t first = member.row.log_sequence + 1;
      member.row.log_sequence = last_sequence(change);
      change.first = first;
    }
    for (MapRequest* request : batch) apply(*request, devices);
    apply_volumes(volumes);
    for (auto& [id, change] : devices) {
      change.member->log.append(change.first, std::move(change.records));
      change.member->log.append(first_volume, volumes);
    }
    watch_usage();
  }
  for (MapRequest* request : batch) {
    if (!result && nothing_changed(result.error())) unplace(*request);
    if (!result) request->placed.clear();
    request->result = result;
    request->done.set();
  }
}

void Mapper::add_changes(const MapRequest& request, meta::Transaction& transaction,
                         DeviceChanges& devices) {
  transaction.insert(transaction.end(), request.with.begin(), request.with.end());
  const auto record = [&](DeviceId id, format::LogRecord log_record) {
    DeviceChange& change = devices[id];
    change.member = members_.at(id).get();
    change.records.push_back(std::move(log_record));
  };
  for (size_t i = 0; i < request.map.size(); ++i) {
    const Location at = request.placed[i];
    transaction.push_back(meta::MapExtent{{request.backing, request.map[i], at.device, at.pe}});
    record(at.device, format::LogMap{at.pe, request.backing, request.map[i]});
  }
  for (const meta::ExtentRow& row : request.unmap) {
    transaction.push_back(meta::UnmapExtent{row});
    record(row.device, format::LogUnmap{row.pe});
  }
  for (const meta::ScrubRow& row : request.scrubbed) transaction.push_back(meta::Scrubbed{row});
  if (request.clean.device != DeviceId{}) {
    transaction.push_back(meta::SetCleanExtents{request.clean.device, request.clean.to});
  }
  transaction.insert(transaction.end(), request.then.begin(), request.then.end());
}

// The store has it: memory follows.
void Mapper::apply(MapRequest& request, const DeviceChanges& devices) {
  std::vector<DeviceId> touched;
  for (size_t i = 0; i < request.map.size(); ++i) {
    const Location at = request.placed[i];
    Member& member = *members_.at(at.device);
    member.space.own(at.pe, {request.backing, request.map[i]});
    member.cleaner.poke();
    touched.push_back(at.device);
  }
  for (const meta::ExtentRow& row : request.unmap) {
    members_.at(row.device)->space.release(row.pe);
    touched.push_back(row.device);
  }
  for (const meta::ScrubRow& row : request.scrubbed) {
    members_.at(row.device)->space.add_free(row.pe);
  }
  if (request.clean.device != DeviceId{}) {
    Member& member = *members_.at(request.clean.device);
    member.row.clean_extents = request.clean.to;
    for (uint32_t pe = request.clean.from; pe < request.clean.to; ++pe) {
      if (member.space.state(PhysicalExtent(pe)) == DeviceSpace::State::kUnclean) {
        member.space.add_free(PhysicalExtent(pe));
      }
    }
  }
  if (!request.scrubbed.empty() || request.clean.device != DeviceId{}) {
    last_freed_ = control_.clock().now();
  }
  std::ranges::sort(touched);
  touched.erase(std::ranges::unique(touched).begin(), touched.end());
  for (const DeviceId id : touched) {
    const Member& member = *devices.at(id).member;
    request.touched.push_back({member.device, member.row.log_sequence, member.device->losses()});
  }
}

void Mapper::apply_volumes(const std::vector<format::LogRecord>& records) {
  for (const format::LogRecord& record : records) {
    if (const auto* volume = std::get_if<format::LogVolume>(&record)) {
      volumes_[volume->number] = *volume;
    } else if (const auto* drop = std::get_if<format::LogVolumeDrop>(&record)) {
      volumes_.erase(drop->number);
    }
  }
}

void Mapper::watch_usage() {
  uint64_t used = 0;
  uint64_t total = 0;
  for (const auto& [id, member] : members_) {
    used += member->space.used() * member->row.extent_bytes;
    total += member->space.size() * member->row.extent_bytes;
  }
  const auto reached = [&](uint64_t percent) { return used / percent >= total / 100; };
  while (warned_ > 0 && !reached(kWarnPercent[warned_ - 1] - kRearmPercent)) --warned_;
  size_t level = warned_;
  while (level < kWarnPercent.size() && reached(kWarnPercent[level])) ++level;
  if (total == 0 || level == warned_) return;
  warned_ = level;
  const uint64_t percent = kWarnPercent[level - 1];
  events_.emit({.severity = percent >= 95 ? Severity::kError : Severity::kWarning,
                .code = fmt::format("pool_{}", percent),
                .subject = "pool",
                .text = fmt::format("the pool is more than {} % full: {} of {} are in use", percent,
                                    format_size_rounded(used), format_size_rounded(total)),
                .next = "duplex device add PATH --size SIZE"});
}

}  // namespace duplex::pool
