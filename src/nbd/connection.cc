// Receiving: from the socket to tasks.
#include "nbd/connection.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/log.h"

namespace duplex::nbd {
namespace {

// An idle connection holds a small buffer; one that is busy a large one, so that a burst of
// requests comes in with one receive. A few may keep the large one while idle.
constexpr size_t kSmallBuffer = 8 * kKiB;
constexpr size_t kLargeBuffer = 256 * kKiB;
constexpr size_t kLargeBuffersPerCore = 32;

// What is announced to clients fits into what the volume takes, and into one buffer.
static_assert(kMaxRequestBytes <= volume::kMaxRequestBytes);
static_assert(kMaxRequestBytes <= rt::BufferPool::kMaxBytes);

}  // namespace

Connection::Connection(rt::Core& core, std::unique_ptr<rt::Stream> stream, volume::Volume& volume,
                       Options options, CoreShare& share, std::string client)
    : core_(core),
      stream_(std::move(stream)),
      volume_(volume),
      options_(std::move(options)),
      share_(share),
      client_(std::move(client)),
      requests_(core) {
  parts_.reserve(256);
  send_idle_.set();
  send_op_.connection = this;
  send_op_.done = [](rt::StreamOp& op) {
    static_cast<SendOp&>(op).connection->send_ended(op.result);
  };
}

Connection::~Connection() {
  if (large_) --share_.large_buffers;
}

rt::Task<> Connection::run(std::vector<std::byte> received) {
  use_buffer(std::max(kSmallBuffer, received.size()));
  std::copy(received.begin(), received.end(), buffer_.data());
  filled_ = received.size();
  while (!gone_ && co_await take_requests() && co_await receive_more()) {
  }
  end();
  co_await requests_.close();
  co_await send_idle_.wait();
}

void Connection::drain() {
  draining_ = true;
  if (in_flight_ == 0) end();
}

void Connection::end() {
  if (!gone_) stream_->shutdown();
  gone_ = true;
  drop_replies();
}

// Changes the receive buffer, keeping what has not been parsed.
void Connection::use_buffer(size_t bytes) {
  rt::Buffer fresh = core_.buffers().get(bytes);
  if (filled_ > parsed_) std::memcpy(fresh.data(), buffer_.data() + parsed_, filled_ - parsed_);
  filled_ -= parsed_;
  parsed_ = 0;
  buffer_ = std::move(fresh);
  const bool large = bytes > kSmallBuffer;
  if (large != large_) share_.large_buffers += large ? 1 : size_t{0} - 1;
  large_ = large;
}

rt::Task<bool> Connection::receive_more() {
  const bool idle = in_flight_ == 0 && parsed_ == filled_;
  if (!large_ && !idle && filled_ == buffer_.size()) {
    use_buffer(kLargeBuffer);
  } else if (large_ && idle && share_.large_buffers > kLargeBuffersPerCore) {
    use_buffer(kSmallBuffer);
  } else if (parsed_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + parsed_, filled_ - parsed_);
    filled_ -= parsed_;
    parsed_ = 0;
  }
  const int64_t got = co_await stream_->recv(buffer_.span().subspan(filled_));
  if (got <= 0 || gone_) co_return false;
  filled_ += static_cast<size_t>(got);
  co_return true;
}

// Starts every request that is complete in the buffer. False when the connection is over.
rt::Task<bool> Connection::take_requests() {
  while (has(kRequestBytes)) {
    const std::byte* at = buffer_.data() + parsed_;
    if (load_be<uint32_t>(at) != kRequestMagic) {
      log_info("nbd: {}: request without magic, connection closed", client_);
      co_return false;
    }
    const Request request{.flags = load_be<uint16_t>(at + 4),
                          .command = static_cast<Command>(load_be<uint16_t>(at + 6)),
                          .cookie = load_be<uint64_t>(at + 8),
                          .offset = load_be<uint64_t>(at + 16),
                          .length = load_be<uint32_t>(at + 24)};
    parsed_ += kRequestBytes;
    if (request.command == Command::kDisconnect) {
      // What was asked before is still answered ("NBD_CMD_DISC").
      co_await requests_.close();
      co_return false;
    }
    if (!co_await take_one(request)) co_return false;
  }
  co_return true;
}

rt::Task<bool> Connection::take_one(Request request) {
  if (request.command == Command::kWrite) co_return co_await take_write(request);
  const uint64_t charge = request.command == Command::kRead
                              ? std::max<uint64_t>(request.length, kMinCharge)
                              : kMinCharge;
  if (!budget_.try_acquire(charge)) co_await budget_.acquire(charge);
  if (gone_) co_return false;
  ++in_flight_;
  requests_.spawn(serve(request, {}));
  co_return true;
}

rt::Task<bool> Connection::take_write(Request request) {
  if (request.length > kMaxRequestBytes) {
    // The payload would have to be read and thrown away; a client that breaks the announced
    // maximum is let go instead.
    log_info("nbd: {}: write of {} bytes, more than {}, connection closed", client_, request.length,
             kMaxRequestBytes);
    co_return false;
  }
  const uint64_t charge = std::max<uint64_t>(request.length, kMinCharge);
  if (!budget_.try_acquire(charge)) co_await budget_.acquire(charge);
  if (gone_) co_return false;
  rt::Buffer payload;
  if (request.length > 0) {
    payload = core_.buffers().get(request.length);
    const size_t here = std::min<size_t>(request.length, filled_ - parsed_);
    std::memcpy(payload.data(), buffer_.data() + parsed_, here);
    parsed_ += here;
    if (here < request.length && !co_await recv_rest(payload.span().subspan(here))) co_return false;
  }
  ++in_flight_;
  requests_.spawn(serve(request, std::move(payload)));
  co_return true;
}

// The rest of a payload, straight into its buffer.
rt::Task<bool> Connection::recv_rest(std::span<std::byte> into) {
  while (!into.empty()) {
    // A small rest comes in with what follows it.
    if (into.size() < kSmallBuffer && parsed_ == filled_) {
      if (!co_await receive_more()) co_return false;
    }
    if (parsed_ < filled_) {
      const size_t here = std::min(into.size(), filled_ - parsed_);
      std::memcpy(into.data(), buffer_.data() + parsed_, here);
      parsed_ += here;
      into = into.subspan(here);
      continue;
    }
    const int64_t got = co_await stream_->recv(into);
    if (got <= 0 || gone_) co_return false;
    into = into.subspan(static_cast<size_t>(got));
  }
  co_return true;
}

}  // namespace duplex::nbd
