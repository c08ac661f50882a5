#include "volume/tracker.h"

#include <algorithm>

#include "base/assert.h"
#include "base/planted_bug.h"

namespace duplex::volume {
namespace {

// Words of one write_words() call: a few KiB of log.
constexpr size_t kWordsPerRecord = 256;

// Map::pending has a region for each stretch.
constexpr uint64_t pending_bytes(uint64_t volume_bytes) {
  return divide_up(volume_bytes, kHotBytes) * kRegionBytes;
}
constexpr ByteRange pending_place(HotExtent stretch) {
  return {stretch.value() * kRegionBytes, kRegionBytes};
}
// The first pending stretch from `from` on.
std::optional<HotExtent> next_pending(const ChangeMap& pending, uint64_t from) {
  const ByteRange run = pending.next_run(from * kRegionBytes, kRegionBytes);
  if (run.empty()) return std::nullopt;
  return HotExtent(run.offset / kRegionBytes);
}

}  // namespace

Tracker::Tracker(rt::Executor& home, MarkStore& store, uint64_t volume_bytes, size_t hot_limit)
    : home_(home), store_(store), volume_bytes_(volume_bytes), hot_(home, *this, hot_limit) {}

rt::Task<> Tracker::close() { return hot_.close(); }

rt::Task<Result<HotSet::Use>> Tracker::use(ByteRange range) {
  if (refused_) [[unlikely]]
    return refuse(*refused_);
  return hot_.use(range);
}

rt::Task<Result<HotSet::Use>> Tracker::refuse(Error why) {
  co_return std::unexpected(std::move(why));
}

Tracker::Map* Tracker::find(MapId id) const {
  for (const auto& map : maps_) {
    if (map->id == id) return map.get();
  }
  return nullptr;
}

Tracker::Map& Tracker::at(MapId id) const {
  Map* map = find(id);
  ASSERT(map != nullptr);
  return *map;
}

void Tracker::add_map(MapId id, MapKind kind, ChangeMap durable) {
  ASSERT(find(id) == nullptr && maps_.size() < kMaxMaps);
  ASSERT(durable.volume_bytes() <= volume_bytes_);
  durable.resize(volume_bytes_);
  maps_.push_back(std::make_unique<Map>(Map{.id = id,
                                            .kind = kind,
                                            .map = std::move(durable),
                                            .cleared = ChangeMap(volume_bytes_),
                                            .pending = ChangeMap(pending_bytes(volume_bytes_)),
                                            .copying = {},
                                            .flights = {}}));
  changed(*maps_.back());
}

void Tracker::remove_map(MapId id) {
  ASSERT(at(id).copying.empty());
  std::erase_if(maps_, [&](const auto& map) { return map->id == id; });
  is_anything_missing_ =
      std::ranges::any_of(maps_, [](const auto& map) { return is_missing(*map); });
}

void Tracker::changed(const Map& map) {
  if (map.kind != MapKind::kMissing) return;
  is_anything_missing_ =
      std::ranges::any_of(maps_, [](const auto& map) { return is_missing(*map); });
}

bool Tracker::is_copying(MapId id, ByteRange range) const {
  return std::ranges::any_of(at(id).copying, [&](ByteRange copy) { return copy.overlaps(range); });
}

bool Tracker::is_copy_owed(MapId id, ByteRange range) const {
  const Map& map = at(id);
  if (map.to == nullptr || !map.cleared.any(range)) return false;
  bool is_owed = false;
  each_word(range, [&](HotExtent stretch, uint64_t regions) {
    is_owed |= (map.cleared.word(stretch) & map.to->word(stretch) & regions) != 0;
  });
  return is_owed;
}

void Tracker::replace(MapId id, ChangeMap next) {
  Map& map = at(id);
  ASSERT(map.copying.empty());
  next.resize(volume_bytes_);
  const auto is_pending_now = [&](const ChangeMap& words) {
    words.each_set_word(
        [&](ChangeMap::Word word) { map.pending.set(pending_place(word.stretch)); });
  };
  is_pending_now(map.map);
  is_pending_now(map.cleared);
  is_pending_now(next);
  map.map = std::move(next);
  map.cleared.clear_all();
  changed(map);
}

void Tracker::drop(MapId id, const ChangeMap& regions) {
  Map& map = at(id);
  ASSERT(map.copying.empty());
  regions.each_set_word([&](ChangeMap::Word word) {
    const uint64_t set = map.map.word(word.stretch), cleared = map.cleared.word(word.stretch);
    if (((set | cleared) & word.regions) == 0) return;
    map.map.set_word(word.stretch, set & ~word.regions);
    map.cleared.set_word(word.stretch, cleared & ~word.regions);
    map.pending.set(pending_place(word.stretch));
  });
  changed(map);
}

void Tracker::set_windows(MapId id, const Window* from, const Window* to) {
  at(id).from = from;
  at(id).to = to;
}

void Tracker::set(MapId id, ByteRange range) {
  Map& map = at(id);
  if (map.map.all(range)) return;  // as most writes of a suspended mirror
  map.map.set(range);
  each_word(range, [&](HotExtent stretch, uint64_t) { map.pending.set(pending_place(stretch)); });
  changed(map);
}

void Tracker::or_word(MapId id, HotExtent stretch, uint64_t regions) {
  Map& map = at(id);
  const uint64_t before = map.map.word(stretch);
  map.map.or_word(stretch, regions);
  if (map.map.word(stretch) == before) return;
  map.pending.set(pending_place(stretch));
  changed(map);
}

void Tracker::resize(uint64_t volume_bytes) {
  ASSERT(volume_bytes >= volume_bytes_);
  volume_bytes_ = volume_bytes;
  for (auto& map : maps_) {
    map->map.resize(volume_bytes);
    map->cleared.resize(volume_bytes);
    map->pending.resize(pending_bytes(volume_bytes));
  }
}

void Tracker::release_empty() {
  for (auto& map : maps_) {
    map->map.release_empty();
    map->cleared.release_empty();
    map->pending.release_empty();
  }
}

void Tracker::mark_in_maps_at_start(std::span<const HotExtent> hot) {
  ASSERT(hot_.slots_used() == 0);
  for (auto& map : maps_) {
    if (map->kind != MapKind::kCopyAway) continue;
    for (const HotExtent extent : hot) or_word(map->id, extent, ~uint64_t{0});
  }
}

Tracker::Copy Tracker::begin_copy(MapId id, ByteRange range) {
  Map& map = at(id);
  ASSERT(!range.empty() && map.map.all(range));
  map.map.clear(range);
  ASSERT(!map.map.any(range));
  map.cleared.set(range);
  each_word(range, [&](HotExtent stretch, uint64_t) { map.pending.set(pending_place(stretch)); });
  map.copying.push_back(range);
  changed(map);
  return Copy(*this, id, range);
}

void Tracker::end_copy(MapId id, ByteRange range, bool is_done) {
  if (home_.abandoned()) return;  // the copier was destroyed by a simulated power cut
  Map& map = at(id);
  const auto copy = std::ranges::find(map.copying, range);
  ASSERT(copy != map.copying.end());
  map.copying.erase(copy);
  if (!is_done) set(id, range);
}

void Tracker::add_debtor(Debtor& debtor) {
  ASSERT(find(debtor) == nullptr);
  debts_.push_back({&debtor});
}

rt::Task<> Tracker::remove_debtor(Debtor& debtor) {
  while (find(debtor)->flushing > 0) co_await flush_ended_.wait();
  std::erase_if(debts_, [&](const Debt& debt) { return debt.debtor == &debtor; });
}

bool Tracker::has_debtor(const Debtor& debtor) const {
  return std::ranges::find(debts_, &debtor, &Debt::debtor) != debts_.end();
}

Tracker::Debt* Tracker::find(const Debtor& debtor) {
  const auto debt = std::ranges::find(debts_, &debtor, &Debt::debtor);
  return debt == debts_.end() ? nullptr : &*debt;
}

rt::Task<Result<void>> Tracker::flush(Debtor& debtor) {
  ASSERT(find(debtor) != nullptr);
  ++find(debtor)->flushing;
  const Window::Token token = debtor.window().begin();
  Result<void> flushed = co_await debtor.flush();
  if (flushed) {
    debtor.window().end(token);
  } else {
    const Window::Stamp before = debtor.window().stamp();
    debtor.lost(flushed.error());
    ASSERT(debtor.window().stamp() != before);
  }
  --find(debtor)->flushing;
  flush_ended_.pulse();
  co_return flushed;
}

// The victim of the hot set is the stretch whose last write is longest ago: most often its legs
// have been flushed since, and cooling costs the record alone.
Debtor* Tracker::first_that_owes(HotExtent extent, std::span<Debtor* const> but) const {
  for (const Debt& debt : debts_) {
    if (debt.debtor->window().word(extent) == 0) continue;
    if (std::ranges::find(but, debt.debtor) == but.end()) return debt.debtor;
  }
  return nullptr;
}

// No write is in the extent, and none begins in it until this has ended.
rt::Task<Result<void>> Tracker::cool(HotExtent extent) {
  std::vector<Debtor*> failed;  // have put their windows into maps: the words tell
  while (Debtor* debtor = first_that_owes(extent, failed)) {
    if constexpr (planted(Bug::kCoolInDebt)) break;
    if (!co_await flush(*debtor)) failed.push_back(debtor);
  }
  co_await record_turn();
  const uint64_t number = ++last_flight_;
  std::vector<format::MapWord> words;
  for (auto& map : maps_) {
    if (!is_pending(map->id, extent)) continue;
    words.push_back({map->id.value(), word_for_disk(*map, extent)});
    begin_flight(*map, number, extent, extent);
  }
  Result<void> cooled = co_await store_.cool(extent, words);
  for (const format::MapWord& word : words) {
    Map* map = find(MapId(word.map));
    if (map == nullptr) continue;
    if (cooled) settle(*map, number, extent, word.regions);
    end_flight(*map, number);
  }
  co_return cooled;
}

uint64_t Tracker::held(const Map& map, HotExtent stretch) {
  uint64_t held = 0;
  if (map.from != nullptr) held |= map.from->word(stretch);
  if (map.to != nullptr) held |= map.to->word(stretch);
  for (const ByteRange range : map.copying) {
    each_word(range, [&](HotExtent at, uint64_t regions) { held |= at == stretch ? regions : 0; });
  }
  return held & map.cleared.word(stretch);
}

bool Tracker::is_held(MapId id) const {
  const Map& map = at(id);
  bool is_any_held = false;
  map.cleared.each_set_word(
      [&](ChangeMap::Word word) { is_any_held |= held(map, word.stretch) != 0; });
  return is_any_held;
}

// Rule 2. What is not held leaves `cleared` here, the one place that hands words out: so a later
// write to such a region, which puts it into the window again, does not bring its bit back.
uint64_t Tracker::word_for_disk(Map& map, HotExtent stretch) {
  if (map.cleared.word(stretch) == 0) return map.map.word(stretch);
  if constexpr (planted(Bug::kClearedLeavesDisk)) return map.map.word(stretch);
  const uint64_t stays = held(map, stretch);
  map.cleared.set_word(stretch, stays);
  return map.map.word(stretch) | stays;
}

bool Tracker::is_pending(MapId id, HotExtent stretch) const {
  const Map& map = at(id);
  return range_fits(stretch.value(), 1, divide_up(volume_bytes_, kHotBytes)) &&
         map.pending.any(pending_place(stretch));
}

void Tracker::begin_flight(Map& map, uint64_t number, HotExtent first, HotExtent last) {
  map.flights.push_back({.number = number, .first = first, .last = last});
}

// The record `number` is durable and says `on_disk`. The stretch is no longer pending if that is
// what memory has, and no record asked for later may say otherwise.
void Tracker::settle(Map& map, uint64_t number, HotExtent stretch, uint64_t on_disk) {
  for (const Flight& flight : map.flights) {
    if (flight.number > number && flight.first <= stretch && stretch <= flight.last) return;
  }
  if (on_disk != map.map.word(stretch) || on_disk != word_for_disk(map, stretch)) return;
  map.pending.clear(pending_place(stretch));
}

void Tracker::end_flight(Map& map, uint64_t number) {
  const auto ended = std::ranges::find(map.flights, number, &Flight::number);
  ASSERT(ended != map.flights.end());
  ended->has_ended = true;
  const auto open = std::ranges::find(map.flights, false, &Flight::has_ended);
  map.flights.erase(map.flights.begin(), open);
}

rt::Task<Result<void>> Tracker::write_back(MapId id, std::span<const HotExtent> stretches) {
  while (!stretches.empty()) {
    const std::span<const HotExtent> some =
        stretches.first(std::min(stretches.size(), kWordsPerRecord));
    stretches = stretches.subspan(some.size());
    co_await record_turn();
    Map* map = find(id);
    if (map == nullptr) co_return Result<void>();  // its mirror has ended meanwhile
    std::vector<ChangeMap::Word> words;
    for (const HotExtent stretch : some) {
      if (is_pending(id, stretch)) words.push_back({stretch, word_for_disk(*map, stretch)});
    }
    if (!words.empty()) CO_TRY(co_await write_words(id, std::move(words)));
  }
  co_return Result<void>();
}

rt::Task<Result<void>> Tracker::write_back(MapId id) {
  for (uint64_t from = 0;;) {
    co_await record_turn();
    Map* map = find(id);
    if (map == nullptr) co_return Result<void>();  // its mirror has ended meanwhile
    std::vector<ChangeMap::Word> words;
    auto stretch = next_pending(map->pending, from);
    for (; stretch && words.size() < kWordsPerRecord; stretch = next_pending(map->pending, from)) {
      words.push_back({*stretch, word_for_disk(*map, *stretch)});
      from = stretch->value() + 1;
    }
    if (words.empty()) co_return Result<void>();
    CO_TRY(co_await write_words(id, std::move(words)));
  }
}

rt::Task<Result<void>> Tracker::write_words(MapId id, std::vector<ChangeMap::Word> words) {
  const uint64_t number = ++last_flight_;
  const auto [first, last] =
      std::ranges::minmax(words, {}, [](const ChangeMap::Word& word) { return word.stretch; });
  begin_flight(at(id), number, first.stretch, last.stretch);
  Result<void> written = co_await store_.write_words(id, words);
  Map* map = find(id);
  if (map == nullptr) co_return written;
  if (written) {
    for (const ChangeMap::Word& word : words) settle(*map, number, word.stretch, word.regions);
  }
  end_flight(*map, number);
  co_return written;
}

// Nothing suspends between this and the call of the store.
rt::Task<> Tracker::record_turn() {
  while (wholes_ > 0) co_await wholes_ended_.wait();
}

Tracker::Whole Tracker::whole(MapId id, const ChangeMap* but) {
  Map& map = at(id);
  ++wholes_;
  Whole whole{.map = id, .flight = ++last_flight_, .words = {}};
  for (HotExtent from(0);;) {
    const auto set = map.map.next_word(from);
    const auto cleared = map.cleared.next_word(from);
    if (!set && !cleared) break;
    const HotExtent none(~uint64_t{0});
    const HotExtent stretch =
        std::min(set ? set->stretch : none, cleared ? cleared->stretch : none);
    const uint64_t out = but != nullptr ? but->word(stretch) : 0;
    if (const uint64_t word = word_for_disk(map, stretch) & ~out; word != 0) {
      whole.words.push_back({stretch, word});
    }
    from = HotExtent(stretch.value() + 1);
  }
  begin_flight(map, whole.flight, HotExtent(0), HotExtent(~uint64_t{0}));
  return whole;
}

void Tracker::ended(const Whole& whole, bool is_durable) {
  if (--wholes_ == 0) wholes_ended_.pulse();
  Map* map = find(whole.map);
  if (map == nullptr) return;
  auto word = whole.words.begin();
  for (uint64_t from = 0; is_durable;) {
    const auto stretch = next_pending(map->pending, from);
    if (!stretch) break;
    while (word != whole.words.end() && word->stretch < *stretch) ++word;
    const bool is_named = word != whole.words.end() && word->stretch == *stretch;
    settle(*map, whole.flight, *stretch, is_named ? word->regions : 0);
    from = stretch->value() + 1;
  }
  end_flight(*map, whole.flight);
}

}  // namespace duplex::volume
