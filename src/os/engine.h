// Engine: what a reactor waits in and hands its I/O to. Two implementations: io_uring, and epoll
// with a few helper threads where io_uring is forbidden (many containers).
//
// Owner: a reactor. Thread: the reactor's, except wake(). Completions run inside wait(), in the
// order the kernel reports them.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"
#include "rt/clock.h"
#include "rt/file.h"
#include "rt/net.h"

namespace duplex::os {

// A socket as the engine knows it: at most one receive and one send are in flight.
struct Socket {
  int fd = -1;
  rt::StreamOp* receiving = nullptr;
  rt::StreamOp* sending = nullptr;
  msghdr message{};           // of the send in flight
  uint32_t armed_events = 0;  // epoll engine: events this descriptor is registered for
};

// Somebody who waits for a descriptor to become readable, once (listeners).
struct ReadableWait {
  using Done = void (*)(ReadableWait&);
  bool is_armed() const { return number != 0; }
  int fd = -1;
  Done done = nullptr;
  uint64_t number = 0;  // owned by the engine; 0: not armed
};

// All who wait to read, by a number that is never used twice: when one is cancelled its event may
// already be on the way, and it may be gone when the event comes.
class ReadableWaits {
 public:
  uint64_t add(ReadableWait& wait) {
    wait.number = ++last_;
    waiting_.emplace(wait.number, &wait);
    return wait.number;
  }
  void remove(ReadableWait& wait) { waiting_.erase(std::exchange(wait.number, 0)); }
  // The event of `number` is here.
  void tell(uint64_t number) {
    const auto at = waiting_.find(number);
    if (at == waiting_.end()) return;
    ReadableWait& wait = *at->second;
    remove(wait);
    wait.done(wait);
  }

 private:
  std::map<uint64_t, ReadableWait*> waiting_;
  uint64_t last_ = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual const char* name() const = 0;

  // op.engine_data holds the descriptor (file_fd below). Ends in op.done.
  virtual void submit(rt::FileOp& op) = 0;
  // One receive; the socket would block. Ends in op.done.
  virtual void receive(Socket& socket, rt::StreamOp& op) = 0;
  // The rest of a send; the socket would block. Ends in op.done.
  virtual void send(Socket& socket, rt::StreamOp& op) = 0;
  // No operation of the socket is in flight; forget it before it is closed.
  virtual void forget(Socket& socket) = 0;
  virtual void wait_readable(ReadableWait& wait) = 0;
  // No effect when it is not armed. It is not called any more and may go away, and its descriptor
  // may be closed. Runs no completion of anybody.
  virtual void cancel(ReadableWait& wait) = 0;

  // Submits what is queued, runs completions. Blocks until there is one, wake() is called or the
  // time is up; `block` false: only looks.
  virtual void wait(bool block, std::optional<rt::Micros> timeout_us) = 0;
  // Any thread: wait() returns soon.
  virtual void wake() = 0;
  // The memory data buffers come from; false when it cannot be registered.
  virtual bool register_arena(std::span<std::byte> arena) = 0;
};

// Null with a reason when the kernel does not allow it.
Result<std::unique_ptr<Engine>> make_uring_engine();
Result<std::unique_ptr<Engine>> make_threads_engine(unsigned threads);

// engine_data of a FileOp: descriptor in the upper half, bytes done in the lower one.
inline void set_file_fd(rt::FileOp& op, int fd) {
  op.engine_data = uint64_t{static_cast<uint32_t>(fd)} << 32;
}
inline int file_fd(const rt::FileOp& op) { return static_cast<int>(op.engine_data >> 32); }
inline uint32_t bytes_done(const rt::FileOp& op) { return static_cast<uint32_t>(op.engine_data); }
inline void add_done(rt::FileOp& op, uint32_t bytes) { op.engine_data += bytes; }

// Takes `sent` bytes off the front of a send.
inline void skip_sent(rt::StreamOp& op, size_t sent) {
  while (op.part_count > 0 && sent >= op.parts->iov_len) {
    sent -= op.parts->iov_len;
    ++op.parts;
    --op.part_count;
  }
  if (op.part_count == 0) return;
  op.parts->iov_base = static_cast<std::byte*>(op.parts->iov_base) + sent;
  op.parts->iov_len -= sent;
}
// Sends what the socket takes now. 0: all of it; EAGAIN: the rest is left in `op`; else an errno.
int send_inline(int fd, rt::StreamOp& op);

// Does the whole operation with blocking calls. 0 or an errno.
int run_blocking(const rt::FileOp& op, int fd);
// The fallocate mode of a zeroing operation, and zeroes written where the file cannot do it.
int zero_mode(rt::FileOp::Kind kind);
int write_zeroes(int fd, uint64_t offset, uint64_t length);

}  // namespace duplex::os
