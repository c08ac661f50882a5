#include "pool/device_port.h"

#include <cerrno>
#include <utility>

#include "base/assert.h"
#include "base/planted_bug.h"
#include "pool/device.h"

namespace duplex::pool {

// co_await Operation: one operation through start() and ended().
struct DevicePort::Operation : rt::FileOp {
  explicit Operation(DevicePort& p) : port(p) {}
  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> h) {
    handle = h;
    done = [](rt::FileOp& op) {
      auto& self = static_cast<Operation&>(op);
      self.port.ended();
      self.handle.resume();
    };
    return !port.start(*this);
  }
  int await_resume() const { return error; }
  DevicePort& port;
  std::coroutine_handle<> handle;
};

bool DevicePort::start(rt::FileOp& op) {
  if (!is_open()) {
    op.error = ENODEV;
    return true;
  }
  // Counted before the start: the engine may end other operations inside it.
  ++in_flight_;
  if (!file_->start(op)) return false;
  ended();
  return true;
}

void DevicePort::ended() {
  ASSERT(in_flight_ > 0);
  if (--in_flight_ == 0 && closing_) idle_.set();
}

rt::Task<int> DevicePort::read(uint64_t offset, std::span<std::byte> into) {
  Operation op(*this);
  op.kind = rt::FileOp::Kind::kRead;
  op.offset = offset;
  op.data = into;
  const int error = co_await op;
  if (error != 0) device_.failed(op.kind, error);
  co_return error;
}

rt::Task<int> DevicePort::write(uint64_t offset, std::span<const std::byte> from) {
  Operation op(*this);
  op.kind = rt::FileOp::Kind::kWrite;
  op.offset = offset;
  op.data = {const_cast<std::byte*>(from.data()), from.size()};
  const int error = co_await op;
  if (error != 0) device_.failed(op.kind, error);
  co_return error;
}

rt::Task<int> DevicePort::zero(uint64_t offset, uint64_t length, rt::FileOp::Kind kind) {
  Operation op(*this);
  op.kind = kind;
  op.offset = offset;
  op.length = length;
  const int error = co_await op;
  if (error != 0) device_.failed(op.kind, error);
  co_return error;
}

rt::Task<int> DevicePort::flush() {
  const uint64_t mine = rounds_started_ + 1;
  while (rounds_ended_ < mine) {
    if (rounds_started_ > rounds_ended_) {
      co_await round_ended_.wait();
      continue;
    }
    const uint64_t round = ++rounds_started_;
    Operation op(*this);
    op.kind = rt::FileOp::Kind::kFlush;
    const int error = co_await op;
    rounds_ended_ = round;
    if (error != 0) {
      last_failed_round_ = round;
      last_flush_error_ = error;
      if constexpr (!planted(Bug::kFailedFlushForgotten)) device_.count_loss();
      device_.failed(op.kind, error);
    }
    round_ended_.pulse();
  }
  co_return last_failed_round_ >= mine ? last_flush_error_ : 0;
}

rt::Task<Result<uint64_t>> DevicePort::refresh_size() {
  if (!is_open()) co_return fail(Code::kNoDevice, "the device is absent");
  ++in_flight_;
  auto size = co_await file_->refresh();
  ended();
  co_return size;
}

void DevicePort::attach(std::unique_ptr<rt::File> file) {
  ASSERT(file_ == nullptr && in_flight_ == 0);
  file_ = std::move(file);
  closing_ = false;
  idle_.reset();
}

rt::Task<> DevicePort::close() {
  if (file_ == nullptr) co_return;
  closing_ = true;
  if (in_flight_ == 0) idle_.set();
  co_await idle_.wait();
  file_.reset();
}

}  // namespace duplex::pool
