#include "volume/volume_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "volume/pieces.h"

namespace duplex::volume {

VolumeImpl::VolumeImpl(std::string name, VolumeNumber number, uint64_t size_bytes, rt::Core& core,
                       pool::Backing& backing, Epoch epoch)
    : name_(std::move(name)),
      number_(number),
      size_(size_bytes),
      core_(core),
      backing_(backing),
      gate_(epoch),
      own_(backing),
      tasks_(std::in_place, core) {
  ASSERT(size_bytes % kBlockBytes == 0);
}

rt::Task<Result<void>> VolumeImpl::read(uint64_t offset, std::span<std::byte> into) {
  Counters::add(counters_.reads, 1);
  Counters::add(counters_.read_bytes, into.size());
  if (!is_inside({offset, into.size()}) || into.size() > kMaxRequestBytes) {
    co_return ended(fail(Code::kSize));
  }
  const Readers::Inside inside(readers_);
  while (!into.empty()) {
    const Piece piece = first_piece(offset, into.data(), into.size());
    const std::span<std::byte> part = into.first(piece.length);
    Result<void> done;
    if (piece.direct) {
      const ByteRange range{offset, part.size()};
      if (!is_missing(range)) [[likely]]
        done = co_await backing_.read(offset, part);
      // Or lost meanwhile.
      if (is_missing(range) || has_untold_loss()) [[unlikely]]
        done = co_await read_blocks(offset, part, Rescue::kLocks);
      else if (!done) [[unlikely]]
        done = co_await rescue(offset, part, Rescue::kLocks, std::move(done).error());
    } else {
      done = co_await read_bounced(offset, part);
    }
    if (!done) co_return ended(std::move(done));
    offset += piece.length;
    into = into.subspan(piece.length);
  }
  co_return Result<void>();
}

rt::Task<Result<void>> VolumeImpl::read_bounced(uint64_t offset, std::span<std::byte> into) {
  const ByteRange part{offset, into.size()};
  const ByteRange blocks = part.widened(kBlockBytes);
  const rt::Buffer bounce = core_.buffers().get(blocks.length);
  CO_TRY(co_await read_blocks(blocks.offset, bounce.span(), Rescue::kLocks));
  std::memcpy(into.data(), bounce.data() + (part.offset - blocks.offset), into.size());
  co_return Result<void>();
}

rt::Task<Result<std::vector<StatusRun>>> VolumeImpl::status(ByteRange range, size_t limit) {
  if (!is_inside(range)) co_return fail(Code::kSize);
  const Readers::Inside inside(readers_);
  std::vector<StatusRun> runs;
  // False: it was one too many.
  const auto append = [&](StatusRun run) {
    if (!runs.empty() && runs.back().hole == run.hole && runs.back().zero == run.zero) {
      runs.back().length += run.length;
      return true;
    }
    if (runs.size() == limit) return false;
    runs.push_back(run);
    return true;
  };
  for (uint64_t at = range.offset; at < range.end();) {
    const Route from = route({at, range.end() - at});
    StatusRun next;
    if (from.leg == nullptr) {
      const pool::Backing::Run run = backing_.run_at(at);
      next = {
          .length = std::min(run.end - at, from.length), .hole = !run.mapped, .zero = !run.mapped};
    } else {
      const auto there = co_await from.leg->status({at, from.length}, 1);
      if (!there) co_return std::unexpected(there.error());
      ASSERT(!there->empty());
      next = there->front();
    }
    if (!append(next)) break;
    at += next.length;
  }
  co_return runs;
}

VolumeStats VolumeImpl::stats() const {
  const auto get = [](const Counters::Count& count) {
    return count.load(std::memory_order_relaxed);
  };
  return {.reads = get(counters_.reads),
          .writes = get(counters_.writes),
          .trims = get(counters_.trims),
          .flushes = get(counters_.flushes),
          .read_bytes = get(counters_.read_bytes),
          .written_bytes = get(counters_.written_bytes),
          .errors = get(counters_.errors),
          .repaired = get(counters_.repaired)};
}

ChangeMap VolumeImpl::unsafe() const {
  ChangeMap map(size_bytes());
  own_debtor_.owed.each(
      [&](HotExtent stretch, uint64_t regions) { map.or_word(stretch, regions); });
  for (const TargetLeg* leg : legs_) {
    if (leg->is_missing_any()) map.unite(leg->missing());
  }
  return map;
}

ChangeMap VolumeImpl::mapped() const {
  ChangeMap map(size_bytes());
  for (uint64_t at = 0; at < size_bytes();) {
    const pool::Backing::Run run = backing_.run_at(at);
    const uint64_t end = std::min(run.end, size_bytes());
    if (run.mapped) map.set({at, end - at});
    at = end;
  }
  for (const TargetLeg* leg : legs_) {
    if (leg->is_missing_any()) map.unite(leg->missing());
  }
  return map;
}

void VolumeImpl::grow(uint64_t size_bytes) {
  ASSERT(size_bytes % kBlockBytes == 0 && size_bytes >= this->size_bytes());
  size_.store(size_bytes, std::memory_order_relaxed);
}

// The lock comes before the gate: nobody who keeps the gate closed waits for a range lock.
rt::Task<Result<VolumeImpl::Shrink>> VolumeImpl::begin_shrink(uint64_t new_bytes, bool discard) {
  const uint64_t old_bytes = size_bytes();
  ASSERT(new_bytes % kBlockBytes == 0 && new_bytes < old_bytes);
  const ByteRange beyond{new_bytes, old_bytes - new_bytes};
  RangeLock::Held lock = co_await locks_.lock(beyond);
  const uint64_t lost = mapped_bytes(beyond);
  if (lost > 0 && !discard) {
    co_return fail(Code::kState,
                   fmt::format("{} of volume {} are allocated beyond {} and would be lost",
                               format_size(lost), name_, format_size(new_bytes)),
                   "trim that part from the host first, or repeat with --discard");
  }
  // Requests that wait for the lock look at the size again when they have it.
  size_.store(new_bytes, std::memory_order_relaxed);
  co_await readers_.drain();
  Gate::Closer closer = gate_.close();
  co_await gate_.drained();
  co_return Shrink{std::move(lock), std::move(closer), old_bytes};
}

void VolumeImpl::end_shrink(Shrink shrink, bool done) {
  if (!done) size_.store(shrink.old_bytes, std::memory_order_relaxed);
}

uint64_t VolumeImpl::mapped_bytes(ByteRange range) const {
  uint64_t bytes = 0;
  for (uint64_t at = range.offset; at < range.end();) {
    const pool::Backing::Run run = backing_.run_at(at);
    const uint64_t end = std::min(run.end, range.end());
    if (run.mapped) bytes += end - at;
    at = end;
  }
  return bytes;
}

}  // namespace duplex::volume
