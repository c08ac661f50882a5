#include "meta/sqlite.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

namespace duplex::meta {

void seed_sqlite(uint64_t seed) {
  // The interface takes an int; 0 would mean "no seed".
  sqlite3_initialize();
  sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, static_cast<int>(seed >> 33 | 1), nullptr);
}

Result<bool> Statement::step() {
  if (bind_rc_ != SQLITE_OK) return std::unexpected(database_->error(bind_rc_));
  const int rc = sqlite3_step(statement_);
  if (rc == SQLITE_ROW) return true;
  if (rc == SQLITE_DONE) return false;
  return std::unexpected(database_->error(rc));
}

Result<void> Statement::run() {
  while (true) {
    TRY_ASSIGN(const bool row, step());
    if (!row) return {};
  }
}

void Statement::bind_one(std::string_view value) {
  // A null pointer would be NULL, not empty text.
  const char* text = value.data() != nullptr ? value.data() : "";
  note(
      sqlite3_bind_text64(statement_, ++bound_, text, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
}

void Statement::bind_one(const Uuid& value) {
  note(sqlite3_bind_blob64(statement_, ++bound_, value.bytes.data(), value.bytes.size(),
                           SQLITE_TRANSIENT));
}

void Statement::bind_one(const std::vector<std::byte>& value) {
  // As above; and not copied once more: it outlives the statement's use.
  const void* bytes = value.empty() ? static_cast<const void*>("") : value.data();
  note(sqlite3_bind_blob64(statement_, ++bound_, bytes, value.size(), SQLITE_STATIC));
}

void Statement::read_one(int column, std::string& value) {
  fits_ = fits_ && sqlite3_column_type(statement_, column) == SQLITE_TEXT;
  const void* text = sqlite3_column_text(statement_, column);
  const auto length = static_cast<size_t>(sqlite3_column_bytes(statement_, column));
  value.assign(text != nullptr ? static_cast<const char*>(text) : "", text != nullptr ? length : 0);
}

void Statement::read_one(int column, Uuid& value) {
  const void* blob = sqlite3_column_blob(statement_, column);
  const auto length = static_cast<size_t>(sqlite3_column_bytes(statement_, column));
  if (blob == nullptr || length != value.bytes.size()) {
    fits_ = false;
    return;
  }
  std::memcpy(value.bytes.data(), blob, length);
}

void Statement::read_one(int column, std::vector<std::byte>& value) {
  fits_ = fits_ && sqlite3_column_type(statement_, column) == SQLITE_BLOB;
  const auto* blob = static_cast<const std::byte*>(sqlite3_column_blob(statement_, column));
  const auto length = static_cast<size_t>(sqlite3_column_bytes(statement_, column));
  value.assign(blob, blob + (blob != nullptr ? length : 0));
}

Result<std::unique_ptr<Database>> Database::open(rt::SyncFiles& files, const std::string& path,
                                                 std::string place) {
  std::unique_ptr<Database> database(new Database(files, std::move(place)));
  constexpr int kFlags =
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
  const int rc = sqlite3_open_v2(path.c_str(), &database->handle_, kFlags, database->vfs_.name());
  if (rc != SQLITE_OK) return std::unexpected(database->error(rc));
  sqlite3_extended_result_codes(database->handle_, 1);
  sqlite3_db_config(database->handle_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_db_config(database->handle_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  // Both count for a database that is made now; an existing one says so itself.
  TRY(database->execute(fmt::format("PRAGMA page_size = {}", kPageBytes).c_str()));
  int reserved = kPageReservedBytes;
  sqlite3_file_control(database->handle_, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
  // Replaces SQLite's own automatic checkpoint as well.
  sqlite3_wal_hook(
      database->handle_,
      [](void* self, sqlite3*, const char*, int frames) {
        static_cast<Database*>(self)->wal_frames_ = frames;
        return SQLITE_OK;
      },
      database.get());
  return database;
}

Database::~Database() {
  for (const auto& [sql, statement] : prepared_) sqlite3_finalize(statement);
  sqlite3_close(handle_);
}

Result<void> Database::execute(const char* sql) {
  const int rc = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (rc != SQLITE_OK) return std::unexpected(error(rc));
  return {};
}

Result<int64_t> Database::query(const std::string& sql) {
  TRY_ASSIGN(Statement statement, prepare(sql));
  TRY_ASSIGN(const bool row, statement.step());
  int64_t value = 0;
  if (row) statement.read(value);
  return value;
}

Result<void> Database::check_structure() {
  TRY_ASSIGN(Statement statement, prepare("PRAGMA quick_check(1)"));
  TRY_ASSIGN(const bool row, statement.step());
  std::string finding;
  if (row) statement.read(finding);
  if (finding != "ok") return std::unexpected(damaged(finding));
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  if (const auto found = prepared_.find(sql); found != prepared_.end()) {
    return Statement(*this, found->second);
  }
  sqlite3_stmt* statement = nullptr;
  const int rc = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()),
                                    SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (rc != SQLITE_OK) return std::unexpected(error(rc));
  prepared_.emplace(sql, statement);
  return Statement(*this, statement);
}

Result<void> Database::checkpoint(bool truncate) {
  const int mode = truncate ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;
  const int rc = sqlite3_wal_checkpoint_v2(handle_, "main", mode, nullptr, nullptr);
  if (rc != SQLITE_OK) return std::unexpected(error(rc));
  return {};
}

Error Database::error(int rc) const {
  const std::string text = handle_ != nullptr ? sqlite3_errmsg(handle_) : sqlite3_errstr(rc);
  switch (rc & 0xff) {
    case SQLITE_CONSTRAINT:
      return Error(Code::kState, fmt::format("the change contradicts the stored state: {}", text));
    case SQLITE_FULL:
      return Error(Code::kNoSpace, fmt::format("{} is on a full file system", place_),
                   "free space there; the array goes on by itself");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return damaged(text);
    default:
      return Error(Code::kSystem,
                   fmt::format("the store in {} failed: {}", place_,
                               vfs_.failure().empty() ? text : vfs_.failure()),
                   "check the disk under it, then start duplexd again");
  }
}

Error Database::damaged(std::string_view what) const {
  return Error(Code::kCorrupt, fmt::format("the store in {} is damaged: {}", place_, what),
               "move it away and restore the volumes from their devices: duplexd --rebuild");
}

}  // namespace duplex::meta
