// Window: the regions written to one leg since its last good flush, and so lost with its cache.
//
// A leg whose flush fails, or that goes away, may have lost all that no flush confirmed. What the
// window holds then becomes bits in the leg's map, or missing regions of the own backing, before
// anything else happens (traces F7, F23): so a lost cache costs the copy of a few regions and no
// divergence.
//
// Owner: the leg. Thread: the volume's core.
// Each entry holds one stretch of 4 MiB in two generations of one word. A flush takes the number
// of the generation that ends with it; what is added meanwhile belongs to the next one. A stretch
// that would need a third generation lets its newer one grow up into it: counted as written later
// than it was. So any number of flushes may overlap, the older generation still gets dropped, and
// the last flush to begin, when it succeeds, leaves nothing that had ended before it. An exact
// window keeps every generation instead, and so allocates while flushes overlap: for what is not
// in the path of each write, and where too much is as wrong as too little.
//
// Invariants:
// 1. A region whose write has ended, and which no flush that began later has confirmed, is in the
//    window. A loss takes nothing out: what a device returns after a failed flush may still be in
//    its cache alone, and a copy of it to the other side must not outlive it.
// 2. While flushes do not overlap, nothing else is in the window; in an exact one never, but for
//    what a loss has left there.
// 3. A write that was under way at a loss learns so from add(), and counts as failed.
// 4. Storage is what was needed once; entries of stretches with nothing owed are used again. Only
//    stretches that are hot owe anything, except after a loss; that bounds it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/units.h"
#include "volume/change_map.h"

namespace duplex::volume {

class Window {
 public:
  // What a write takes along from its start to its end.
  using Stamp = Tagged<struct WindowStampTag, uint64_t>;
  // What a flush takes along.
  using Token = Tagged<struct WindowTokenTag, uint64_t>;

  enum class Kind : uint8_t { kTwoGenerations, kExact };
  explicit Window(Kind kind = Kind::kTwoGenerations) : kind_(kind) {}
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  // Before the leg begins a write or zero; and when that has ended, well or not, before its range
  // lock or its use of the hot set ends. A flush covers what ended before it, hence not at the
  // start. False: there was a loss in between, perhaps of what this write left in the cache:
  // whatever its result, it counts as failed on this leg.
  Stamp stamp() const { return Stamp(losses_); }
  [[nodiscard]] bool add(ByteRange range, Stamp started);

  // Around the leg's flush. end() on success only.
  Token begin() { return Token(now_++); }
  void end(Token token) {
    if (token.value() > flushed_) flushed_ = token.value();
    std::erase_if(between_, [this](const Between& one) { return !is_owed(one.generation); });
  }
  // The flush failed, or the leg is gone: f(HotExtent, regions) for all that is owed. Flushes that
  // began before do not count any more; one that begins later may. f leaves the window alone.
  template <class F>
  void lose(F f) {
    ++losses_;
    const uint64_t before = now_++;
    for (Entry& entry : entries_) {
      const uint64_t regions = owed(entry);
      if (regions == 0) continue;
      entry.newer = {now_, regions};
      newest_ = now_;
      f(entry.stretch, regions);
    }
    between_.clear();
    flushed_ = before;
  }

  // Is a flush owed: at all, and for which regions of a stretch?
  bool owes() const { return newest_ > flushed_; }
  uint64_t word(HotExtent stretch) const;
  // f(HotExtent, regions) for all that is owed.
  template <class F>
  void each(F f) const {
    for (const Entry& entry : entries_) {
      if (const uint64_t regions = owed(entry); regions != 0) f(entry.stretch, regions);
    }
  }

  uint64_t memory_bytes() const {
    return entries_.capacity() * sizeof(Entry) + index_.capacity() * sizeof(uint32_t) +
           between_.capacity() * sizeof(Between);
  }

 private:
  struct Generation {
    uint64_t number = 0;
    uint64_t regions = 0;
  };
  struct Entry {
    HotExtent stretch;
    Generation older, newer;  // older.number < newer.number, or nothing is owed in `older`
  };
  // Of an exact window: what neither fits into the older nor may count as the newer one.
  struct Between {
    HotExtent stretch;
    Generation generation;
  };
  bool is_owed(const Generation& generation) const { return generation.number > flushed_; }
  uint64_t owed(const Entry& entry) const {
    uint64_t regions = (is_owed(entry.older) ? entry.older.regions : 0) |
                       (is_owed(entry.newer) ? entry.newer.regions : 0);
    for (const Between& one : between_) {
      if (one.stretch == entry.stretch) regions |= one.generation.regions;
    }
    return regions;
  }
  void add_word(HotExtent stretch, uint64_t regions);
  // Where the stretch stands in the index, or the free place where it would.
  size_t place(HotExtent stretch) const;
  Entry& occupy(HotExtent stretch);
  void make_room();

  const Kind kind_;
  uint64_t now_ = 1;      // generation of what is added now
  uint64_t flushed_ = 0;  // generations up to this one owe nothing
  uint64_t newest_ = 0;   // generation of the last add()
  uint64_t losses_ = 0;
  std::vector<Between> between_;  // all of them owed
  std::vector<Entry> entries_;    // at most half as many as the index has places
  std::vector<uint32_t> index_;   // a power of two of them: entry + 1, or 0
};

}  // namespace duplex::volume
