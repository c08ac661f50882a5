// The own backing as a leg that may fail: what is missing there is read at the target that has it,
// comes back before it is written, and is what decides whether a write or a FLUSH has succeeded
// (traces F4, F23, F24, F27, F31).
//
// Why no read is old. A region becomes missing, and comes back, in one step without a suspension.
// A read of the own backing looks again when it has ended: what was lost under it is read once
// more, where it is. So does a read of a target: what came back meanwhile is read here. When a
// region becomes missing, a write beside what failed may have reached the own backing, and readers,
// but not yet the target: reads of the target wait for such a write first.
#include <algorithm>
#include <bit>
#include <utility>

#include "base/checksum.h"
#include "base/planted_bug.h"
#include "volume/tracker_use.h"
#include "volume/volume_impl.h"

namespace duplex::volume {
namespace {

// How many losses one read has told before it reads again. A device that fails every flush while
// writes go on has another one each time: what it returns then is as good as unread.
constexpr uint32_t kMostTold = 3;

// f(region) for each region set in a word of `stretch`.
template <class F>
void each_region(HotExtent stretch, uint64_t regions, F f) {
  for (; regions != 0; regions &= regions - 1) {
    const uint64_t offset = stretch.value() * kHotBytes +
                            static_cast<uint64_t>(std::countr_zero(regions)) * kRegionBytes;
    f(ByteRange{offset, kRegionBytes}, regions & -regions);
  }
}

}  // namespace

ByteRange VolumeImpl::regions_of(ByteRange range) const {
  const ByteRange wide = range.widened(kRegionBytes);
  return {wide.offset, std::min(wide.end(), size_bytes()) - wide.offset};
}

bool VolumeImpl::is_missing_slow(ByteRange range) const {
  return std::ranges::any_of(legs_, [&](const TargetLeg* leg) { return leg->is_missing(range); });
}

bool VolumeImpl::has_to_come_back(ByteRange range) const {
  if constexpr (planted(Bug::kMissingIgnored)) return false;
  return is_missing(range) && std::ranges::any_of(legs_, [&](const TargetLeg* leg) {
           return leg->mode() == TargetLeg::Mode::kMark && leg->is_missing(range);
         });
}

VolumeImpl::Route VolumeImpl::route(ByteRange range) const {
  Route route{.leg = nullptr, .length = range.length};
  if constexpr (planted(Bug::kMissingIgnored)) return route;
  if (tracker_ == nullptr || !tracker_->is_anything_missing()) return route;
  for (TargetLeg* leg : legs_) {
    if (!leg->is_missing_any()) continue;
    const ByteRange run = leg->missing().next_run(range.offset, range.length + kRegionBytes);
    if (run.empty() || run.offset >= range.end()) continue;
    if (run.offset <= range.offset) return {leg, std::min(run.end(), range.end()) - range.offset};
    route.length = std::min(route.length, run.offset - range.offset);
  }
  return route;
}

// Whole blocks, wherever they are.
rt::Task<Result<void>> VolumeImpl::read_blocks(uint64_t offset, std::span<std::byte> into,
                                               Rescue how) {
  // Who has the lock waits for nobody: no write is under way there.
  bool is_landed = how != Rescue::kLocks || planted(Bug::kReadBesideLanding);
  uint32_t told = 0;
  while (!into.empty()) {
    const Route from = route({offset, into.size()});
    const std::span<std::byte> part = into.first(from.length);
    if (from.leg != nullptr && !is_landed) {
      // What earlier reads may have seen is under way now: once is enough. The lock is not kept,
      // and not asked for without need: a copy that a hanging device holds up has it, too.
      const ByteRange rest{offset, into.size()};
      if (is_landing(rest)) const RangeLock::Held landed = co_await locks_.lock(rest);
      is_landed = true;
      continue;
    }
    if (from.leg != nullptr) {
      const Readers::Inside stay = from.leg->stay();
      const Result<void> done = co_await from.leg->read(offset, part);
      // Back here meanwhile: the target may have been split since, and written by its own hosts.
      if (!from.leg->is_missing_all({offset, part.size()})) continue;
      if (!done) co_return done;
    } else {
      Result<void> done = co_await backing_.read(offset, part);
      if (has_untold_loss()) [[unlikely]] {
        if (told++ < kMostTold) {
          co_await tell_loss();
          continue;
        }
        done = fail(Code::kMediumRead);
      }
      if (is_missing({offset, part.size()}) && !planted(Bug::kMissingIgnored))
        continue;  // lost meanwhile
      if (!done) done = co_await rescue(offset, part, how, std::move(done).error());
      if (!done) co_return done;
    }
    offset += part.size();
    into = into.subspan(part.size());
  }
  co_return Result<void>();
}

// Another volume's flush has met it. What was lost may be here alone, or be durable at the target
// it came back from: nobody reads here before that is settled.
rt::Task<> VolumeImpl::tell_loss() {
  const TrackerUse tracker(*this);
  static_cast<void>(co_await tracker->flush(own_debtor_));
}

void VolumeImpl::add_leg(TargetLeg& leg) {
  ASSERT(tracker_ != nullptr && legs_.size() < kMaxLegs);
  size_t slot = 0;
  while (std::ranges::find(legs_, slot, &TargetLeg::slot) != legs_.end()) ++slot;
  leg.joined(*this, slot);
  legs_.push_back(&leg);
}

void VolumeImpl::remove_leg(TargetLeg& leg) {
  ASSERT(!leg.is_missing_any());
  std::erase(legs_, &leg);
  withdraw(leg.bits_id());
}

void VolumeImpl::set_tracker(Tracker& tracker) {
  ASSERT(tracker_ == nullptr && marked_ == 0);
  tracker_ = &tracker;
  tracker.add_debtor(own_debtor_);
}

rt::Task<> VolumeImpl::take_tracker() {
  ASSERT(tracker_ != nullptr && legs_.empty() && recorded_.empty());
  Tracker& tracker = *std::exchange(tracker_, nullptr);
  while (marked_ > 0) co_await marked_left_.wait();
  co_await tracker.remove_debtor(own_debtor_);
}

void VolumeImpl::record_into(MapId map) {
  ASSERT(tracker_ != nullptr && std::ranges::find(recorded_, map) == recorded_.end());
  if (recorded_.empty()) forget_losses_of_hosts();
  recorded_.push_back(map);
}

void VolumeImpl::stop_recording(MapId map) {
  std::erase(recorded_, map);
  // What was lost here since the split was written by hosts and has bits in this map, and so where
  // it was taken over, however late the loss came; what the leg sends from now on was not among it.
  forget_losses_above();
  withdraw(map);
}

rt::Task<Result<RangeLock::Held>> VolumeImpl::lock_and_bring_back(ByteRange range) {
  RangeLock::Held lock = co_await locks_.lock(regions_of(range));
  if (!is_inside(range)) co_return fail(Code::kSize);  // shrunk while it waited
  CO_TRY(co_await bring_back(range));
  co_return lock;
}

// Before a write, whose range lock covers the regions it touches. Where the own backing still fails
// the region stays missing, and the write goes on as long as the leg may take it.
rt::Task<Result<void>> VolumeImpl::bring_back(ByteRange range) {
  const ByteRange all = regions_of(range);
  for (uint64_t at = all.offset; at < all.end();) {
    const Route from = route({at, all.end() - at});
    const ByteRange run{at, from.leg == nullptr ? from.length : std::min(from.length, kCopyBytes)};
    at = run.end();
    if (from.leg == nullptr) continue;
    Returned back = co_await bring_run_back(*from.leg, run);
    if (back.result) continue;
    if (!back.is_own_error || from.leg->mode() == TargetLeg::Mode::kMark) {
      co_return std::move(back.result);
    }
  }
  co_return Result<void>();
}

// Whole regions, all missing at the leg, under their lock. The bits go when the own backing has
// them: a reader finds the target until then, and the same bytes here from then on. What the target
// has not flushed it may have lost by now and not know it, with something older in its place that
// must not come back for good: so it is flushed first. It then finds what it lost at its own
// targets, or lost_at() tells.
rt::Task<VolumeImpl::Returned> VolumeImpl::bring_run_back(TargetLeg& leg, ByteRange run) {
  const TrackerUse tracker(*this);
  const Readers::Inside stay = leg.stay();
  co_await flush_targets(run, &TargetLeg::owes_missing);
  const rt::Buffer buffer = core_.buffers().get(run.length);
  Returned back;
  back.result = co_await leg.read(run.offset, buffer.span());
  if (!back.result) co_return back;
  auto use = co_await tracker->use(run);
  if (!use) {
    back.result = std::unexpected(std::move(use).error());
    co_return back;
  }
  const Window::Stamp stamp = own_debtor_.owed.stamp();
  const Window::Stamp returned = own_debtor_.returned.stamp();
  back.result = co_await store_returned(run.offset, buffer.span(), back.moved_bytes);
  bool is_counted = own_debtor_.owed.add(run, stamp);
  is_counted &= own_debtor_.returned.add(run, returned);
  if (back.result && !is_counted) back.result = fail(Code::kFlushLost);
  back.is_own_error = !back.result;
  // The owner may have given the map up.
  if (!back.result || !leg.is_missing_any() || !leg.missing().all(run)) co_return back;
  for (TargetLeg* other : legs_) other->returned_elsewhere(run);
  leg.returned(run);
  co_return back;
}

// Regions of zeroes become holes where that is possible.
rt::Task<Result<void>> VolumeImpl::store_returned(uint64_t offset, std::span<const std::byte> from,
                                                  uint64_t& moved_bytes) {
  while (!from.empty()) {
    const std::span<const std::byte> region =
        from.first(std::min<size_t>(kRegionBytes, from.size()));
    const ByteRange range{offset, region.size()};
    if (is_zero(region)) {
      CO_TRY(co_await own_.zero(Epoch(), range, pool::ZeroMode::kMayUnmap));
    } else {
      if (!backing_.is_mapped(range)) CO_TRY(co_await backing_.allocate(range));
      CO_TRY(co_await own_.write(Epoch(), offset, region));
      moved_bytes += region.size();
    }
    offset += region.size();
    from = from.subspan(region.size());
  }
  co_return Result<void>();
}

// What a write has come to: `own` says whether the own backing stored it, `took` which legs did.
// Where it failed, the first leg that has everything becomes the one the regions are read at.
// Nothing suspends between this and the answer, unless what is missing must become durable first:
// then it is asked again. `losses`: when the write began. What was lost for good since may be what
// one side stored while the other one was still at it, and a FLUSH may have said so already: the
// next one would not, so the write does.
Result<void> VolumeImpl::verdict(ByteRange range, const Result<void>& own, uint64_t took,
                                 uint64_t losses) {
  if (own_debtor_.losses != losses) return own ? fail(Code::kFlushLost) : own;
  const auto has_taken = [took](const TargetLeg& leg) { return (took >> leg.slot() & 1) != 0; };
  if (!own) {
    const auto holder = std::ranges::find_if(
        legs_, [&](const TargetLeg* leg) { return has_taken(*leg) && leg->holds(range); });
    if (holder != legs_.end()) {
      each_word(range, [&](HotExtent stretch, uint64_t regions) {
        each_region(stretch, regions, [&](ByteRange region, uint64_t bit) {
          if (!is_missing({region.offset, 1})) (*holder)->set_missing(stretch, bit);
        });
      });
    }
  }
  for (uint64_t at = range.offset; at < range.end();) {
    const Route from = route({at, range.end() - at});
    at += from.length;
    if (from.leg == nullptr && !own) return own;
    if (from.leg != nullptr && !has_taken(*from.leg)) {
      return own ? fail(Code::kMediumWrite) : own;
    }
  }
  return {};
}

// The host hears of an error only with no target counting as equal (trace F31).
rt::Task<Result<void>> VolumeImpl::conclude(ByteRange range, Result<void> own, uint64_t took,
                                            uint64_t losses) {
  if (!own) co_await flush_targets(range, &TargetLeg::owes_copy);
  Result<void> result = verdict(range, own, took, losses);
  if (result && !own) {
    result = co_await write_missing_back(range);
    if (result) result = verdict(range, own, took, losses);
  }
  if (!result) refused_by_own(range, result.error());
  co_return result;
}

// The words of these regions, where the disk may not have them.
rt::Task<Result<void>> VolumeImpl::write_missing_back(ByteRange range) {
  std::vector<HotExtent> stretches;
  each_word(range, [&](HotExtent stretch, uint64_t) { stretches.push_back(stretch); });
  std::vector<MapId> maps;
  for (const TargetLeg* leg : legs_) {
    if (leg->is_missing(range)) maps.push_back(leg->missing_id());
  }
  if (maps.empty()) co_return Result<void>();
  Tracker& tracker = *tracker_;
  for (const MapId map : maps) CO_TRY(co_await tracker.write_back(map, stretches));
  co_return Result<void>();
}

// All of them.
rt::Task<Result<void>> VolumeImpl::write_missing_back() {
  std::vector<MapId> maps;
  for (const TargetLeg* leg : legs_) maps.push_back(leg->missing_id());
  if (maps.empty()) co_return Result<void>();
  Tracker& tracker = *tracker_;
  for (const MapId map : maps) CO_TRY(co_await tracker.write_back(map));
  if (!tracker.is_anything_missing()) co_return Result<void>();
  for (const MapId map : maps) {
    if (tracker.has_map(map)) forget_earlier_holders(map);
  }
  for (const MapId map : maps) CO_TRY(co_await tracker.write_back(map));
  co_return Result<void>();
}

// A region that came back from one leg and was lost again is missing at another one that has all of
// it. The mark of the first is still on disk, and has to leave it before what is written since
// counts as durable: a start would find the region at both. But not before the mark of the other
// one is there: a start that found it at neither would read here what is lost.
void VolumeImpl::forget_earlier_holders(MapId holder) {
  std::optional<ChangeMap> durable;
  for (const TargetLeg* leg : legs_) {
    const MapId other = leg->missing_id();
    // Most often there is none, and the map may be that of a whole restore.
    if (other == holder || !tracker_->has_map(other) || !tracker_->has_cleared(other)) continue;
    if (!durable) {
      durable.emplace(size_bytes());
      tracker_->map(holder).each_set_word([&](ChangeMap::Word word) {
        if (!tracker_->is_pending(holder, word.stretch)) {
          durable->set_word(word.stretch, word.regions);
        }
      });
    }
    tracker_->drop(other, *durable);
  }
}

// A flush that fails has lost what no flush covered. Where targets have all of it, nothing is lost.
// Another one that is under way then has not saved it, though it succeeds: a region that came back
// is missing again, and what was written there since is read no more.
rt::Task<Result<void>> VolumeImpl::flush_own() {
  const uint64_t losses = own_debtor_.losses;
  Result<void> flushed = co_await tracker_->flush(own_debtor_);
  if (own_debtor_.losses == losses) co_return Result<void>();
  if (flushed) co_return fail(Code::kFlushLost);
  co_return flushed;
}

rt::Task<Result<void>> VolumeImpl::OwnDebtor::flush() {
  const Window::Token token = returned.begin();
  Result<void> flushed = co_await volume_.own_.flush();
  if (flushed) returned.end(token);
  co_return flushed;
}

void VolumeImpl::OwnDebtor::lost(const Error& why) { volume_.own_lost(why); }

// In a flush of a host or in cooling. What nobody has is in doubt on every side: a bit in each map,
// and the next FLUSH says so. Of a region that came back and was written since, the writes are
// lost; but what the own backing has there now may be older than what came back, and that may have
// been flushed long ago, at the target. So it is missing there again.
void VolumeImpl::own_lost(const Error& why) {
  bool is_all_held = true;
  std::vector<ChangeMap::Word> returned;
  own_debtor_.returned.lose(
      [&](HotExtent stretch, uint64_t regions) { returned.push_back({stretch, regions}); });
  const auto is_returned = [&](HotExtent stretch, uint64_t bit) {
    const auto word = std::ranges::find(returned, stretch, &ChangeMap::Word::stretch);
    return word != returned.end() && (word->regions & bit) != 0;
  };
  own_debtor_.owed.lose([&](HotExtent stretch, uint64_t regions) {
    each_region(stretch, regions, [&](ByteRange region, uint64_t bit) {
      const ByteRange here{region.offset, 1};
      // What the copy has read may be what is lost.
      for (TargetLeg* leg : legs_) {
        if (leg->is_copying(here)) leg->set_bits(stretch, bit);
      }
      if (is_missing(here)) return;
      const auto holder =
          std::ranges::find_if(legs_, [&](const TargetLeg* leg) { return leg->holds_lost(here); });
      if (holder != legs_.end()) {
        (*holder)->set_missing(stretch, bit);
        return;
      }
      is_all_held = false;
      const auto origin =
          std::ranges::find_if(legs_, [&](const TargetLeg* leg) { return leg->is_origin(here); });
      if (origin != legs_.end() && is_returned(stretch, bit)) {
        (*origin)->set_missing(stretch, bit);
      }
      lost_for_good(stretch, bit, why);
    });
  });
  if (is_all_held) return;
  ++own_debtor_.losses;
  untold_ = {.host = true, .above = true};
}

// In doubt on every side: no target counts as equal with a bit.
void VolumeImpl::lost_for_good(HotExtent stretch, uint64_t regions, const Error& why) {
  for (TargetLeg* leg : legs_) {
    leg->set_bits(stretch, regions);
    if (leg->mode() == TargetLeg::Mode::kSend) leg->leave(why);
  }
  for (const MapId map : recorded_) tracker_->or_word(map, stretch, regions);
}

// The own backing had lost them, too: the writes since the target's last flush are lost, and the
// next FLUSH says so. Another target may have them, or a copy has read them and brought them there:
// it is newer than what everybody reads from now on, and counts as equal no more.
void VolumeImpl::lost_at(const TargetLeg& leg, std::span<const ChangeMap::Word> regions,
                         const Error& why) {
  for (const ChangeMap::Word& word : regions) {
    each_region(word.stretch, word.regions, [&](ByteRange region, uint64_t bit) {
      for (TargetLeg* other : legs_) {
        if (other != &leg && other->holds({region.offset, 1})) other->leave(why);
      }
      lost_for_good(word.stretch, bit, why);
    });
  }
  ++own_debtor_.losses;
  untold_ = {.host = true, .above = true};
}

}  // namespace duplex::volume
