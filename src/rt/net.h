// The fourth door: Net. Byte streams over unix sockets and TCP, without allocation per transfer.
//
// A Stream belongs to one core at a time. detach() and Net::adopt() move it to another, when
// nothing is in flight.
#pragma once

#include <sys/uio.h>

#include <coroutine>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "rt/task.h"

namespace duplex::rt {

// "unix:/run/duplex/nbd.sock" or "tcp:127.0.0.1:10809" or "tcp:[::1]:10809".
struct Address {
  enum class Kind : uint8_t { kUnix, kTcp };
  Kind kind = Kind::kUnix;
  std::string host;  // path of a unix socket, or host name or address
  uint16_t port = 0;

  static Result<Address> parse(std::string_view text);
  std::string to_string() const;
  // True for unix sockets and for 127.0.0.0/8, ::1 and "localhost".
  bool is_local() const;
};

struct StreamOp {
  using Done = void (*)(StreamOp&);
  iovec* parts = nullptr;  // where to put or take the bytes; may be changed by the engine
  int part_count = 0;      // 1 for recv; 1..1024 for send
  int64_t result = 0;      // recv: bytes, 0 = the peer closed; send: 0; or -errno
  Done done = nullptr;
  uint64_t engine_data = 0;
};

// Moves a stream between cores.
class DetachedStream {
 public:
  virtual ~DetachedStream() = default;
};

class Stream {
 public:
  // Nothing is in flight, or the core is abandoned.
  virtual ~Stream() = default;

  // Receives at least one byte, at most the part's length. At most one receive is in flight.
  // Returns true when finished inside the call (done is not called then).
  virtual bool start_recv(StreamOp& op) = 0;
  // Sends all parts. At most one send is in flight.
  virtual bool start_send(StreamOp& op) = 0;
  // Both directions end: what is in flight comes back soon, with an error or end of stream.
  virtual void shutdown() = 0;
  // Who is at the other end, for people: "uid 1000 pid 4711", "127.0.0.1:50312".
  virtual std::string peer() const = 0;
  // Key of the per-source connection cap: peer address without port; empty, and not capped, for a
  // unix socket.
  virtual std::string source() const = 0;
  virtual std::unique_ptr<DetachedStream> detach() = 0;

  struct AwaitRecv : StreamOp {
    AwaitRecv(Stream& s, std::span<std::byte> into) : stream(s), part{into.data(), into.size()} {}
    bool await_ready() const { return false; }
    bool await_suspend(std::coroutine_handle<> h) {
      handle = h;
      parts = &part;
      part_count = 1;
      done = [](StreamOp& op) { static_cast<AwaitRecv&>(op).handle.resume(); };
      return !stream.start_recv(*this);
    }
    int64_t await_resume() const { return result; }
    Stream& stream;
    iovec part;
    std::coroutine_handle<> handle;
  };
  [[nodiscard]] AwaitRecv recv(std::span<std::byte> into) { return AwaitRecv(*this, into); }

  struct AwaitSend : StreamOp {
    AwaitSend(Stream& s, std::span<iovec> p) : stream(s) {
      parts = p.data();
      part_count = static_cast<int>(p.size());
    }
    bool await_ready() const { return false; }
    bool await_suspend(std::coroutine_handle<> h) {
      handle = h;
      done = [](StreamOp& op) { static_cast<AwaitSend&>(op).handle.resume(); };
      return !stream.start_send(*this);
    }
    int64_t await_resume() const { return result; }
    Stream& stream;
    std::coroutine_handle<> handle;
  };
  // `parts` stay alive and are used up by the call.
  [[nodiscard]] AwaitSend send(std::span<iovec> parts) { return AwaitSend(*this, parts); }
};

class Listener {
 public:
  virtual ~Listener() = default;
  // kShutdown after close(). kSystem when the process has no descriptors left: wait, try again.
  virtual Task<Result<std::unique_ptr<Stream>>> accept() = 0;
  virtual void close() = 0;
  // The bound address; the real port where 0 was asked for.
  virtual Address address() const = 0;
};

class Net {
 public:
  virtual ~Net() = default;
  // A stale unix socket file that nobody listens on is replaced; a live one is kBusy.
  virtual Task<Result<std::unique_ptr<Listener>>> listen(Address address) = 0;
  // An already listening descriptor (LISTEN_FDS).
  virtual Result<std::unique_ptr<Listener>> adopt_listener(int fd) = 0;
  virtual Task<Result<std::unique_ptr<Stream>>> connect(Address address) = 0;
  virtual std::unique_ptr<Stream> adopt(std::unique_ptr<DetachedStream> stream) = 0;
};

}  // namespace duplex::rt
