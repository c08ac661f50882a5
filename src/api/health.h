// Why hosts cannot open a volume whose content is no point in time, and what helps.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mirror/mirrors.h"
#include "volume/volumes.h"

namespace duplex::api {

struct Trouble {
  std::string text;
  std::string next;
  // A copy into it runs, or the status of a mirror tells what is to be done.
  bool is_told_elsewhere = false;
};

// None for a consistent volume. A damaged one is a matter of its own (VolumeInfo::damaged).
std::optional<Trouble> trouble_of(const volume::VolumeInfo& volume,
                                  const std::vector<mirror::MirrorInfo>& mirrors);

}  // namespace duplex::api
