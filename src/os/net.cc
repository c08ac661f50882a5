// Sockets of one reactor: streams, listeners, connecting.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "os/reactor.h"
#include "rt/wait.h"

namespace duplex::os {
namespace {

struct PeerName {
  std::string peer;
  std::string source;
};

PeerName name_of_peer(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {"gone", "gone"};
  if (address.ss_family == AF_UNIX) {
    ucred who{};
    socklen_t size = sizeof who;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
    return {fmt::format("uid {} pid {}", who.uid, who.pid), ""};
  }
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<sockaddr*>(&address), length, host, sizeof host, port,
                  sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {"unknown", "unknown"};
  }
  return {fmt::format("{}:{}", host, port), host};
}

class OsDetachedStream final : public rt::DetachedStream {
 public:
  explicit OsDetachedStream(int fd, PeerName name) : fd_(fd), name(std::move(name)) {}
  ~OsDetachedStream() override {
    if (fd_ >= 0) close(fd_);
  }
  int take() { return std::exchange(fd_, -1); }

 private:
  int fd_;

 public:
  PeerName name;
};

class OsStream final : public rt::Stream {
 public:
  OsStream(int fd, Engine& engine, PeerName name) : engine_(engine), name_(std::move(name)) {
    socket_.fd = fd;
  }
  ~OsStream() override {
    if (socket_.fd < 0) return;
    engine_.forget(socket_);
    close(socket_.fd);
  }

  bool start_recv(rt::StreamOp& op) override {
    engine_.receive(socket_, op);
    return false;
  }
  bool start_send(rt::StreamOp& op) override {
    const int error = send_inline(socket_.fd, op);
    if (error == EAGAIN) {
      engine_.send(socket_, op);
      return false;
    }
    op.result = -error;
    return true;
  }
  void shutdown() override { ::shutdown(socket_.fd, SHUT_RDWR); }
  std::string peer() const override { return name_.peer; }
  std::string source() const override { return name_.source; }
  std::unique_ptr<rt::DetachedStream> detach() override {
    engine_.forget(socket_);
    return std::make_unique<OsDetachedStream>(std::exchange(socket_.fd, -1), name_);
  }

 private:
  Engine& engine_;
  Socket socket_;
  PeerName name_;
};

// A peer that vanished without a word is noticed after 60 s + 6 * 10 s; what it does not
// acknowledge, after as long. No effect on unix sockets.
void set_tcp_options(int fd) {
  const auto set = [fd](int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 6);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 120'000);
}

std::unique_ptr<rt::Stream> make_stream(int fd, Engine& engine) {
  set_tcp_options(fd);
  return std::make_unique<OsStream>(fd, engine, name_of_peer(fd));
}

rt::Address address_of(int fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length);
  rt::Address address;
  if (storage.ss_family == AF_UNIX) {
    address.host = reinterpret_cast<sockaddr_un*>(&storage)->sun_path;
    return address;
  }
  address.kind = rt::Address::Kind::kTcp;
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  getnameinfo(reinterpret_cast<sockaddr*>(&storage), length, host, sizeof host, port, sizeof port,
              NI_NUMERICHOST | NI_NUMERICSERV);
  address.host = host;
  address.port = static_cast<uint16_t>(std::atoi(port));
  return address;
}

class OsListener final : public rt::Listener {
 public:
  // `unlink_inode`: of the unix socket file to remove at the end; 0: none.
  OsListener(int fd, Engine& engine, ino_t unlink_inode)
      : fd_(fd), engine_(engine), address_(address_of(fd)), inode_(unlink_inode) {
    wait_.fd = fd;
    wait_.done = [](ReadableWait& wait) { static_cast<Wait&>(wait).event.pulse(); };
  }
  ~OsListener() override { close(); }

  rt::Task<Result<std::unique_ptr<rt::Stream>>> accept() override {
    while (fd_ >= 0) {
      const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) co_return make_stream(fd, engine_);
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN)
        co_return fail(Code::kSystem,
                       fmt::format("accept on {}: {}", address_.to_string(), std::strerror(errno)));
      if (!wait_.is_armed()) engine_.wait_readable(wait_);
      co_await wait_.event.wait();
    }
    co_return fail(Code::kShutdown);
  }
  void close() override {
    if (fd_ < 0) return;
    engine_.cancel(wait_);
    ::close(std::exchange(fd_, -1));
    struct stat status{};
    if (inode_ != 0 && stat(address_.host.c_str(), &status) == 0 && status.st_ino == inode_)
      unlink(address_.host.c_str());
    wait_.event.pulse();
  }
  rt::Address address() const override { return address_; }

 private:
  struct Wait : ReadableWait {
    rt::Event event;
  };
  int fd_;
  Engine& engine_;
  rt::Address address_;
  ino_t inode_;
  Wait wait_;
};

sockaddr_un unix_name(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), std::min(path.size(), sizeof name.sun_path - 1));
  return name;
}

// A socket file nobody listens on is left over from a crash and removed; a live one is busy.
bool is_socket(const std::string& path) {
  struct stat status{};
  return lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

Result<void> clear_stale_socket(const std::string& path) {
  struct stat status{};
  if (lstat(path.c_str(), &status) != 0) return {};
  if (!is_socket(path))
    return fail(Code::kBusy, path + " exists and is not a socket",
                "choose another path or remove it");
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const sockaddr_un name = unix_name(path);
  const int result = ::connect(probe, reinterpret_cast<const sockaddr*>(&name), sizeof name);
  const bool stale = result != 0 && errno == ECONNREFUSED;
  close(probe);
  if (!stale)
    return fail(Code::kBusy, "somebody listens on unix:" + path,
                "stop that process or choose another path");
  unlink(path.c_str());
  return {};
}

constexpr rt::Micros kPredecessorPatience = 3 * rt::kSecond;
constexpr rt::Micros kPredecessorPause = 50 * rt::kMillisecond;

// The owner and the group may connect.
constexpr mode_t kSocketMode = 0660;

Result<std::unique_ptr<rt::Listener>> listen_unix(const rt::Address& address, Engine& engine) {
  TRY(clear_stale_socket(address.host));
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const sockaddr_un name = unix_name(address.host);
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
      chmod(address.host.c_str(), kSocketMode) != 0 || listen(fd, 1024) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return std::unexpected(system_error(error, "listen on " + address.to_string(),
                                        "check that the directory exists and may be written"));
  }
  struct stat status{};
  stat(address.host.c_str(), &status);
  return std::unique_ptr<rt::Listener>(std::make_unique<OsListener>(fd, engine, status.st_ino));
}

struct Resolved {
  addrinfo* list = nullptr;
  ~Resolved() {
    if (list != nullptr) freeaddrinfo(list);
  }
};

Result<void> resolve(const rt::Address& address, bool passive, Resolved& resolved) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  const int error = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints,
                                &resolved.list);
  if (error != 0)
    return fail(Code::kInvalid, fmt::format("{}: {}", address.to_string(), gai_strerror(error)),
                "check the host name");
  return {};
}

Result<std::unique_ptr<rt::Listener>> listen_tcp(const rt::Address& address, Engine& engine) {
  Resolved resolved;
  TRY(resolve(address, true, resolved));
  int error = EADDRNOTAVAIL;
  for (const addrinfo* info = resolved.list; info != nullptr; info = info->ai_next) {
    const int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                          info->ai_protocol);
    if (fd < 0) continue;
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, 1024) == 0)
      return std::unique_ptr<rt::Listener>(std::make_unique<OsListener>(fd, engine, 0));
    error = errno;
    close(fd);
  }
  return std::unexpected(system_error(error, "listen on " + address.to_string(),
                                      "choose another port, or stop who uses it"));
}

}  // namespace

rt::Task<Result<std::unique_ptr<rt::Listener>>> OsNet::listen(rt::Address address) {
  // After a kill the kernel closes the predecessor's socket only when its last I/O has ended.
  const rt::Micros deadline = reactor_.clock().now() + kPredecessorPatience;
  while (true) {
    const bool is_unix = address.kind == rt::Address::Kind::kUnix;
    auto listener =
        is_unix ? listen_unix(address, reactor_.engine()) : listen_tcp(address, reactor_.engine());
    const bool in_use = !listener && listener.error().code() == Code::kBusy &&
                        (!is_unix || is_socket(address.host));
    if (!in_use || reactor_.clock().now() >= deadline) co_return listener;
    co_await rt::sleep_for(reactor_.clock(), kPredecessorPause);
  }
}

Result<std::unique_ptr<rt::Listener>> OsNet::adopt_listener(int fd) {
  int listening = 0;
  socklen_t size = sizeof listening;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) {
    return fail(Code::kInvalid, fmt::format("descriptor {} is not a listening socket", fd),
                "check the socket unit");
  }
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return std::unique_ptr<rt::Listener>(std::make_unique<OsListener>(fd, reactor_.engine(), 0));
}

// Connecting may block on the control core for as long as the kernel takes to refuse; peers are
// local today.
rt::Task<Result<std::unique_ptr<rt::Stream>>> OsNet::connect(rt::Address address) {
  int fd = -1;
  int error = ECONNREFUSED;
  if (address.kind == rt::Address::Kind::kUnix) {
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un name = unix_name(address.host);
    error = ::connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 ? 0 : errno;
  } else {
    Resolved resolved;
    CO_TRY(resolve(address, false, resolved));
    for (const addrinfo* info = resolved.list; info != nullptr && error != 0;
         info = info->ai_next) {
      if (fd >= 0) close(fd);
      fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, info->ai_protocol);
      error = fd >= 0 && ::connect(fd, info->ai_addr, info->ai_addrlen) == 0 ? 0 : errno;
    }
  }
  if (error != 0) {
    if (fd >= 0) close(fd);
    co_return fail(Code::kConnection,
                   fmt::format("connect to {}: {}", address.to_string(), std::strerror(error)));
  }
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  co_return make_stream(fd, reactor_.engine());
}

std::unique_ptr<rt::Stream> OsNet::adopt(std::unique_ptr<rt::DetachedStream> stream) {
  auto& detached = static_cast<OsDetachedStream&>(*stream);
  return std::make_unique<OsStream>(detached.take(), reactor_.engine(), std::move(detached.name));
}

}  // namespace duplex::os
