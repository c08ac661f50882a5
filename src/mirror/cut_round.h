// CutRound: the instant of a cut. Closes the gates of all roots, on all reactors, and when all are
// closed gives them the new epoch and opens them again: whatever passed before is in the image,
// whatever passes afterwards is not, whichever volume it went to.
//
// Nothing is drained between closing and opening, so a slow target adds nothing to the hold: a
// write that passed a gate before carries the old epoch wherever it still has to go.
//
// Owner: the verb that cuts. Thread: control core; the parts run on the reactors, one each.
// The outcome is one atomic word. The last reactor to confirm, a reactor that finds a member not
// ready, and the lease compete for it; who changes it tells all parts, and no gate opens before its
// part has heard.
//
//   a part    close arrives            the outcome arrives
//   waiting   gates close, confirms:   skipped: closes nothing any more
//             closed
//   closed    -                        cut: new epoch; gates open: ended
//   skipped   ended                    -
//
// Invariants: 1. all gates are closed at the instant at which the outcome becomes cut, so dependent
// writes cannot be on both sides in the wrong order; 2. an epoch is used once and never falls
// (trace F26); 3. every gate that was closed is opened, whatever the outcome.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/units.h"
#include "rt/task.h"
#include "rt/wait.h"
#include "rt/world.h"
#include "volume/volume_impl.h"

namespace duplex::mirror {

class CutRound {
 public:
  // The volumes of one core whose gates close, and what must be true there when they have.
  struct Roots {
    rt::Core* core = nullptr;
    std::vector<volume::VolumeImpl*> volumes;
    std::function<bool()> is_ready;  // every member on this core is still armed
  };
  // One entry for each core; a core without roots, but with members, has one as well.
  CutRound(rt::Core& control, std::vector<Roots> roots, Epoch epoch);
  ~CutRound();
  CutRound(const CutRound&) = delete;
  CutRound& operator=(const CutRound&) = delete;

  struct Outcome {
    bool is_cut = false;
    bool was_late = false;  // the lease ended first
    rt::Micros hold = 0;    // the longest time a gate was closed
  };
  // Once. No gate is closed any more when it returns; `lease` bounds how long one is.
  rt::Task<Outcome> stamp(rt::Micros lease);

 private:
  enum class Word : uint8_t { kClosing, kCut, kVoid };
  struct Part;

  void decide(Word word);
  void ended(Part& part);

  rt::Core& control_;
  const Epoch epoch_;
  std::atomic<Word> word_ = Word::kClosing;
  std::atomic<size_t> unconfirmed_;
  std::vector<std::unique_ptr<Part>> parts_;
  size_t running_;  // parts that have not ended; control core
  rt::Event all_ended_;
};

}  // namespace duplex::mirror
