// The store: who may open a state directory, and how commits share a flush.
#include "meta/store.h"

#include <fmt/format.h>

#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

#include "base/assert.h"
#include "base/log.h"
#include "base/text.h"
#include "meta/schema.h"
#include "meta/sqlite.h"
#include "meta/tables.h"
#include "rt/clock.h"
#include "rt/task_group.h"

namespace duplex::meta {
namespace {

// A checkpoint is made when the WAL has grown by this many pages: 4 MiB.
constexpr int kCheckpointFrames = 1024;

// The WAL keeps its space between checkpoints (a full file system is then felt later), but not
// more than twice what one lap needs. A cache of 2 MiB: the daemon's whole budget is 64 MiB.
constexpr const char* kPragmas =
    "PRAGMA synchronous = FULL;"
    "PRAGMA foreign_keys = ON;"
    "PRAGMA temp_store = MEMORY;"
    "PRAGMA cache_size = -2048;"
    "PRAGMA journal_size_limit = 8388608;"
    "PRAGMA cell_size_check = ON;"
    "PRAGMA trusted_schema = OFF;";

std::string place_of(const std::string& directory) {
  return fmt::format("state directory {}", directory);
}

// Creates the directory and flushes the entries of all that were missing on the way to it.
Result<void> make_durable_directory(rt::SyncFiles& files, const std::string& directory) {
  std::vector<std::string> missing;
  for (std::string at = directory; !files.exists(at); at = parent_directory(at)) {
    missing.push_back(at);
    if (parent_directory(at) == at || parent_directory(at) == ".") break;
  }
  if (missing.empty()) return {};
  if (const int errnum = files.make_directories(directory); errnum != 0) {
    return std::unexpected(system_error(errnum, fmt::format("create {}", place_of(directory))));
  }
  for (const std::string& made : missing) {
    if (const int errnum = files.sync_directory(parent_directory(made)); errnum != 0) {
      return std::unexpected(system_error(errnum, fmt::format("flush the directory of {}", made)));
    }
  }
  return {};
}

Result<std::unique_ptr<rt::SyncFile>> take_lock(rt::SyncFiles& files,
                                                const std::string& directory) {
  int errnum = 0;
  auto file = files.open(directory + "/lock", true, &errnum);
  if (file == nullptr) {
    return std::unexpected(system_error(errnum, fmt::format("open {}/lock", directory)));
  }
  errnum = file->lock();
  if (errnum == EWOULDBLOCK) {
    return fail(Code::kBusy, fmt::format("{} is in use by another duplexd", place_of(directory)),
                "stop that one, or choose another state directory");
  }
  if (errnum != 0)
    return std::unexpected(system_error(errnum, fmt::format("lock {}/lock", directory)));
  return file;
}

// A commit that waits for its turn; lives in the coroutine of its caller.
struct Pending {
  Transaction transaction;
  Result<void> result;
  bool done = false;
};

class SqliteStore final : public Store {
 public:
  SqliteStore(rt::SyncFiles& files, rt::Executor& executor, std::string directory)
      : files_(files), executor_(executor), directory_(std::move(directory)), tasks_(executor) {}

  // On the store executor. `fresh`: the row a new store begins with.
  Result<void> start(const ArrayRow& fresh);

  rt::Task<Result<Snapshot>> load() override;
  rt::Task<Result<void>> commit(Transaction transaction) override;
  rt::Task<Result<std::vector<EventRow>>> events(uint64_t after_id, size_t limit) override;
  rt::Task<Result<void>> close() override;

 private:
  Result<void> initialise(const ArrayRow& fresh, size_t version);
  Result<void> check_owner(const ArrayRow& expected);
  Result<void> usable() const;
  Result<void> check_present() const;

  void run_queue();
  Result<void> commit_together(const std::vector<Pending*>& batch);
  Result<void> apply_alone(Pending& pending);
  Result<void> apply_all(const Transaction& transaction);
  Error roll_back(const Error& cause);

  void plan_checkpoint();
  rt::Task<> checkpoint_soon();
  void break_down(const Error& cause);

  rt::SyncFiles& files_;
  rt::Executor& executor_;
  const std::string directory_;
  std::unique_ptr<rt::SyncFile> lock_;  // released after the database is closed
  std::unique_ptr<Database> database_;  // null: closed
  std::optional<Tables> tables_;
  std::optional<Error> failure_;  // invariant 3
  std::vector<Pending*> queue_;   // in order of arrival
  int checkpoint_at_ = kCheckpointFrames;
  bool checkpoint_planned_ = false;
  rt::TaskGroup tasks_;
};

Result<void> SqliteStore::start(const ArrayRow& fresh) {
  TRY(make_durable_directory(files_, directory_));
  TRY_ASSIGN(lock_, take_lock(files_, directory_));
  TRY_ASSIGN(database_, Database::open(files_, directory_ + "/state.db", place_of(directory_)));
  tables_.emplace(*database_);

  // Exclusive before anything is read: then WAL needs no shared memory.
  TRY(database_->execute("PRAGMA locking_mode = EXCLUSIVE"));
  TRY_ASSIGN(const size_t version, stored_version(*database_, migrations().size()));
  if (version != 0) TRY(database_->check_structure());
  TRY(database_->execute("PRAGMA journal_mode = WAL"));
  TRY(database_->execute(kPragmas));
  TRY(initialise(fresh, version));
  return check_owner(fresh);
}

Result<void> SqliteStore::initialise(const ArrayRow& fresh, size_t version) {
  if (version == migrations().size()) return {};
  TRY(database_->execute("BEGIN IMMEDIATE"));
  TRY(migrate(*database_, version, migrations()));
  if (version == 0) TRY(tables_->apply(PutArray{fresh}));
  return database_->execute("COMMIT");
}

Result<void> SqliteStore::check_owner(const ArrayRow& expected) {
  TRY_ASSIGN(Statement statement, database_->prepare("SELECT id, name FROM array"));
  TRY_ASSIGN(const bool found, statement.step());
  ArrayRow stored;
  if (found) statement.read(stored.id, stored.name);
  if (!found || !statement.fits()) {
    return std::unexpected(database_->damaged("it does not say whose it is"));
  }
  if (stored.id != expected.id || stored.name != expected.name) {
    return fail(
        Code::kState,
        fmt::format("{} belongs to array {} ({}), not to {} ({})", place_of(directory_),
                    stored.name, format_id(stored.id), expected.name, format_id(expected.id)),
        "give that name and id, or choose another state directory");
  }
  return {};
}

Result<void> SqliteStore::usable() const {
  if (database_ == nullptr) return fail(Code::kShutdown, "the store is closed");
  if (failure_) return std::unexpected(*failure_);
  return {};
}

// What is written into a deleted file is gone with the process: that is not durable.
Result<void> SqliteStore::check_present() const {
  const std::string path = directory_ + "/state.db";
  if (files_.exists(path)) return {};
  return fail(Code::kSystem, fmt::format("{} is gone", path),
              "stop duplexd, then bring it back or start with --rebuild");
}

rt::Task<Result<Snapshot>> SqliteStore::load() {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(executor_);
  run_queue();
  Result<Snapshot> snapshot = fail(Code::kShutdown);
  if (auto ready = usable()) {
    snapshot = tables_->load();
  } else {
    snapshot = std::unexpected(ready.error());
  }
  co_await rt::hop(home);
  co_return snapshot;
}

rt::Task<Result<std::vector<EventRow>>> SqliteStore::events(uint64_t after_id, size_t limit) {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(executor_);
  run_queue();
  Result<std::vector<EventRow>> rows = fail(Code::kShutdown);
  if (auto ready = usable()) {
    rows = tables_->events(after_id, limit);
  } else {
    rows = std::unexpected(ready.error());
  }
  co_await rt::hop(home);
  co_return rows;
}

// Everyone queues, then lets all others who are on their way queue as well; the first to run again
// commits for all.
rt::Task<Result<void>> SqliteStore::commit(Transaction transaction) {
  rt::Executor& home = rt::Executor::current();
  Pending pending{std::move(transaction), {}};
  co_await rt::hop(executor_);
  queue_.push_back(&pending);
  co_await rt::yield();
  if (!pending.done) run_queue();
  ASSERT(pending.done);
  co_await rt::hop(home);
  co_return std::move(pending.result);
}

rt::Task<Result<void>> SqliteStore::close() {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(executor_);
  run_queue();
  co_await tasks_.close();
  Result<void> result;
  if (database_ != nullptr) {
    result = failure_ ? Result<void>(std::unexpected(*failure_)) : database_->checkpoint(true);
    tables_.reset();
    database_.reset();
    lock_.reset();
  }
  co_await rt::hop(home);
  co_return result;
}

void SqliteStore::run_queue() {
  const std::vector<Pending*> batch = std::exchange(queue_, {});
  if (batch.empty()) return;
  Result<void> outcome = usable();
  if (outcome) {
    outcome = commit_together(batch);
    if (!outcome) outcome = std::unexpected(roll_back(outcome.error()));
  }
  for (Pending* pending : batch) {
    // What a constraint refused keeps its own reason.
    if (!outcome && pending->result) pending->result = outcome;
    pending->done = true;
  }
  plan_checkpoint();
}

// Success: the transaction of each one whose result is good is durable. Failure: of none.
Result<void> SqliteStore::commit_together(const std::vector<Pending*>& batch) {
  TRY(check_present());
  TRY(database_->execute("BEGIN IMMEDIATE"));
  for (Pending* pending : batch) {
    pending->result = apply_alone(*pending);
    if (!pending->result && pending->result.error().code() != Code::kState) {
      return pending->result;
    }
  }
  return database_->execute("COMMIT");
}

// kState: undone, the others are not concerned.
Result<void> SqliteStore::apply_alone(Pending& pending) {
  TRY(database_->execute("SAVEPOINT one"));
  Result<void> applied = apply_all(pending.transaction);
  if (!applied && applied.error().code() != Code::kState) return applied;
  if (!applied) TRY(database_->execute("ROLLBACK TO one"));
  TRY(database_->execute("RELEASE one"));
  return applied;
}

Result<void> SqliteStore::apply_all(const Transaction& transaction) {
  bool events = false;
  for (const Change& change : transaction) {
    TRY(tables_->apply(change));
    events |= std::holds_alternative<AddEvent>(change);
  }
  return events ? tables_->trim_events() : Result<void>{};
}

// SQLite rolls back by itself after some errors. When it could not, or when the cause was more
// than lack of space, the state of the file is unknown: nothing is committed any more, and this
// batch is in doubt. Those that come later are not: they are not tried. Returns what to answer.
Error SqliteStore::roll_back(const Error& cause) {
  if (cause.code() == Code::kNoSpace) {
    if (!database_->in_transaction()) return cause;
    const auto undone = database_->execute("ROLLBACK");
    if (undone) return cause;
    break_down(undone.error());
  } else {
    break_down(cause);
  }
  return {Code::kInDoubt,
          fmt::format("{}; whether this was done shows at the next start", cause.message()),
          std::string(cause.next())};
}

void SqliteStore::break_down(const Error& cause) {
  if (failure_) return;
  failure_ = cause;
  log_error("{}", cause.describe());
}

// After the waiting commits have their answer.
void SqliteStore::plan_checkpoint() {
  if (failure_ || database_ == nullptr || checkpoint_planned_) return;
  const int frames = database_->wal_frames();
  if (frames < kCheckpointFrames) checkpoint_at_ = kCheckpointFrames;  // a new lap has begun
  if (frames < checkpoint_at_) return;
  checkpoint_planned_ = tasks_.spawn(checkpoint_soon());
}

rt::Task<> SqliteStore::checkpoint_soon() {
  co_await rt::yield();
  checkpoint_planned_ = false;
  if (failure_ || database_ == nullptr) co_return;
  // On a full file system the WAL goes on growing, where it still can; the next try comes one lap
  // later, not with every commit.
  checkpoint_at_ = database_->wal_frames() + kCheckpointFrames;
  const auto done = database_->checkpoint(false);
  if (!done && done.error().code() != Code::kNoSpace) break_down(done.error());
}

}  // namespace

rt::Task<Result<std::unique_ptr<Store>>> Store::open(rt::SyncFiles& files, rt::Executor& executor,
                                                     rt::Rng& rng, StoreOptions options) {
  rt::Executor& home = rt::Executor::current();
  const auto fresh_uuid = [&rng] {
    const uint64_t high = rng.next();
    return Uuid::from_random(high, rng.next());
  };
  ArrayRow fresh;
  fresh.id = options.array_id;
  fresh.name = options.array_name;
  fresh.uuid = fresh_uuid();
  fresh.incarnation = fresh_uuid();
  const uint64_t seed = rng.next();

  co_await rt::hop(executor);
  seed_sqlite(seed);
  auto store = std::make_unique<SqliteStore>(files, executor, options.directory);
  Result<void> started = store->start(fresh);
  if (!started) store.reset();  // on its own executor
  co_await rt::hop(home);
  if (!started) co_return std::unexpected(std::move(started).error());
  co_return std::unique_ptr<Store>(std::move(store));
}

}  // namespace duplex::meta
