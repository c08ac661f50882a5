// BackingLeg: the leg every volume has, its own backing.
//
// The epoch ends here: a backing keeps no order beyond the one the range lock gives it. The
// calls hand the backing's own task on, so the leg costs no coroutine frame.
#pragma once

#include "volume/leg.h"

namespace duplex::volume {

class BackingLeg final : public Leg {
 public:
  explicit BackingLeg(pool::Backing& backing) : backing_(backing) {}
  rt::Task<Result<void>> write(Epoch epoch, uint64_t offset,
                               std::span<const std::byte> from) override;
  rt::Task<Result<void>> zero(Epoch epoch, ByteRange range, pool::ZeroMode mode) override;
  rt::Task<Result<void>> flush() override;

 private:
  pool::Backing& backing_;
};

}  // namespace duplex::volume
