// CutJudge: the judge of promise P3, every cut is a prefix of the write order over all its members.
// It shares no code with the array and knows nothing of mirrors: only when hosts asked, what they
// were told, what they read, and which bytes the targets hold afterwards.
//
// The order that counts is the one a host can know (traces F1, F2, F8):
//   A write is *known* from the moment of its success, or from the end of the first read that
//   returned it, whichever is earlier. Who begins a write later may depend on it.
//   A write *follows* another one of the same sector when it began after that one had ended.
//
// Rules, for the images of one cut that was asked for at a, and answered at b, all sources
// together:
//   1. No write in an image began after b.
//   2. Let t be a, or the beginning of the latest write found in any image, whichever is later.
//      What was known before t is in the images, or has been overwritten there by what follows.
//   3. All targets of one source hold the same bytes.
// A sector whose bytes may be several writes (zeroes) sets no t, and is right if one of them fits.
//
// After a loss (power cut, a device that lost its cache) nothing older is known any more: it may be
// gone. That makes the judge milder, never wrong. A cut that was answered before keeps what was
// known then: its targets were flushed.
// A volume learns of such a loss at its next flush, and what it was told until then counts as lost
// with it: NBD promises nobody more than what a flush has covered. So what is answered or read
// between a device's loss and the end of the first flush after it is not known either.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sim/oracle.h"

namespace duplex::simtest {

// What each sector of a volume holds; nullopt: bytes of nobody.
using Image = std::vector<std::optional<Tag>>;
Image image_of_bytes(std::span<const std::byte> bytes);

class CutJudge {
 public:
  using Source = size_t;  // index of a volume that is written to

  // A volume of zeroes; `sectors` long.
  Source add(std::string name, uint64_t sectors);

  // A write of whole sectors. `started` names it; times as for Oracle.
  void begin_write(Time started, Source source, uint64_t first, uint64_t count, Tag tag);
  // The same for a restore, which writes every sector at once: one tag for each.
  void begin_replace(Time started, Source source, const Image& image);
  void end_write(Time now, Source source, Time started, bool success);
  // A read that ended now has returned these bytes.
  void seen(Time now, Source source, uint64_t first, std::span<const std::byte> bytes);

  // Machines stop: what is under way ends. `power`: and nothing older is known.
  void stopped(Time now, bool power);
  // A device of the source lost its cache while the machine runs.
  void loss(Source source);
  // A flush of the source has ended that was issued when losses() was `before`. One that has failed
  // tells of a loss itself: without any device's cache a volume loses what was written to a region
  // that had come back from a target, and is read there again (Oracle::expect_told_losses()).
  uint64_t losses(Source source) const { return volumes_[source].losses; }
  void flushed(Source source, uint64_t before, bool success);

  // Nothing is under way, everything is flushed, and the source holds this: what else was ever
  // written to it is forgotten.
  void settle(Source source, const Image& image);

  // What was known when a cut was answered. Independent of everything that happens later.
  struct Cut {
    struct Member;
    Time asked = 0;
    Time answered = 0;
    std::vector<Member> members;
  };
  // `now`: the moment of the answer, or of the crash that kept it back.
  Cut freeze(Time asked, Time now, std::span<const Source> sources) const;

  // One target of a cut: its source, and what it holds.
  struct Target {
    std::string name;
    Source source = 0;
    Image image;
  };
  // The first violation, or empty. Each source of the cut has one target or more.
  static std::string judge(const Cut& cut, std::span<const Target> targets);

 private:
  static constexpr Time kNever = UINT64_MAX;
  struct Version {
    Tag tag = 0;
    Time start = 0;
    Time end = kNever;     // kNever: in flight
    Time known = kNever;   // kNever: nobody can depend on it
    bool tainted = false;  // under way at a loss: its success proves nothing
  };
  using Sector = std::vector<Version>;  // empty: zeroes since time 0, known
  struct Volume {
    std::string name;
    std::vector<Sector> sectors;
    std::vector<std::pair<Time, std::pair<uint64_t, uint64_t>>> in_flight;  // start, range
    uint64_t losses = 0;
    bool is_untold = false;  // no flush has ended that was issued after the last loss
  };
  static const Sector& opened(const Sector& sector);
  static Sector& opened(Sector& sector);
  static std::optional<Time> latest_start(const Cut& cut, std::span<const Target> targets);
  static std::string judge_sector(const Sector& sector, Tag seen, Time until);
  static const Cut::Member* member_of(const Cut& cut, Source source);
  void begin(Time started, Source source, uint64_t first, uint64_t count);

  std::vector<Volume> volumes_;
};

struct CutJudge::Cut::Member {
  Source source = 0;
  std::string name;
  std::vector<Sector> sectors;
};

}  // namespace duplex::simtest
