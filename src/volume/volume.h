// Volume: what a host sees. The one write path of the array (docs/ARCHITECTURE.md "Write path").
//
// A write whose payload is complete passes, in this order:
//   1. range lock   fair; overlapping writes run one after the other, waiters count as conflicts
//   2. extents      allocated (and, with a mirror below, hot); made so first, durably
//   3. gate         a cut can close it for microseconds; stamps the epoch and hands the write to
//                   every leg in one step
//   4. legs         own backing first; mirrors, moves and increments later
//   5. acknowledgement rule   a pure function of the legs' outcomes
//   6. reply; the lock stays until every synchronous leg is done
//
// Owner: Volumes. Thread: the reactor it is assigned to; host calls only there.
// Requests of any alignment from 1 byte and up to 32 MiB are taken here: edges are completed to
// whole blocks under the range lock. Reads take no lock and pass no gate.
// TRIM is rounded inward to regions and from there on means zeroes (trace F16).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "rt/task.h"
#include "rt/world.h"

namespace duplex::volume {

// Largest payload of one request.
inline constexpr uint64_t kMaxRequestBytes = 32 * kMiB;

struct VolumeStats {
  uint64_t reads = 0, writes = 0, trims = 0, flushes = 0;
  uint64_t read_bytes = 0, written_bytes = 0;
  uint64_t errors = 0;
  uint64_t repaired = 0;  // regions that could not be read here and were written again
};

struct StatusRun {
  uint64_t length = 0;
  bool hole = false;  // not allocated
  bool zero = false;  // reads as zeroes
};

// One offer of a change map to clients; never used again while the array runs.
using ContextId = Tagged<struct ContextIdTag, uint64_t>;

struct ChangedRun {
  uint64_t length = 0;
  bool changed = false;
};

class Volume {
 public:
  virtual ~Volume() = default;

  // Any thread.
  virtual const std::string& name() const = 0;
  virtual VolumeNumber number() const = 0;
  virtual uint64_t size_bytes() const = 0;  // may grow or shrink between calls
  virtual rt::Core& core() const = 0;

  // The range of every call lies inside size_bytes(), else kSize and nothing is done.
  virtual rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) = 0;
  // `fua`: durable before the reply.
  virtual rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from,
                                       bool fua) = 0;
  struct ZeroFlags {
    bool fua = false;
    bool no_hole = false;  // keep or make the space allocated
    bool fast = false;     // kNotSupported rather than slow
  };
  // `range` may be the whole volume.
  virtual rt::Task<Result<void>> zero(ByteRange range, ZeroFlags flags) = 0;
  virtual rt::Task<Result<void>> trim(ByteRange range, bool fua) = 0;
  // Everything answered before the call is durable.
  virtual rt::Task<Result<void>> flush() = 0;
  // Runs from range.offset on, at most `limit` of them, never beyond the range.
  virtual rt::Task<Result<std::vector<StatusRun>>> status(ByteRange range, size_t limit) = 0;

  // Which regions of the range (not empty) have changed, as the mirror says that offers `id`; at
  // most `limit` runs, from range.offset on. All of it, when `id` is not offered any more.
  virtual std::vector<ChangedRun> changed(ContextId id, ByteRange range, size_t limit) const = 0;

  virtual VolumeStats stats() const = 0;  // any thread, may be slightly old
};

// One client that has a volume open. Exists from open() to close(); while there is one, the
// volume is not deleted and its core does not change.
class OpenVolume {
 public:
  virtual ~OpenVolume() = default;
  virtual Volume& volume() = 0;
  virtual bool read_only() const = 0;
};

struct VolumeSummary {
  VolumeNumber number;
  std::string name;
  uint64_t size_bytes = 0;
  bool read_only = false;  // for those who open it now
};

struct ChangedContext {
  std::string mirror;
  ContextId id;
};

// What the front door sees of the volumes: look up, open, close. Thread: control core.
class Exports {
 public:
  virtual ~Exports() = default;
  virtual std::vector<VolumeSummary> list() const = 0;
  // For NBD_OPT_INFO: opens nothing. kNoVolume.
  virtual Result<VolumeSummary> find(const std::string& name) const = 0;
  // What its mirrors offer now, by name. None for a volume that does not exist.
  virtual std::vector<ChangedContext> contexts(const std::string& name) const = 0;
  // `client`: for people ("nbd 127.0.0.1:50312"). `disconnect` is called at most once, on the
  // control core, when an operator wants the client gone; the front door then ends the
  // connection and calls close(). kNoVolume, kState (volume damaged,
  // inconsistent, being deleted), what its mirror says (kWriteProtected), kShutdown.
  virtual Result<std::unique_ptr<OpenVolume>> open(const std::string& name, std::string client,
                                                   std::function<void()> disconnect) = 0;
  // Every request of the client has ended.
  virtual void close(std::unique_ptr<OpenVolume> open) = 0;
};

}  // namespace duplex::volume
