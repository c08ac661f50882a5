// TrackerUse: while it exists the tracker of a volume is not taken away
// (VolumeImpl::take_tracker()).
#pragma once

#include "volume/volume_impl.h"

namespace duplex::volume {

class VolumeImpl::TrackerUse {
 public:
  explicit TrackerUse(VolumeImpl& volume) : volume_(volume), tracker_(*volume.tracker_) {
    ++volume_.marked_;
  }
  TrackerUse(const TrackerUse&) = delete;
  TrackerUse& operator=(const TrackerUse&) = delete;
  ~TrackerUse() {
    if (volume_.core_.abandoned()) return;
    if (--volume_.marked_ == 0) volume_.marked_left_.pulse();
  }
  Tracker* operator->() const { return &tracker_; }

 private:
  VolumeImpl& volume_;
  Tracker& tracker_;
};

}  // namespace duplex::volume
