#include "mirror/ledger.h"

namespace duplex::mirror {
namespace {

meta::ExtentWord for_disk(const volume::ChangeMap::Word& word) {
  return {.extent = static_cast<uint32_t>(word.stretch.value()), .regions = word.regions};
}

}  // namespace

Ledger::Row& Ledger::row_of(volume::Member& volume) {
  Row& row = rows_[volume.number()];
  row.member = &volume;
  return row;
}

void Ledger::set_consistent(volume::Member& volume, bool consistent) {
  row_of(volume).consistent = consistent;
}

void Ledger::set_content(volume::Member& volume, Uuid content) { row_of(volume).content = content; }

bool Ledger::is_consistent(const volume::Member& volume) const {
  const auto row = rows_.find(volume.number());
  if (row != rows_.end() && row->second.consistent) return *row->second.consistent;
  return volume.row().consistent;
}

Uuid Ledger::content_of(const volume::Member& volume) const {
  const auto row = rows_.find(volume.number());
  if (row != rows_.end() && row->second.content) return *row->second.content;
  return volume.row().content_id;
}

rt::Task<> Ledger::add_map(volume::Member& of, volume::MapId id, const volume::ChangeMap* but) {
  co_await rt::hop(of.core());
  volume::Tracker::Whole whole = of.tracker().whole(id, but);
  co_await rt::hop(control_);
  std::vector<meta::ExtentWord> words;
  words.reserve(whole.words.size());
  for (const volume::ChangeMap::Word& word : whole.words) words.push_back(for_disk(word));
  maps_.push_back({.map = id.value(), .words = std::move(words)});
  taken_.push_back({.member = &of, .whole = std::move(whole)});
}

void Ledger::add_map(volume::MapId id, const volume::ChangeMap& map) {
  std::vector<meta::ExtentWord> words;
  map.each_set_word([&](volume::ChangeMap::Word word) { words.push_back(for_disk(word)); });
  maps_.push_back({.map = id.value(), .words = std::move(words)});
}

void Ledger::drop_map(volume::MapId id) {
  maps_.push_back({.map = id.value(), .words = std::nullopt});
}

rt::Task<Result<void>> Ledger::commit() {
  meta::Transaction transaction;
  for (const auto& [number, row] : rows_) {
    meta::VolumeRow next = row.member->row();
    if (row.consistent) next.consistent = *row.consistent;
    if (row.content) next.content_id = *row.content;
    if (next != row.member->row()) transaction.push_back(meta::PutVolume{std::move(next)});
  }
  for (meta::Change& change : changes_) transaction.push_back(std::move(change));
  Result<void> done =
      co_await marks_.commit(std::move(transaction), std::move(maps_), std::move(dropped_));
  for (const Taken& taken : taken_) {
    co_await rt::hop(taken.member->core());
    taken.member->tracker().ended(taken.whole, done.has_value());
  }
  co_await rt::hop(control_);
  if (!done) co_return done;
  for (const auto& [number, row] : rows_) {
    const meta::VolumeRow& before = row.member->row();
    row.member->committed(row.content.value_or(before.content_id),
                          row.consistent.value_or(before.consistent));
  }
  co_return done;
}

}  // namespace duplex::mirror
