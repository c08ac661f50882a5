#include "meta/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/bytes.h"

namespace duplex::meta {
namespace {

// Per row type: its table, its key and its columns, and the fields in the order of the columns.
// One list serves reading and writing, so the two cannot drift apart.
template <class Row>
struct Layout;

template <>
struct Layout<ArrayRow> {
  static constexpr std::string_view kTable = "array";
  static constexpr std::string_view kKey = "one";
  static constexpr std::string_view kColumns[] = {
      "id",           "name",     "uuid",        "incarnation", "epoch",
      "last_backing", "last_job", "last_mirror", "last_cut",    "clean_stop"};
  static auto fields(auto& r, auto&& use) {
    return use(r.id, r.name, r.uuid, r.incarnation, r.epoch, r.last_backing, r.last_job,
               r.last_mirror, r.last_cut, r.clean_stop);
  }
};

template <>
struct Layout<DeviceRow> {
  static constexpr std::string_view kTable = "devices";
  static constexpr std::string_view kKey = "id";
  static constexpr std::string_view kColumns[] = {
      "id",           "uuid",       "name",      "path",        "size_bytes",    "extent_bytes",
      "extent_count", "log_offset", "log_bytes", "data_offset", "clean_extents", "log_sequence",
      "life"};
  static auto fields(auto& r, auto&& use) {
    return use(r.id, r.uuid, r.name, r.path, r.size_bytes, r.extent_bytes, r.extent_count,
               r.log_offset, r.log_bytes, r.data_offset, r.clean_extents, r.log_sequence, r.life);
  }
};

template <>
struct Layout<BackingRow> {
  static constexpr std::string_view kTable = "backings";
  static constexpr std::string_view kKey = "id";
  static constexpr std::string_view kColumns[] = {"id",         "uuid",  "name",
                                                  "size_bytes", "thick", "device"};
  static auto fields(auto& r, auto&& use) {
    return use(r.id, r.uuid, r.name, r.size_bytes, r.thick, r.device);
  }
};

template <>
struct Layout<VolumeRow> {
  static constexpr std::string_view kTable = "volumes";
  static constexpr std::string_view kKey = "number";
  static constexpr std::string_view kColumns[] = {"number",     "name",       "size_bytes",
                                                  "backing",    "content_id", "damaged",
                                                  "created_us", "consistent"};
  static auto fields(auto& r, auto&& use) {
    return use(r.number, r.name, r.size_bytes, r.backing, r.content_id, r.damaged, r.created_us,
               r.consistent);
  }
};

template <>
struct Layout<ExtentRow> {
  static constexpr std::string_view kTable = "extents";
  static constexpr std::string_view kColumns[] = {"backing", "le", "device", "pe"};
  static auto fields(auto& r, auto&& use) { return use(r.backing, r.le, r.device, r.pe); }
};

template <>
struct Layout<ScrubRow> {
  static constexpr std::string_view kTable = "scrub";
  static constexpr std::string_view kColumns[] = {"device", "pe"};
  static auto fields(auto& r, auto&& use) { return use(r.device, r.pe); }
};

template <>
struct Layout<JobRow> {
  static constexpr std::string_view kTable = "jobs";
  static constexpr std::string_view kKey = "id";
  static constexpr std::string_view kColumns[] = {
      "id",         "kind",        "target", "source",     "state",   "error",
      "bytes_done", "bytes_total", "rate",   "started_us", "ended_us"};
  static auto fields(auto& r, auto&& use) {
    return use(r.id, r.kind, r.target, r.source, r.state, r.error, r.bytes_done, r.bytes_total,
               r.rate, r.started_us, r.ended_us);
  }
};

template <>
struct Layout<MirrorRow> {
  static constexpr std::string_view kTable = "mirrors";
  static constexpr std::string_view kKey = "id";
  static constexpr std::string_view kColumns[] = {
      "id",         "name",   "source", "target",    "relation", "target_access",
      "then_state", "reason", "cut",    "created_us"};
  static auto fields(auto& r, auto&& use) {
    return use(r.id, r.name, r.source, r.target, r.relation, r.access, r.then, r.reason, r.cut,
               r.created_us);
  }
};

// Groups and cuts: their members stand in tables of their own.
template <>
struct Layout<GroupRow> {
  static constexpr std::string_view kTable = "mirror_groups";
  static constexpr std::string_view kKey = "name";
  static constexpr std::string_view kColumns[] = {"name"};
  static auto fields(auto& r, auto&& use) { return use(r.name); }
};

template <>
struct Layout<CutRow> {
  static constexpr std::string_view kTable = "cuts";
  static constexpr std::string_view kKey = "id";
  static constexpr std::string_view kColumns[] = {"id", "epoch", "wall_us", "hold_us", "state"};
  static auto fields(auto& r, auto&& use) {
    return use(r.id, r.epoch, r.wall_us, r.hold_us, r.state);
  }
};

template <>
struct Layout<MarkLogRow> {
  static constexpr std::string_view kTable = "mark_log";
  static constexpr std::string_view kKey = "one";
  static constexpr std::string_view kColumns[] = {"lap", "position", "out_1", "out_2",
                                                  "hot_position"};
  static auto fields(auto& r, auto&& use) {
    return use(r.lap, r.position, r.out_1, r.out_2, r.hot_position);
  }
};

constexpr size_t kWordBytes = 4 + 8;
constexpr size_t kExtentBytes = 4;

std::vector<std::byte> encode(const std::vector<ExtentWord>& words) {
  std::vector<std::byte> bytes(words.size() * kWordBytes);
  std::byte* at = bytes.data();
  for (const ExtentWord& word : words) {
    store_le<uint32_t>(at, word.extent);
    store_le<uint64_t>(at + 4, word.regions);
    at += kWordBytes;
  }
  return bytes;
}

// False: not what encode() makes.
bool decode(const std::vector<std::byte>& bytes, std::vector<ExtentWord>& words) {
  if (bytes.size() % kWordBytes != 0) return false;
  words.reserve(bytes.size() / kWordBytes);
  for (size_t at = 0; at < bytes.size(); at += kWordBytes) {
    const ExtentWord word{load_le<uint32_t>(&bytes[at]), load_le<uint64_t>(&bytes[at + 4])};
    if (word.regions == 0 || (at != 0 && word.extent <= words.back().extent)) return false;
    words.push_back(word);
  }
  return true;
}

std::vector<std::byte> encode(const std::vector<LogicalExtent>& extents) {
  std::vector<std::byte> bytes(extents.size() * kExtentBytes);
  for (size_t i = 0; i < extents.size(); ++i) {
    store_le<uint32_t>(&bytes[i * kExtentBytes], extents[i].value());
  }
  return bytes;
}

bool decode(const std::vector<std::byte>& bytes, std::vector<LogicalExtent>& extents) {
  if (bytes.empty() || bytes.size() % kExtentBytes != 0) return false;
  for (size_t at = 0; at < bytes.size(); at += kExtentBytes) {
    const LogicalExtent extent(load_le<uint32_t>(&bytes[at]));
    if (at != 0 && extent <= extents.back()) return false;
    extents.push_back(extent);
  }
  return true;
}

// "0: none" is NULL in the table, so that the reference to devices(id) holds.
constexpr std::string_view kNullable = "device";
constexpr bool is_nullable(std::string_view table, std::string_view column) {
  return table == Layout<BackingRow>::kTable && column == kNullable;
}

// INSERT INTO t(k, a, b) VALUES(?, ?, ?) ON CONFLICT(k) DO UPDATE SET k=excluded.k, a=excluded.a,
// ... Where there is one row only, its constant key is no field.
template <class Row>
std::string upsert_sql() {
  using L = Layout<Row>;
  std::string columns;
  std::string values;
  std::string sets;
  for (const std::string_view column : L::kColumns) {
    const std::string_view comma = columns.empty() ? "" : ", ";
    columns += fmt::format("{}{}", comma, column);
    values += fmt::format("{}{}", comma, is_nullable(L::kTable, column) ? "nullif(?, 0)" : "?");
    sets += fmt::format("{}{} = excluded.{}", comma, column, column);
  }
  if (L::kKey == "one") {
    columns += ", one";
    values += ", 1";
  }
  return fmt::format("INSERT INTO {}({}) VALUES({}) ON CONFLICT({}) DO UPDATE SET {}", L::kTable,
                     columns, values, L::kKey, sets);
}

template <class Row>
std::string select_sql(std::string_view order) {
  using L = Layout<Row>;
  std::string columns;
  for (const std::string_view column : L::kColumns) {
    if (!columns.empty()) columns += ", ";
    columns +=
        is_nullable(L::kTable, column) ? fmt::format("ifnull({}, 0)", column) : std::string(column);
  }
  return fmt::format("SELECT {} FROM {} ORDER BY {}", columns, L::kTable, order);
}

std::unexpected<Error> out_of_range(const Database& database, std::string_view table) {
  return std::unexpected(
      database.damaged(fmt::format("table {} holds a value out of its range", table)));
}

}  // namespace

template <class... Values>
Result<void> Tables::change_one(std::string_view sql, std::string_view otherwise,
                                const Values&... values) {
  TRY_ASSIGN(Statement statement, database_.prepare(sql));
  TRY(statement.bind(values...).run());
  if (database_.changes() == 0) {
    return fail(Code::kState,
                fmt::format("the change contradicts the stored state: {}", otherwise));
  }
  return {};
}

template <class Row>
Result<void> Tables::upsert(const Row& row) {
  static const std::string sql = upsert_sql<Row>();
  TRY_ASSIGN(Statement statement, database_.prepare(sql));
  Layout<Row>::fields(row, [&](const auto&... values) { statement.bind(values...); });
  return statement.run();
}

template <class Row>
Result<std::vector<Row>> Tables::select(std::string_view order) {
  TRY_ASSIGN(Statement statement, database_.prepare(select_sql<Row>(order)));
  std::vector<Row> rows;
  while (true) {
    TRY_ASSIGN(const bool found, statement.step());
    if (!found) return rows;
    Layout<Row>::fields(rows.emplace_back(), [&](auto&... values) { statement.read(values...); });
    if (!statement.fits()) return out_of_range(database_, Layout<Row>::kTable);
  }
}

Result<void> Tables::apply(const Change& change) {
  return std::visit([this](const auto& one) { return put(one); }, change);
}

Result<void> Tables::put(const PutArray& change) { return upsert(change.row); }
Result<void> Tables::put(const PutDevice& change) { return upsert(change.row); }
Result<void> Tables::put(const PutVolume& change) { return upsert(change.row); }
Result<void> Tables::put(const PutJob& change) { return upsert(change.row); }

// The highest number ever used outlives its backing.
Result<void> Tables::put(const PutBacking& change) {
  TRY(upsert(change.row));
  return change_one("UPDATE array SET last_backing = max(last_backing, ?)", "there is no array",
                    change.row.id);
}

Result<void> Tables::put(const DropDevice& change) {
  return change_one("DELETE FROM devices WHERE id = ?", "no such device", change.id);
}
Result<void> Tables::put(const DropBacking& change) {
  return change_one("DELETE FROM backings WHERE id = ?", "no such backing", change.id);
}
Result<void> Tables::put(const DropVolume& change) {
  return change_one("DELETE FROM volumes WHERE number = ?", "no such volume", change.number);
}
Result<void> Tables::put(const DropJob& change) {
  return change_one("DELETE FROM jobs WHERE id = ?", "no such job", change.id);
}
Result<void> Tables::put(const SetCleanExtents& change) {
  return change_one("UPDATE devices SET clean_extents = ?2 WHERE id = ?1", "no such device",
                    change.id, change.clean_extents);
}
Result<void> Tables::put(const SetLogSequence& change) {
  return change_one("UPDATE devices SET log_sequence = ?2 WHERE id = ?1", "no such device",
                    change.id, change.log_sequence);
}
Result<void> Tables::put(const SetLife& change) {
  return change_one("UPDATE devices SET life = ?2 WHERE id = ?1", "no such device", change.id,
                    change.life);
}

// The unique keys keep two owners apart; an extent that may hold old bytes has no owner either.
Result<void> Tables::put(const MapExtent& change) {
  const ExtentRow& row = change.row;
  return change_one(
      "INSERT INTO extents(backing, le, device, pe) SELECT ?1, ?2, ?3, ?4 "
      "WHERE NOT EXISTS(SELECT 1 FROM scrub WHERE device = ?3 AND pe = ?4)",
      "the physical extent is still to be scrubbed", row.backing, row.le, row.device, row.pe);
}

Result<void> Tables::put(const UnmapExtent& change) {
  const ExtentRow& row = change.row;
  TRY(change_one("DELETE FROM extents WHERE backing = ? AND le = ? AND device = ? AND pe = ?",
                 "the logical extent is not mapped there", row.backing, row.le, row.device,
                 row.pe));
  return change_one("INSERT INTO scrub(device, pe) VALUES(?, ?)", "nothing was added", row.device,
                    row.pe);
}

Result<void> Tables::put(const Scrubbed& change) {
  return change_one("DELETE FROM scrub WHERE device = ? AND pe = ?",
                    "the physical extent is not to be scrubbed", change.row.device, change.row.pe);
}

Result<void> Tables::put(const AddEvent& change) {
  const EventRow& row = change.row;
  // SQLite gives a NULL key the highest one plus one; the newest row is never dropped, so an id is
  // never used twice.
  return change_one(
      "INSERT INTO events(id, wall_us, severity, code, subject, text, next) VALUES(nullif(?, 0), "
      "?, ?, ?, ?, ?, ?)",
      "nothing was added", row.id, row.wall_us, row.event.severity, row.event.code,
      row.event.subject, row.event.text, row.event.next);
}

Result<void> Tables::put(const PutMirror& change) {
  TRY(upsert(change.row));
  return change_one("UPDATE array SET last_mirror = max(last_mirror, ?)", "there is no array",
                    change.row.id);
}

Result<void> Tables::put(const DropMirror& change) {
  return change_one("DELETE FROM mirrors WHERE id = ?", "no such mirror", change.id);
}

Result<void> Tables::put(const PutGroup& change) {
  TRY(upsert(change.row));
  TRY_ASSIGN(Statement old, database_.prepare("DELETE FROM group_members WHERE name = ?"));
  TRY(old.bind(change.row.name).run());
  for (const MirrorId mirror : change.row.mirrors) {
    TRY(change_one("INSERT INTO group_members(name, mirror) VALUES(?, ?)", "nothing was added",
                   change.row.name, mirror));
  }
  return {};
}

Result<void> Tables::put(const DropGroup& change) {
  return change_one("DELETE FROM mirror_groups WHERE name = ?", "no such group", change.name);
}

// Epochs are kept unsigned in signed columns, but no array will ever hand out 2^63 of them.
Result<void> Tables::put(const PutCut& change) {
  const CutRow& row = change.row;
  TRY(upsert(row));
  TRY_ASSIGN(Statement old, database_.prepare("DELETE FROM cut_members WHERE cut = ?"));
  TRY(old.bind(row.id).run());
  for (const CutMember& member : row.members) {
    TRY(change_one("INSERT INTO cut_members(cut, mirror, volume, content_id) VALUES(?, ?, ?, ?)",
                   "nothing was added", row.id, member.mirror, member.volume, member.content_id));
  }
  return change_one("UPDATE array SET last_cut = max(last_cut, ?), epoch = max(epoch, ?)",
                    "there is no array", row.id, row.epoch);
}

Result<void> Tables::put(const DropCut& change) {
  return change_one("DELETE FROM cuts WHERE id = ?", "no such cut", change.id);
}

Result<void> Tables::put(const PutMap& change) {
  const std::vector<std::byte> words = encode(change.row.words);
  return change_one(
      "INSERT INTO maps(id, position, words) VALUES(?1, ?2, ?3) ON CONFLICT(id) DO UPDATE SET "
      "position = ?2, words = ?3",
      "nothing was added", change.row.map, change.row.position, words);
}

Result<void> Tables::put(const DropMap& change) {
  return change_one("DELETE FROM maps WHERE id = ?", "no such map", change.map);
}

Result<void> Tables::put(const PutHotMarks& change) {
  const std::vector<std::byte> extents = encode(change.row.extents);
  return change_one(
      "INSERT INTO hot_marks(volume, extents) VALUES(?1, ?2) ON CONFLICT(volume) DO UPDATE SET "
      "extents = ?2",
      "nothing was added", change.row.volume, extents);
}

Result<void> Tables::put(const DropHotMarks& change) {
  return change_one("DELETE FROM hot_marks WHERE volume = ?", "no such marks", change.volume);
}

Result<void> Tables::put(const PutMarkLog& change) { return upsert(change.row); }

Result<void> Tables::trim_events() {
  TRY_ASSIGN(Statement statement,
             database_.prepare("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?"));
  return statement.bind(kEventsKept).run();
}

Result<Snapshot> Tables::load() {
  Snapshot snapshot;
  TRY_ASSIGN(const auto arrays, select<ArrayRow>("one"));
  if (arrays.size() != 1) return out_of_range(database_, "array");
  snapshot.array = arrays.front();
  TRY_ASSIGN(snapshot.devices, select<DeviceRow>("id"));
  TRY_ASSIGN(snapshot.backings, select<BackingRow>("id"));
  TRY_ASSIGN(snapshot.volumes, select<VolumeRow>("number"));
  TRY_ASSIGN(snapshot.extents, select<ExtentRow>("backing, le"));
  TRY_ASSIGN(snapshot.scrub, select<ScrubRow>("device, pe"));
  TRY_ASSIGN(snapshot.jobs, select<JobRow>("id"));
  TRY_ASSIGN(snapshot.mirrors, select<MirrorRow>("id"));
  TRY(load_members(snapshot));
  TRY(load_marks(snapshot));
  return snapshot;
}

// A member whose group or cut is not there is damage: a reference keeps them together.
Result<void> Tables::load_members(Snapshot& snapshot) {
  TRY_ASSIGN(snapshot.groups, select<GroupRow>("name"));
  TRY_ASSIGN(Statement of_groups,
             database_.prepare("SELECT name, mirror FROM group_members ORDER BY name, mirror"));
  auto group = snapshot.groups.begin();
  while (true) {
    TRY_ASSIGN(const bool found, of_groups.step());
    if (!found) break;
    std::string name;
    MirrorId mirror;
    of_groups.read(name, mirror);
    while (group != snapshot.groups.end() && group->name != name) ++group;
    if (!of_groups.fits() || group == snapshot.groups.end()) {
      return out_of_range(database_, "group_members");
    }
    group->mirrors.push_back(mirror);
  }
  TRY_ASSIGN(snapshot.cuts, select<CutRow>("id"));
  TRY_ASSIGN(Statement of_cuts,
             database_.prepare("SELECT cut, mirror, volume, content_id FROM cut_members "
                               "ORDER BY cut, mirror"));
  auto cut = snapshot.cuts.begin();
  while (true) {
    TRY_ASSIGN(const bool found, of_cuts.step());
    if (!found) return {};
    uint64_t id = 0;
    CutMember member;
    of_cuts.read(id, member.mirror, member.volume, member.content_id);
    while (cut != snapshot.cuts.end() && cut->id != id) ++cut;
    if (!of_cuts.fits() || cut == snapshot.cuts.end()) {
      return out_of_range(database_, "cut_members");
    }
    cut->members.push_back(member);
  }
}

Result<void> Tables::load_marks(Snapshot& snapshot) {
  std::vector<std::byte> bytes;
  TRY_ASSIGN(Statement maps, database_.prepare("SELECT id, position, words FROM maps ORDER BY id"));
  while (true) {
    TRY_ASSIGN(const bool found, maps.step());
    if (!found) break;
    MapRow& row = snapshot.maps.emplace_back();
    maps.read(row.map, row.position, bytes);
    if (!maps.fits() || !decode(bytes, row.words)) return out_of_range(database_, "maps");
  }
  TRY_ASSIGN(Statement marks,
             database_.prepare("SELECT volume, extents FROM hot_marks ORDER BY volume"));
  while (true) {
    TRY_ASSIGN(const bool found, marks.step());
    if (!found) break;
    HotMarksRow& row = snapshot.hot_marks.emplace_back();
    marks.read(row.volume, bytes);
    if (!marks.fits() || !decode(bytes, row.extents)) return out_of_range(database_, "hot_marks");
  }
  TRY_ASSIGN(const auto logs, select<MarkLogRow>("one"));
  if (logs.size() != 1) return out_of_range(database_, "mark_log");
  snapshot.mark_log = logs.front();
  return {};
}

Result<std::vector<EventRow>> Tables::events(uint64_t after_id, size_t limit) {
  constexpr std::string_view kNewest =
      "SELECT * FROM (SELECT id, wall_us, severity, code, subject, text, next FROM events "
      "WHERE id > ? ORDER BY id DESC LIMIT ?) ORDER BY id";
  constexpr std::string_view kFollowing =
      "SELECT id, wall_us, severity, code, subject, text, next FROM events WHERE id > ? ORDER BY "
      "id LIMIT ?";
  TRY_ASSIGN(Statement statement, database_.prepare(after_id == 0 ? kNewest : kFollowing));
  statement.bind(after_id, std::min<uint64_t>(limit, kEventsKept));
  std::vector<EventRow> rows;
  while (true) {
    TRY_ASSIGN(const bool found, statement.step());
    if (!found) return rows;
    EventRow& row = rows.emplace_back();
    uint8_t severity = 0;
    statement.read(row.id, row.wall_us, severity, row.event.code, row.event.subject, row.event.text,
                   row.event.next);
    if (!statement.fits() || severity > static_cast<uint8_t>(Severity::kError))
      return out_of_range(database_, "events");
    row.event.severity = static_cast<Severity>(severity);
  }
}

}  // namespace duplex::meta
