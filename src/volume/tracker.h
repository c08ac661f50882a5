// Tracker: what must be copied again after a fault: change maps in memory, marks and words on disk.
//
// A volume that is source or target of a mirror has one. It owns the hot set and a number of
// change maps, knows the legs that owe a flush, and decides what may leave the disk when. What a
// region's bit means, and when one is set, is for those who own the mirrors
// (docs/ARCHITECTURE.md "Change tracking"; traces F3, F7, F13, F22, F23, F27).
//
// Owner: the volume. Thread: the volume's core.
//
// The rule everything here serves: at any instant, each region that could read differently on the
// two sides after a power cut is marked, or set in a durable word, or both. So:
// 1. While there are maps, a stretch is marked before the first write into it (use()). It cools
//    only when no write is in it, no leg owes a flush for it, and in one record with its words. A
//    leg whose flush fails has put its window into maps by then, and goes on owing.
// 2. A bit cleared in memory stays on disk while its region is being copied, and after that until
//    the leg it was copied to has flushed, and the one it was read from if that owed it ("held").
// 3. A bit that has left the disk comes back only with set() or or_word().
// 4. A stretch of a map is pending until the disk is known to hold exactly what memory does.
// 5. A crash widens maps that mean "copy away from here", never those of missing regions: of these
//    the disk is right, and a bit too many would put an old copy over a new one (trace F3).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "format/mark_batch.h"
#include "rt/executor.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "volume/change_map.h"
#include "volume/hot_set.h"
#include "volume/window.h"

namespace duplex::volume {

// Identity of a change map inside the array; never used again.
using MapId = Tagged<struct MapIdTag, uint32_t>;

// Where marks and words become durable. All calls on the volume's core. Records take effect in
// the order of the calls: a power cut leaves those before some point, whatever was acknowledged.
class MarkStore {
 public:
  virtual ~MarkStore() = default;
  // One record: all of them or none.
  virtual rt::Task<Result<void>> mark(std::span<const HotExtent> extents) = 0;
  // One record: each map named has that word, others keep theirs, and the mark is off. An error:
  // the mark still counts.
  virtual rt::Task<Result<void>> cool(HotExtent extent, std::vector<format::MapWord> words) = 0;
  // The map has these words; marks stay. An error: none, some or all may be found.
  virtual rt::Task<Result<void>> write_words(MapId map, std::vector<ChangeMap::Word> words) = 0;
};

// A leg that may owe a flush: the own backing, or a target from its first write on until its
// mirror is decided split or has left.
class Debtor {
 public:
  virtual ~Debtor() = default;
  virtual Window& window() = 0;
  // Covers every write of the leg that is in the window. Begins and ends nothing there.
  virtual rt::Task<Result<void>> flush() = 0;
  // A flush failed. Before this returns, all that Window::lose() tells is set in maps, and a target
  // has left. Called once per failed flush, so perhaps for one that has left already.
  virtual void lost(const Error& why) = 0;
};

enum class MapKind : uint8_t {
  kCopyAway,  // this side may be newer: copy away from here
  kMissing,   // only a target holds it
};

class Tracker final : private MarkSink {
 public:
  // `store` outlives it.
  Tracker(rt::Executor& home, MarkStore& store, uint64_t volume_bytes,
          size_t hot_limit = HotSet::kDefaultLimit);

  // Hot set. The write ends, and is in the windows of its legs, before the Use does.
  rt::Task<Result<HotSet::Use>> use(ByteRange range);
  bool has_maps() const { return !maps_.empty(); }
  // From now on use() fails with `why`: what it would mark, the next start might overwrite.
  void refuse_writes(Error why) { refused_ = std::move(why); }
  const std::optional<Error>& refused() const { return refused_; }
  HotSet::State state(HotExtent extent) const { return hot_.state(extent); }
  // Ends what is under way. No write, copy or flush is running any more.
  rt::Task<> close();

  // Maps; at most 255. `durable` is what the disk holds of it.
  static constexpr size_t kMaxMaps = 255;
  void add_map(MapId id, MapKind kind, ChangeMap durable);
  // No copy of its regions is under way.
  void remove_map(MapId id);
  // The two ends of the copies of its regions, before the first one; for a kMissing map `to` is
  // the own backing's. Null: nothing is owed there. The windows outlive their place here.
  void set_windows(MapId id, const Window* from, const Window* to);
  bool has_map(MapId id) const { return find(id) != nullptr; }
  const ChangeMap& map(MapId id) const { return at(id).map; }
  // Is any region set in a kMissing map? One look, for every read and write.
  bool is_anything_missing() const { return is_anything_missing_; }
  // Is a copy of any of it under way?
  bool is_copying(MapId id, ByteRange range) const;
  // Was any of it copied, and the side it was copied to has not flushed since?
  bool is_copy_owed(MapId id, ByteRange range) const;
  void set(MapId id, ByteRange range);
  void or_word(MapId id, HotExtent stretch, uint64_t regions);
  void resize(uint64_t volume_bytes);
  // Gives back storage that a large copy needed.
  void release_empty();

  // After a crash, before the first use(): `hot` are the marks the disk has. What they add to
  // maps is pending; a commit of whole() maps has to drop these marks with it.
  void mark_in_maps_at_start(std::span<const HotExtent> hot);

  // One copy of regions that are all set in a map, from the copier's lock to its end: their bits
  // are clear in memory from now on. done(): the other side has them, and they are in the window
  // of the map's leg. Without done() the bits are set again.
  class [[nodiscard]] Copy {
   public:
    Copy(Copy&& other) noexcept
        : tracker_(std::exchange(other.tracker_, nullptr)), id_(other.id_), range_(other.range_) {}
    Copy& operator=(Copy&&) = delete;
    ~Copy() {
      if (tracker_ != nullptr) tracker_->end_copy(id_, range_, false);
    }
    void done() { std::exchange(tracker_, nullptr)->end_copy(id_, range_, true); }

   private:
    friend class Tracker;
    Copy(Tracker& tracker, MapId id, ByteRange range)
        : tracker_(&tracker), id_(id), range_(range) {}
    Tracker* tracker_;
    MapId id_;
    ByteRange range_;
  };
  // `range` consists of whole regions that are set. The caller holds their lock.
  Copy begin_copy(MapId id, ByteRange range);

  // Legs.
  void add_debtor(Debtor& debtor);
  // Waits for the flushes of this tracker that are in it; what it owed then is the caller's to
  // put into maps.
  rt::Task<> remove_debtor(Debtor& debtor);
  bool has_debtor(const Debtor& debtor) const;
  // The only way to flush a leg: its window goes by the outcome, which is returned.
  rt::Task<Result<void>> flush(Debtor& debtor);

  // Words on disk. Is there anything that memory has and the disk may not?
  bool is_pending(MapId id) const { return !at(id).pending.empty(); }
  bool is_pending(MapId id, HotExtent stretch) const;
  // Has it regions that the next record may take off the disk?
  bool has_cleared(MapId id) const { return !at(id).cleared.empty(); }
  // Has it regions that are set on disk only, until a leg has flushed (rule 2)?
  bool is_held(MapId id) const;
  // Makes the pending ones of these stretches, or all pending ones, durable, as far as rule 2
  // allows it: on success the disk holds nothing older than this call.
  rt::Task<Result<void>> write_back(MapId id, std::span<const HotExtent> stretches);
  rt::Task<Result<void>> write_back(MapId id);

  // A whole map for a transaction that holds more than words. ended() belongs to it, with what
  // became of the transaction. No record of this tracker is asked for in between, whatever else the
  // caller has to look at first: it would be older on disk than the transaction, and newer here.
  struct Whole {
    MapId map;
    uint64_t flight = 0;
    std::vector<ChangeMap::Word> words;  // not 0, in order; all others are 0
  };
  // `but`: without these regions, which drop() takes out of the map once that is durable.
  Whole whole(MapId id, const ChangeMap* but = nullptr);
  void ended(const Whole& whole, bool is_durable);

  // The map is this from now on; what differs is pending. No copy of its regions is under way.
  void replace(MapId id, ChangeMap next);
  // These regions are in the map no more, and nothing holds them on disk: what the copies of them
  // were of has been overwritten. No copy of them is under way.
  void drop(MapId id, const ChangeMap& regions);

 private:
  // A record under way, and the stretches it may hold. One that has ended stays behind those
  // asked for before it that have not: what they wrote, it may have written over.
  struct Flight {
    uint64_t number;
    HotExtent first, last;
    bool has_ended = false;
  };
  struct Map {
    MapId id;
    MapKind kind;
    ChangeMap map;
    // Cleared by a copy and perhaps not yet flushed by its leg. Those that are not held any more
    // leave when their word is next asked for.
    ChangeMap cleared;
    // Region n stands for stretch n: what memory has and the disk may not.
    ChangeMap pending;
    const Window* from = nullptr;
    const Window* to = nullptr;
    std::vector<ByteRange> copying;
    std::vector<Flight> flights;  // in order of the calls to the store
  };
  struct Debt {
    Debtor* debtor;
    uint32_t flushing = 0;
  };

  // MarkSink.
  rt::Task<Result<void>> mark(std::span<const HotExtent> extents) override {
    return store_.mark(extents);
  }
  rt::Task<Result<void>> cool(HotExtent extent) override;

  Map* find(MapId id) const;
  Map& at(MapId id) const;
  Debt* find(const Debtor& debtor);
  Debtor* first_that_owes(HotExtent extent, std::span<Debtor* const> but) const;
  static uint64_t held(const Map& map, HotExtent stretch);
  uint64_t word_for_disk(Map& map, HotExtent stretch);
  void end_copy(MapId id, ByteRange range, bool is_done);
  // After each change of the map's regions.
  void changed(const Map& map);
  static bool is_missing(const Map& map) {
    return map.kind == MapKind::kMissing && !map.map.empty();
  }

  static void begin_flight(Map& map, uint64_t number, HotExtent first, HotExtent last);
  void settle(Map& map, uint64_t number, HotExtent stretch, uint64_t on_disk);
  static void end_flight(Map& map, uint64_t number);
  static rt::Task<Result<HotSet::Use>> refuse(Error why);
  rt::Task<> record_turn();
  rt::Task<Result<void>> write_words(MapId id, std::vector<ChangeMap::Word> words);

  rt::Executor& home_;
  MarkStore& store_;
  uint64_t volume_bytes_;
  std::vector<std::unique_ptr<Map>> maps_;
  bool is_anything_missing_ = false;
  std::vector<Debt> debts_;
  rt::Event flush_ended_;
  uint64_t last_flight_ = 0;
  uint32_t wholes_ = 0;  // between whole() and ended()
  rt::Event wholes_ended_;
  std::optional<Error> refused_;
  HotSet hot_;
};

}  // namespace duplex::volume
