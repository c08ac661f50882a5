// Thin owners of SQLite's objects: Database and Statement. Errors become Error values.
//
// Thread: the store executor; one Database belongs to one Store.
#pragma once

#include <sqlite3.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "base/uuid.h"
#include "meta/sqlite_vfs.h"
#include "rt/file.h"

namespace duplex::meta {

class Database;

// Draws SQLite's random numbers (salts of its WAL) from `seed`, for the whole process: a simulated
// run then writes the same bytes each time.
void seed_sqlite(uint64_t seed);

// One use of a cached prepared statement: bind, step or run, read. Reset when it goes away; the
// Database must not hand out the same text twice at a time.
class Statement {
 public:
  Statement(Database& database, sqlite3_stmt* statement)
      : database_(&database), statement_(statement) {}
  Statement(Statement&& other) noexcept
      : database_(other.database_), statement_(std::exchange(other.statement_, nullptr)) {}
  Statement& operator=(Statement&&) = delete;
  ~Statement() {
    if (statement_ == nullptr) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }

  // Values for the parameters, in order, after those bound before. A list of bytes outlives this.
  template <class... Values>
  Statement& bind(const Values&... values) {
    (bind_one(values), ...);
    return *this;
  }
  // True: there is a row. False: the end.
  Result<bool> step();
  // To the end, rows ignored.
  Result<void> run();

  // Columns of the row, from the first. A value that does not fit its place makes fits() false
  // for good: the caller then reports damage.
  template <class... Values>
  void read(Values&... values) {
    int column = 0;
    (read_one(column++, values), ...);
  }
  bool fits() const { return fits_; }

 private:
  template <class T>
    requires std::is_integral_v<T>
  void bind_one(T value) {
    note(sqlite3_bind_int64(statement_, ++bound_, static_cast<sqlite3_int64>(value)));
  }
  template <class T>
    requires std::is_enum_v<T>
  void bind_one(T value) {
    bind_one(static_cast<std::underlying_type_t<T>>(value));
  }
  template <class Tag, class Rep>
  void bind_one(Tagged<Tag, Rep> value) {
    bind_one(value.value());
  }
  void bind_one(std::string_view value);
  void bind_one(const std::string& value) { bind_one(std::string_view(value)); }
  void bind_one(const Uuid& value);
  void bind_one(const std::vector<std::byte>& value);
  void note(int rc) {
    if (rc != SQLITE_OK && bind_rc_ == SQLITE_OK) bind_rc_ = rc;
  }

  // 64-bit unsigned values use the sign bit as a value bit; all others must be in range.
  template <class T>
    requires std::is_integral_v<T>
  void read_one(int column, T& value) {
    const int64_t raw = sqlite3_column_int64(statement_, column);
    if constexpr (sizeof(T) == 8) {
      value = std::bit_cast<T>(raw);
    } else {
      const bool in_range = std::cmp_less_equal(std::numeric_limits<T>::min(), raw) &&
                            std::cmp_less_equal(raw, std::numeric_limits<T>::max());
      fits_ = fits_ && in_range;
      value = static_cast<T>(raw);
    }
    fits_ = fits_ && sqlite3_column_type(statement_, column) == SQLITE_INTEGER;
  }
  void read_one(int column, bool& value) {
    uint8_t raw = 0;
    read_one(column, raw);
    fits_ = fits_ && raw <= 1;
    value = raw != 0;
  }
  template <class Tag, class Rep>
  void read_one(int column, Tagged<Tag, Rep>& value) {
    Rep raw{};
    read_one(column, raw);
    value = Tagged<Tag, Rep>(raw);
  }
  void read_one(int column, std::string& value);
  void read_one(int column, Uuid& value);
  void read_one(int column, std::vector<std::byte>& value);

  Database* database_;
  sqlite3_stmt* statement_;
  int bound_ = 0;
  int bind_rc_ = SQLITE_OK;
  bool fits_ = true;
};

class Database {
 public:
  // `place` is the name people know it by, for messages ("state directory /var/lib/duplex").
  // Nothing is read or written yet but the file's existence.
  static Result<std::unique_ptr<Database>> open(rt::SyncFiles& files, const std::string& path,
                                                std::string place);
  // Never checkpoints: closing a database is not a way to write to it.
  ~Database();

  // One or more statements without results.
  Result<void> execute(const char* sql);
  // A statement with one row and one integer column.
  Result<int64_t> query(const std::string& sql);
  // Walks all pages and rows, but not whether each index agrees with its table: 20 ms for the map
  // of 1 TiB, where the full check takes 250. kCorrupt when something does not fit.
  Result<void> check_structure();
  // `sql` is prepared once and kept.
  Result<Statement> prepare(std::string_view sql);

  // Rows changed by the last INSERT, UPDATE or DELETE.
  int64_t changes() const { return sqlite3_changes64(handle_); }
  bool in_transaction() const { return sqlite3_get_autocommit(handle_) == 0; }
  // Length of the WAL in frames (one page each) after the last commit.
  int wal_frames() const { return wal_frames_; }
  // Copies the WAL into the database; `truncate` also empties the WAL file.
  Result<void> checkpoint(bool truncate);

  // SQLite's last error. kState: a constraint; kNoSpace: full, and nothing is broken;
  // kCorrupt: damaged pages; kSystem: the disk failed.
  Error error(int rc) const;
  Error damaged(std::string_view what) const;

 private:
  explicit Database(rt::SyncFiles& files, std::string place)
      : vfs_(files), place_(std::move(place)) {}

  SqliteVfs vfs_;
  const std::string place_;
  sqlite3* handle_ = nullptr;
  int wal_frames_ = 0;
  std::map<std::string, sqlite3_stmt*, std::less<>> prepared_;
};

}  // namespace duplex::meta
