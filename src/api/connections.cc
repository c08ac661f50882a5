#include "api/connections.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "api/routes.h"
#include "base/error.h"

namespace duplex::api {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kRefusedKept = 64;
constexpr auto kRefusedFor = std::chrono::seconds(1);

std::string refusal(std::string_view status, const Error& error) {
  const std::string body = error_response(error).body;
  return fmt::format(
      "HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
      "Connection: close\r\n\r\n{}",
      status, body.size(), body);
}

// True when the socket is ready (or broken) before the deadline.
bool wait_for(int fd, short what, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
    pollfd one{.fd = fd, .events = what, .revents = 0};
    const int ready = ::poll(&one, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) return true;  // the call that follows fails with the reason
  }
}

// What the library reads a request from and writes the answer to.
class Transfer final : public httplib::Stream {
 public:
  Transfer(int fd, const ConnectionLimits& limits)
      : fd_(fd), limits_(limits), deadline_(Clock::now() + limits.request) {}

  bool is_readable() const override { return at_ < end_ || wait_for(fd_, POLLIN, deadline_); }
  bool is_writable() const override {
    return wait_for(fd_, POLLOUT, Clock::now() + limits_.answer);
  }
  ssize_t read(char* into, size_t size) override {
    if (at_ == end_ && !fill()) return trouble_.empty() ? 0 : -1;
    const size_t length = std::min(size, end_ - at_);
    std::memcpy(into, buffer_ + at_, length);
    at_ += length;
    return static_cast<ssize_t>(length);
  }
  ssize_t write(const char* from, size_t size) override {
    // The library does not know why it could not read: explain() says it better.
    return trouble_.empty() ? send_all(from, size) : static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return fd_; }

  // Tells a client whose request was given up why.
  void explain() const { send_all(trouble_.data(), trouble_.size()); }

 private:
  // `size`, or -1: the client is gone, or takes too long to take it.
  ssize_t send_all(const char* from, size_t size) const {
    const auto deadline = Clock::now() + limits_.answer;
    for (size_t sent = 0; sent < size;) {
      if (!wait_for(fd_, POLLOUT, deadline)) return -1;
      const ssize_t n = ::send(fd_, from + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN && errno != EINTR) return -1;
      if (n > 0) sent += static_cast<size_t>(n);
    }
    return static_cast<ssize_t>(size);
  }
  // The next bytes of the request. False: there are no more, or no more are taken.
  bool fill() {
    at_ = end_ = 0;
    if (!trouble_.empty()) return false;
    if (!wait_for(fd_, POLLIN, deadline_)) {
      trouble_ = refusal(
          "408 Request Timeout",
          Error(Code::kTimeout,
                fmt::format("the request was not complete after {} s",
                            std::chrono::ceil<std::chrono::seconds>(limits_.request).count()),
                "send it again as a whole"));
      return false;
    }
    const ssize_t n = ::recv(fd_, buffer_, sizeof buffer_, MSG_DONTWAIT);
    if (n <= 0) return false;
    end_ = static_cast<size_t>(n);
    return follow_head();
  }
  // The library has a limit for each header line, none for their number.
  bool follow_head() {
    for (size_t i = 0; i < end_ && !head_ended_; ++i) {
      ++head_bytes_;
      if (buffer_[i] == '\n') head_ended_ = std::exchange(line_bytes_, 0) == 0;
      if (buffer_[i] != '\n' && buffer_[i] != '\r') ++line_bytes_;
    }
    if (head_bytes_ <= limits_.head_bytes) return true;
    trouble_ = refusal("431 Request Header Fields Too Large",
                       Error(Code::kInvalid,
                             fmt::format("the head of the request is longer than {} KiB",
                                         limits_.head_bytes >> 10),
                             "see /api/v1/openapi.json"));
    at_ = end_ = 0;
    return false;
  }

  const int fd_;
  const ConnectionLimits& limits_;
  const Clock::time_point deadline_;
  char buffer_[4096];
  size_t at_ = 0;
  size_t end_ = 0;
  size_t head_bytes_ = 0;
  size_t line_bytes_ = 0;
  bool head_ended_ = false;
  std::string trouble_;  // an answer; not empty: nothing is read any more
};

}  // namespace

void Connections::admit(int fd) {
  tidy();
  {
    const std::lock_guard lock(mutex_);
    if (open_.size() < limits_.at_once) {
      Open& open = open_.emplace_back(fd);
      try {
        open.thread = std::thread([this, &open] { run(open); });
        return;
      } catch (const std::system_error&) {  // no more threads: the same as too many connections
        open_.pop_back();
      }
    }
  }
  refuse(fd);
}

void Connections::run(Open& open) {
  {
    Transfer transfer(open.fd, limits_);
    serve_(transfer);
    transfer.explain();
  }
  const std::lock_guard lock(mutex_);
  ::shutdown(open.fd, SHUT_RDWR);
  ::close(open.fd);
  open.ended = true;
  ended_.notify_all();
}

// The client reads the reason only after it has sent its request, which a closed socket would not
// let it do.
void Connections::refuse(int fd) {
  static const std::string answer =
      refusal("503 Service Unavailable",
              Error(Code::kBusy, "too many connections to the API", "try again in a moment"));
  static_cast<void>(::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  ::shutdown(fd, SHUT_WR);
  if (refused_.size() == kRefusedKept) {
    ::close(refused_.front().fd);
    refused_.pop_front();
  }
  refused_.push_back({.fd = fd, .until = Clock::now() + kRefusedFor});
}

void Connections::tidy() {
  while (!refused_.empty() && refused_.front().until <= Clock::now()) {
    ::close(refused_.front().fd);
    refused_.pop_front();
  }
  std::list<Open> ended;
  {
    const std::lock_guard lock(mutex_);
    for (auto at = open_.begin(); at != open_.end();) {
      const auto next = std::next(at);
      if (at->ended) ended.splice(ended.end(), open_, at);
      at = next;
    }
  }
  for (Open& open : ended) open.thread.join();
}

void Connections::shut_all(int how) {
  for (const Open& open : open_) {
    if (!open.ended) ::shutdown(open.fd, how);
  }
}

void Connections::stop() {
  {
    std::unique_lock lock(mutex_);
    shut_all(SHUT_RD);  // whoever still reads a request sees its end
    const auto all_ended = [this] { return std::ranges::all_of(open_, &Open::ended); };
    if (!ended_.wait_for(lock, limits_.grace, all_ended)) shut_all(SHUT_RDWR);
    ended_.wait(lock, all_ended);
  }
  tidy();
  for (const Refused& refused : refused_) ::close(refused.fd);
  refused_.clear();
}

}  // namespace duplex::api
