// SqliteVfs: SQLite's file system, on top of rt::SyncFiles, so that the simulator owns the disk
// under the store and can cut the power inside a commit.
//
// Owner: one Database. Thread: the store executor.
// Invariants: 1. after the first failed flush, or a failed write that is not for lack of space,
// nothing is written or flushed any more: what SQLite does afterwards cannot turn a lost write
// into a success; 2. lack of space is SQLITE_FULL and changes nothing for later calls; 3. a new
// file's directory entry is flushed with the file's first flush; 4. no clock, no random numbers,
// no shared memory: the database is used in exclusive mode by one process (the lock file sees to
// that), so the lock methods do nothing; 5. every page of the database file ends with a checksum of
// its content and place, written with the page and checked with every read of it: a page that
// rotted is SQLITE_CORRUPT, never a wrong row. (Pages in the WAL have SQLite's own checksums.)
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>

#include "rt/file.h"

namespace duplex::meta {

inline constexpr size_t kPageBytes = 4096;
// Bytes at the end of each page that SQLite leaves to us: CRC32C, then 4 bytes of zero.
inline constexpr size_t kPageReservedBytes = 8;

class SqliteVfs {
 public:
  explicit SqliteVfs(rt::SyncFiles& files);
  ~SqliteVfs();
  SqliteVfs(const SqliteVfs&) = delete;
  SqliteVfs& operator=(const SqliteVfs&) = delete;

  // For sqlite3_open_v2; unique in the process.
  const char* name() const { return name_.c_str(); }
  // "flush /dir/state.db-wal: Input/output error" once invariant 1 holds, or empty.
  const std::string& failure() const { return failure_; }

 private:
  class OpenFile;
  struct Methods;

  // The SQLite code of a finished call: SQLITE_OK, SQLITE_FULL, or `code` and the end of writing.
  int outcome(int errnum, const char* act, const std::string& path, int code);

  rt::SyncFiles& files_;
  std::string name_;
  std::string failure_;
  sqlite3_vfs vfs_{};
};

// The folder that holds `path`: "." when it names none.
std::string parent_directory(const std::string& path);

}  // namespace duplex::meta
