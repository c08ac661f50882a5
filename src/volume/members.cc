// What mirrors do with volumes: join, leave, the access of hosts.
#include "volume/members.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "volume/volumes_impl.h"

namespace duplex::volume {

Error in_mirror(const std::string& volume, const std::vector<std::string>& mirrors) {
  ASSERT(!mirrors.empty());
  return Error(Code::kState,
               fmt::format("volume {} is in mirror {}", volume, fmt::join(mirrors, ", ")),
               "duplex mirror delete " + mirrors.front());
}

rt::Task<Result<Member*>> VolumesImpl::join(VolumeNumber number, std::string mirror) {
  CO_TRY_ASSIGN(Entry* const entry, ready(format_id(number)));
  if (entry->row.size_bytes > kMaxMemberBytes) {
    co_return fail(Code::kSize,
                   fmt::format("volume {} has {}, a volume in a mirror at most {}", entry->row.name,
                               format_size(entry->row.size_bytes), format_size(kMaxMemberBytes)),
                   "use smaller volumes, or several");
  }
  if (!entry->member) entry->member = std::make_unique<Joined>(*entry, world_.control());
  Joined& member = *entry->member;
  member.mirrors_.push_back(std::move(mirror));
  const rt::Mutex::Held turn = co_await member.turn_.lock();
  if (!member.tracker_) co_await member.open_tracker(marks_);
  co_return &member;
}

// The list is read in its turn: one that joined while this waited keeps the tracker, one that joins
// while it closes gets a new one.
rt::Task<> VolumesImpl::leave(Member& left, std::string mirror) {
  Joined& member = static_cast<Joined&>(left);
  ASSERT(std::ranges::find(member.mirrors_, mirror) != member.mirrors_.end());
  {
    const rt::Mutex::Held turn = co_await member.turn_.lock();
    if (member.mirrors_.size() == 1) co_await member.close_tracker();
    member.mirrors_.erase(std::ranges::find(member.mirrors_, mirror));
    member.contexts_.erase(mirror);
  }
  if (member.mirrors_.empty()) member.entry_.member.reset();
}

void VolumesImpl::abandon() {
  if (!world_.control().abandoned()) return;
  for (const auto& [number, entry] : entries_) {
    if (entry->volume) entry->volume->abandon();
  }
  for (const auto& [number, entry] : entries_) {
    if (entry->member) entry->member->tracker_.reset();
  }
}

rt::Task<bool> VolumesImpl::is_attached(VolumeNumber number) {
  const auto found = entries_.find(number);
  if (found == entries_.end() || found->second->volume == nullptr) co_return false;
  Entry& entry = *found->second;
  const Looking looking(entry);
  co_await rt::hop(entry.core);
  const std::vector<pool::ExtentRun> runs = entry.backing->extents();
  co_await rt::hop(world_.control());
  const auto is_absent = [&](const std::string& name) {
    const Result<pool::DeviceInfo> device = pool_.device(name);
    return !device || device->state == pool::DeviceState::kAbsent;
  };
  if (!entry.device.empty() && is_absent(entry.device)) co_return false;
  co_return std::ranges::none_of(
      runs, [&](const auto& run) { return !run.device.empty() && is_absent(run.device); });
}

rt::Task<> VolumesImpl::Joined::open_tracker(meta::Marks& marks) {
  rt::Core& core = entry_.core;
  co_await rt::hop(core);
  marks_.emplace(marks, entry_.row.number);
  tracker_ = std::make_unique<Tracker>(core, *marks_, entry_.row.size_bytes);
  entry_.volume->set_tracker(*tracker_);
  co_await rt::hop(control_);
}

rt::Task<> VolumesImpl::Joined::close_tracker() {
  co_await rt::hop(entry_.core);
  co_await entry_.volume->take_tracker();
  co_await tracker_->close();
  tracker_.reset();
  marks_.reset();
  co_await rt::hop(control_);
}

void VolumesImpl::Joined::committed(Uuid content_id, bool consistent) {
  entry_.row.content_id = content_id;
  entry_.row.consistent = consistent;
}

std::vector<Member::Client> VolumesImpl::Joined::clients() const {
  std::vector<Client> all;
  for (const Opened* opened : entry_.clients) all.push_back({opened->client, opened->is_read_only});
  return all;
}

rt::Task<Result<void>> VolumesImpl::Joined::disconnect() {
  rt::Clock& clock = control_.clock();
  const rt::Micros until = clock.now() + kDisconnectTime;
  for (;;) {
    disconnect_all(entry_);
    if (entry_.clients.empty()) co_return Result<void>();
    if (!co_await entry_.unused.wait_until(clock, until)) break;
  }
  std::vector<std::string> names;
  for (const Opened* opened : entry_.clients) names.push_back(opened->client);
  if (names.empty()) co_return Result<void>();
  co_return fail(
      Code::kTimeout,
      fmt::format("volume {} is still in use by {}", entry_.row.name, fmt::join(names, ", ")),
      "try again when their requests have ended");
}

}  // namespace duplex::volume
