// Way: what differs between the directions a Copier can work in.
//
//                forward                       back
//   moves        source to target of the leg   target to the source's own backing
//   map          bits                          missing regions
//   open         in kSendWhereClear            as long as the leg exists, in any mode
//   owes         the leg                       the own backing
//   its flush    fails: the leg has left       fails: what was lost is missing again, stalled
//
// Owner: the copier. Thread: the core of the source. The volume and the leg outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/units.h"
#include "volume/volume_impl.h"

namespace duplex::copy {

class Way {
 public:
  virtual ~Way() = default;
  virtual volume::MapId map_id() const = 0;
  virtual const volume::ChangeMap& map() const = 0;
  // May a step begin? Not open any more: the copy ends as left.
  virtual bool is_open() const = 0;
  // The first run behind `from` that one step would take; empty: none.
  virtual ByteRange next(uint64_t from) const = 0;
  // Of at most `run`, of which next() is a part.
  virtual rt::Task<Result<volume::VolumeImpl::CopyStep>> step(ByteRange run) = 0;
  virtual volume::Debtor& debtor() = 0;
  // What a step does to the source: "read".
  virtual const char* act() const = 0;
};

// `leg` is in kSendWhereClear and a debtor. `root`: the epoch of the source's root now; called on
// this core.
std::unique_ptr<Way> way_forward(volume::VolumeImpl& source, volume::TargetLeg& leg,
                                 std::function<Epoch()> root);
std::unique_ptr<Way> way_back(volume::VolumeImpl& source, volume::TargetLeg& leg);

}  // namespace duplex::copy
