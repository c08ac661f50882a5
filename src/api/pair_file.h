// Pair files: which mirrors to split, as pairs of volume ids (Fig 7).
//
//   # comment
//   PVOL ID 1   0x400104, 0x0001
//   SVOL ID 1   0x400104, 0x0002
//
// One id per line, array and volume: the source, then its target, and so on. A label before the ids
// is for people; one that begins with PVOL or SVOL must stand at its place. Blank lines and all
// from a # on do not count.
//
// Pure; any thread.
#pragma once

#include <string_view>
#include <vector>

#include "base/error.h"
#include "mirror/mirrors.h"

namespace duplex::api {

// kInvalid with the number of the line that is wrong; an empty file is wrong.
Result<std::vector<mirror::PairId>> parse_pairs(std::string_view text);

// kNoName naming the first entry that lies in another array than `own`.
Result<void> check_pairs(const std::vector<mirror::PairId>& pairs, ArrayId own);

}  // namespace duplex::api
