#include "volume/hot_set.h"

#include "base/assert.h"
#include "base/planted_bug.h"

namespace duplex::volume {

HotSet::HotSet(rt::Executor& home, MarkSink& sink, size_t limit)
    : home_(home), sink_(sink), slots_(limit), cooling_(home) {
  ASSERT(limit >= kMaxPerRequest && limit < kNone);
  where_.reserve(limit);
  free_.reserve(limit);
  for (size_t i = limit; i > 0; --i) free_.push_back(static_cast<SlotIndex>(i - 1));
}

rt::Task<Result<HotSet::Use>> HotSet::use(ByteRange range) {
  ASSERT(!range.empty());
  const uint64_t first = range.offset / kHotBytes;
  const size_t count = (range.end() - 1) / kHotBytes - first + 1;
  ASSERT(count <= kMaxPerRequest);
  Request request(*this, first, count);
  co_await request;
  if (!request.outcome) co_return std::unexpected(std::move(request.outcome).error());
  Use admitted(*this, first, count);
  // One that passed runs, also when an extent was closed between its admission and this line.
  if (request.is_waited_for) {
    CO_TRY(co_await become_hot(first, count, request.marks));
  }
  co_return admitted;
}

// For an admitted request: marks what it has to, and waits for what others are marking. The
// extents count as waited for until this returns.
rt::Task<Result<void>> HotSet::become_hot(uint64_t first, size_t count, uint32_t marks) {
  Result<void> marked;
  for (;;) {
    if (marks != 0) {
      std::array<HotExtent, kMaxPerRequest> extents;
      size_t n = 0;
      for (size_t i = 0; i < count; ++i) {
        if ((marks >> i & 1) != 0) extents[n++] = HotExtent(first + i);
      }
      if constexpr (!planted(Bug::kWriteBeforeMark))
        marked = co_await sink_.mark(std::span(extents).first(n));
      for (size_t i = 0; i < n; ++i) {
        find(extents[i].value())->state = marked ? State::kHot : State::kCold;
      }
      changes_.wake_all();
    }
    if (!marked || all_hot(first, count)) break;
    // What another request failed to mark is this one's to mark.
    marks = take_cold(first, count);
    if (marks == 0) co_await ListWait(changes_);
  }
  for (size_t i = 0; i < count; ++i) --find(first + i)->waiting;
  serve();
  co_return marked;
}

// COLD -> MARKING for all of them that are COLD and occupy a slot already.
uint32_t HotSet::take_cold(uint64_t first, size_t count) {
  uint32_t marks = 0;
  for (size_t i = 0; i < count; ++i) {
    Slot& slot = *find(first + i);
    if (slot.state != State::kCold) continue;
    slot.state = State::kMarking;
    marks |= uint32_t{1} << i;
  }
  return marks;
}

bool HotSet::all_hot(uint64_t first, size_t count) const {
  for (size_t i = 0; i < count; ++i) {
    const Slot* slot = find(first + i);
    if (slot == nullptr || slot->state != State::kHot) return false;
  }
  return true;
}

void HotSet::end(uint64_t first, size_t count) {
  if (home_.abandoned()) return;  // the holder was destroyed by a simulated power cut
  for (size_t i = 0; i < count; ++i) {
    Slot& slot = *find(first + i);
    if (--slot.users > 0) continue;
    if (slot.state == State::kCooling) start_cooling(slot);
    if (slot.state == State::kCold) vacate(slot);
  }
  serve();
}

void HotSet::serve() {
  bool head_waits = false;
  for (rt::Waiter* at = queue_.front(); at != nullptr;) {
    auto& request = static_cast<Request&>(*at);
    at = at->after;
    if (try_pass(request)) continue;
    if (!head_waits && !try_take(request)) head_waits = true;
  }
}

bool HotSet::try_pass(Request& request) {
  if (!all_hot(request.first, request.count)) return false;
  for (size_t i = 0; i < request.count; ++i) {
    Slot& slot = *find(request.first + i);
    ++slot.users;
    unlink(slot);
    link_newest(slot);
  }
  remove_from_queue(request);
  return true;
}

// All extents at once, or nothing but a call for room.
bool HotSet::try_take(Request& request) {
  size_t needed = 0;
  for (size_t i = 0; i < request.count; ++i) {
    const Slot* slot = find(request.first + i);
    if (slot == nullptr) ++needed;
    if (slot != nullptr && slot->state == State::kCooling) return false;
  }
  if (needed > free_.size()) {
    make_room(request, needed);
    return false;
  }
  for (size_t i = 0; i < request.count; ++i) {
    Slot* slot = find(request.first + i);
    if (slot == nullptr) {
      slot = &occupy(request.first + i);
    } else {
      unlink(*slot);
    }
    ++slot->users;
    ++slot->waiting;
    link_newest(*slot);
  }
  request.is_waited_for = true;
  request.marks = take_cold(request.first, request.count);
  remove_from_queue(request);
  return true;
}

// Closes as many victims as the head lacks beyond what is cooling already.
void HotSet::make_room(const Request& head, size_t needed) {
  size_t coming = free_.size();
  for (const Slot& slot : slots_) coming += slot.state == State::kCooling;
  for (SlotIndex at = oldest_; at != kNone && coming < needed;) {
    Slot& slot = slots_[at];
    at = slot.newer;
    const uint64_t extent = slot.extent.value();
    const bool is_own = extent >= head.first && extent - head.first < head.count;
    if (slot.state != State::kHot || slot.waiting > 0 || is_own) continue;
    slot.state = State::kCooling;
    ++coming;
    if (slot.users == 0) start_cooling(slot);
  }
}

void HotSet::remove_from_queue(Request& request) {
  queue_.remove(request);
  if (request.is_suspended) request.home.post(request);
}

void HotSet::start_cooling(Slot& slot) { cooling_.spawn(cool(index_of(slot))); }

rt::Task<> HotSet::cool(SlotIndex index) {
  co_await rt::yield();  // serve() is on the stack
  Slot& slot = slots_[index];
  ASSERT(slot.state == State::kCooling && slot.users == 0);
  const Result<void> cooled = co_await sink_.cool(slot.extent);
  if (cooled) {
    vacate(slot);
  } else {
    // The mark stays, and the request that needed the room learns why it cannot have it.
    slot.state = State::kHot;
    if (!queue_.empty()) {
      auto& head = static_cast<Request&>(*queue_.front());
      if (!try_pass(head)) {
        head.outcome = cooled;
        remove_from_queue(head);
      }
    }
  }
  serve();
}

HotSet::State HotSet::state(HotExtent extent) const {
  const Slot* slot = find(extent.value());
  return slot == nullptr ? State::kCold : slot->state;
}

const HotSet::Slot* HotSet::find(uint64_t extent) const {
  const auto at = where_.find(extent);
  return at == where_.end() ? nullptr : &slots_[at->second];
}

HotSet::Slot* HotSet::find(uint64_t extent) {
  return const_cast<Slot*>(std::as_const(*this).find(extent));
}

HotSet::Slot& HotSet::occupy(uint64_t extent) {
  const SlotIndex index = free_.back();
  free_.pop_back();
  where_.emplace(extent, index);
  slots_[index] = Slot{.extent = HotExtent(extent)};
  return slots_[index];
}

void HotSet::vacate(Slot& slot) {
  ASSERT(slot.users == 0);
  unlink(slot);
  slot.state = State::kCold;
  where_.erase(slot.extent.value());
  free_.push_back(index_of(slot));
}

void HotSet::unlink(Slot& slot) {
  (slot.older != kNone ? slots_[slot.older].newer : oldest_) = slot.newer;
  (slot.newer != kNone ? slots_[slot.newer].older : newest_) = slot.older;
}

void HotSet::link_newest(Slot& slot) {
  slot.older = newest_;
  slot.newer = kNone;
  (newest_ != kNone ? slots_[newest_].newer : oldest_) = index_of(slot);
  newest_ = index_of(slot);
}

}  // namespace duplex::volume
