#include "meta/schema.h"

#include <fmt/format.h>

namespace duplex::meta {
namespace {

// UUIDs are 16 bytes; numbers are unsigned and kept in SQLite's signed 64 bits; times are
// microseconds since 1970 UTC.
constexpr const char* kVersion1 = R"sql(
CREATE TABLE array(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  id INTEGER NOT NULL,
  name TEXT NOT NULL,
  uuid BLOB NOT NULL CHECK(length(uuid) = 16),
  incarnation BLOB NOT NULL CHECK(length(incarnation) = 16),
  epoch INTEGER NOT NULL,
  last_backing INTEGER NOT NULL,
  last_job INTEGER NOT NULL,
  clean_stop INTEGER NOT NULL CHECK(clean_stop IN (0, 1))
) STRICT;

CREATE TABLE devices(
  id INTEGER PRIMARY KEY,
  uuid BLOB NOT NULL UNIQUE CHECK(length(uuid) = 16),
  name TEXT NOT NULL UNIQUE,
  path TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  extent_bytes INTEGER NOT NULL,
  extent_count INTEGER NOT NULL,
  log_offset INTEGER NOT NULL,
  log_bytes INTEGER NOT NULL,
  data_offset INTEGER NOT NULL,
  clean_extents INTEGER NOT NULL,
  log_sequence INTEGER NOT NULL
) STRICT;

CREATE TABLE backings(
  id INTEGER PRIMARY KEY,
  uuid BLOB NOT NULL UNIQUE CHECK(length(uuid) = 16),
  name TEXT NOT NULL UNIQUE,
  size_bytes INTEGER NOT NULL,
  thick INTEGER NOT NULL CHECK(thick IN (0, 1)),
  device INTEGER REFERENCES devices(id)
) STRICT;

CREATE TABLE volumes(
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  size_bytes INTEGER NOT NULL,
  backing INTEGER NOT NULL REFERENCES backings(id),
  content_id BLOB NOT NULL CHECK(length(content_id) = 16),
  damaged INTEGER NOT NULL CHECK(damaged IN (0, 1)),
  created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE extents(
  backing INTEGER NOT NULL REFERENCES backings(id),
  le INTEGER NOT NULL,
  device INTEGER NOT NULL REFERENCES devices(id),
  pe INTEGER NOT NULL,
  PRIMARY KEY(backing, le),
  UNIQUE(device, pe)
) STRICT, WITHOUT ROWID;

CREATE TABLE scrub(
  device INTEGER NOT NULL REFERENCES devices(id),
  pe INTEGER NOT NULL,
  PRIMARY KEY(device, pe)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs(
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  source TEXT NOT NULL,
  state TEXT NOT NULL,
  error TEXT NOT NULL,
  bytes_done INTEGER NOT NULL,
  bytes_total INTEGER NOT NULL,
  rate INTEGER NOT NULL,
  started_us INTEGER NOT NULL,
  ended_us INTEGER NOT NULL
) STRICT;

CREATE TABLE events(
  id INTEGER PRIMARY KEY,
  wall_us INTEGER NOT NULL,
  severity INTEGER NOT NULL CHECK(severity BETWEEN 0 AND 2),
  code TEXT NOT NULL,
  subject TEXT NOT NULL,
  text TEXT NOT NULL,
  next TEXT NOT NULL
) STRICT;
)sql";

// Mirrors, and what the mark log leaves in the store. Maps and hot marks are lists of fixed-size
// little-endian numbers: they are always read and written whole.
constexpr const char* kVersion2 = R"sql(
ALTER TABLE array ADD COLUMN last_mirror INTEGER NOT NULL DEFAULT 0;
ALTER TABLE array ADD COLUMN last_cut INTEGER NOT NULL DEFAULT 0;
ALTER TABLE volumes ADD COLUMN consistent INTEGER NOT NULL DEFAULT 1 CHECK(consistent IN (0, 1));

CREATE TABLE mirrors(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  source INTEGER NOT NULL REFERENCES volumes(number),
  target INTEGER NOT NULL UNIQUE REFERENCES volumes(number),
  relation INTEGER NOT NULL,
  target_access INTEGER NOT NULL,
  then_state INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  cut INTEGER NOT NULL,
  progress_bytes INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  CHECK(source <> target)
) STRICT;

CREATE TABLE mirror_groups(
  name TEXT PRIMARY KEY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE group_members(
  name TEXT NOT NULL REFERENCES mirror_groups(name) ON DELETE CASCADE,
  mirror INTEGER NOT NULL REFERENCES mirrors(id),
  PRIMARY KEY(name, mirror)
) STRICT, WITHOUT ROWID;

CREATE TABLE cuts(
  id INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  wall_us INTEGER NOT NULL,
  hold_us INTEGER NOT NULL,
  state INTEGER NOT NULL
) STRICT;

CREATE TABLE cut_members(
  cut INTEGER NOT NULL REFERENCES cuts(id) ON DELETE CASCADE,
  mirror INTEGER NOT NULL,
  volume INTEGER NOT NULL,
  content_id BLOB NOT NULL CHECK(length(content_id) = 16),
  PRIMARY KEY(cut, mirror)
) STRICT, WITHOUT ROWID;

CREATE TABLE maps(
  id INTEGER PRIMARY KEY,
  position INTEGER NOT NULL,
  words BLOB NOT NULL CHECK(length(words) % 12 = 0)
) STRICT;

CREATE TABLE hot_marks(
  volume INTEGER PRIMARY KEY,
  extents BLOB NOT NULL CHECK(length(extents) % 4 = 0)
) STRICT;

CREATE TABLE mark_log(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  lap INTEGER NOT NULL,
  position INTEGER NOT NULL,
  out_1 INTEGER NOT NULL CHECK(out_1 IN (0, 1)),
  out_2 INTEGER NOT NULL CHECK(out_2 IN (0, 1)),
  hot_position INTEGER NOT NULL
) STRICT;
INSERT INTO mark_log VALUES(1, 0, 0, 0, 0, 0);
)sql";

// The starts that used each device. Where a copy goes on is what its map says.
constexpr const char* kVersion3 = R"sql(
ALTER TABLE devices ADD COLUMN life INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mirrors DROP COLUMN progress_bytes;
)sql";

constexpr const char* kSteps[] = {kVersion1, kVersion2, kVersion3};

}  // namespace

std::span<const char* const> migrations() { return kSteps; }

Result<size_t> stored_version(Database& database, size_t newest) {
  TRY_ASSIGN(const int64_t application, database.query("PRAGMA application_id"));
  TRY_ASSIGN(const int64_t version, database.query("PRAGMA user_version"));
  TRY_ASSIGN(const int64_t objects, database.query("SELECT count(*) FROM sqlite_schema"));
  if (application == 0 && version == 0 && objects == 0) return 0;
  if (application != kApplicationId || version <= 0) {
    return fail(Code::kState, "the database in the state directory is not a store of Duplex",
                "choose another state directory");
  }
  if (static_cast<uint64_t>(version) > newest) {
    return fail(Code::kNotSupported,
                fmt::format("this state directory was written by a newer version of Duplex "
                            "(store format {}; this program knows up to {})",
                            version, newest),
                "use the duplexd that wrote it, or a newer one");
  }
  return static_cast<size_t>(version);
}

Result<void> migrate(Database& database, size_t from, std::span<const char* const> steps) {
  for (size_t version = from; version < steps.size(); ++version) {
    TRY(database.execute(steps[version]));
  }
  const std::string mark = fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {};",
                                       kApplicationId, steps.size());
  return database.execute(mark.c_str());
}

}  // namespace duplex::meta
