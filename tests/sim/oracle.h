// Oracle: the judge of promises P1 (acknowledged and flushed is never lost) and P2 (reads are
// linearizable per sector) for one volume. It shares no code with the array.
//
// Per 512-byte sector it remembers every write ("version") that a read may still return. Every
// written sector carries a tag of its own, so a read names the write it saw; bytes that are no
// tag's image were never written here and are a violation by themselves (planted secrets are
// found this way).
//
// Rules, for a version v of a sector and an observer that starts at time s:
//   1. v is out when a write w that started after v ended is *certain* at s: answered with
//      success before s, and not at risk since.
//   2. v is out once a read that ended before s returned a version that started after v ended
//      (no going back in time).
//   3. After a power cut at c only *durable* writes are certain: answered with success before a
//      successful flush was issued, or written with FUA. What had ended by c is one unknown
//      constant from then on: the first read of one of these versions rules the others out.
//   4. When a device loses its cache without a power cut (a failed flush), 3 holds likewise, and
//      the next flush of a volume with answered, unflushed writes must fail, whatever writes with
//      FUA were told before. A flush or FUA in flight at the loss may have come before it: then
//      nothing is asked.
//   5. A write answered with an error has ended, but is never certain.
//   6. Where the array may give up what was not flushed without any cache lost
//      (expect_told_losses()), a read that shows so is right if a flush that ended after the write
//      has failed, or the next one does.
// Times are a counter that rises with every call of the workload, so ties do not exist.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace duplex::simtest {

inline constexpr uint64_t kSector = 512;

using Tag = uint64_t;  // 0: zeroes
using Time = uint64_t;

class Oracle {
 public:
  // `key`: 16 bits, part of every tag, so that data of another volume is foreign here.
  Oracle(uint16_t key, uint64_t sectors) : key_(key), sectors_(sectors) {}

  struct WriteKind {
    bool zero = false;  // zeroes instead of tags
    bool fua = false;
  };
  // A write of whole sectors is about to be issued.
  uint32_t begin_write(Time now, uint64_t first, uint64_t count, WriteKind kind);
  // The same for a restore, which writes every sector at once, durably when it is answered with
  // success: one tag for each, of any volume. Ends with end_write().
  uint32_t begin_replace(Time now, std::span<const std::optional<Tag>> tags);
  // Nobody asks anything: the volume holds exactly this, durably. What was there before is
  // forgotten.
  void rebase(std::span<const std::optional<Tag>> tags);
  // The bytes of the whole write.
  void fill(uint32_t write, std::span<std::byte> out) const;
  Tag tag_of_write(uint32_t write) const { return tag_for(write, in_flight_.at(write).kind.zero); }
  // The reply came. A write whose connection is gone is not ended: it
  // may still land until the machine stops. Replies of requests that a crash cut off are ignored.
  void end_write(Time now, uint32_t write, bool success);

  void begin_flush(Time now) { flushes_.push_back(now); }
  void end_flush(Time now, Time issued, bool success);

  void begin_read(Time now) { reads_.push_back(now); }
  // `bytes` of the sectors from `first` on; empty when the read failed.
  void end_read(Time now, Time started, uint64_t first, std::span<const std::byte> bytes);

  void power_cut(Time now);
  void killed(Time now);
  // Rule 4, told by whoever injected the fault. `only_device`: all data of the volume was on the
  // device that lost its cache.
  void cache_lost(Time now, bool only_device);

  // From now on what is not flushed may be lost without a word from whoever injects faults: a
  // device that was away counts as one that has lost its cache, with what is written until it has
  // flushed.
  void expect_losses() { expects_losses_ = true; }

  // From now on a flush may fail for another reason than a lost cache, and what it did not cover is
  // then given up: rule 6.
  void expect_told_losses() { expects_told_losses_ = true; }

  // The first violation, or empty.
  const std::string& violation() const { return violation_; }
  uint64_t sectors() const { return sectors_.size(); }

  static void image_of(Tag tag, uint64_t sector, std::span<std::byte> out);
  // nullopt when the bytes are no tag's image at this sector.
  static std::optional<Tag> tag_of(std::span<const std::byte> bytes, uint64_t sector);

 private:
  static constexpr Time kNever = UINT64_MAX;
  struct Version {
    Tag tag = 0;
    Time start = 0;
    Time end = kNever;     // kNever: in flight
    bool success = false;  // answered with success and not at risk since
    bool durable = false;
    Time out_since = kNever;  // rule 2
  };
  struct Write {
    uint64_t first;
    uint64_t count;
    Time start;
    Time end;
    WriteKind kind;
    bool tainted;                // in flight when a cache was lost: its success is not certain
    bool maybe_durable = false;  // a flush or FUA that ended after it may have covered it
  };
  using Sector = std::vector<Version>;  // empty: one durable version of zeroes since time 0

  static Sector& opened(Sector& sector);
  Tag tag_for(uint32_t write, bool zero) const;
  void prune(Sector& sector) const;
  static Time settled(const Sector& sector, Time started);
  static bool allowed(const Version& v, Time started, Time settled);
  void observe(Sector& sector, size_t seen, Time now);
  void lose_unflushed(Time now, bool power);
  bool is_unflushed(uint64_t sector) const;
  bool may_be_flushing() const;
  void note_flush();
  void violate(std::string text);
  std::string describe(const Sector& sector) const;

  uint16_t key_;
  uint32_t next_write_ = 1;
  std::vector<Sector> sectors_;
  std::unordered_map<uint32_t, Write> in_flight_;
  std::vector<Write> unflushed_;  // answered with success, not yet durable
  std::vector<Time> flushes_;     // issued, not yet answered
  std::vector<Time> reads_;       // issued, not yet answered
  Time last_loss_ = 0;            // rules 3 and 4
  bool loss_was_power_ = true;
  bool flush_must_fail_ = false;
  bool expects_losses_ = false;
  bool expects_told_losses_ = false;
  std::string violation_;
};

}  // namespace duplex::simtest
