// Reactor: one thread of execution of the daemon, with its doors. The control core is one too.
//
// Owner: OsWorld. Thread: its own, from start() to join(); post() and the clock's now() from any.
// One turn: work that is ready, then deferred work (replies gathered into one send), then the
// engine: submit, wait, completions; then due timers. An idle reactor sleeps in the kernel.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "os/engine.h"
#include "os/timers.h"
#include "rt/world.h"

namespace duplex::os {

class Reactor;

class OsClock final : public rt::Clock {
 public:
  explicit OsClock(Timers& timers) : timers_(timers) {}
  rt::Micros now() const override;
  int64_t wall_us() const override;
  void arm(rt::Timer& timer, rt::Micros deadline) override { timers_.arm(timer, deadline); }
  void cancel(rt::Timer& timer) override { timers_.cancel(timer); }

 private:
  Timers& timers_;
};

// getrandom(2), a few words at a time.
class OsRng final : public rt::Rng {
 public:
  uint64_t next() override;

 private:
  std::array<uint64_t, 32> words_{};
  size_t left_ = 0;
};

class OsFiles final : public rt::Files {
 public:
  explicit OsFiles(Reactor& reactor) : reactor_(reactor) {}
  // Opening may block for a moment (a sleeping disk): called on the control core and at start.
  rt::Task<Result<std::unique_ptr<rt::File>>> open(std::string path,
                                                   rt::OpenOptions options) override;
  rt::Task<Result<void>> remove(std::string path) override;

 private:
  Reactor& reactor_;
};

class OsNet final : public rt::Net {
 public:
  explicit OsNet(Reactor& reactor) : reactor_(reactor) {}
  rt::Task<Result<std::unique_ptr<rt::Listener>>> listen(rt::Address address) override;
  Result<std::unique_ptr<rt::Listener>> adopt_listener(int fd) override;
  rt::Task<Result<std::unique_ptr<rt::Stream>>> connect(rt::Address address) override;
  std::unique_ptr<rt::Stream> adopt(std::unique_ptr<rt::DetachedStream> stream) override;

 private:
  Reactor& reactor_;
};

class Reactor final : public rt::Core {
 public:
  Reactor(size_t index, std::unique_ptr<Engine> engine, size_t arena_bytes);
  ~Reactor() override;

  void start(std::string thread_name);
  // Any thread: the loop ends after the work that is ready.
  void stop();
  void join();

  void post(rt::Work& work) override;
  void defer(rt::Work& work) override { push(deferred_, work); }
  rt::Clock& clock() override { return clock_; }
  rt::Rng& rng() override { return rng_; }
  rt::Files& files() override { return files_; }
  rt::Net& net() override { return net_; }
  rt::BufferPool& buffers() override { return buffers_; }
  size_t index() const override { return index_; }
  Engine& engine() { return *engine_; }

 private:
  struct Queue {
    rt::Work* first = nullptr;
    rt::Work* last = nullptr;
  };
  static void push(Queue& queue, rt::Work& work) {
    work.next_work = nullptr;
    (queue.last != nullptr ? queue.last->next_work : queue.first) = &work;
    queue.last = &work;
  }
  static void run_all(Queue& queue);
  void loop();
  void take_posted();
  void wait_for_events();

  const size_t index_;
  std::unique_ptr<Engine> engine_;
  Queue ready_;
  Queue deferred_;
  std::atomic<rt::Work*> posted_ = nullptr;  // from other threads, newest first
  std::atomic<bool> asleep_ = false;
  std::atomic<bool> stopping_ = false;
  Timers timers_;
  OsClock clock_{timers_};
  OsRng rng_;
  OsFiles files_{*this};
  OsNet net_{*this};
  rt::BufferPool buffers_;
  std::thread thread_;
};

}  // namespace duplex::os
