#include "pool/device.h"

#include <cerrno>
#include <utility>

namespace duplex::pool {

bool means_gone(int errnum) { return errnum == ENXIO || errnum == ENODEV || errnum == EBADF; }

Device::Device(rt::World& world, DeviceId id, const Uuid& uuid, std::string name,
               uint64_t extent_bytes, uint64_t data_offset)
    : world_(world),
      id_(id),
      uuid_(uuid),
      name_(std::move(name)),
      extent_bytes_(extent_bytes),
      data_offset_(data_offset),
      trouble_(*this) {
  for (size_t i = 0; i < world.core_count(); ++i) {
    ports_.push_back(std::make_unique<DevicePort>(*this));
  }
}

Device::~Device() = default;

void Device::failed(rt::FileOp::Kind kind, int errnum) {
  switch (kind) {
    case rt::FileOp::Kind::kRead:
      read_errors_.fetch_add(1, std::memory_order_relaxed);
      break;
    case rt::FileOp::Kind::kFlush:
      flush_errors_.fetch_add(1, std::memory_order_relaxed);
      break;
    default:
      write_errors_.fetch_add(1, std::memory_order_relaxed);
  }
  last_error_.store(errnum, std::memory_order_release);
  if (means_gone(errnum)) seen_gone_.store(true, std::memory_order_release);
  // What is said about an absent device is no news.
  if (is_absent()) return;
  if (!trouble_.posted.exchange(true, std::memory_order_acq_rel)) world_.control().post(trouble_);
}

void Device::Trouble::arrive(rt::Work& work) {
  auto& self = static_cast<Trouble&>(work);
  self.posted.store(false, std::memory_order_release);
  if (self.device.trouble_handler_) self.device.trouble_handler_();
}

void Device::forget_errors() {
  last_error_.store(0, std::memory_order_release);
  seen_gone_.store(false, std::memory_order_release);
}

rt::Task<Result<void>> Device::attach(std::string path, std::unique_ptr<rt::File> control_file) {
  ports_[0]->attach(std::move(control_file));
  Result<void> result;
  for (size_t i = 1; i < ports_.size() && result; ++i) {
    rt::Core& core = world_.core(i);
    co_await rt::hop(core);
    auto file = co_await core.files().open(path, {.write = true});
    if (file) {
      ports_[i]->attach(std::move(*file));
    } else {
      result = std::unexpected(file.error());
    }
  }
  co_await rt::hop(world_.control());
  if (!result) co_await detach();
  co_return result;
}

rt::Task<Result<uint64_t>> Device::refresh_size() {
  Result<uint64_t> size = fail(Code::kNoDevice, "the device is absent");
  for (size_t i = ports_.size(); i-- > 0;) {  // the control core's answer counts
    co_await rt::hop(world_.core(i));
    size = co_await ports_[i]->refresh_size();
  }
  co_return size;
}

rt::Task<> Device::detach() {
  // From here on no core reports: a report could arrive after the device is gone.
  set_state(DeviceState::kAbsent);
  for (size_t i = 0; i < ports_.size(); ++i) {
    co_await rt::hop(world_.core(i));
    co_await ports_[i]->close();
  }
  co_await rt::hop(world_.control());
  while (trouble_.posted.load(std::memory_order_acquire)) co_await rt::yield();
}

}  // namespace duplex::pool
