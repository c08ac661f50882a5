// MarksOfVolume: the marks and words of one volume's tracker in the array's Marks.
//
// Owner: the member (members.h), beside the tracker. Thread: the volume's core. Each call of Marks
// hops to the store executor and comes back; records of one volume take effect in the order of the
// calls, because that is the order in which they arrive there.
// A stretch has 64 bits in the tracker and 32 on disk: a member is at most kMaxMemberBytes long.
#pragma once

#include <span>
#include <vector>

#include "meta/marks.h"
#include "volume/tracker.h"

namespace duplex::volume {

class MarksOfVolume final : public MarkStore {
 public:
  // `marks` outlives it.
  MarksOfVolume(meta::Marks& marks, VolumeNumber volume) : marks_(marks), volume_(volume) {}

  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override;
  rt::Task<Result<void>> cool(HotExtent extent, std::vector<format::MapWord> words) override;
  rt::Task<Result<void>> write_words(MapId map, std::vector<ChangeMap::Word> words) override;

 private:
  meta::Marks& marks_;
  const VolumeNumber volume_;
};

}  // namespace duplex::volume
