#include "os/world.h"

#include <fmt/format.h>
#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "os/reactor.h"
#include "os/sync_files.h"

namespace duplex::os {
namespace {

// The store's executor: one thread that may block.
class BlockingExecutor final : public rt::Executor {
 public:
  BlockingExecutor() : thread_([this] { loop(); }) {
    pthread_setname_np(thread_.native_handle(), "store");
  }
  ~BlockingExecutor() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  void post(rt::Work& work) override {
    work.next_work = nullptr;
    {
      const std::lock_guard lock(mutex_);
      (last_ != nullptr ? last_->next_work : first_) = &work;
      last_ = &work;
    }
    changed_.notify_one();
  }
  void defer(rt::Work& work) override { post(work); }

 private:
  void loop() {
    const Scope scope(*this);
    while (true) {
      rt::Work* work = nullptr;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || first_ != nullptr; });
        if (first_ == nullptr) return;
        work = first_;
        first_ = work->next_work;
        if (first_ == nullptr) last_ = nullptr;
      }
      work->run(*work);
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  rt::Work* first_ = nullptr;
  rt::Work* last_ = nullptr;
  bool stopping_ = false;
  std::thread thread_;
};

constexpr unsigned kPoolThreads = 4;  // per core, engine "threads"

Result<std::unique_ptr<Engine>> make_engine(EngineChoice choice) {
  if (choice == EngineChoice::kThreads) return make_threads_engine(kPoolThreads);
  return make_uring_engine();
}

class OsWorldImpl final : public OsWorld {
 public:
  ~OsWorldImpl() override {
    for (const auto& core : cores_) core->stop();
    for (const auto& core : cores_) core->join();
  }

  Result<void> start(const OsOptions& options) {
    EngineChoice choice = options.engine;
    std::string reason;
    if (choice == EngineChoice::kAuto) {
      const auto probe = make_uring_engine();
      choice = probe ? EngineChoice::kUring : EngineChoice::kThreads;
      if (!probe)
        reason = fmt::format(" because io_uring is not available: {}", probe.error().message());
    }
    for (size_t i = 0; i <= options.reactors; ++i) {
      TRY_ASSIGN(auto engine, make_engine(choice));
      // The control core moves no data; its buffers come from the heap.
      const size_t arena = i == 0 ? 0 : round_down(options.arena_bytes / options.reactors, kMiB);
      cores_.push_back(std::make_unique<Reactor>(i, std::move(engine), arena));
    }
    log_info("engine {}{}, {} reactor{}", engine_name(), reason, options.reactors,
             options.reactors == 1 ? "" : "s");
    for (size_t i = 0; i < cores_.size(); ++i)
      cores_[i]->start(i == 0 ? "control" : fmt::format("reactor-{}", i));
    return {};
  }

  rt::Core& control() override { return *cores_[0]; }
  size_t reactor_count() const override { return cores_.size() - 1; }
  rt::Core& reactor(size_t i) override { return *cores_.at(i + 1); }
  rt::Executor& store() override { return store_; }
  rt::SyncFiles& sync_files() override { return sync_files_; }
  std::string engine_name() const override { return cores_[0]->engine().name(); }

 private:
  OsSyncFiles sync_files_;
  std::vector<std::unique_ptr<Reactor>> cores_;
  BlockingExecutor store_;
};

}  // namespace

Result<std::unique_ptr<OsWorld>> OsWorld::create(OsOptions options) {
  if (options.reactors < 1 || options.reactors > 64)
    return fail(Code::kInvalid, "reactors must be 1 to 64");
  auto world = std::make_unique<OsWorldImpl>();
  TRY(world->start(options));
  return std::unique_ptr<OsWorld>(std::move(world));
}

}  // namespace duplex::os
