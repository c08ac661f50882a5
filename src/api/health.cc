#include "api/health.h"

#include <fmt/format.h>

#include <algorithm>

namespace duplex::api {
namespace {

using mirror::MirrorInfo;
using mirror::Relation;

// While it is the target of a mirror that is not split, the mirror decides what becomes of it.
std::optional<Trouble> as_target(const MirrorInfo& above) {
  switch (above.state) {
    case Relation::kCopying:
      return Trouble{fmt::format("the copy of mirror {} into it has not ended", above.name),
                     "duplex job wait " + above.name, true};
    case Relation::kSuspended:
      return Trouble{fmt::format("the copy of mirror {} into it was broken off", above.name),
                     "duplex mirror resync " + above.name, true};
    case Relation::kSplit:
    case Relation::kReverse:
      return std::nullopt;
    default:
      return Trouble{fmt::format("volume {}, which it follows, is inconsistent", above.source),
                     "duplex volume show " + above.source, true};
  }
}

}  // namespace

std::optional<Trouble> trouble_of(const volume::VolumeInfo& volume,
                                  const std::vector<MirrorInfo>& mirrors) {
  if (volume.consistent) return std::nullopt;
  const auto above = std::ranges::find(mirrors, volume.number, &MirrorInfo::target_number);
  if (above != mirrors.end()) {
    if (auto trouble = as_target(*above)) return trouble;
  }
  const auto back = std::ranges::find_if(mirrors, [&](const MirrorInfo& one) {
    return one.source_number == volume.number && one.state == Relation::kSplit && one.consistent;
  });
  const std::string part = "it holds part of a copy, which was broken off";
  if (back != mirrors.end()) return Trouble{part, "duplex mirror restore " + back->name};
  if (above != mirrors.end() && above->source_consistent)
    return Trouble{part, "duplex mirror resync " + above->name};
  if (above != mirrors.end())
    return Trouble{fmt::format("so was volume {} when it was split", above->source),
                   "duplex volume show " + above->source};
  return Trouble{part,
                 fmt::format("fill it from another volume: duplex mirror create NAME SOURCE {0} "
                             "--overwrite; or give it up: duplex volume delete {0}",
                             volume.name)};
}

}  // namespace duplex::api
