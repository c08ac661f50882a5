// Backing: a container of extents, the place where one volume's data lies ("physical volume id"
// PD0 of system B; docs/GLOSSARY.md).
//
// Owner: the Pool. Thread: the core the backing is assigned to (one reactor); all calls there.
// Ranges are aligned to kBlockBytes and inside size_bytes(); the volume above widens and cuts.
// Ordering of overlapping writes is the caller's business (the volume's range lock).
//
// Invariants (docs/ARCHITECTURE.md "Life of an extent"; traces F15, F33):
// 1. A write starts only on extents whose map is durable in the store.
// 2. An extent is handed out only when it reads as zeroes, durably; no byte of an earlier owner
//    is ever readable.
// 3. A released extent is reused only after its release is durable in the store and in the
//    device's map log and the last I/O that saw the old map has ended.
// 4. A FLUSH is answered after the map log records of this backing's allocations and releases
//    are written and the devices holding unflushed writes of it have flushed.
// 5. A failed flush is never retried into success: every backing with unflushed writes on that
//    device fails its next flush once (kFlushLost), also after a re-attachment of the device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "rt/task.h"

namespace duplex::pool {

// Like the modes of the NBD WRITE_ZEROES command and of TRIM.
enum class ZeroMode : uint8_t {
  kMayUnmap,  // whole extents are released, parts are zeroed in place (punched where possible)
  kKeep,      // no hole: extents become or stay allocated
  kFast,      // kMayUnmap, but kNotSupported instead of writing zeroes
};

// A run of logical extents and where it lies; table 310 of docs/REFERENCE.md.
struct ExtentRun {
  LogicalExtent le;
  std::string device;  // empty: a hole
  PhysicalExtent pe;
  uint32_t count = 0;
};

class Backing {
 public:
  virtual ~Backing() = default;

  virtual BackingId id() const = 0;
  virtual const std::string& name() const = 0;
  virtual uint64_t size_bytes() const = 0;
  virtual uint64_t extent_bytes() const = 0;
  virtual uint64_t allocated_bytes() const = 0;  // any thread

  // True if every byte of `range` lies in a mapped extent. Costs no suspension: the write path
  // asks this first.
  virtual bool is_mapped(ByteRange range) const = 0;
  // True when nothing of `range` is mapped.
  virtual bool is_hole(ByteRange range) const = 0;
  // End of the run that starts at `offset` and is all mapped, or all hole; and which it is.
  struct Run {
    bool mapped;
    uint64_t end;
  };
  virtual Run run_at(uint64_t offset) const = 0;

  // Makes every extent that `range` touches mapped, durably; concurrent calls share a commit.
  // kNoSpace: the pool (or the backing's device) is full; nothing is half done.
  virtual rt::Task<Result<void>> allocate(ByteRange range) = 0;
  // Holes read as zeroes. kMediumRead when a device fails or is absent.
  virtual rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) = 0;
  // Every extent of the range is mapped. kMediumWrite or kNoSpace (sparse file, full file system).
  virtual rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from) = 0;
  virtual rt::Task<Result<void>> zero(ByteRange range, ZeroMode mode) = 0;
  // Has a device lost its cache, with something of this backing in it, and no flush() has said so
  // yet? What is read may then be older than what was read before.
  virtual bool has_untold_loss() const = 0;
  // Covers every write and zero that has ended before the call.
  virtual rt::Task<Result<void>> flush() = 0;

  virtual std::vector<ExtentRun> extents() const = 0;
};

}  // namespace duplex::pool
