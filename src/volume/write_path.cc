// The write path, top to bottom: what happens between the last byte of a host's request and its
// reply (docs/ARCHITECTURE.md "Write path").
//
//   write, zero, trim   1 range lock over the whole request, then piece by piece:
//   write_bounced         a part that does not fit whole blocks is completed to whole blocks
//   write_blocks,         2 extents, 3 gate, 4 legs, 5 acknowledgement rule
//   zero_blocks
//   6 the lock is given back, FUA flushes, the caller replies
//
// A request of one piece is the common case. One of several is still one ordered write, because
// its lock spans them all; but each piece passes the gate by itself, so that a long WRITE_ZEROES
// holds up a closer for one piece only. A cut may then fall between two pieces, as a crash may: a
// request that has not been answered may be in an image in part.
#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/checksum.h"
#include "base/planted_bug.h"
#include "volume/ack_rule.h"
#include "volume/pieces.h"
#include "volume/tracker_use.h"
#include "volume/volume_impl.h"

namespace duplex::volume {
namespace {

// One step of a long WRITE_ZEROES or TRIM. Releasing extents costs one commit per step, however
// many; filling them costs their bytes.
constexpr uint64_t kUnmapStepBytes = kGiB;
constexpr uint64_t kFillStepBytes = 64 * kMiB;

// What a volume in a mirror can have hot for one request.
constexpr uint64_t kHotStepBytes = HotSet::kMaxPerRequest * kHotBytes;
static_assert(kHotStepBytes <= kFillStepBytes);

constexpr uint64_t step_bytes(pool::ZeroMode mode, bool is_tracked) {
  if (is_tracked) return kHotStepBytes;
  return mode == pool::ZeroMode::kKeep ? kFillStepBytes : kUnmapStepBytes;
}

struct Step {
  ByteRange range;
  bool blocks;  // whole ones; else a part of one or two
};

// The first step of a range that is not empty.
constexpr Step first_step(ByteRange range, uint64_t most) {
  const ByteRange whole = range.narrowed(kBlockBytes);
  if (whole.empty()) return {range, false};
  if (whole.offset > range.offset) {
    return {{range.offset, whole.offset - range.offset}, false};
  }
  const uint64_t end = std::min(round_down(range.offset, most) + most, whole.end());
  return {{range.offset, end - range.offset}, true};
}

}  // namespace

// Counted from before it asks the tracker until the write has ended, so that the tracker can be
// taken away. A tracker without maps has nothing that a mark could stand for: that is a target that
// hosts cannot write. What comes from its source has a mark there.
class VolumeImpl::Marking {
 public:
  explicit Marking(VolumeImpl& volume) : volume_(volume) {}
  Marking(const Marking&) = delete;
  Marking& operator=(const Marking&) = delete;
  ~Marking() {
    if (!is_counted_ || volume_.core_.abandoned()) return;
    use_.reset();
    if (--volume_.marked_ == 0) volume_.marked_left_.pulse();
  }

  bool is_due() const {
    const Tracker* tracker = volume_.tracker_;
    return tracker != nullptr && (!is_counted_ || (!use_ && tracker->has_maps()));
  }
  rt::Task<Result<void>> begin(ByteRange range) {
    volume_.marked_ += is_counted_ ? 0 : 1;
    is_counted_ = true;
    if (!volume_.tracker_->has_maps()) co_return Result<void>();
    auto use = co_await volume_.tracker_->use(range);
    if (!use) co_return std::unexpected(std::move(use).error());
    use_.emplace(*std::move(use));
    co_return Result<void>();
  }

 private:
  VolumeImpl& volume_;
  bool is_counted_ = false;
  std::optional<HotSet::Use> use_;
};

rt::Task<Result<void>> VolumeImpl::write(uint64_t offset, std::span<const std::byte> from,
                                         bool fua) {
  Counters::add(counters_.writes, 1);
  Counters::add(counters_.written_bytes, from.size());
  const ByteRange range{offset, from.size()};
  if (!is_inside(range) || range.length > kMaxRequestBytes) co_return ended(fail(Code::kSize));
  if (range.empty()) co_return Result<void>();
  uint64_t losses = own_debtor_.losses;
  if constexpr (planted(Bug::kRealClock)) co_await rt::sleep_for(core_.clock(), clock() % 10);
  {
    // 1. Range lock.
    RangeLock::Held lock = co_await locks_.lock(range.widened(kBlockBytes));
    if constexpr (planted(Bug::kNoRangeLock)) lock.release();
    if (!is_inside(range)) co_return ended(fail(Code::kSize));  // shrunk while it waited
    bool is_due = is_missing(range) && !planted(Bug::kWriteOverMissing);
    while (!from.empty()) {
      if (is_due) [[unlikely]] {
        lock.release();
        auto back = co_await lock_and_bring_back({offset, from.size()});
        if (!back) co_return ended(std::unexpected(std::move(back).error()));
        lock = *std::move(back);
      }
      if (offset == range.offset) losses = own_debtor_.losses;
      const Piece piece = first_piece(offset, from.data(), from.size());
      Result<Passed> stored;
      if (piece.direct) {
        stored = co_await write_blocks(offset, from.first(piece.length), Holes::kAllowed);
      } else {
        stored = co_await write_bounced(offset, from.data(), piece.length, Holes::kAllowed);
      }
      if (!stored) co_return ended(std::unexpected(std::move(stored).error()));
      is_due = *stored == Passed::kNot;
      if (is_due) [[unlikely]]
        continue;
      offset += piece.length;
      from = from.subspan(piece.length);
    }
  }
  if (fua) co_return ended(co_await flush_since(losses));
  // A flush may have told of a piece of it that was lost while another one was under way: the next
  // one would not.
  if (own_debtor_.losses != losses) [[unlikely]]
    co_return ended(fail(Code::kFlushLost));
  co_return Result<void>();
}

rt::Task<Result<void>> VolumeImpl::zero(ByteRange range, ZeroFlags flags) {
  Counters::add(counters_.writes, 1);
  if (!range_fits(range.offset, range.length, size_bytes())) co_return ended(fail(Code::kSize));
  if (flags.fast && flags.no_hole) co_return ended(fail(Code::kNotSupported));
  pool::ZeroMode mode = pool::ZeroMode::kMayUnmap;
  if (flags.no_hole) mode = pool::ZeroMode::kKeep;
  if (flags.fast) mode = pool::ZeroMode::kFast;
  const uint64_t losses = own_debtor_.losses;
  Result<void> done = co_await zero_in_order(range, mode);
  if (done && flags.fua) done = co_await flush_since(losses);
  co_return ended(std::move(done));
}

// Rounded inward to regions; from there on TRIM is WRITE_ZEROES that may unmap, so that it means
// the same on every leg whatever its extent size (trace F16). The rest of it is ignored.
rt::Task<Result<void>> VolumeImpl::trim(ByteRange range, bool fua) {
  Counters::add(counters_.trims, 1);
  if (!range_fits(range.offset, range.length, size_bytes())) co_return ended(fail(Code::kSize));
  const uint64_t losses = own_debtor_.losses;
  Result<void> done =
      co_await zero_in_order(range.narrowed(kRegionBytes), pool::ZeroMode::kMayUnmap);
  if (done && fua) done = co_await flush_since(losses);
  co_return ended(std::move(done));
}

// Zeroes over a range of any size, as one ordered write: the lock spans the whole range, other
// ranges go on meanwhile.
rt::Task<Result<void>> VolumeImpl::zero_in_order(ByteRange range, pool::ZeroMode mode) {
  if (range.empty()) co_return Result<void>();
  // 1. Range lock.
  RangeLock::Held lock = co_await locks_.lock(range.widened(kBlockBytes));
  if (!is_inside(range)) co_return fail(Code::kSize);  // shrunk while it waited
  const Holes holes = mode == pool::ZeroMode::kKeep ? Holes::kFilled : Holes::kAllowed;
  bool is_due = is_missing(range);
  const uint64_t begin = range.offset;
  uint64_t losses = own_debtor_.losses;
  while (!range.empty()) {
    if (is_due) [[unlikely]] {
      lock.release();
      CO_TRY_ASSIGN(lock, co_await lock_and_bring_back(range));
    }
    if (range.offset == begin) losses = own_debtor_.losses;
    const Step step = first_step(range, step_bytes(mode, tracker_ != nullptr));
    Result<Passed> done;
    if (step.blocks) {
      done = co_await zero_blocks(step.range, mode);
    } else {
      done = co_await write_bounced(step.range.offset, nullptr, step.range.length, holes);
    }
    if (!done) co_return std::unexpected(std::move(done).error());
    is_due = *done == Passed::kNot;
    if (is_due) [[unlikely]]
      continue;
    range = {step.range.end(), range.end() - step.range.end()};
    // A step over a hole costs nothing and does not suspend; a volume has many.
    if (!range.empty()) co_await rt::yield();
  }
  if (own_debtor_.losses != losses) co_return fail(Code::kFlushLost);  // as in write()
  co_return Result<void>();
}

// Completes a part to whole blocks (read, modify, write; the range lock is held) or copies it to
// aligned memory. At most kBounceBytes with its edges. `from` null: zeroes.
rt::Task<Result<VolumeImpl::Passed>> VolumeImpl::write_bounced(uint64_t offset,
                                                               const std::byte* from,
                                                               uint64_t length, Holes holes) {
  const ByteRange part{offset, length};
  const ByteRange blocks = part.widened(kBlockBytes);
  const rt::Buffer bounce = core_.buffers().get(blocks.length);
  const std::span<std::byte> bytes = bounce.span();
  const uint64_t last = blocks.length - kBlockBytes;  // of the last block in `bytes`
  const bool first_is_partial = part.offset > blocks.offset;
  const bool last_is_partial = part.end() < blocks.end();
  if (first_is_partial) {
    CO_TRY(co_await read_blocks(blocks.offset, bytes.first(kBlockBytes), Rescue::kIsLocked));
  }
  if (last_is_partial && !(first_is_partial && last == 0)) {
    CO_TRY(co_await read_blocks(blocks.offset + last, bytes.subspan(last), Rescue::kIsLocked));
  }
  std::byte* into = bytes.data() + (part.offset - blocks.offset);
  if (from != nullptr) {
    std::memcpy(into, from, length);
  } else {
    std::memset(into, 0, length);
  }
  co_return co_await write_blocks(blocks.offset, bytes, holes);
}

// Whole blocks, under their lock.
rt::Task<Result<VolumeImpl::Passed>> VolumeImpl::write_blocks(uint64_t offset,
                                                              std::span<const std::byte> from,
                                                              Holes holes, Root root) {
  const ByteRange range{offset, from.size()};
  // 2. Extents: mapped, durably. Zeroes into a hole leave it a hole. In a mirror they are hot, too.
  if (!backing_.is_mapped(range)) [[unlikely]] {
    if (holes == Holes::kAllowed && is_zero(from)) {
      co_return co_await zero_blocks(range, pool::ZeroMode::kMayUnmap, root);
    }
    CO_TRY(co_await backing_.allocate(range));
  }
  Marking marking(*this);
  if (marking.is_due()) [[unlikely]]
    CO_TRY(co_await marking.begin(range));
  // 3. Gate: stamps the epoch. No suspension from here until every leg has started.
  Gate::Pass pass = gate_.try_pass();
  while (!pass) [[unlikely]] {
    co_await gate_.opening();
    // The volume may have joined its first mirror meanwhile.
    if (marking.is_due()) CO_TRY(co_await marking.begin(range));
    pass = gate_.try_pass();
  }
  // 4. Legs. 5. Acknowledgement rule.
  const Epoch epoch = planted(Bug::kRootEpochLost) ? pass.epoch() : root.value_or(pass.epoch());
  if (tracker_ != nullptr) [[unlikely]] {
    if (tracker_->refused()) co_return std::unexpected(*tracker_->refused());
    if (has_to_come_back(range)) co_return Passed::kNot;
    co_return passed(co_await write_all(epoch, offset, from));
  }
  co_return passed(acknowledge({.own = co_await own_.write(epoch, offset, from)}));
}

// The same for zeroes.
rt::Task<Result<VolumeImpl::Passed>> VolumeImpl::zero_blocks(ByteRange range, pool::ZeroMode mode,
                                                             Root root) {
  // 2. Extents: only kKeep needs them.
  if (mode == pool::ZeroMode::kKeep && !backing_.is_mapped(range)) {
    CO_TRY(co_await backing_.allocate(range));
  }
  Marking marking(*this);
  if (marking.is_due()) [[unlikely]]
    CO_TRY(co_await marking.begin(range));
  // 3. Gate.
  Gate::Pass pass = gate_.try_pass();
  while (!pass) [[unlikely]] {
    co_await gate_.opening();
    // The volume may have joined its first mirror meanwhile: steps are shorter there.
    if (marking.is_due()) co_return Passed::kNot;
    pass = gate_.try_pass();
  }
  // 4. Legs. 5. Acknowledgement rule.
  const Epoch epoch = root.value_or(pass.epoch());
  if (tracker_ != nullptr) [[unlikely]] {
    if (tracker_->refused()) co_return std::unexpected(*tracker_->refused());
    if (has_to_come_back(range)) co_return Passed::kNot;
    // A promise for one backing; refused here it would have changed the others.
    if (mode == pool::ZeroMode::kFast && !legs_.empty()) co_return fail(Code::kNotSupported);
    co_return passed(co_await zero_all(epoch, range, mode));
  }
  co_return passed(acknowledge({.own = co_await own_.zero(epoch, range, mode)}));
}

rt::Task<Result<void>> VolumeImpl::flush() {
  Counters::add(counters_.flushes, 1);
  co_return ended(co_await flush_and_tell(untold_.host));
}

// `untold`: of the one who asks. The other one has not been told.
rt::Task<Result<void>> VolumeImpl::flush_and_tell(bool& untold) {
  Result<void> done = co_await flush_since(own_debtor_.losses);
  const bool is_due = std::exchange(untold, false);
  if (done && is_due) done = fail(Code::kFlushLost);
  co_return done;
}

// The legs tell of a loss once. Here it is told to one write, and its host doubts that write
// alone; but others may be lost as well: the next FLUSH has to say so. `losses`: before what this
// is to make durable was written. Another flush may have met a loss since, of just that; and what
// was lost at a target may be back here, older, before this one ends.
rt::Task<Result<void>> VolumeImpl::flush_since(uint64_t losses) {
  Result<void> done = co_await flush_legs();
  if (done && own_debtor_.losses != losses) done = fail(Code::kFlushLost);
  if (!done) untold_ = {.host = true, .above = true};
  co_return done;
}

// Passes neither lock nor gate: it covers what has been answered, and that has left both.
rt::Task<Result<void>> VolumeImpl::flush_legs() {
  if (tracker_ != nullptr) [[unlikely]]
    co_return co_await flush_all();
  co_return acknowledge({.own = co_await own_.flush()});
}

}  // namespace duplex::volume
