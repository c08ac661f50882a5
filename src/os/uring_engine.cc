// The io_uring engine: one ring per reactor; reads, writes, flushes, receives and the wake-up all
// end as completions of it, submitted and reaped with one system call per turn.
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/assert.h"
#include "os/engine.h"

namespace duplex::os {
namespace {

constexpr unsigned kRingEntries = 1024;

// Low bits of user_data say what a completion is about; the rest is the pointer, or the number of a
// ReadableWait.
enum class Kind : uint64_t {
  kFile = 0,
  kReceive = 1,
  kSend = 2,
  kReadable = 3,
  kWake = 4,
  kIgnore = 5
};
constexpr unsigned kKindBits = 3;
constexpr uint64_t kKindMask = (uint64_t{1} << kKindBits) - 1;

class UringEngine final : public Engine {
 public:
  ~UringEngine() override {
    if (ring_ready_) io_uring_queue_exit(&ring_);
    if (event_fd_ >= 0) close(event_fd_);
  }

  Result<void> start() {
    io_uring_params params{};
    params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
    params.cq_entries = 4 * kRingEntries;
    const int error = io_uring_queue_init_params(kRingEntries, &ring_, &params);
    if (error != 0) return std::unexpected(system_error(-error, "io_uring"));
    ring_ready_ = true;
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    const bool usable = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_RECV) &&
                        io_uring_opcode_supported(probe, IORING_OP_SENDMSG) &&
                        io_uring_opcode_supported(probe, IORING_OP_FALLOCATE);
    io_uring_free_probe(probe);
    if (!usable || (params.features & IORING_FEAT_EXT_ARG) == 0) {
      return fail(Code::kNotSupported, "this kernel's io_uring is too old (5.11 is needed)");
    }
    event_fd_ = eventfd(0, EFD_CLOEXEC);
    if (event_fd_ < 0) return std::unexpected(system_error(errno, "eventfd"));
    arm_wake();
    return {};
  }

  const char* name() const override { return "io_uring"; }

  void submit(rt::FileOp& op) override {
    io_uring_sqe* sqe = next_sqe();
    const int fd = file_fd(op);
    const uint32_t done = bytes_done(op);
    const auto offset = op.offset + done;
    std::byte* at = op.data.data() + done;
    const auto left = static_cast<unsigned>(op.data.size() - done);
    switch (op.kind) {
      case rt::FileOp::Kind::kRead:
        if (in_arena(at)) {
          io_uring_prep_read_fixed(sqe, fd, at, left, offset, 0);
        } else {
          io_uring_prep_read(sqe, fd, at, left, offset);
        }
        break;
      case rt::FileOp::Kind::kWrite:
        if (in_arena(at)) {
          io_uring_prep_write_fixed(sqe, fd, at, left, offset, 0);
        } else {
          io_uring_prep_write(sqe, fd, at, left, offset);
        }
        break;
      case rt::FileOp::Kind::kFlush:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
      case rt::FileOp::Kind::kZero:
      case rt::FileOp::Kind::kZeroNoUnmap:
      case rt::FileOp::Kind::kZeroFast:
        io_uring_prep_fallocate(sqe, fd, zero_mode(op.kind), static_cast<off_t>(op.offset),
                                static_cast<off_t>(op.length));
        break;
    }
    tag(sqe, &op, Kind::kFile);
  }

  void receive(Socket& socket, rt::StreamOp& op) override {
    socket.receiving = &op;
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_recv(sqe, socket.fd, op.parts->iov_base, op.parts->iov_len, 0);
    tag(sqe, &socket, Kind::kReceive);
  }

  void send(Socket& socket, rt::StreamOp& op) override {
    socket.sending = &op;
    socket.message = {};
    socket.message.msg_iov = op.parts;
    socket.message.msg_iovlen = static_cast<size_t>(op.part_count);
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_sendmsg(sqe, socket.fd, &socket.message, MSG_NOSIGNAL);
    tag(sqe, &socket, Kind::kSend);
  }

  void forget(Socket& /*socket*/) override {}

  void wait_readable(ReadableWait& wait) override {
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_poll_add(sqe, wait.fd, POLLIN);
    sqe->user_data = readable_data(waits_.add(wait));
  }

  void cancel(ReadableWait& wait) override {
    if (!wait.is_armed()) return;
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_poll_remove(sqe, readable_data(wait.number));
    sqe->user_data = static_cast<uint64_t>(Kind::kIgnore);
    waits_.remove(wait);
    // Before the caller closes the descriptor: its number may soon be another file's.
    io_uring_submit(&ring_);
  }

  void wait(bool block, std::optional<rt::Micros> timeout_us) override {
    io_uring_cqe* cqe = nullptr;
    if (!block) {
      io_uring_submit(&ring_);
    } else if (timeout_us) {
      __kernel_timespec time{};
      time.tv_sec = static_cast<int64_t>(*timeout_us / rt::kSecond);
      time.tv_nsec = static_cast<int64_t>(*timeout_us % rt::kSecond) * 1000;
      io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &time, nullptr);
    } else {
      io_uring_submit_and_wait(&ring_, 1);
    }
    reap();
  }

  void wake() override {
    const uint64_t one = 1;
    // Fails only when the counter is at its maximum, and then the reader is awake anyway.
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof one);
  }

  bool register_arena(std::span<std::byte> arena) override {
    const iovec whole{arena.data(), arena.size()};
    if (io_uring_register_buffers(&ring_, &whole, 1) != 0) return false;
    arena_ = arena;
    return true;
  }

 private:
  bool in_arena(const std::byte* at) const {
    return at >= arena_.data() && at < arena_.data() + arena_.size();
  }

  io_uring_sqe* next_sqe() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      io_uring_submit(&ring_);  // the queue was full; the kernel takes all of it
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }

  static uint64_t readable_data(uint64_t number) {
    return number << kKindBits | static_cast<uint64_t>(Kind::kReadable);
  }

  static void tag(io_uring_sqe* sqe, void* object, Kind kind) {
    sqe->user_data = reinterpret_cast<uint64_t>(object) | static_cast<uint64_t>(kind);
  }

  void arm_wake() {
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_read(sqe, event_fd_, &wake_count_, sizeof wake_count_, 0);
    tag(sqe, nullptr, Kind::kWake);
  }

  void reap() {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const uint64_t data = cqe->user_data;
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      complete(data, result);
    }
  }

  void complete(uint64_t data, int result) {
    void* object = reinterpret_cast<void*>(data & ~kKindMask);
    switch (static_cast<Kind>(data & kKindMask)) {
      case Kind::kFile:
        complete_file(*static_cast<rt::FileOp*>(object), result);
        break;
      case Kind::kReceive: {
        rt::StreamOp& op = *std::exchange(static_cast<Socket*>(object)->receiving, nullptr);
        op.result = result;
        op.done(op);
        break;
      }
      case Kind::kSend:
        complete_send(*static_cast<Socket*>(object), result);
        break;
      case Kind::kReadable:
        waits_.tell(data >> kKindBits);
        break;
      case Kind::kWake:
        arm_wake();
        break;
      case Kind::kIgnore:
        break;
    }
  }

  void complete_file(rt::FileOp& op, int result) {
    const bool transfer = op.kind == rt::FileOp::Kind::kRead || op.kind == rt::FileOp::Kind::kWrite;
    if (result == -EINTR || result == -EAGAIN) return submit(op);
    if (transfer && result > 0) {
      add_done(op, static_cast<uint32_t>(result));
      if (bytes_done(op) < op.data.size()) return submit(op);
      result = 0;
    } else if (transfer && result == 0) {
      result = -EIO;  // the end of the file lies inside the range
    } else if (result == -EOPNOTSUPP && op.kind == rt::FileOp::Kind::kZero) {
      // A disk that cannot unmap, like most hard disks: the kernel writes the zeroes.
      op.kind = rt::FileOp::Kind::kZeroNoUnmap;
      return submit(op);
    } else if (result == -EOPNOTSUPP && op.kind == rt::FileOp::Kind::kZeroNoUnmap) {
      // Rare (a file system without fallocate): done in place, blocking.
      result = -write_zeroes(file_fd(op), op.offset, op.length);
    }
    op.error = -result;
    op.done(op);
  }

  void complete_send(Socket& socket, int result) {
    rt::StreamOp& op = *std::exchange(socket.sending, nullptr);
    if (result >= 0) {
      skip_sent(op, static_cast<size_t>(result));
      if (op.part_count > 0) return send(socket, op);
      result = 0;
    }
    op.result = result;
    op.done(op);
  }

  io_uring ring_{};
  bool ring_ready_ = false;
  int event_fd_ = -1;
  uint64_t wake_count_ = 0;
  std::span<std::byte> arena_;
  ReadableWaits waits_;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_uring_engine() {
  auto engine = std::make_unique<UringEngine>();
  TRY(engine->start());
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace duplex::os
