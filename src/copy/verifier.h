// Verifier: reads both sides of a mirror and compares them, where they are said to be equal.
//
// Owner: the mirror, which awaits run() to its end. Thread: the core of the source, all calls.
// It goes once from the first byte to the last, a megabyte at a time, past what is a hole or has a
// bit on either side, and ends with the first difference: that suspends the mirror, and a resync
// copies it. A region that differs at first sight is read again under its range lock before
// anything is said (compare_path.cc). Regions that cannot be read are counted, not compared. Hosts
// come first as with a copy: after each step it rests as long as the step took.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "copy/copier.h"
#include "volume/tracker.h"
#include "volume/volume_impl.h"

namespace duplex::copy {

class Verifier {
 public:
  // The map of what the target's hosts have changed, if there is one; of the target's core.
  struct Target {
    volume::MapId behind;
    const volume::Tracker* tracker = nullptr;
  };
  Verifier(volume::VolumeImpl& source, volume::TargetLeg& leg, Copier::Start start, Target target);
  Verifier(const Verifier&) = delete;
  Verifier& operator=(const Verifier&) = delete;

  // Once. kDone: difference() says what was found.
  rt::Task<Copier::End> run();
  void pause();
  void resume();
  void set_rate(uint64_t rate);
  void cancel();

  Copier::State state() const { return state_; }
  Copier::Progress progress() const;
  std::optional<ByteRange> difference() const { return difference_; }
  uint64_t unread_bytes() const { return unread_bytes_; }

 private:
  rt::Task<> step(ByteRange run);
  rt::Task<bool> is_changed_there(ByteRange range);

  volume::VolumeImpl& source_;
  volume::TargetLeg& leg_;
  const Target target_;
  rt::Clock& clock_;
  Copier::State state_;
  bool is_cancelled_ = false;
  uint64_t rate_;
  uint64_t at_ = 0;
  uint64_t compared_bytes_ = 0;
  uint64_t unread_bytes_ = 0;
  std::string unread_reason_;
  std::optional<ByteRange> difference_;
  Speed speed_;
  rt::Event changed_;
};

}  // namespace duplex::copy
