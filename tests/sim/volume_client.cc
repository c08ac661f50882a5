#include "sim/volume_client.h"

#include <algorithm>

namespace duplex::simtest {

rt::Task<> VolumeClient::run(uint64_t count) {
  for (uint32_t lane = 0; lane < mix_.depth; ++lane) {
    tasks_.spawn(one_lane(count / mix_.depth + 1));
  }
  co_await tasks_.close();
}

rt::Task<> VolumeClient::one_lane(uint64_t count) {
  for (uint64_t i = 0; i < count && !gone_; ++i) {
    const Outcome outcome = co_await one_request();
    ++stats_.operations;
    if (outcome == Outcome::kError) {
      ++stats_.errors;
      // A host that gets an error waits a little; otherwise a dead device is hammered for nothing.
      co_await rt::sleep_for(core_.clock(), 200);
    }
    if (outcome == Outcome::kGone) gone_ = true;
  }
}

VolumeClient::Range VolumeClient::draw_range() {
  const uint64_t total = oracle_.sectors();
  const uint64_t span = dice_.chance(mix_.hot_spot) ? std::max<uint64_t>(total / 16, 1) : total;
  uint64_t count = dice_.between(1, mix_.max_sectors);
  if (dice_.chance(0.5)) count = dice_.between(1, std::min<uint64_t>(8, mix_.max_sectors));
  uint64_t first = dice_.below(span);
  if (!mix_.unaligned) {
    first -= first % 8;
    count = std::max<uint64_t>(count - count % 8, 8);
  }
  first = std::min(first, total - 1);
  return {first, std::min(count, total - first)};
}

rt::Task<Outcome> VolumeClient::one_request() {
  const double kind = static_cast<double>(dice_.below(1'000'000)) / 1e6;
  double edge = mix_.write;
  if (kind < edge) return write_request(draw_range());
  if (kind < (edge += mix_.zero)) return zero_request(draw_range(), false);
  if (kind < (edge += mix_.trim)) return zero_request(draw_range(), true);
  if (kind < (edge += mix_.flush)) return flush_request();
  return read_request(draw_range());
}

void VolumeClient::tell_begin(Time started, Range range, uint32_t write) {
  if (cuts_ != nullptr)
    cuts_->begin_write(started, source_, range.first, range.count, oracle_.tag_of_write(write));
}

void VolumeClient::tell_end(Time started, bool success) {
  if (cuts_ != nullptr) cuts_->end_write(moments_.now, source_, started, success);
}

rt::Task<Outcome> VolumeClient::write_request(Range range) {
  const bool fua = dice_.chance(mix_.fua);
  const bool zero = dice_.chance(0.02);  // zeroes as payload: must behave like any data
  const Time started = moments_.next();
  const uint32_t id =
      oracle_.begin_write(started, range.first, range.count, {.zero = zero, .fua = fua});
  tell_begin(started, range, id);
  rt::Buffer buffer = core_.buffers().get(range.count * kSector);
  oracle_.fill(id, buffer.span());
  const Outcome outcome = co_await host_.write(range.first * kSector, buffer.span(), fua);
  if (outcome == Outcome::kGone) co_return outcome;
  oracle_.end_write(moments_.next(), id, outcome == Outcome::kDone);
  tell_end(started, outcome == Outcome::kDone);
  co_return outcome;
}

// TRIM means zeroes for the whole regions inside it and nothing for the rest (docs/LIMITS.md).
rt::Task<Outcome> VolumeClient::zero_request(Range range, bool trim) {
  constexpr uint64_t kRegionSectors = 65536 / kSector;
  if (trim) {
    range.first -= range.first % kRegionSectors;
    range.count = std::min(kRegionSectors * dice_.between(1, 3), oracle_.sectors() - range.first);
    range.count -= range.count % kRegionSectors;
    if (range.count == 0) co_return Outcome::kDone;
  }
  const bool fua = !trim && dice_.chance(mix_.fua);
  const bool no_hole = dice_.chance(0.3);
  const Time started = moments_.next();
  const uint32_t id =
      oracle_.begin_write(started, range.first, range.count, {.zero = true, .fua = fua});
  tell_begin(started, range, id);
  const Outcome outcome =
      trim ? co_await host_.trim(range.first * kSector, range.count * kSector)
           : co_await host_.zero(range.first * kSector, range.count * kSector, fua, no_hole);
  if (outcome == Outcome::kGone) co_return outcome;
  oracle_.end_write(moments_.next(), id, outcome == Outcome::kDone);
  tell_end(started, outcome == Outcome::kDone);
  co_return outcome;
}

rt::Task<Outcome> VolumeClient::read_request(Range range, Image* image) {
  const Time started = moments_.next();
  oracle_.begin_read(started);
  rt::Buffer buffer = core_.buffers().get(range.count * kSector);
  const Outcome outcome = co_await host_.read(range.first * kSector, buffer.span());
  const std::span<const std::byte> seen =
      outcome == Outcome::kDone ? buffer.span() : std::span<std::byte>{};
  oracle_.end_read(moments_.next(), started, range.first, seen);
  if (cuts_ != nullptr) cuts_->seen(moments_.now, source_, range.first, seen);
  for (uint64_t i = 0; image != nullptr && i < seen.size() / kSector; ++i)
    image->push_back(Oracle::tag_of(seen.subspan(i * kSector, kSector), range.first + i));
  co_return outcome;
}

rt::Task<Outcome> VolumeClient::flush_request() {
  const Time issued = moments_.next();
  oracle_.begin_flush(issued);
  const uint64_t losses = cuts_ != nullptr ? cuts_->losses(source_) : 0;
  const Outcome outcome = co_await host_.flush();
  oracle_.end_flush(moments_.next(), issued, outcome == Outcome::kDone);
  if (cuts_ != nullptr) cuts_->flushed(source_, losses, outcome == Outcome::kDone);
  co_return outcome;
}

rt::Task<bool> VolumeClient::verify_all(Image* image) {
  constexpr uint64_t kStep = 256;
  for (uint64_t first = 0; first < oracle_.sectors(); first += kStep) {
    const Outcome outcome =
        co_await read_request({first, std::min(kStep, oracle_.sectors() - first)}, image);
    if (outcome != Outcome::kDone) co_return false;
  }
  co_return true;
}

}  // namespace duplex::simtest
