// Marks: owner of the mark log, and of what is durable of hot marks and change maps.
//
// It keeps a shadow of what a start would find: the hot extents of each volume, and the words of
// each change map. Records go to the log; when a lap is full the log asks for a checkpoint, and
// the shadow becomes rows of the store. A verb that changes a state together with maps is one
// transaction of the store, which holds the state, the whole maps and the log position they
// include (trace F28).
//
// Owner: the array. Thread: calls from any core; each hops to the store executor, works there and
// hops back. All members but the flag of failed() belong to the store executor.
//
//   call         shadow changes          in the log      in the store
//   mark         when its batch is       hot records     with the next checkpoint
//   cool         durable in the log,     cool record     with the next checkpoint
//   write_words  before anything else    words records   with the next checkpoint
//   commit       when the store has it   nothing         at once: transaction, whole maps, marks
//                                                        when some are dropped
//   (checkpoint  not at all              a new lap       what has changed since it had it)
//
// Invariants:
// 1. Shadow = rows of the store and, over them, all acknowledged records: `position_` is that of
//    the last batch in it.
// 2. A row of `maps` holds every record up to its own position, the rows of `hot_marks` together
//    every record up to hot_position; a start skips those. Words of a map that has no row are
//    skipped too: a map begins and ends with commit().
// 3. cool, write_words and commit take effect in order of arrival on the store executor: no words
//    that were asked for before a commit end up behind it in the log, or the other way round.
// 4. One transaction of this class is under way at a time: none writes the shadow of before
//    another one over it.
// 5. The batch over which the log fails for good may be found at the next start or not. And the
//    log that was not trusted may be readable again the next time. So what is committed while the
//    log takes no records counts as newer than every record there is (kNewerThanAll), until the
//    next checkpoint gives it a position.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/error.h"
#include "meta/mark_log.h"
#include "meta/rows.h"
#include "meta/store.h"
#include "rt/wait.h"

namespace duplex::meta {

// One extent (a stretch of 4 MiB) of a volume.
struct MarkedExtent {
  VolumeNumber volume;
  LogicalExtent extent;
};

// A map as a verb leaves it. `words` in order of extent, each extent once; none: the map is gone.
struct WholeMap {
  uint32_t map = 0;
  std::optional<std::vector<ExtentWord>> words;
};

class Marks final : private MarkLogKeeper {
 public:
  struct Found {
    std::vector<HotMarksRow> hot;  // by volume
    std::vector<MapRow> maps;      // by id; positions mean nothing
    // False: marks and words have rotted in both copies of the log. Every map counts as full. The
    // owner says so with its first commit, before the first mark: it holds all maps. Until then
    // each start finds the same again.
    bool trusted = true;
  };
  struct Opened;

  // What the store has (`snapshot`) and the log adds to it; a log that was ever used begins a new
  // lap before this returns, unless it is not trusted. All arguments but the snapshot outlive it.
  static rt::Task<Result<Opened>> open(rt::SyncFiles& files, rt::Executor& executor, rt::Rng& rng,
                                       Store& store, const Snapshot& snapshot,
                                       MarkLogOptions options);
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;
  ~Marks() override = default;

  // All calls: success is durable. kNoSpace: nothing is broken, try again when there is space. Any
  // other error of the log is for good (failed()): hot extents may be written, others not.

  // The extents are hot; one record for up to 2,000 of them. The first call makes the log's files.
  rt::Task<Result<void>> mark(std::span<const MarkedExtent> extents);
  // The mark is off and each named map has that word; maps not named keep theirs. An error means
  // that the mark still counts. When the log fails over this very record it succeeds: a start may
  // find the mark or the words, and before its next write the extent needs a mark, which fails.
  rt::Task<Result<void>> cool(VolumeNumber volume, LogicalExtent extent,
                              std::vector<format::MapWord> words);
  // The map has these words, its others stay. An error: none, some or all of them may be found.
  rt::Task<Result<void>> write_words(uint32_t map, std::vector<ExtentWord> words);
  // Everything or nothing: `transaction`, the maps, and no mark on any of `dropped`. Nothing else
  // is under way for those volumes, and no words of those maps are computed before this call and
  // asked for after it. kState as for Store::commit.
  rt::Task<Result<void>> commit(Transaction transaction, std::vector<WholeMap> maps,
                                std::vector<VolumeNumber> dropped);
  // The log has failed for good: cold extents cannot be written until the next start. Any thread.
  bool failed() const { return failed_.load(std::memory_order_relaxed); }

 private:
  struct Map {
    std::vector<ExtentWord> words;  // in order of extent; zeroes leave with the next checkpoint
    uint64_t position = 0;          // of its row
    bool changed = false;           // since it became a row
  };
  struct Hot {
    std::set<LogicalExtent> extents;
    bool changed = false;
    bool stored = false;  // has a row
  };
  // Rows that are on their way into the store. Their `changed` is down: what changes meanwhile
  // belongs to the next transaction.
  struct Taken {
    Transaction rows;
    std::vector<uint32_t> maps;
    std::map<VolumeNumber, bool> hot;  // true: has a row now
  };

  Marks(rt::Executor& executor, Store& store) : executor_(executor), store_(store) {}

  void load(const Snapshot& snapshot);
  void replay(const std::vector<format::MarkBatch>& batches);
  rt::Task<Result<Found>> start(const Snapshot& snapshot, MarkLog::Opened opened);
  Found found(bool trusted) const;
  void apply_mark(const format::MarkRecord& record);
  void apply_words(const format::MarkRecord& record, uint64_t position);
  uint64_t included() const;

  rt::Task<Result<void>> begin();
  rt::Task<Result<void>> append(std::vector<format::MarkRecord> records);
  rt::Task<Result<void>> append_words(std::vector<format::MarkRecord> records);
  rt::Task<Result<void>> commit_here(Transaction transaction, std::vector<WholeMap> maps,
                                     std::vector<VolumeNumber> dropped);
  Result<void> check_maps(const std::vector<WholeMap>& maps) const;
  void take_hot(Taken& taken, const std::vector<VolumeNumber>& dropped);
  void take_maps(Taken& taken, uint64_t position);
  rt::Task<Result<void>> store(Taken taken, Transaction others, MarkLogRow row);

  // MarkLogKeeper.
  rt::Task<Result<void>> checkpoint(MarkLogState state) override;
  rt::Task<Result<void>> record_out(MarkLogState state) override;
  void appended(std::span<const format::MarkRecord> records, uint64_t position) override;

  rt::Executor& executor_;
  Store& store_;
  std::unique_ptr<MarkLog> log_;
  MarkLogRow row_;         // as the store has it
  uint64_t position_ = 0;  // invariant 1
  std::map<VolumeNumber, Hot> hot_;
  std::map<uint32_t, Map> maps_;
  rt::Mutex begin_turn_;
  rt::Mutex store_turn_;          // invariant 4
  rt::Limit order_{UINT32_MAX};   // invariant 3: a commit takes all of it
  bool begun_ = false;            // the log has a lap of this life
  bool verdict_pending_ = false;  // not trusted, and no commit has said so yet
  std::atomic<bool> failed_ = false;
};

struct Marks::Opened {
  std::unique_ptr<Marks> marks;
  Found found;
};

}  // namespace duplex::meta
