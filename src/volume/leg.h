// Leg: a place where a volume's write must go. Today its own backing; mirror targets, moves and
// increments are further implementations of the same three calls.
//
// Owner: the volume. Thread: the volume's core. Ranges and memory are whole blocks
// (kBlockBytes); overlapping calls never run at the same time (range lock). `epoch` is the stamp
// of the gate: a leg that crosses to another array sends it along, and downstream decides by it.
// The data stays alive and unchanged until the call has ended.
// Every leg of a write is started before the first one is awaited, without a suspension after
// the gate (trace F1).
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "base/units.h"
#include "pool/backing.h"
#include "rt/task.h"

namespace duplex::volume {

class Leg {
 public:
  virtual ~Leg() = default;
  // After an error every block of the range may hold its old or its new bytes.
  virtual rt::Task<Result<void>> write(Epoch epoch, uint64_t offset,
                                       std::span<const std::byte> from) = 0;
  virtual rt::Task<Result<void>> zero(Epoch epoch, ByteRange range, pool::ZeroMode mode) = 0;
  // Covers every write and zero of this leg that has ended before the call.
  virtual rt::Task<Result<void>> flush() = 0;
};

}  // namespace duplex::volume
