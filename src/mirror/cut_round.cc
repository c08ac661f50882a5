#include "mirror/cut_round.h"

#include <algorithm>
#include <utility>

#include "base/planted_bug.h"

namespace duplex::mirror {

// Each step is a piece of work that is posted; nothing is allocated once the round runs.
struct CutRound::Part {
  enum class State : uint8_t { kWaiting, kClosed, kSkipped };
  struct Step : rt::Work {
    Step(Run run, Part& p) : Work(run), part(p) {}
    Part& part;
  };

  Part(CutRound& r, Roots what) : round(r), roots(std::move(what)) {
    closers.reserve(roots.volumes.size());
  }
  static Part& of(rt::Work& work) { return static_cast<Step&>(work).part; }
  static void on_close(rt::Work& work) { of(work).close_gates(); }
  static void on_outcome(rt::Work& work) { of(work).hear(); }
  static void on_ended(rt::Work& work) { of(work).round.ended(of(work)); }

  void close_gates() {
    if (state == State::kSkipped) return end();
    state = State::kClosed;
    closed_at = roots.core->clock().now();
    for (volume::VolumeImpl* volume : roots.volumes) closers.push_back(volume->gate().close());
    // Looked at again with the gates closed: a member may have failed since it was armed.
    if (!roots.is_ready()) round.decide(Word::kVoid);
    const bool is_last = round.unconfirmed_.fetch_sub(1) == 1;
    if (is_last || planted(Bug::kCutAtManyPoints)) round.decide(Word::kCut);
  }
  void hear() {
    if (state == State::kWaiting) {
      state = State::kSkipped;
      return;
    }
    if (round.word_.load() == Word::kCut) {
      for (volume::VolumeImpl* volume : roots.volumes) volume->gate().advance(round.epoch_);
    }
    closers.clear();
    hold = roots.core->clock().now() - closed_at;
    end();
  }
  void end() { round.control_.post(ended); }

  CutRound& round;
  const Roots roots;
  State state = State::kWaiting;
  std::vector<volume::Gate::Closer> closers;
  rt::Micros closed_at = 0;
  rt::Micros hold = 0;
  Step close{&Part::on_close, *this};
  Step outcome{&Part::on_outcome, *this};
  Step ended{&Part::on_ended, *this};
};

CutRound::CutRound(rt::Core& control, std::vector<Roots> roots, Epoch epoch)
    : control_(control), epoch_(epoch), unconfirmed_(roots.size()), running_(roots.size()) {
  ASSERT(!roots.empty());
  for (Roots& each : roots) parts_.push_back(std::make_unique<Part>(*this, std::move(each)));
}

CutRound::~CutRound() { ASSERT(running_ == 0 || control_.abandoned()); }

rt::Task<CutRound::Outcome> CutRound::stamp(rt::Micros lease) {
  const rt::Micros until = control_.clock().now() + lease;
  for (const auto& part : parts_) {
    part->roots.core->post(part->close);
    if constexpr (planted(Bug::kCutAtManyPoints)) co_await rt::sleep_for(control_.clock(), 50);
  }
  const bool in_time = co_await all_ended_.wait_until(control_.clock(), until);
  if (!in_time) {
    decide(Word::kVoid);
    co_await all_ended_.wait();
  }
  Outcome outcome{.is_cut = word_.load() == Word::kCut};
  outcome.was_late = !outcome.is_cut && !in_time;
  for (const auto& part : parts_) outcome.hold = std::max(outcome.hold, part->hold);
  co_return outcome;
}

// Any core of the round. Everybody hears from whoever was first.
void CutRound::decide(Word word) {
  Word expected = Word::kClosing;
  if (!word_.compare_exchange_strong(expected, word)) return;
  for (const auto& part : parts_) part->roots.core->post(part->outcome);
}

void CutRound::ended(Part& /*part*/) {
  if (--running_ == 0) all_ended_.set();
}

}  // namespace duplex::mirror
