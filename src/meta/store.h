// The durable store of an array: one SQLite database in the state directory, on its own executor.
//
// Owner: the array. Thread: public calls from any core; each hops to the store executor, works
// there (may block) and hops back to the caller's executor.
// Invariants: 1. a commit is durable when it returns success, and all or nothing across any crash;
// 2. commits take effect in the order they were called from one executor; commits that wait
// together share one fsync (group commit), and one that fails (constraint) does not take others
// with it; 3. after the first failed write or flush nothing is committed any more, every later
// commit fails with the first cause (a failed flush is never retried into success; reopen
// recovers); 4. one process per state directory (lock file); 5. a full file system (kNoSpace)
// changes nothing and breaks nothing: commits succeed again when there is space.
// SQLite: WAL, exclusive locking, synchronous=FULL, through a VFS of ours over rt::SyncFiles.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "meta/rows.h"
#include "rt/clock.h"
#include "rt/executor.h"
#include "rt/file.h"
#include "rt/task.h"

namespace duplex::meta {

struct StoreOptions {
  std::string directory;  // created when absent
  // For a new store, and checked against an existing one: an array never opens another's state.
  ArrayId array_id;
  std::string array_name;
};

class Store {
 public:
  // Refusals: kBusy (another process has the directory), kNotSupported (written by a newer
  // version; older ones are migrated in one transaction), kCorrupt (integrity check), kState (it
  // is another array's). `fresh` ids come from `rng` when the store is new.
  static rt::Task<Result<std::unique_ptr<Store>>> open(rt::SyncFiles& files, rt::Executor& executor,
                                                       rt::Rng& rng, StoreOptions options);
  virtual ~Store() = default;

  // Everything at once, at start.
  virtual rt::Task<Result<Snapshot>> load() = 0;
  virtual rt::Task<Result<void>> commit(Transaction transaction) = 0;
  // Newest last, at most `limit`: those that follow `after_id`, or with 0 the newest ones. The
  // store keeps the last 10,000 events.
  virtual rt::Task<Result<std::vector<EventRow>>> events(uint64_t after_id, size_t limit) = 0;
  // Checkpoints and closes; nothing may be committed afterwards. The destructor alone is a crash.
  virtual rt::Task<Result<void>> close() = 0;
};

}  // namespace duplex::meta
