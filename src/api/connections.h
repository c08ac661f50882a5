// Connections: who may hold a connection to the API, and for how long.
//
// cpp-httplib reads a request with a limit for each pause, not for the whole, and a fixed pool of
// its threads would be held by clients that send one byte a second. So each connection gets a
// thread of its own, their number has a limit, and a request that is not there by its deadline ends
// its connection. Owner: the HTTP server. Threads: admit() and tidy() on the one that accepts,
// stop() after that one has ended.
#pragma once

#include <httplib.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

namespace duplex::api {

struct ConnectionLimits {
  size_t at_once = 128;                       // further ones get 503
  std::chrono::milliseconds request{10'000};  // head and body
  std::chrono::milliseconds answer{10'000};   // each piece of it
  std::chrono::milliseconds grace{1'000};     // for answers at a stop
  size_t head_bytes = size_t{16} << 10;       // of all header lines
};

class Connections {
 public:
  // Reads one request from the stream and answers it.
  using Serve = std::function<void(httplib::Stream&)>;

  Connections(ConnectionLimits limits, Serve serve) : limits_(limits), serve_(std::move(serve)) {}
  ~Connections() { stop(); }
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;

  // Takes over the socket.
  void admit(int fd);
  // Forgets those that have ended; call it every second or so.
  void tidy();
  // Requests that have not arrived are given up at once, answers under way after the grace. Waits
  // for what the array was already told.
  void stop();

 private:
  using Clock = std::chrono::steady_clock;
  struct Open {
    int fd;
    std::thread thread;
    bool ended = false;
  };
  struct Refused {
    int fd;
    Clock::time_point until;
  };

  void run(Open& open);
  void refuse(int fd);
  void shut_all(int how);

  const ConnectionLimits limits_;
  const Serve serve_;
  std::deque<Refused> refused_;  // stay open until their client has seen why
  std::mutex mutex_;             // of what follows
  std::condition_variable ended_;
  std::list<Open> open_;
};

}  // namespace duplex::api
