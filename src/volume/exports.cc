// What the front door sees of the registry: list, find, open, close.
#include <fmt/format.h>

#include <algorithm>

#include "volume/volumes_impl.h"

namespace duplex::volume {

std::vector<VolumeSummary> VolumesImpl::list() const {
  std::vector<VolumeSummary> all;
  for (const auto& [number, entry] : entries_) {
    if (entry->state == State::kCreating || entry->state == State::kDeleting) continue;
    all.push_back(summary_of(*entry));
  }
  return all;
}

VolumeSummary VolumesImpl::summary_of(const Entry& entry) {
  return {.number = entry.row.number,
          .name = entry.row.name,
          .size_bytes = entry.volume->size_bytes(),
          .read_only = entry.member && entry.member->access().kind() == Access::Kind::kReadOnly};
}

Result<VolumeSummary> VolumesImpl::find(const std::string& name) const {
  const Entry* entry = entry_named(name);
  if (entry == nullptr || entry->state == State::kCreating) {
    return fail(Code::kNoVolume, fmt::format("there is no volume {}", name), "duplex volume list");
  }
  return summary_of(*entry);
}

std::vector<ChangedContext> VolumesImpl::contexts(const std::string& name) const {
  std::vector<ChangedContext> all;
  const Entry* entry = entry_named(name);
  if (entry == nullptr || !entry->member) return all;
  for (const auto& [mirror, id] : entry->member->contexts_) all.push_back({mirror, id});
  return all;
}

Result<std::unique_ptr<OpenVolume>> VolumesImpl::open(const std::string& name, std::string client,
                                                      std::function<void()> disconnect) {
  if (stopping_) return fail(Code::kShutdown);
  TRY(find(name));
  Entry& entry = *entry_named(name);
  TRY(may_open(entry));
  auto opened = std::make_unique<Opened>(entry, std::move(client), summary_of(entry).read_only,
                                         std::move(disconnect));
  entry.clients.push_back(opened.get());
  return opened;
}

// A mirror knows better than the flag why its target is not consistent.
Result<void> VolumesImpl::may_open(const Entry& entry) {
  const std::string& name = entry.row.name;
  if (entry.state == State::kDeleting) {
    return fail(Code::kState, fmt::format("volume {} is being deleted", name));
  }
  if (entry.row.damaged) {
    return fail(
        Code::kState,
        fmt::format("volume {} may have lost data: it was rebuilt without all devices", name),
        "duplex volume show " + name);
  }
  if (entry.member && entry.member->access().kind() == Access::Kind::kRefused) {
    return std::unexpected(entry.member->access().why());
  }
  if (entry.row.consistent) return {};
  return fail(Code::kState,
              fmt::format("volume {} is inconsistent: a copy into it has not ended", name),
              entry.member ? "duplex mirror show " + entry.member->mirrors().front()
                           : fmt::format("make it the target of a mirror, which fills it, or: "
                                         "duplex volume delete {}",
                                         name));
}

void VolumesImpl::close(std::unique_ptr<OpenVolume> open) {
  auto& opened = static_cast<Opened&>(*open);
  const size_t gone = std::erase(opened.entry.clients, &opened);
  ASSERT(gone == 1);
  opened.entry.unused.pulse();
}

// A callback may close its client at once, so the list is read anew each time.
void VolumesImpl::disconnect_all(Entry& entry) {
  const auto is_told = [](const Opened* opened) { return opened->disconnect == nullptr; };
  for (;;) {
    const auto next = std::ranges::find_if_not(entry.clients, is_told);
    if (next == entry.clients.end()) return;
    const std::function<void()> disconnect = std::exchange((*next)->disconnect, nullptr);
    disconnect();
  }
}

rt::Task<> VolumesImpl::stop() {
  stopping_ = true;
  for (const auto& [number, entry] : entries_) {
    ASSERT(!entry->member);
    disconnect_all(*entry);
  }
  // A verb that has begun may still erase its entry: look again after each wait.
  const auto is_used = [](const auto& item) { return item.second->is_used(); };
  for (;;) {
    const auto used = std::ranges::find_if(entries_, is_used);
    if (used == entries_.end()) co_return;
    co_await used->second->unused.wait();
  }
}

}  // namespace duplex::volume
