// Tables: the rows of meta/rows.h in the database, one statement per kind of Change.
//
// Owner: the Store. Thread: its executor. Runs inside the transaction its caller opened and never
// begins or ends one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "meta/rows.h"
#include "meta/sqlite.h"

namespace duplex::meta {

inline constexpr uint64_t kEventsKept = 10'000;

class Tables {
 public:
  explicit Tables(Database& database) : database_(database) {}

  // kState: the change contradicts what is stored; part of it may be done, so the caller rolls
  // back. Anything else: the database failed.
  Result<void> apply(const Change& change);
  // Drops the oldest events beyond kEventsKept.
  Result<void> trim_events();

  Result<Snapshot> load();
  Result<std::vector<EventRow>> events(uint64_t after_id, size_t limit);

 private:
  // One per kind of Change.
  Result<void> put(const PutArray& change);
  Result<void> put(const PutDevice& change);
  Result<void> put(const DropDevice& change);
  Result<void> put(const SetCleanExtents& change);
  Result<void> put(const SetLogSequence& change);
  Result<void> put(const SetLife& change);
  Result<void> put(const PutBacking& change);
  Result<void> put(const DropBacking& change);
  Result<void> put(const PutVolume& change);
  Result<void> put(const DropVolume& change);
  Result<void> put(const MapExtent& change);
  Result<void> put(const UnmapExtent& change);
  Result<void> put(const Scrubbed& change);
  Result<void> put(const PutJob& change);
  Result<void> put(const DropJob& change);
  Result<void> put(const AddEvent& change);
  Result<void> put(const PutMirror& change);
  Result<void> put(const DropMirror& change);
  Result<void> put(const PutGroup& change);
  Result<void> put(const DropGroup& change);
  Result<void> put(const PutCut& change);
  Result<void> put(const DropCut& change);
  Result<void> put(const PutMap& change);
  Result<void> put(const DropMap& change);
  Result<void> put(const PutHotMarks& change);
  Result<void> put(const DropHotMarks& change);
  Result<void> put(const PutMarkLog& change);

  // Runs `sql`; kState with `otherwise` when it changed no row.
  template <class... Values>
  Result<void> change_one(std::string_view sql, std::string_view otherwise,
                          const Values&... values);
  template <class Row>
  Result<void> upsert(const Row& row);
  template <class Row>
  Result<std::vector<Row>> select(std::string_view order);
  Result<void> load_members(Snapshot& snapshot);
  Result<void> load_marks(Snapshot& snapshot);

  Database& database_;
};

}  // namespace duplex::meta
