#include "volume/backing_leg.h"

namespace duplex::volume {

rt::Task<Result<void>> BackingLeg::write(Epoch /*epoch*/, uint64_t offset,
                                         std::span<const std::byte> from) {
  return backing_.write(offset, from);
}

rt::Task<Result<void>> BackingLeg::zero(Epoch /*epoch*/, ByteRange range, pool::ZeroMode mode) {
  return backing_.zero(range, mode);
}

rt::Task<Result<void>> BackingLeg::flush() { return backing_.flush(); }

}  // namespace duplex::volume
