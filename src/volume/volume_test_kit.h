// What the tests of this room stand on: cores without threads, and a backing in memory whose
// operations take time, can be held up and can fail.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/units.h"
#include "pool/backing.h"
#include "rt/task_group.h"
#include "rt/world.h"

namespace duplex::volume::testing {

// One executor of a TestWorld; runs only inside TestWorld::run().
class TestCore final : public rt::Core, rt::Clock, rt::Rng {
 public:
  explicit TestCore(size_t index) : index_(index) {}

  void post(rt::Work& work) override {
    if (!is_dark) ready_.push_back(&work);
  }
  void defer(rt::Work& work) override { ready_.push_back(&work); }
  rt::Clock& clock() override { return *this; }
  rt::Rng& rng() override { return *this; }
  rt::Files& files() override { std::abort(); }
  rt::Net& net() override { std::abort(); }
  rt::BufferPool& buffers() override { return buffers_; }
  size_t index() const override { return index_; }

  rt::Micros now() const override { return now_; }
  int64_t wall_us() const override { return 1'700'000'000'000'000; }
  void arm(rt::Timer& timer, rt::Micros deadline) override {
    timer.deadline = deadline;
    timers_.push_back(&timer);
  }
  void cancel(rt::Timer& timer) override { std::erase(timers_, &timer); }
  // The clock jumps; timers that are due fire.
  void pass(rt::Micros time) {
    now_ += time;
    for (;;) {
      const auto due =
          std::ranges::find_if(timers_, [&](const rt::Timer* t) { return t->deadline <= now_; });
      if (due == timers_.end()) return;
      rt::Timer& timer = **due;
      timers_.erase(due);
      inside([&] { timer.fire(timer); });
    }
  }
  uint64_t next() override { return ++random_; }
  bool abandoned() const override { return is_dark; }
  bool is_dark = false;

  // True if there was something to do.
  bool step() {
    if (ready_.empty()) return false;
    rt::Work& work = *ready_.front();
    ready_.pop_front();
    const Scope scope(*this);
    work.run(work);
    return true;
  }
  template <class F>
  void inside(F f) {
    const Scope scope(*this);
    f();
  }

 private:
  size_t index_;
  uint64_t random_ = 0;
  rt::Micros now_ = 0;
  std::vector<rt::Timer*> timers_;
  std::deque<rt::Work*> ready_;
  rt::BufferPool buffers_{0};
};

class TestWorld final : public rt::World {
 public:
  explicit TestWorld(size_t reactors = 1) {
    for (size_t i = 0; i <= reactors; ++i) cores_.push_back(std::make_unique<TestCore>(i));
    for (auto& core : cores_) groups_.push_back(std::make_unique<rt::TaskGroup>(*core));
  }
  TestCore& control() override { return *cores_[0]; }
  size_t reactor_count() const override { return cores_.size() - 1; }
  TestCore& reactor(size_t i) override { return *cores_[i + 1]; }
  rt::Executor& store() override { return *cores_[0]; }
  rt::SyncFiles& sync_files() override { std::abort(); }

  // Destroys every task where it stands.
  void cut_power() {
    for (auto& core : cores_) core->is_dark = true;
    groups_.clear();
  }
  // Everything that can run, runs.
  void run() {
    for (bool busy = true; busy;) {
      busy = false;
      for (auto& core : cores_) busy |= core->step();
    }
  }
  // Starts `task` on `core`; its result appears in the returned place when it has ended.
  template <class T>
  std::shared_ptr<std::optional<T>> start(TestCore& core, rt::Task<T> task) {
    auto result = std::make_shared<std::optional<T>>();
    core.inside([&] { groups_[core.index()]->spawn(keep(std::move(task), result)); });
    return result;
  }
  // Starts it and runs until nothing is left to do; it must have ended then.
  template <class T>
  T finish(TestCore& core, rt::Task<T> task) {
    auto result = start(core, std::move(task));
    run();
    if (!result->has_value()) {
      ADD_FAILURE() << "the task has not ended";
      std::abort();
    }
    return *std::move(*result);
  }

 private:
  template <class T>
  static rt::Task<> keep(rt::Task<T> task, std::shared_ptr<std::optional<T>> result) {
    result->emplace(co_await std::move(task));
  }

  std::vector<std::unique_ptr<TestCore>> cores_;
  std::vector<std::unique_ptr<rt::TaskGroup>> groups_;
};

// For tasks without a result.
inline rt::Task<bool> ended(rt::Task<> task) {
  co_await std::move(task);
  co_return true;
}

// A backing in memory. It asserts what the write path promises it: whole blocks, aligned memory,
// mapped extents, no two overlapping changes at once.
class FakeBacking final : public pool::Backing {
 public:
  FakeBacking(uint64_t size_bytes, uint64_t extent_bytes, BackingId id = BackingId(1),
              std::string name = "PD1")
      : size_(size_bytes), extent_(extent_bytes), id_(id), name_(std::move(name)) {}

  // Knobs.
  bool untold_loss = false;    // until the next flush
  bool always_writes = false;  // so that a flush that fails leaves another loss untold
  bool hold = false;           // writes, zeroes and allocations wait for release()
  bool hold_reads = false;
  bool slow = false;  // every operation takes a few turns
  std::optional<Code> fail_write, fail_read, fail_allocate, fail_zero;
  std::deque<Code> fail_flush;  // one per flush
  ByteRange unreadable{0, 0};   // until it is written over
  // What happened: "write 0+4096", "zero 0+65536 unmap", "allocate 0+4096", "flush", "read 0+4096".
  std::vector<std::string> log;
  size_t waiting = 0;

  void release() {
    hold = hold_reads = false;
    released_.pulse();
  }
  size_t count(std::string_view prefix) const {
    return static_cast<size_t>(std::ranges::count_if(
        log, [&](const std::string& line) { return line.starts_with(prefix); }));
  }
  void set_size(uint64_t size_bytes) {
    size_ = size_bytes;
    std::erase_if(data_, [&](const auto& item) { return item.first * extent_ >= size_; });
  }

  BackingId id() const override { return id_; }
  const std::string& name() const override { return name_; }
  uint64_t size_bytes() const override { return size_; }
  bool has_untold_loss() const override { return untold_loss; }
  uint64_t extent_bytes() const override { return extent_; }
  uint64_t allocated_bytes() const override { return data_.size() * extent_; }

  bool is_mapped(ByteRange range) const override {
    const Run run = run_at(range.offset);
    return run.mapped && run.end >= range.end();
  }
  bool is_hole(ByteRange range) const override {
    const Run run = run_at(range.offset);
    return !run.mapped && run.end >= range.end();
  }
  Run run_at(uint64_t offset) const override {
    const bool mapped = data_.contains(offset / extent_);
    uint64_t extent = offset / extent_;
    while (extent * extent_ < size_ && data_.contains(extent) == mapped) ++extent;
    return {mapped, std::min(extent * extent_, size_)};
  }

  rt::Task<Result<void>> allocate(ByteRange range) override {
    note("allocate", range);
    co_await delay(true);
    if (fail_allocate) co_return fail(*fail_allocate);
    for (uint64_t e = range.offset / extent_; e <= (range.end() - 1) / extent_; ++e) {
      auto& extent = data_[e];
      if (extent.empty()) extent.resize(extent_);
    }
    co_return Result<void>();
  }
  rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) override {
    check({offset, into.size()}, into.data());
    note("read", {offset, into.size()});
    co_await delay(false);
    if (fail_read) co_return fail(*fail_read);
    if (unreadable.overlaps({offset, into.size()})) co_return fail(Code::kMediumRead);
    EXPECT_TRUE(range_fits(offset, into.size(), size_)) << "the backing shrank under a read";
    each_sector({offset, into.size()},
                [&](std::vector<std::byte>* extent, uint64_t in, uint64_t at) {
                  if (extent == nullptr) {
                    std::memset(into.data() + (at - offset), 0, 512);
                  } else {
                    std::memcpy(into.data() + (at - offset), extent->data() + in, 512);
                  }
                });
    co_return Result<void>();
  }
  rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from) override {
    const ByteRange range{offset, from.size()};
    check(range, from.data());
    note("write", range);
    EXPECT_TRUE(is_mapped(range)) << "write to a hole";
    begin_change(range);
    co_await delay(true);
    EXPECT_TRUE(is_mapped(range)) << "unmapped under a write";
    if (!fail_write) {
      each_sector(range, [&](std::vector<std::byte>* extent, uint64_t in, uint64_t at) {
        std::memcpy(extent->data() + in, from.data() + (at - offset), 512);
      });
    }
    end_change(range);
    if (!fail_write && range.contains(unreadable)) unreadable = {0, 0};
    if (fail_write) co_return fail(*fail_write);
    co_return Result<void>();
  }
  rt::Task<Result<void>> zero(ByteRange range, pool::ZeroMode mode) override {
    check(range, nullptr);
    note(mode == pool::ZeroMode::kKeep ? "zero keep" : "zero", range);
    begin_change(range);
    co_await delay(true);
    if (!fail_zero) {
      each_sector(range, [&](std::vector<std::byte>* extent, uint64_t in, uint64_t) {
        if (extent != nullptr) std::memset(extent->data() + in, 0, 512);
      });
      if (mode != pool::ZeroMode::kKeep) {
        std::erase_if(data_, [&](const auto& item) {
          return range.contains(
              {item.first * extent_, std::min(extent_, size_ - item.first * extent_)});
        });
      }
    }
    end_change(range);
    if (!fail_zero && range.contains(unreadable)) unreadable = {0, 0};
    if (fail_zero) co_return fail(*fail_zero);
    co_return Result<void>();
  }
  rt::Task<Result<void>> flush() override {
    log.push_back("flush");
    co_await delay(false);
    untold_loss = !fail_flush.empty() && always_writes;
    if (fail_flush.empty()) co_return Result<void>();
    const Code code = fail_flush.front();
    fail_flush.pop_front();
    co_return fail(code);
  }
  std::vector<pool::ExtentRun> extents() const override {
    std::vector<pool::ExtentRun> runs;
    for (const auto& [e, bytes] : data_) {
      const auto n = static_cast<uint32_t>(e);
      runs.push_back({LogicalExtent(n), "fake", PhysicalExtent(n), 1});
    }
    return runs;
  }

 private:
  void note(const std::string& what, ByteRange range) {
    log.push_back(what + " " + std::to_string(range.offset) + "+" + std::to_string(range.length));
  }
  void check(ByteRange range, const void* memory) const {
    EXPECT_TRUE(range == range.widened(kBlockBytes) && !range.empty());
    EXPECT_TRUE(range_fits(range.offset, range.length, size_));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % kBlockBytes, 0u);
  }
  rt::Task<> delay(bool is_change) {
    ++waiting;
    if (slow) {
      for (uint64_t turns = random_() % 4; turns > 0; --turns) co_await rt::yield();
    }
    while (is_change ? hold : hold_reads) co_await released_.wait();
    --waiting;
  }
  void begin_change(ByteRange range) {
    for (ByteRange other : changing_) EXPECT_FALSE(range.overlaps(other)) << "two writes at once";
    changing_.push_back(range);
  }
  void end_change(ByteRange range) { changing_.erase(std::ranges::find(changing_, range)); }
  template <class F>
  void each_sector(ByteRange range, F f) {
    for (uint64_t at = range.offset; at < range.end(); at += 512) {
      const auto found = data_.find(at / extent_);
      f(found == data_.end() ? nullptr : &found->second, at % extent_, at);
    }
  }

  uint64_t size_;
  uint64_t extent_;
  BackingId id_;
  std::string name_;
  std::map<uint64_t, std::vector<std::byte>> data_;
  std::vector<ByteRange> changing_;
  rt::Event released_;
  std::mt19937_64 random_{1};
};

}  // namespace duplex::volume::testing
