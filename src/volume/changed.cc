// What clients are told of change maps ("duplex:changed/MIRROR" of the front door).
//
// A map may be read as long as it only gains regions: then what a client saw clear has not changed
// before it looked. Whatever begins to clear a map, or means something else by it, offers it anew
// (a new ContextId) before it does; clients with the old id, and those whose mirror is gone, are
// told that everything has changed.
#include <algorithm>

#include "volume/members.h"
#include "volume/volume_impl.h"

namespace duplex::volume {

ContextId VolumeImpl::offer(MapId map) {
  withdraw(map);
  contexts_.push_back({.id = ++last_context_, .map = map});
  return ContextId(last_context_);
}

void VolumeImpl::withdraw(MapId map) {
  std::erase_if(contexts_, [map](const Context& c) { return c.map == map; });
}

std::vector<ChangedRun> VolumeImpl::changed(ContextId id, ByteRange range, size_t limit) const {
  const auto context = std::ranges::find(contexts_, id.value(), &Context::id);
  const bool is_known =
      tracker_ != nullptr && context != contexts_.end() && tracker_->has_map(context->map);
  if (!is_known) return {{.length = range.length, .changed = true}};
  const ChangeMap& map = tracker_->map(context->map);
  std::vector<ChangedRun> runs;
  for (uint64_t at = range.offset; at < range.end() && runs.size() < limit;) {
    const ByteRange run = map.next_run(at, range.length + kRegionBytes);
    const uint64_t from = run.empty() ? range.end() : std::clamp(run.offset, at, range.end());
    if (from > at) {
      runs.push_back({.length = from - at, .changed = false});
      at = from;
    } else {
      const uint64_t to = std::min(run.end(), range.end());
      runs.push_back({.length = to - at, .changed = true});
      at = to;
    }
  }
  return runs;
}

rt::Task<> offer_changed(Member& member, std::string mirror, MapId map, rt::Executor& control) {
  co_await rt::hop(member.core());
  const ContextId id = member.volume().offer(map);
  co_await rt::hop(control);
  member.set_context(std::move(mirror), id);
}

}  // namespace duplex::volume
