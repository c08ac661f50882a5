// Verifier: reads both sides of a mirror and compares them, where they are said to be equal.
//
// Owner: the mirror, which awaits run() each time it was called. Thread: the core of the source,
// all calls. It goes once from the first byte to the last, a megabyte at a time, past what is a
// hole or has a bit on either side. A region that differs at first sight is read again under its
// range lock before anything is said (volume/compare_path.cc); one that the source can read and the
// target cannot differs, too: the target is not what it should be, and a copy writes it again. But
// not when the target's device is away: what it holds nobody knows. What the source cannot read is
// counted, not compared. Hosts come first as with a copy: after each step it rests as long as the
// step took.
//
// What is found is not kept back until the end, which on a large volume is hours away: until then
// splits would certify a copy that is known to be wrong. Nor does the verify end there, or a resync
// would copy one region, call the mirror equal, and the next verify find the next one. So run()
// returns kFound for the first difference, and for each in a mirror that counts as equal. Its owner
// tells of it, suspends the mirror with bits for unmarked(), and calls run() again, which goes on
// to the end. In every other state the region gets its bit under the lock under which it was found,
// so no accusation is held over time: a resync copies what has a bit by then, beside the verify or
// behind it; a write or copy after the bit was set ends the difference as any other; a cut or a
// restore finds the bits. Regions with a bit are passed over, so nothing is found twice.
//
// Bits become durable with kFound, every kWriteTime, and when run() returns.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "copy/copier.h"
#include "volume/tracker.h"
#include "volume/volume_impl.h"

namespace duplex::copy {

class Verifier {
 public:
  static constexpr rt::Micros kWriteTime = 5 * rt::kSecond;

  struct Target {
    // The map of what the target's hosts have changed, if there is one; of the target's core.
    volume::MapId behind;
    const volume::Tracker* tracker = nullptr;
    // Is its device there? Called and answered on the core of the source. Null: it is.
    std::function<rt::Task<bool>()> is_attached = nullptr;
  };
  enum class End : uint8_t {
    kDone,
    kFound,  // not at the end: something was found of which the mirror has to hear now
    kCancelled,
  };
  Verifier(volume::VolumeImpl& source, volume::TargetLeg& leg, volume::Tracker& tracker,
           Copier::Start start, Target target);
  Verifier(const Verifier&) = delete;
  Verifier& operator=(const Verifier&) = delete;

  rt::Task<End> run();
  void pause();
  void resume();
  void set_rate(uint64_t rate);
  void cancel();

  Copier::State state() const { return state_; }
  Copier::Progress progress() const;
  // All that was found, wherever its bit went.
  struct Found {
    uint64_t regions = 0;
    uint64_t bytes = 0;
    uint64_t first = 0;             // offset
    uint64_t unreadable_bytes = 0;  // of the target
    std::string text() const;       // "3 regions (196608 bytes), the first at 0"
  };
  const Found& found() const { return found_; }
  // Those of them that have no bit yet. After kFound the caller sees to it, or asks again.
  const volume::ChangeMap& unmarked() const { return unmarked_; }
  void have_bits() { unmarked_.clear_all(); }
  uint64_t unread_bytes() const { return unread_bytes_; }

 private:
  rt::Task<> step(ByteRange run);
  rt::Task<> accuse(ByteRange region);
  rt::Task<bool> counts(volume::VolumeImpl::Difference difference);
  rt::Task<> write_bits();
  void could_not_read(ByteRange run, std::string_view why);

  volume::VolumeImpl& source_;
  volume::TargetLeg& leg_;
  volume::Tracker& tracker_;
  const Target target_;
  rt::Clock& clock_;
  Copier::State state_;
  bool is_cancelled_ = false;
  uint64_t rate_;
  uint64_t at_ = 0;
  uint64_t compared_bytes_ = 0;
  uint64_t unread_bytes_ = 0;
  std::string unread_reason_;
  Found found_;
  bool is_told_ = false;
  volume::ChangeMap unmarked_;
  bool owes_words_ = false;
  rt::Micros words_at_;
  Speed speed_;
  rt::Event changed_;
};

}  // namespace duplex::copy
