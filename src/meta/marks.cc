#include "meta/marks.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/assert.h"
#include "base/log.h"

namespace duplex::meta {
namespace {

using format::MapWord;
using format::MarkBatch;
using format::MarkRecord;

// Invariant 5.
constexpr uint64_t kNewerThanAll = UINT64_MAX;

// 64 TiB of extents with changes: a row of 192 MiB.
constexpr size_t kMaxMapWords = size_t{1} << 24;

void set_word(std::vector<ExtentWord>& words, uint32_t extent, uint64_t regions) {
  const auto at = std::ranges::lower_bound(words, extent, {}, &ExtentWord::extent);
  if (at != words.end() && at->extent == extent) {
    at->regions = regions;
  } else if (regions != 0) {
    words.insert(at, {extent, regions});
  }
}

bool in_order(const std::vector<ExtentWord>& words) {
  return std::ranges::adjacent_find(words, [](const ExtentWord& a, const ExtentWord& b) {
           return a.extent >= b.extent;
         }) == words.end();
}

void erase_zeroes(std::vector<ExtentWord>& words) {
  std::erase_if(words, [](const ExtentWord& word) { return word.regions == 0; });
}

MarkLogRow row_of(const MarkLogState& state, uint64_t hot_position) {
  return {state.lap, state.position, state.out[0], state.out[1], hot_position};
}

}  // namespace

// --- start

rt::Task<Result<Marks::Opened>> Marks::open(rt::SyncFiles& files, rt::Executor& executor,
                                            rt::Rng& rng, Store& store, const Snapshot& snapshot,
                                            MarkLogOptions options) {
  rt::Executor& home = rt::Executor::current();
  std::unique_ptr<Marks> marks(new Marks(executor, store));
  const MarkLogRow& row = snapshot.mark_log;
  auto log =
      co_await MarkLog::open(files, executor, rng, *marks,
                             {row.lap, row.position, {row.out_1, row.out_2}}, std::move(options));
  co_await rt::hop(executor);
  auto found = co_await marks->start(snapshot, std::move(log));
  co_await rt::hop(home);
  if (!found) co_return std::unexpected(std::move(found).error());
  co_return Opened{std::move(marks), *std::move(found)};
}

rt::Task<Result<Marks::Found>> Marks::start(const Snapshot& snapshot, MarkLog::Opened opened) {
  log_ = std::move(opened.log);
  load(snapshot);
  replay(opened.batches);
  verdict_pending_ = !opened.trusted;
  if (row_.lap != 0 && opened.trusted) CO_TRY(co_await begin());
  co_return found(opened.trusted);
}

void Marks::load(const Snapshot& snapshot) {
  row_ = snapshot.mark_log;
  position_ = row_.position;
  for (const HotMarksRow& row : snapshot.hot_marks) {
    hot_[row.volume] = {{row.extents.begin(), row.extents.end()}, false, true};
  }
  for (const MapRow& row : snapshot.maps) maps_[row.map] = {row.words, row.position, false};
}

void Marks::replay(const std::vector<MarkBatch>& batches) {
  for (const MarkBatch& batch : batches) {
    position_ = batch.position;
    for (const MarkRecord& record : batch.records) {
      if (batch.position > row_.hot_position) apply_mark(record);
      apply_words(record, batch.position);
    }
  }
}

Marks::Found Marks::found(bool trusted) const {
  Found found{{}, {}, trusted};
  for (const auto& [volume, hot] : hot_) {
    if (hot.extents.empty()) continue;
    found.hot.push_back({volume, {hot.extents.begin(), hot.extents.end()}});
  }
  for (const auto& [id, map] : maps_) {
    erase_zeroes(found.maps.emplace_back(MapRow{id, map.position, map.words}).words);
  }
  return found;
}

void Marks::apply_mark(const MarkRecord& record) {
  if (record.kind == MarkRecord::Kind::kWords) return;
  Hot& hot = hot_[record.volume];
  const bool is_hot = record.kind == MarkRecord::Kind::kHot;
  const bool changed =
      is_hot ? hot.extents.insert(record.extent).second : hot.extents.erase(record.extent) != 0;
  hot.changed |= changed;
}

void Marks::apply_words(const MarkRecord& record, uint64_t position) {
  for (const MapWord& word : record.words) {
    const auto map = maps_.find(word.map);
    if (map == maps_.end() || position <= map->second.position) continue;  // invariant 2
    set_word(map->second.words, record.extent.value(), word.regions);
    map->second.changed = true;
  }
}

// --- records

// The log's first lap of this life.
rt::Task<Result<void>> Marks::begin() {
  if (begun_) co_return Result<void>{};
  const auto held = co_await begin_turn_.lock();
  if (begun_) co_return Result<void>{};
  ASSERT(!verdict_pending_);
  auto done = co_await log_->checkpoint();
  begun_ = done.has_value();
  if (!done && done.error().code() != Code::kNoSpace) failed_ = true;
  co_return done;
}

// In as few batches as hold them, in order.
rt::Task<Result<void>> Marks::append(std::vector<MarkRecord> records) {
  if (records.empty()) co_return Result<void>{};
  CO_TRY(co_await begin());
  for (auto next = records.begin(); next != records.end();) {
    std::vector<MarkRecord> batch;
    size_t bytes = 0;
    for (; next != records.end(); ++next) {
      bytes += format::mark_record_bytes(*next);
      if (format::mark_batch_bytes(bytes) > MarkLog::kMaxBatchBytes) break;
      batch.push_back(std::move(*next));
    }
    const auto done = co_await log_->append(std::move(batch));
    if (done) continue;
    if (done.error().code() != Code::kNoSpace) failed_ = true;
    co_return std::unexpected(done.error());
  }
  co_return Result<void>{};
}

// As append(), behind the commits that came before.
rt::Task<Result<void>> Marks::append_words(std::vector<MarkRecord> records) {
  co_await order_.acquire(1);
  auto done = co_await append(std::move(records));
  order_.release(1);
  co_return done;
}

rt::Task<Result<void>> Marks::mark(std::span<const MarkedExtent> extents) {
  rt::Executor& home = rt::Executor::current();
  std::vector<MarkRecord> records;
  for (const MarkedExtent& marked : extents) {
    records.push_back({MarkRecord::Kind::kHot, marked.volume, marked.extent, {}});
  }
  co_await rt::hop(executor_);
  auto done = co_await append(std::move(records));
  co_await rt::hop(home);
  co_return done;
}

rt::Task<Result<void>> Marks::cool(VolumeNumber volume, LogicalExtent extent,
                                   std::vector<MapWord> words) {
  rt::Executor& home = rt::Executor::current();
  std::vector<MarkRecord> records;
  while (words.size() > format::kMaxMarkWords) {
    const auto rest = words.end() - format::kMaxMarkWords;
    records.push_back({MarkRecord::Kind::kWords, {}, extent, {rest, words.end()}});
    words.erase(rest, words.end());
  }
  // The mark last: until all words are there, it stands for them.
  records.push_back({MarkRecord::Kind::kCool, volume, extent, std::move(words)});
  co_await rt::hop(executor_);
  const bool had_failed = failed();
  auto done = co_await append_words(std::move(records));
  if (!done && !had_failed && done.error().code() != Code::kNoSpace) done = {};
  co_await rt::hop(home);
  co_return done;
}

rt::Task<Result<void>> Marks::write_words(uint32_t map, std::vector<ExtentWord> words) {
  rt::Executor& home = rt::Executor::current();
  std::vector<MarkRecord> records;
  for (const ExtentWord& word : words) {
    records.push_back(
        {MarkRecord::Kind::kWords, {}, LogicalExtent(word.extent), {{map, word.regions}}});
  }
  co_await rt::hop(executor_);
  auto done = co_await append_words(std::move(records));
  co_await rt::hop(home);
  co_return done;
}

// --- the store

rt::Task<Result<void>> Marks::commit(Transaction transaction, std::vector<WholeMap> maps,
                                     std::vector<VolumeNumber> dropped) {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(executor_);
  co_await order_.acquire(UINT32_MAX);
  auto done = co_await commit_here(std::move(transaction), std::move(maps), std::move(dropped));
  order_.release(UINT32_MAX);
  co_await rt::hop(home);
  co_return done;
}

// Nobody writes words meanwhile; marks of other volumes go on, behind `position` in the log.
rt::Task<Result<void>> Marks::commit_here(Transaction transaction, std::vector<WholeMap> maps,
                                          std::vector<VolumeNumber> dropped) {
  const auto held = co_await store_turn_.lock();
  CO_TRY(check_maps(maps));
  const uint64_t position = included();
  Taken taken;
  MarkLogRow row = row_;
  if (!dropped.empty()) {
    take_hot(taken, dropped);
    row.hot_position = position;
  }
  for (WholeMap& whole : maps) {
    if (!whole.words) {
      transaction.push_back(DropMap{whole.map});
      continue;
    }
    erase_zeroes(*whole.words);
    transaction.push_back(PutMap{{whole.map, position, *whole.words}});
  }
  CO_TRY(co_await store(std::move(taken), std::move(transaction), row));
  for (const VolumeNumber volume : dropped) hot_.erase(volume);
  for (WholeMap& whole : maps) {
    if (whole.words) {
      maps_[whole.map] = {*std::move(whole.words), position, false};
    } else {
      maps_.erase(whole.map);
    }
  }
  verdict_pending_ = false;
  co_return Result<void>{};
}

// The position up to which records are in the shadow; invariant 5.
uint64_t Marks::included() const { return begun_ && !failed() ? position_ : kNewerThanAll; }

Result<void> Marks::check_maps(const std::vector<WholeMap>& maps) const {
  for (const WholeMap& whole : maps) {
    if (!whole.words) {
      if (!maps_.contains(whole.map)) {
        return fail(Code::kState, fmt::format("there is no change map {}", whole.map));
      }
      continue;
    }
    ASSERT(in_order(*whole.words));
    if (whole.words->size() > kMaxMapWords) {
      return fail(Code::kNotSupported, "a change map of more than 64 TiB",
                  "use smaller volumes, or several");
    }
  }
  return {};
}

// All marks that are not in the store yet, without those of volumes that are dropped.
void Marks::take_hot(Taken& taken, const std::vector<VolumeNumber>& dropped) {
  for (auto& [volume, hot] : hot_) {
    const bool is_dropped = std::ranges::find(dropped, volume) != dropped.end();
    if (!hot.changed && !is_dropped) continue;
    const bool has_row = !hot.extents.empty() && !is_dropped;
    if (has_row) {
      taken.rows.push_back(PutHotMarks{{volume, {hot.extents.begin(), hot.extents.end()}}});
    } else if (hot.stored) {
      taken.rows.push_back(DropHotMarks{volume});
    }
    hot.changed = false;
    taken.hot[volume] = has_row;
  }
}

void Marks::take_maps(Taken& taken, uint64_t position) {
  for (auto& [id, map] : maps_) {
    if (!map.changed && map.position <= position) continue;
    erase_zeroes(map.words);
    taken.rows.push_back(PutMap{{id, position, map.words}});
    map.changed = false;
    taken.maps.push_back(id);
  }
}

// One transaction: what was taken, the others, and the row of the log. The shadow knows what has
// a row when it succeeds, and that it is still to be written when it fails.
rt::Task<Result<void>> Marks::store(Taken taken, Transaction others, MarkLogRow row) {
  Transaction all = std::move(taken.rows);
  std::ranges::move(others, std::back_inserter(all));
  if (row != row_) all.push_back(PutMarkLog{row});
  const auto done = co_await store_.commit(std::move(all));
  for (const auto& [volume, has_row] : taken.hot) {
    if (done) {
      hot_[volume].stored = has_row;
    } else {
      hot_[volume].changed = true;
    }
  }
  for (const uint32_t id : taken.maps) {
    if (!done) maps_[id].changed = true;
  }
  if (done) row_ = row;
  co_return done;
}

// The log stands still meanwhile: no batch becomes durable.
rt::Task<Result<void>> Marks::checkpoint(MarkLogState state) {
  const auto held = co_await store_turn_.lock();
  Taken taken;
  take_hot(taken, {});
  take_maps(taken, state.position);
  const std::vector<uint32_t> maps = taken.maps;
  CO_TRY(co_await store(std::move(taken), {}, row_of(state, state.position)));
  for (const uint32_t id : maps) maps_[id].position = state.position;
  position_ = state.position;
  co_return Result<void>{};
}

rt::Task<Result<void>> Marks::record_out(MarkLogState state) {
  const auto held = co_await store_turn_.lock();
  co_return co_await store({}, {}, row_of(state, row_.hot_position));
}

void Marks::appended(std::span<const MarkRecord> records, uint64_t position) {
  position_ = position;
  for (const MarkRecord& record : records) {
    apply_mark(record);
    apply_words(record, position);
  }
}

}  // namespace duplex::meta
