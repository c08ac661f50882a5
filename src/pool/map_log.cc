#include "pool/map_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "pool/aligned.h"

namespace duplex::pool {
namespace {

// Time in which records of several commits gather into one batch.
constexpr rt::Micros kLinger = 20 * rt::kMillisecond;
// Records that are worth a batch at once: about 16 KiB of maps.
constexpr size_t kFullBatch = 1024;
// Longest batch: its encoding stays within a few hundred KiB also if all records name volumes.
constexpr size_t kMaxBatch = 4096;
// Pause after a failed write.
constexpr rt::Micros kRetry = rt::kSecond;

rt::Task<Result<FoundLog>> read_half(rt::File& file, uint64_t offset, uint64_t bytes, Uuid device) {
  AlignedBytes half(bytes);
  for (uint64_t at = 0; at < bytes; at += kTransferBytes) {
    const auto part = half.span().subspan(at, std::min(kTransferBytes, bytes - at));
    if (const int error = co_await file.read(offset + at, part); error != 0) {
      co_return fail(
          Code::kMediumRead,
          std::string(system_error(error, fmt::format("read the map log of {}", file.info().path))
                          .message()));
    }
  }
  FoundLog found;
  found.flushed = format::known_flushed(half.span());
  auto decoded = format::decode_half(half.span(), device);
  if (decoded) {
    found.valid = true;
    found.content = std::move(*decoded);
  } else if (decoded.error().code() != Code::kCorrupt) {
    co_return std::unexpected(decoded.error());
  }
  co_return found;
}

}  // namespace

rt::Task<Result<FoundLog>> read_map_log(rt::File& file, uint64_t log_offset, uint64_t log_bytes,
                                        Uuid device) {
  FoundLog best;
  format::LogPosition flushed;
  for (unsigned half = 0; half < 2; ++half) {
    auto found =
        co_await read_half(file, log_offset + half * (log_bytes / 2), log_bytes / 2, device);
    if (!found) co_return std::unexpected(found.error());
    flushed = std::max(flushed, found->flushed);
    // Generations rise with every checkpoint, so the higher one is the later state; it was live.
    if (found->valid && (!best.valid || found->content.checkpoint.generation >
                                            best.content.checkpoint.generation)) {
      best = std::move(*found);
      best.half = half;
    }
  }
  best.flushed = flushed;
  co_return best;
}

MapLog::MapLog(Device& device, rt::Core& control, uint64_t log_offset, uint64_t log_bytes,
               Contents contents)
    : device_(device),
      control_(control),
      log_offset_(log_offset),
      log_bytes_(log_bytes),
      contents_(std::move(contents)) {}

void MapLog::attached(const FoundLog& found, uint64_t sequence) {
  const format::LogCheckpoint& checkpoint = found.content.checkpoint;
  queue_.clear();
  sequence_ = sequence;
  written_ = found.valid ? std::min(checkpoint.sequence, sequence) : 0;
  half_ = found.valid ? found.half : 1;  // the first checkpoint goes to half 0
  used_bytes_ = found.content.used_bytes;
  chain_ = found.content.chain;
  live_generation_ = found.valid ? checkpoint.generation : 0;
  generation_ = std::max(generation_, live_generation_);
  losses_ = device_.losses();
  needs_checkpoint_ = !found.valid || checkpoint.sequence != sequence;
  device_.set_log_written(written_);
  wake_.set();
}

void MapLog::append(uint64_t first_sequence, std::vector<format::LogRecord> records) {
  if (records.empty()) return;
  if (first_sequence != sequence_ + 1 || device_.is_absent()) needs_checkpoint_ = true;
  sequence_ = first_sequence + records.size() - 1;
  if (needs_checkpoint_) {
    queue_.clear();  // the checkpoint will contain them
  } else {
    queue_.insert(queue_.end(), std::make_move_iterator(records.begin()),
                  std::make_move_iterator(records.end()));
  }
  wake_.set();
}

void MapLog::skip_to(uint64_t sequence) {
  ASSERT(sequence >= sequence_);
  if (sequence == sequence_) return;
  sequence_ = sequence;
  needs_checkpoint_ = true;
  queue_.clear();
  wake_.set();
}

rt::Task<Result<void>> MapLog::written(uint64_t sequence) {
  const uint64_t failures = failures_;
  while (written_ < sequence || is_broken()) {
    if (failures_ != failures || device_.is_absent() || stopping_) {
      co_return fail(Code::kMediumWrite,
                     fmt::format("the map log of device {} cannot be written", device_.name()),
                     fmt::format("duplex device show {}", device_.name()));
    }
    urgent_ = true;
    wake_.set();
    co_await progress_.wait();
  }
  co_return Result<void>();
}

rt::Task<> MapLog::run() {
  while (true) {
    if (!has_work() || device_.is_absent()) {
      ++failures_;  // with a device that is absent; without work nobody waits
      progress_.pulse();
      if (stopping_) co_return;
      urgent_ = false;
      wake_.reset();
      co_await wake_.wait();
      continue;
    }
    if (!is_broken() && !urgent_ && !stopping_ && queue_.size() < kFullBatch) {
      wake_.reset();
      const rt::Micros until = control_.clock().now() + kLinger;
      while (!urgent_ && !stopping_ && queue_.size() < kFullBatch &&
             co_await wake_.wait_until(control_.clock(), until)) {
        wake_.reset();
      }
    }
    urgent_ = false;
    bool ok = false;
    if (is_broken()) {
      ok = co_await write_checkpoint();
    } else {
      ok = co_await write_batch();
    }
    if (!ok) {
      needs_checkpoint_ = true;
      ++failures_;
    }
    progress_.pulse();
    if (!ok) {
      if (stopping_) co_return;
      wake_.reset();
      co_await wake_.wait_until(control_.clock(), control_.clock().now() + kRetry);
    }
  }
}

void MapLog::stop() {
  stopping_ = true;
  wake_.set();
}

rt::Task<bool> MapLog::write_batch() {
  const size_t count = std::min(queue_.size(), kMaxBatch);
  const uint64_t first = sequence_ - queue_.size() + 1;
  const auto bytes =
      format::encode_batch(std::span(queue_).first(count), {.generation = live_generation_,
                                                            .first_sequence = first,
                                                            .flushed = device_.log_flushed(),
                                                            .chain = chain_});
  if (used_bytes_ + bytes.size() > half_bytes()) co_return co_await write_checkpoint();
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));
  if (!co_await write_bytes(log_offset_ + half_ * half_bytes() + used_bytes_, bytes)) {
    co_return false;
  }
  used_bytes_ += bytes.size();
  chain_ = format::end_chain(bytes);
  written_ = first + count - 1;
  device_.set_log_written(written_);
  co_return true;
}

rt::Task<bool> MapLog::write_checkpoint() {
  const uint64_t losses = device_.losses();
  queue_.clear();
  format::LogCheckpoint checkpoint = contents_();
  checkpoint.device = device_.uuid();
  checkpoint.sequence = sequence_;
  checkpoint.generation = ++generation_;
  const uint64_t sequence = sequence_;
  const auto bytes = format::encode_checkpoint(checkpoint);
  if (bytes.size() > half_bytes()) co_return false;  // kept from happening by log_capacity()
  // Records that arrive from here on follow the checkpoint; they queue behind it.
  needs_checkpoint_ = false;
  const unsigned half = 1 - half_;
  if (!co_await write_bytes(log_offset_ + half * half_bytes(), bytes)) co_return false;
  if (co_await device_.control_port().flush() != 0 || device_.losses() != losses) co_return false;
  half_ = half;
  used_bytes_ = bytes.size();
  chain_ = format::end_chain(bytes);
  live_generation_ = checkpoint.generation;
  losses_ = losses;
  written_ = sequence;
  device_.set_log_written(written_);
  device_.note_log_flushed(written_);
  co_return true;
}

rt::Task<bool> MapLog::write_bytes(uint64_t offset, std::span<const std::byte> bytes) {
  rt::Buffer buffer = control_.buffers().get(std::min<uint64_t>(bytes.size(), kTransferBytes));
  for (uint64_t at = 0; at < bytes.size();) {
    const uint64_t part = std::min<uint64_t>(buffer.size(), bytes.size() - at);
    std::memcpy(buffer.data(), bytes.data() + at, part);
    const int error = co_await device_.control_port().write(offset + at, buffer.span().first(part));
    if (error != 0) co_return false;
    at += part;
  }
  co_return true;
}

}  // namespace duplex::pool
