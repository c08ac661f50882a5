#include "pool/backing_impl.h"

#include <algorithm>
#include <utility>

namespace duplex::pool {
namespace {

// Extents released in one transaction: bounds its size and the pause of others.
constexpr size_t kReleaseTogether = 4096;

}  // namespace

BackingImpl::BackingImpl(rt::Core& control, rt::Core& core, Mapper& mapper,
                         const meta::BackingRow& row, uint64_t extent_bytes, ExtentMap map,
                         const std::vector<std::shared_ptr<Device>>& devices)
    : control_(control),
      core_(core),
      mapper_(mapper),
      id_(row.id),
      name_(row.name),
      extent_bytes_(extent_bytes),
      thick_(row.thick),
      only_device_(row.device),
      size_bytes_(row.size_bytes),
      map_(std::move(map)),
      tasks_(core) {
  for (const auto& device : devices) add_use(device);
  update_allocated();
}

void BackingImpl::owe_earlier_run() {
  for (LogicalExtent le(map_.next_mapped(0)); le.value() < map_.size();
       le = LogicalExtent(map_.next_mapped(map_.run_end(le)))) {
    use_of(map_.at(le).device).owe_earlier_run();
  }
}

bool BackingImpl::has_untold_loss() const {
  return std::ranges::any_of(uses_, [](const auto& use) { return use && use->has_untold_loss(); });
}

// An extent in doubt counts as not mapped: who wants to write has to ask allocate().
bool BackingImpl::is_mapped(ByteRange range) const {
  if (!in_doubt_.empty() && is_in_doubt(range)) return false;
  for (uint32_t le = first_extent(range); le < end_extent(range); ++le) {
    if (!map_.at(LogicalExtent(le)).is_mapped()) return false;
  }
  return true;
}

bool BackingImpl::is_hole(ByteRange range) const {
  return map_.next_mapped(first_extent(range)) >= end_extent(range);
}

Backing::Run BackingImpl::run_at(uint64_t offset) const {
  const LogicalExtent le(static_cast<uint32_t>(offset / extent_bytes_));
  const uint64_t end = map_.run_end(le) * extent_bytes_;
  return {map_.at(le).is_mapped(), std::min(end, size_bytes())};
}

ByteRange BackingImpl::whole_extents(ByteRange range) const {
  ByteRange whole = range;
  if (range.end() == size_bytes())
    whole.length = round_up(range.end(), extent_bytes_) - range.offset;
  whole = whole.narrowed(extent_bytes_);
  if (!whole.empty() && whole.end() > size_bytes()) whole.length = size_bytes() - whole.offset;
  return whole;
}

void BackingImpl::unpin(unsigned version) {
  ASSERT(pinned_[version] > 0);
  if (--pinned_[version] == 0 && version != version_ && !core_.abandoned()) {
    old_version_idle_.set();
  }
}

void BackingImpl::add_use(const std::shared_ptr<Device>& device) {
  const size_t at = device->id().value();
  if (uses_.size() <= at) uses_.resize(at + 1);
  if (!uses_[at]) uses_[at] = std::make_shared<DeviceUse>(device, core_);
}

void BackingImpl::forget(DeviceId device) {
  if (device.value() < uses_.size()) uses_[device.value()].reset();
}

void BackingImpl::note_touched(const MapRequest& request) {
  for (const MapRequest::Touched& touched : request.touched) {
    add_use(touched.device);
    use_of(touched.device->id()).note_log(touched.sequence, touched.losses);
  }
}

void BackingImpl::update_allocated() {
  allocated_bytes_.store(map_.mapped() * extent_bytes_, std::memory_order_relaxed);
}

rt::Task<Result<void>> BackingImpl::submit(MapRequest& request) {
  co_await rt::hop(control_);
  auto result = co_await mapper_.submit(request);
  co_await rt::hop(core_);
  if (result) note_touched(request);
  co_return result;
}

rt::Task<Result<void>> BackingImpl::allocate(ByteRange range) {
  if (!in_doubt_.empty() && is_in_doubt(range)) co_return fail(Code::kInDoubt);
  while (true) {
    MapRequest request;
    bool pending = false;
    for (uint32_t le = first_extent(range); le < end_extent(range); ++le) {
      if (map_.at(LogicalExtent(le)).is_mapped()) continue;
      if (map_.is_pending(LogicalExtent(le))) {
        pending = true;
      } else {
        request.map.push_back(LogicalExtent(le));
      }
    }
    if (request.map.empty() && !pending) co_return Result<void>();
    if (request.map.empty()) {
      co_await map_changed_.wait();
      continue;
    }
    request.backing = id_;
    request.only = only_device_;
    const uint32_t first = request.map.front().value();
    if (first > 0 && map_.at(LogicalExtent(first - 1)).is_mapped()) {
      request.after = map_.at(LogicalExtent(first - 1));
    }
    for (const LogicalExtent le : request.map) map_.set_pending(le);
    const auto result = co_await submit(request);
    for (size_t i = 0; i < request.map.size(); ++i) {
      if (result) {
        map_.map(request.map[i], request.placed[i]);
      } else {
        map_.clear_pending(request.map[i]);
      }
    }
    update_allocated();
    map_changed_.pulse();
    if (!result) co_return result;
  }
}

rt::Task<Result<void>> BackingImpl::zero(ByteRange range, ZeroMode mode) {
  using Kind = rt::FileOp::Kind;
  if (mode == ZeroMode::kKeep) CO_TRY(co_await allocate(range));
  if (mode == ZeroMode::kKeep || (thick_ && mode == ZeroMode::kMayUnmap)) {
    co_return co_await transfer(Kind::kZeroNoUnmap, range, nullptr);
  }
  const Kind kind = mode == ZeroMode::kFast ? Kind::kZeroFast : Kind::kZero;
  const ByteRange whole = whole_extents(range);
  if (thick_ || whole.empty()) co_return co_await transfer(kind, range, nullptr);
  // The edges first: they may refuse (kFast), a release does not.
  if (whole.offset > range.offset) {
    CO_TRY(co_await transfer(kind, {range.offset, whole.offset - range.offset}, nullptr));
  }
  if (range.end() > whole.end()) {
    CO_TRY(co_await transfer(kind, {whole.end(), range.end() - whole.end()}, nullptr));
  }
  co_return co_await release(whole);
}

std::vector<meta::ExtentRow> BackingImpl::mapped_rows(uint32_t from, uint32_t to,
                                                      size_t limit) const {
  std::vector<meta::ExtentRow> rows;
  for (uint32_t le = map_.next_mapped(from); le < to && rows.size() < limit;
       le = map_.next_mapped(le + 1)) {
    const Location place = map_.at(LogicalExtent(le));
    rows.push_back({id_, LogicalExtent(le), place.device, place.pe});
  }
  return rows;
}

// Store first, then memory: until the commit is durable readers see the old bytes, afterwards
// zeroes, and after a crash at any moment one or the other.
rt::Task<Result<void>> BackingImpl::release(ByteRange whole) {
  uint32_t from = first_extent(whole);
  while (true) {
    MapRequest request;
    request.unmap = mapped_rows(from, end_extent(whole), kReleaseTogether);
    if (request.unmap.empty()) co_return Result<void>();
    for (const meta::ExtentRow& row : request.unmap) {
      // Its map log cannot be written, so no FLUSH could promise the release (trace F35).
      if (use_of(row.device).device->is_absent()) co_return fail(Code::kMediumWrite);
    }
    from = request.unmap.back().le.value() + 1;
    Result<void> released = co_await submit(request);
    if (!released) doubt(request.unmap, released.error());
    if (!released) co_return released;
    unmap(request.unmap);
  }
}

// The next start may find these extents released, and zeroed with all that was written to them
// meanwhile. So nothing is written there any more; reads go on.
void BackingImpl::doubt(const std::vector<meta::ExtentRow>& rows, const Error& why) {
  if (why.code() != Code::kInDoubt) return;
  for (const meta::ExtentRow& row : rows) in_doubt_.insert(row.le);
}

bool BackingImpl::is_in_doubt(ByteRange range) const {
  const auto first = in_doubt_.lower_bound(LogicalExtent(first_extent(range)));
  return first != in_doubt_.end() && first->value() < end_extent(range);
}

// The store has released these; they become holes here, and are cleaned when the last I/O that
// saw them has ended.
void BackingImpl::unmap(const std::vector<meta::ExtentRow>& rows) {
  for (const meta::ExtentRow& row : rows) {
    const Location was = map_.unmap(row.le);
    ASSERT(was == (Location{row.device, row.pe}));
  }
  update_allocated();
  tasks_.spawn(retire(rows));  // when closing: the next start cleans them
}

rt::Task<> BackingImpl::retire(std::vector<meta::ExtentRow> rows) {
  {
    const auto held = co_await turning_.lock();
    const unsigned old = version_;
    version_ = 1 - version_;
    while (pinned_[old] > 0) {
      old_version_idle_.reset();
      co_await old_version_idle_.wait();
    }
  }
  co_await rt::hop(control_);
  std::ranges::sort(rows, {}, [](const meta::ExtentRow& r) { return std::pair(r.device, r.pe); });
  for (size_t i = 0; i < rows.size();) {
    std::vector<PhysicalExtent> released;
    const DeviceId device = rows[i].device;
    for (; i < rows.size() && rows[i].device == device; ++i) released.push_back(rows[i].pe);
    mapper_.clean(device, released);
  }
  co_await rt::hop(core_);
}

rt::Task<Result<void>> BackingImpl::resize(uint64_t size_bytes, MapRequest& request) {
  const auto extents = static_cast<uint32_t>(divide_up(size_bytes, extent_bytes_));
  if (size_bytes > this->size_bytes()) CO_TRY(co_await clear_tail());
  if (extents < map_.size()) request.unmap = mapped_rows(extents, map_.size(), SIZE_MAX);
  Result<void> resized = co_await submit(request);
  if (!resized) doubt(request.unmap, resized.error());
  if (!resized) co_return resized;
  unmap(request.unmap);
  map_.resize(extents);
  for (size_t i = 0; i < request.map.size(); ++i) map_.map(request.map[i], request.placed[i]);
  size_bytes_.store(size_bytes, std::memory_order_release);
  update_allocated();
  co_return Result<void>();
}

// What an earlier, larger size left in the last extent beyond the end must not come back.
rt::Task<Result<void>> BackingImpl::clear_tail() {
  const uint64_t from = size_bytes();
  const ByteRange tail{from, map_.size() * extent_bytes_ - from};
  if (tail.empty() || is_hole(tail)) co_return Result<void>();
  CO_TRY(co_await transfer(rt::FileOp::Kind::kZero, tail, nullptr));
  co_return co_await flush();
}

rt::Task<> BackingImpl::close() { co_await tasks_.close(); }

std::vector<ExtentRun> BackingImpl::extents() const {
  std::vector<ExtentRun> runs;
  for (uint32_t le = 0; le < map_.size();) {
    const Location place = map_.at(LogicalExtent(le));
    uint32_t end = le + 1;
    if (place.is_mapped()) {
      while (end < map_.size() &&
             map_.at(LogicalExtent(end)) ==
                 Location{place.device, PhysicalExtent(place.pe.value() + (end - le))}) {
        ++end;
      }
    } else {
      end = map_.next_mapped(le);
    }
    runs.push_back({.le = LogicalExtent(le),
                    .device = place.is_mapped() ? uses_[place.device.value()]->device->name() : "",
                    .pe = place.pe,
                    .count = end - le});
    le = end;
  }
  return runs;
}

}  // namespace duplex::pool
