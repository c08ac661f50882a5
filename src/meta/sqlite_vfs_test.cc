#include "meta/sqlite_vfs.h"

#include <gtest/gtest.h>

#include "meta/sqlite.h"
#include "meta/test_world.h"

namespace duplex::meta {
namespace {

using test::MemoryFiles;

std::unique_ptr<Database> open_wal(MemoryFiles& files) {
  files.make_directories("/d");
  auto database = Database::open(files, "/d/db", "directory /d");
  EXPECT_TRUE(database);
  EXPECT_TRUE(
      (*database)->execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                           "PRAGMA synchronous = FULL; CREATE TABLE t(x);"));
  return *std::move(database);
}

TEST(SqliteVfs, NothingIsWrittenAfterAFailedFlush) {
  MemoryFiles files;
  const auto database = open_wal(files);
  files.faults.fail_syncs_only = true;
  files.faults.fail_at = 1;
  EXPECT_EQ(database->execute("INSERT INTO t VALUES(1)").error().code(), Code::kSystem);
  const uint64_t calls = files.calls;
  EXPECT_FALSE(database->execute("INSERT INTO t VALUES(2)"));
  EXPECT_FALSE(database->checkpoint(true));
  EXPECT_FALSE(database->execute("PRAGMA journal_mode = DELETE"));
  EXPECT_EQ(files.calls, calls);
}

TEST(SqliteVfs, LackOfSpaceChangesNothingForLaterWrites) {
  MemoryFiles files;
  const auto database = open_wal(files);
  files.faults.capacity = 0;
  EXPECT_EQ(database->execute("INSERT INTO t VALUES(1)").error().code(), Code::kNoSpace);
  files.faults.capacity = UINT64_MAX;
  EXPECT_TRUE(database->execute("INSERT INTO t VALUES(2)"));
  EXPECT_EQ(database->query("SELECT sum(x) FROM t"), 2);
}

TEST(SqliteVfs, ClosingWritesNothing) {
  MemoryFiles files;
  auto database = open_wal(files);
  ASSERT_TRUE(database->execute("INSERT INTO t VALUES(1)"));
  const uint64_t calls = files.calls;
  database.reset();
  EXPECT_EQ(files.calls, calls);
}

TEST(SqliteVfs, TwoDatabasesAtATimeDoNotMix) {
  MemoryFiles one;
  MemoryFiles two;
  const auto first = open_wal(one);
  const auto second = open_wal(two);
  ASSERT_TRUE(first->execute("INSERT INTO t VALUES(1)"));
  EXPECT_EQ(second->query("SELECT count(*) FROM t"), 0);
}

TEST(SqliteVfs, TheParentOfAPathIsItsFolder) {
  EXPECT_EQ(parent_directory("/a/b"), "/a");
  EXPECT_EQ(parent_directory("/a"), "/");
  EXPECT_EQ(parent_directory("/"), "/");
  EXPECT_EQ(parent_directory("a"), ".");
}

}  // namespace
}  // namespace duplex::meta
