#include "pool/cleaner.h"

#include <algorithm>

#include "base/planted_bug.h"
#include "pool/mapper.h"

namespace duplex::pool {
namespace {

// Clean extents kept ready on a device with a watermark: 64 MiB of first writes at the default
// extent size, zeroed in one go.
constexpr uint32_t kAhead = 16;
// Released extents cleaned together: they share two flushes and a commit.
constexpr size_t kTogether = 64;
// Pause after a failure.
constexpr rt::Micros kRetry = rt::kSecond;

}  // namespace

Cleaner::Cleaner(Device& device, DeviceSpace& space, MapLog& log, Mapper& mapper, rt::Core& control)
    : device_(device), space_(space), log_(log), mapper_(mapper), control_(control) {}

void Cleaner::add(const std::vector<PhysicalExtent>& released) {
  released_.insert(released_.end(), released.begin(), released.end());
  wake_.set();
}

void Cleaner::set_watermark(uint32_t extents) {
  watermark_ = extents;
  wake_.set();
}

void Cleaner::want(uint64_t extents) {
  wanted_ = std::max(wanted_, extents);
  wake_.set();
}

bool Cleaner::has_work() const {
  return !released_.empty() ||
         (watermark_ < space_.size() && space_.free() < std::max<uint64_t>(kAhead, wanted_));
}

rt::Task<> Cleaner::run() {
  while (!stopping_) {
    if (!has_work() || device_.is_absent()) {
      wanted_ = 0;
      wake_.reset();
      co_await wake_.wait();
      continue;
    }
    bool ok = false;
    if (!released_.empty()) {
      ok = co_await scrub();
    } else {
      ok = co_await clean_ahead();
    }
    if (!ok && !stopping_) {
      wake_.reset();
      co_await wake_.wait_until(control_.clock(), control_.clock().now() + kRetry);
    }
  }
}

void Cleaner::stop() {
  stopping_ = true;
  wake_.set();
}

rt::Task<bool> Cleaner::scrub() {
  const size_t count = std::min(released_.size(), kTogether);
  std::vector<PhysicalExtent> batch(released_.begin(),
                                    released_.begin() + static_cast<ptrdiff_t>(count));
  released_.erase(released_.begin(), released_.begin() + static_cast<ptrdiff_t>(count));
  std::ranges::sort(batch);

  const uint64_t losses = device_.losses();
  bool ok = (co_await log_.written(log_.sequence())).has_value();
  // The flush makes the log durable; without it a rebuild could find the old owner in an extent
  // that has a new one.
  ok = ok && co_await device_.control_port().flush() == 0 && device_.losses() == losses;
  if constexpr (!planted(Bug::kSkipScrub)) ok = ok && co_await zero(batch);
  if (ok) {
    MapRequest request;
    for (const PhysicalExtent pe : batch) request.scrubbed.push_back({device_.id(), pe});
    ok = (co_await mapper_.submit(request)).has_value();
  }
  if (!ok) released_.insert(released_.end(), batch.begin(), batch.end());
  co_return ok;
}

rt::Task<bool> Cleaner::clean_ahead() {
  const uint32_t from = watermark_;
  const uint32_t to = std::min<uint32_t>(space_.size(), from + kAhead);
  std::vector<PhysicalExtent> batch;
  for (uint32_t pe = from; pe < to; ++pe) {
    if (space_.state(PhysicalExtent(pe)) == DeviceSpace::State::kUnclean) {
      batch.push_back(PhysicalExtent(pe));
    }
  }
  if (!co_await zero(batch)) co_return false;
  MapRequest request;
  request.clean = {.device = device_.id(), .from = from, .to = to};
  if (!co_await mapper_.submit(request)) co_return false;
  watermark_ = to;
  co_return true;
}

// True when all of them read as zeroes, durably.
rt::Task<bool> Cleaner::zero(std::vector<PhysicalExtent> extents) {
  const uint64_t losses = device_.losses();
  for (size_t i = 0; i < extents.size();) {
    size_t end = i + 1;
    while (end < extents.size() && extents[end].value() == extents[end - 1].value() + 1) ++end;
    const uint64_t length = (end - i) * device_.extent_bytes();
    const int error = co_await device_.control_port().zero(device_.byte_of(extents[i]), length,
                                                           rt::FileOp::Kind::kZero);
    if (error != 0) co_return false;
    i = end;
  }
  co_return co_await device_.control_port().flush() == 0 && device_.losses() == losses;
}

}  // namespace duplex::pool
