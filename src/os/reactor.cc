#include "os/reactor.h"

#include <pthread.h>
#include <sys/random.h>

#include <chrono>

#include "base/assert.h"
#include "base/log.h"

namespace duplex::os {

rt::Micros OsClock::now() const {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<rt::Micros>(
      std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

int64_t OsClock::wall_us() const {
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

uint64_t OsRng::next() {
  if (left_ == 0) {
    // 256 bytes are delivered whole and are never interrupted (getrandom(2)).
    ASSERT(getrandom(words_.data(), sizeof words_, 0) == static_cast<ssize_t>(sizeof words_));
    left_ = words_.size();
  }
  return words_[--left_];
}

Reactor::Reactor(size_t index, std::unique_ptr<Engine> engine, size_t arena_bytes)
    : index_(index), engine_(std::move(engine)), buffers_(arena_bytes) {
  if (!buffers_.arena().empty() && !engine_->register_arena(buffers_.arena())) {
    log_warning(
        "reactor {}: data buffers are not registered with io_uring (raise RLIMIT_MEMLOCK); it "
        "works, a little slower",
        index_);
  }
}

Reactor::~Reactor() {
  stop();
  join();
}

void Reactor::start(std::string thread_name) {
  thread_ = std::thread([this, name = std::move(thread_name)] {
    pthread_setname_np(pthread_self(), name.c_str());
    loop();
  });
}

void Reactor::stop() {
  stopping_ = true;
  engine_->wake();
}

void Reactor::join() {
  if (thread_.joinable()) thread_.join();
}

void Reactor::post(rt::Work& work) {
  if (is_current()) {
    push(ready_, work);
    return;
  }
  rt::Work* head = posted_.load(std::memory_order_relaxed);
  do {
    work.next_work = head;
  } while (!posted_.compare_exchange_weak(head, &work, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
  if (asleep_.load(std::memory_order_seq_cst)) engine_->wake();
}

// Brings what other threads posted into the ready queue, oldest first.
void Reactor::take_posted() {
  rt::Work* newest = posted_.exchange(nullptr, std::memory_order_seq_cst);
  rt::Work* oldest = nullptr;
  while (newest != nullptr) {
    rt::Work* next = newest->next_work;
    newest->next_work = oldest;
    oldest = newest;
    newest = next;
  }
  while (oldest != nullptr) {
    rt::Work* next = oldest->next_work;
    push(ready_, *oldest);
    oldest = next;
  }
}

void Reactor::run_all(Queue& queue) {
  while (queue.first != nullptr) {
    rt::Work& work = *queue.first;
    queue.first = work.next_work;
    if (queue.first == nullptr) queue.last = nullptr;
    work.run(work);
  }
}

void Reactor::loop() {
  const Scope scope(*this);
  while (true) {
    take_posted();
    run_all(ready_);
    Queue ending = std::exchange(deferred_, {});
    run_all(ending);
    if (stopping_.load(std::memory_order_relaxed) && ready_.first == nullptr &&
        deferred_.first == nullptr)
      return;
    wait_for_events();
    if (timers_.next()) {
      const rt::Micros now = clock_.now();
      while (rt::Timer* timer = timers_.take_due(now)) timer->fire(*timer);
    }
  }
}

void Reactor::wait_for_events() {
  if (ready_.first != nullptr || deferred_.first != nullptr) return engine_->wait(false, {});
  std::optional<rt::Micros> timeout;
  if (const auto next = timers_.next()) {
    const rt::Micros now = clock_.now();
    timeout = *next > now ? *next - now : 0;
  }
  // Whoever posts after this line wakes the engine; whoever posted before it is seen here.
  asleep_.store(true, std::memory_order_seq_cst);
  const bool sleep = posted_.load(std::memory_order_seq_cst) == nullptr && !stopping_.load();
  engine_->wait(sleep && timeout != 0, timeout);
  asleep_.store(false, std::memory_order_relaxed);
}

}  // namespace duplex::os
