// Gate: the one point where a write gets its place in the order of cuts (docs/ARCHITECTURE.md
// "Write path").
//
// Owner: a volume. Thread: the volume's core. A write passes after its range is locked and its
// extents are ready; passing stamps the current epoch. Between try_pass() and the start of the
// last leg there is no suspension, so for whoever closes the gate a write is either inside with
// its epoch, or has not begun (trace F1). Closers are counted: the gate is open when there is
// none. Nobody who keeps it closed waits for a range lock, or both would wait for ever.
//
// Invariants:
// 1. While a Closer exists no write passes.
// 2. The epoch never falls, and changes only while the gate is closed.
// 3. A write is counted from its pass to the end of its last leg, so `drained()` under a Closer
//    means that no write of this volume is in flight.
//
// The cost for a write when open: one compare, one increment, one decrement.
#pragma once

#include <cstdint>
#include <utility>

#include "base/assert.h"
#include "base/units.h"
#include "rt/task.h"
#include "volume/list_wait.h"

namespace duplex::volume {

class Gate {
 public:
  explicit Gate(Epoch epoch) : epoch_(epoch) {}
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  bool is_open() const { return closers_ == 0; }
  // What a write that passes now is stamped with.
  Epoch epoch() const { return epoch_; }

  // A write that is inside. False when the gate was closed.
  class [[nodiscard]] Pass {
   public:
    Pass(Pass&& other) noexcept
        : gate_(std::exchange(other.gate_, nullptr)), epoch_(other.epoch_) {}
    Pass& operator=(Pass&& other) noexcept {
      ASSERT(gate_ == nullptr);
      gate_ = std::exchange(other.gate_, nullptr);
      epoch_ = other.epoch_;
      return *this;
    }
    ~Pass() {
      if (gate_ != nullptr) gate_->leave(epoch_);
    }
    explicit operator bool() const { return gate_ != nullptr; }
    Epoch epoch() const { return epoch_; }

   private:
    friend class Gate;
    Pass(Gate* gate, Epoch epoch) : gate_(gate), epoch_(epoch) {}
    Gate* gate_;
    Epoch epoch_;
  };
  // A writer tries, waits for an opening and tries again: the gate may have closed once more
  // before the writer runs.
  //   Gate::Pass pass = gate.try_pass();
  //   while (!pass) {
  //     co_await gate.opening();
  //     pass = gate.try_pass();
  //   }
  Pass try_pass() {
    if (closers_ != 0) return Pass(nullptr, epoch_);
    ++inside_;
    return Pass(this, epoch_);
  }

  ListWait opening() { return ListWait(waiting_, is_open()); }

  // Keeps the gate closed while it exists.
  class [[nodiscard]] Closer {
   public:
    Closer(Closer&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Closer& operator=(Closer&&) = delete;
    ~Closer() {
      if (gate_ != nullptr) gate_->open();
    }

   private:
    friend class Gate;
    explicit Closer(Gate& gate) : gate_(&gate) {}
    Gate* gate_;
  };
  Closer close() {
    ++closers_;
    return Closer(*this);
  }

  // The point of a cut: writes that pass from now on belong to `epoch`. The gate is closed.
  void advance(Epoch epoch);
  // Returns when no write is inside. Under a Closer: and none will be.
  rt::Task<> drained();
  // Returns when every write stamped before the current epoch has left.
  rt::Task<> old_drained();

 private:
  void leave(Epoch epoch);
  void open();

  Epoch epoch_;
  uint32_t closers_ = 0;
  uint32_t inside_ = 0;      // writes of the current epoch
  uint32_t old_inside_ = 0;  // writes of earlier epochs
  rt::WaitList waiting_;     // writers, for an opening
  rt::WaitList draining_;    // closers, for the last write to leave
};

}  // namespace duplex::volume
