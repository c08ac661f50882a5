// I/O on mapped extents: cutting a range into device operations.
#include "pool/backing_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "pool/backing_impl.h"

namespace duplex::pool {
namespace {

using Kind = rt::FileOp::Kind;

// Longest operation on physically contiguous extents: the largest request of a host.
constexpr uint64_t kMaxOperation = 32 * kMiB;

Code code_of(const rt::FileOp& op) {
  if (op.kind == Kind::kRead) return Code::kMediumRead;
  if (op.kind == Kind::kZeroFast && op.error == EOPNOTSUPP) return Code::kNotSupported;
  return op.error == ENOSPC || op.error == EDQUOT ? Code::kNoSpace : Code::kMediumWrite;
}

}  // namespace

void IoBatch::add(DeviceUse& use, Kind kind, uint64_t offset, uint64_t length, std::byte* data) {
  ASSERT(count_ < kMax);
  Piece& piece = *new (&memory_[count_]) Piece();
  ++count_;
  piece.kind = kind;
  piece.offset = offset;
  if (data != nullptr) piece.data = {data, length};
  piece.length = length;
  piece.done = &IoBatch::ended;
  piece.batch = this;
  piece.use = &use;
  piece.losses = 0;
}

bool IoBatch::await_suspend(std::coroutine_handle<> handle) {
  waiting_ = handle;
  open_ = count_ + 1;  // one for this loop: an operation may end inside the start of another
  for (size_t i = 0; i < count_; ++i) {
    Piece& one = piece(i);
    if (one.changes()) one.losses = one.use->begin_write();
    if (one.use->port.start(one)) {
      settle(one);
      --open_;
    }
  }
  return --open_ != 0;
}

void IoBatch::ended(rt::FileOp& op) {
  auto& one = static_cast<Piece&>(op);
  one.use->port.ended();
  settle(one);
  IoBatch& batch = *one.batch;
  if (--batch.open_ == 0) batch.waiting_.resume();
}

void IoBatch::settle(Piece& one) {
  if (one.changes()) one.use->end_write(one.losses);
  if (one.error != 0 && code_of(one) != Code::kNotSupported) {
    one.use->device->failed(one.kind, one.error);
  }
}

Result<void> IoBatch::await_resume() {
  Result<void> result;
  for (size_t i = 0; i < count_ && result; ++i) {
    if (piece(i).error != 0) result = fail(code_of(piece(i)));
  }
  count_ = 0;
  return result;
}

rt::Task<Result<void>> BackingImpl::read(uint64_t offset, std::span<std::byte> into) {
  return transfer(Kind::kRead, {offset, into.size()}, into.data());
}

rt::Task<Result<void>> BackingImpl::write(uint64_t offset, std::span<const std::byte> from) {
  return transfer(Kind::kWrite, {offset, from.size()}, const_cast<std::byte*>(from.data()));
}

// Holes: a read gives zeroes, zeroing has nothing to do, a write does not happen.
// `data`: null for the zero kinds.
rt::Task<Result<void>> BackingImpl::transfer(Kind kind, ByteRange range, std::byte* data) {
  ASSERT(range_fits(range.offset, range.length, map_.size() * extent_bytes_));
  const Pin pin(*this);
  IoBatch batch;
  uint64_t at = range.offset;
  while (at < range.end()) {
    while (at < range.end() && !batch.is_full()) {
      auto le = static_cast<uint32_t>(at / extent_bytes_);
      const Location place = map_.at(LogicalExtent(le));
      uint64_t end = std::min(range.end(), (uint64_t{le} + 1) * extent_bytes_);
      if (place.is_mapped()) {
        // Extents that follow each other on the device as well are one operation.
        for (uint32_t more = 1; end < range.end() && end - at < kMaxOperation; ++more) {
          const Location next = map_.at(LogicalExtent(++le));
          if (next.device != place.device || next.pe.value() != place.pe.value() + more) break;
          end = std::min(range.end(), end + extent_bytes_);
        }
        DeviceUse& use = use_of(place.device);
        batch.add(use, kind, use.device->byte_of(place.pe) + at % extent_bytes_, end - at, data);
      } else {
        ASSERT(kind != Kind::kWrite);
        if (kind == Kind::kRead) std::memset(data, 0, end - at);
      }
      if (data != nullptr) data += end - at;
      at = end;
    }
    if (!batch.empty()) CO_TRY(co_await batch);
  }
  co_return Result<void>();
}

}  // namespace duplex::pool
