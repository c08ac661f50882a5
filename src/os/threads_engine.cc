// The engine for places without io_uring: epoll for sockets, a few helper threads for files.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/assert.h"
#include "os/engine.h"

namespace duplex::os {
namespace {

// A queue of file operations and the threads that work it off. Order between operations is free:
// whoever needs one after the other waits for the first.
class FilePool {
 public:
  FilePool(unsigned threads, int event_fd) : event_fd_(event_fd) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~FilePool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void push(rt::FileOp& op) {
    op.next_op = nullptr;
    {
      const std::lock_guard lock(mutex_);
      (last_ != nullptr ? last_->next_op : first_) = &op;
      last_ = &op;
    }
    changed_.notify_one();
  }
  // Everything that has ended since the last call, linked by next_op, in order of ending.
  rt::FileOp* take_done() {
    const std::lock_guard lock(done_mutex_);
    done_last_ = nullptr;
    return std::exchange(done_first_, nullptr);
  }

 private:
  void work() {
    while (true) {
      rt::FileOp* op = nullptr;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || first_ != nullptr; });
        if (first_ == nullptr) return;
        op = first_;
        first_ = op->next_op;
        if (first_ == nullptr) last_ = nullptr;
      }
      op->error = run_blocking(*op, file_fd(*op));
      op->next_op = nullptr;
      bool first_done = false;
      {
        const std::lock_guard lock(done_mutex_);
        first_done = done_first_ == nullptr;
        (done_last_ != nullptr ? done_last_->next_op : done_first_) = op;
        done_last_ = op;
      }
      const uint64_t one = 1;
      if (first_done) [[maybe_unused]]
        const ssize_t written = write(event_fd_, &one, sizeof one);
    }
  }

  const int event_fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  rt::FileOp* first_ = nullptr;
  rt::FileOp* last_ = nullptr;
  bool stopping_ = false;
  std::mutex done_mutex_;
  rt::FileOp* done_first_ = nullptr;
  rt::FileOp* done_last_ = nullptr;
  std::vector<std::thread> threads_;
};

// What an epoll registration means: a socket (its address), a ReadableWait (its number, shifted)
// or, zero, the wake-up counter.
constexpr uint64_t kWaiterBit = 1;

class ThreadsEngine final : public Engine {
 public:
  ~ThreadsEngine() override {
    pool_.reset();
    if (epoll_fd_ >= 0) close(epoll_fd_);
    if (event_fd_ >= 0) close(event_fd_);
  }

  Result<void> start(unsigned threads) {
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    event_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (epoll_fd_ < 0 || event_fd_ < 0) return std::unexpected(system_error(errno, "epoll"));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = 0;
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, event_fd_, &event) != 0)
      return std::unexpected(system_error(errno, "epoll_ctl"));
    pool_ = std::make_unique<FilePool>(threads, event_fd_);
    return {};
  }

  const char* name() const override { return "threads"; }

  void submit(rt::FileOp& op) override { pool_->push(op); }

  void receive(Socket& socket, rt::StreamOp& op) override {
    socket.receiving = &op;
    arm(socket);
  }
  void send(Socket& socket, rt::StreamOp& op) override {
    socket.sending = &op;
    arm(socket);
  }
  void forget(Socket& socket) override {
    if (socket.armed_events == 0) return;
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, socket.fd, nullptr);
    socket.armed_events = 0;
  }
  void wait_readable(ReadableWait& wait) override {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLONESHOT;
    event.data.u64 = waits_.add(wait) << 1 | kWaiterBit;
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wait.fd, &event) != 0) {
      ASSERT(errno == EEXIST);
      epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, wait.fd, &event);
    }
  }
  void cancel(ReadableWait& wait) override {
    waits_.remove(wait);
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, wait.fd, nullptr);
  }

  void wait(bool block, std::optional<rt::Micros> timeout_us) override {
    epoll_event events[128];
    int milliseconds = 0;
    if (block) milliseconds = timeout_us ? static_cast<int>((*timeout_us + 999) / 1000) : -1;
    const int count = epoll_wait(epoll_fd_, events, 128, milliseconds);
    for (int i = 0; i < count; ++i) {
      const uint64_t data = events[i].data.u64;
      if (data == 0) {
        uint64_t wakes = 0;
        [[maybe_unused]] const ssize_t got = read(event_fd_, &wakes, sizeof wakes);
      } else if ((data & kWaiterBit) != 0) {
        waits_.tell(data >> 1);
      } else {
        ready(*reinterpret_cast<Socket*>(data), events[i].events);
      }
    }
    for (rt::FileOp* op = pool_->take_done(); op != nullptr;) {
      rt::FileOp& ended = *op;
      op = op->next_op;
      ended.done(ended);
    }
  }

  void wake() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof one);
  }

  bool register_arena(std::span<std::byte> /*arena*/) override { return true; }

 private:
  void arm(Socket& socket) {
    const uint32_t wanted = (socket.receiving != nullptr ? EPOLLIN | EPOLLRDHUP : 0) |
                            (socket.sending != nullptr ? EPOLLOUT : 0);
    epoll_event event{};
    event.events = wanted | EPOLLONESHOT;
    event.data.u64 = reinterpret_cast<uint64_t>(&socket);
    const int act = socket.armed_events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    ASSERT(epoll_ctl(epoll_fd_, act, socket.fd, &event) == 0);
    socket.armed_events = wanted | EPOLLONESHOT;
  }

  void ready(Socket& socket, uint32_t events) {
    const bool failed = (events & (EPOLLERR | EPOLLHUP)) != 0;
    rt::StreamOp* ended[2] = {};
    if (socket.receiving != nullptr && (failed || (events & (EPOLLIN | EPOLLRDHUP)) != 0)) {
      rt::StreamOp& op = *socket.receiving;
      const ssize_t got = recv(socket.fd, op.parts->iov_base, op.parts->iov_len, MSG_DONTWAIT);
      if (got >= 0 || (errno != EAGAIN && errno != EINTR)) {
        op.result = got >= 0 ? got : -errno;
        socket.receiving = nullptr;
        ended[0] = &op;
      }
    }
    if (socket.sending != nullptr && (failed || (events & EPOLLOUT) != 0)) {
      rt::StreamOp& op = *socket.sending;
      const int result = send_inline(socket.fd, op);
      if (result != EAGAIN) {
        op.result = -result;
        socket.sending = nullptr;
        ended[1] = &op;
      }
    }
    // One shot: what still waits is armed again before anybody may close the socket.
    if (socket.receiving != nullptr || socket.sending != nullptr) arm(socket);
    for (rt::StreamOp* op : ended) {
      if (op != nullptr) op->done(*op);
    }
  }

  int epoll_fd_ = -1;
  int event_fd_ = -1;
  std::unique_ptr<FilePool> pool_;
  ReadableWaits waits_;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_threads_engine(unsigned threads) {
  auto engine = std::make_unique<ThreadsEngine>();
  TRY(engine->start(threads));
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace duplex::os
