// The mark log: which extents may have writes in flight or not flushed, durable before the first
// write to them; and what the change maps hold of an extent once it has cooled.
//
// Why not the store: a host write waits for its mark, and a mark must not fail because the file
// system is full. So the log is two files of fixed size, written beforehand; the store holds its
// checkpoint.
//
// Owner: the array. Thread: public calls from any core; each hops to the store executor, works
// there (may block) and hops back.
//
// | event            | what is done, in this order                                            |
// |------------------|------------------------------------------------------------------------|
// | append           | batch with lap, position and the CRC of the batch before it written to |
// |                  | both copies; both flushed; acknowledged. Waiting appends share a batch |
// | one copy fails   | the keeper records it as out, durably; then the append is acknowledged |
// | both fail, or    | the log has failed: every append from now on is an error (writes to    |
// | the keeper fails | hot extents go on, those to cold ones fail)                            |
// | the file is full | the keeper checkpoints (state, position, a new lap); the next batch    |
// |                  | overwrites from the start. Batches of an old lap count no more         |
// | start            | nothing is written: from the checkpoint's position on, each batch is   |
// |                  | taken from whichever copy has it whole and naming the one before       |
// | start, a whole   | acknowledged batches have rotted in every copy: no run is trusted, and |
// | batch stands     | all extents count as dirty in every map                                |
// | behind a gap     |                                                                        |
// | after the start  | the owner has taken over what was found: a checkpoint begins a new lap |
//
// Invariants: 1. one batch is under way at a time, so a crash leaves at most one that is torn, and
// only the last; 2. what was acknowledged is found again after any crash and one failed copy;
// 3. a copy recorded as out is not read until a checkpoint after a start lets it in again, with
// all it held belonging to an old lap; 4. every lap belongs to one life of the process, and nothing
// acts on a run before the checkpoint that includes it is durable: so a start that dies half way
// may find less the next time (a batch nobody was promised), never less than was acknowledged, and
// the copies need not be made equal first.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/mark_batch.h"
#include "rt/clock.h"
#include "rt/executor.h"
#include "rt/file.h"
#include "rt/task.h"

namespace duplex::meta {

// What the store says about the log.
struct MarkLogState {
  uint64_t lap = 0;       // 0: the log was never used
  uint64_t position = 0;  // batches up to this one are included in the store
  std::array<bool, 2> out{};
  bool operator==(const MarkLogState&) const = default;
};

// The side that owns the store. Calls come on the store executor.
class MarkLogKeeper {
 public:
  virtual ~MarkLogKeeper() = default;
  // Makes `state` durable together with everything that batches up to its position say: in one
  // transaction all marks and all maps, as appended() has told of them.
  virtual rt::Task<Result<void>> checkpoint(MarkLogState state) = 0;
  // The batch counts: called before its appends return, and before any checkpoint() whose state
  // includes its position.
  virtual void appended(std::span<const format::MarkRecord> /*records*/, uint64_t /*position*/) {}
  // Makes `state` durable by itself; its lap and position are those of the last checkpoint.
  virtual rt::Task<Result<void>> record_out(MarkLogState state) = 0;
};

struct MarkLogOptions {
  std::string directory;      // the state directory; exists
  uint64_t bytes = 4 * kMiB;  // of each copy: whole blocks, at least kMaxBatchBytes
};

class MarkLog {
 public:
  static constexpr uint64_t kMaxBatchBytes = 16 * kKiB;

  struct Opened {
    std::unique_ptr<MarkLog> log;
    std::vector<format::MarkBatch> batches;  // after the checkpoint, in order
    bool trusted = true;                     // false: every map counts as full
  };
  // Only reads. The owner takes over the records (or the verdict), then calls checkpoint() before
  // the first append(); nothing is served in between. `keeper` outlives the log.
  static rt::Task<Opened> open(rt::SyncFiles& files, rt::Executor& executor, rt::Rng& rng,
                               MarkLogKeeper& keeper, MarkLogState saved, MarkLogOptions options);
  virtual ~MarkLog() = default;

  // Durable when it returns; the position of its batch. All records together fit into one batch of
  // kMaxBatchBytes. kNoSpace: the log is full and the store could not take the checkpoint; nothing
  // is broken. Any other error: the log has failed for good, and a start may find these records or
  // not. They are then the last ones of this life, in the batch with the next position.
  virtual rt::Task<Result<uint64_t>> append(std::vector<format::MarkRecord> records) = 0;
  // Hands everything to the keeper and begins a new lap. Errors as for append(); kNoSpace also
  // when there is no room for the files themselves.
  virtual rt::Task<Result<void>> checkpoint() = 0;
};

}  // namespace duplex::meta
