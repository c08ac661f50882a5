// Tests of this room only: a disk in memory that forgets what was not flushed and fails on demand,
// and two executors in one thread.
#pragma once

#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/assert.h"
#include "base/units.h"
#include "meta/sqlite_vfs.h"
#include "rt/clock.h"
#include "rt/executor.h"
#include "rt/file.h"
#include "rt/task.h"
#include "rt/task_group.h"

namespace duplex::meta::test {

// What one power cut leaves of the writes that were not flushed.
enum class Loss { kNothingKept, kAllKept, kMixed };

class MemoryFiles final : public rt::SyncFiles {
 public:
  // Counters of calls that change something, and faults planned by their number (1 is the next).
  struct Faults {
    uint64_t fail_at = 0;  // this call fails with `errnum`
    int errnum = EIO;
    bool fail_syncs_only = false;    // fail_at counts flushes of files alone
    uint64_t cut_at = 0;             // from this call on everything fails: the power is gone
    uint64_t capacity = UINT64_MAX;  // bytes of all files together
  };
  Faults faults;
  uint64_t calls = 0;
  uint64_t writes = 0;
  uint64_t syncs = 0;
  bool cut = false;

  // Forgets what was not flushed, as `loss` says, and starts with power again.
  void restart(Loss loss, unsigned seed = 0) {
    std::mt19937 random(seed);
    const auto kept = [&] {
      return loss == Loss::kAllKept || (loss == Loss::kMixed && random() % 2 == 0);
    };
    std::set<std::string> paths;
    for (const auto& [path, node] : names_) paths.insert(path);
    for (const auto& [path, node] : durable_names_) paths.insert(path);
    for (const std::string& path : paths) {
      const auto now = names_.find(path);
      const auto before = durable_names_.find(path);
      const bool changed =
          now == names_.end() || before == durable_names_.end() || now->second != before->second;
      if (!changed || kept()) continue;
      if (before == durable_names_.end()) {
        names_.erase(path);
      } else {
        names_[path] = before->second;
      }
    }
    durable_names_ = names_;
    for (const auto& [path, node] : names_) node->restart(kept);
    faults = {};
    cut = false;
    calls = 0;
  }
  std::vector<std::byte>& content(const std::string& path) {
    ASSERT(names_.contains(path));
    names_[path]->unflushed.clear();
    return names_[path]->now;
  }
  std::map<std::string, std::vector<std::byte>> image() const {
    std::map<std::string, std::vector<std::byte>> all;
    for (const auto& [path, node] : names_) all[path] = node->now;
    return all;
  }

  std::unique_ptr<rt::SyncFile> open(const std::string& path, bool create, int* error) override {
    *error = 0;
    if (cut) *error = EIO;
    const bool present = names_.contains(path);
    if (*error == 0 && !present) *error = create ? change() : ENOENT;
    if (*error == 0 && !directories_.contains(parent_directory(path))) *error = ENOENT;
    if (*error != 0) return nullptr;
    if (!present) names_[path] = std::make_shared<Node>();
    return std::make_unique<MemoryFile>(*this, names_[path]);
  }
  int remove(const std::string& path) override {
    if (!names_.contains(path)) return ENOENT;
    if (const int errnum = change(); errnum != 0) return errnum;
    names_.erase(path);
    return 0;
  }
  int rename(const std::string& from, const std::string& to) override {
    if (const int errnum = change(); errnum != 0) return errnum;
    names_[to] = names_[from];
    names_.erase(from);
    return 0;
  }
  bool exists(const std::string& path) override {
    return names_.contains(path) || directories_.contains(path);
  }
  int make_directories(const std::string& path) override {
    if (const int errnum = change(); errnum != 0) return errnum;
    for (std::string at = path; !directories_.contains(at); at = parent_directory(at))
      directories_.insert(at);
    return 0;
  }
  int sync_directory(const std::string& path) override {
    if (const int errnum = change(); errnum != 0) return errnum;
    std::erase_if(durable_names_,
                  [&](const auto& entry) { return parent_directory(entry.first) == path; });
    for (const auto& [name, node] : names_) {
      if (parent_directory(name) == path) durable_names_[name] = node;
    }
    return 0;
  }

 private:
  struct Node {
    std::vector<std::byte> durable;
    std::vector<std::byte> now;
    std::vector<std::function<void(std::vector<std::byte>&, const std::function<bool()>&)>>
        unflushed;
    const void* locked_by = nullptr;

    void restart(const std::function<bool()>& kept) {
      for (const auto& apply : unflushed) apply(durable, kept);
      unflushed.clear();
      now = durable;
      locked_by = nullptr;
    }
  };

  // Pieces of 512 bytes reach the medium or not, each by itself.
  static void keep(std::vector<std::byte>& into, uint64_t offset, std::span<const std::byte> data,
                   const std::function<bool()>& kept) {
    for (size_t at = 0; at < data.size();) {
      const size_t piece = std::min<size_t>(data.size() - at, 512 - (offset + at) % 512);
      if (kept()) {
        if (into.size() < offset + at + piece) into.resize(offset + at + piece);
        std::memcpy(into.data() + offset + at, data.data() + at, piece);
      }
      at += piece;
    }
  }

  class MemoryFile final : public rt::SyncFile {
   public:
    MemoryFile(MemoryFiles& files, std::shared_ptr<Node> node)
        : files_(files), node_(std::move(node)) {}
    ~MemoryFile() override {
      if (node_->locked_by == this) node_->locked_by = nullptr;
    }
    int64_t read(uint64_t offset, std::span<std::byte> into) override {
      if (files_.cut) return -EIO;
      if (offset >= node_->now.size()) return 0;
      const size_t length = std::min<uint64_t>(into.size(), node_->now.size() - offset);
      std::memcpy(into.data(), node_->now.data() + offset, length);
      return static_cast<int64_t>(length);
    }
    int write(uint64_t offset, std::span<const std::byte> from) override {
      ++files_.writes;
      // A write under way when the power goes may still reach the medium in part.
      const bool had_power = !files_.cut;
      int errnum = files_.change();
      if (errnum != 0 && !(had_power && files_.cut)) return errnum;
      const uint64_t grows =
          offset + from.size() > node_->now.size() ? offset + from.size() - node_->now.size() : 0;
      const uint64_t room =
          files_.faults.capacity - std::min(files_.faults.capacity, files_.used());
      if (grows > room) {
        from = from.first(from.size() - std::min<uint64_t>(from.size(), grows - room));
        errnum = ENOSPC;
      }
      std::vector<std::byte> copy(from.begin(), from.end());
      keep(node_->now, offset, copy, [] { return true; });
      node_->unflushed.push_back(
          [offset, copy](auto& into, const auto& kept) { keep(into, offset, copy, kept); });
      return errnum;
    }
    int sync() override {
      ++files_.syncs;
      if (files_.faults.fail_syncs_only && files_.faults.fail_at != 0 &&
          --files_.faults.fail_at == 0) {
        node_->unflushed.clear();  // what the kernel does: the pages count as clean
        return files_.faults.errnum;
      }
      if (const int errnum = files_.change(); errnum != 0) return errnum;
      node_->durable = node_->now;
      node_->unflushed.clear();
      return 0;
    }
    int truncate(uint64_t bytes) override {
      if (const int errnum = files_.change(); errnum != 0) return errnum;
      node_->now.resize(bytes);
      node_->unflushed.push_back([bytes](auto& into, const auto& kept) {
        if (kept()) into.resize(bytes);
      });
      return 0;
    }
    int64_t size() override { return files_.cut ? -EIO : static_cast<int64_t>(node_->now.size()); }
    int lock() override {
      if (node_->locked_by != nullptr && node_->locked_by != this) return EWOULDBLOCK;
      node_->locked_by = this;
      return 0;
    }

   private:
    MemoryFiles& files_;
    std::shared_ptr<Node> node_;
  };

  // Counts a call that changes something: 0, or the errno it fails with.
  int change() {
    if (cut) return EIO;
    ++calls;
    if (faults.cut_at != 0 && calls >= faults.cut_at) cut = true;
    if (cut) return EIO;
    const bool fails = !faults.fail_syncs_only && faults.fail_at != 0 && calls == faults.fail_at;
    return fails ? faults.errnum : 0;
  }
  uint64_t used() const {
    uint64_t bytes = 0;
    for (const auto& [path, node] : names_) bytes += node->now.size();
    return bytes;
  }

  std::map<std::string, std::shared_ptr<Node>> names_;
  std::map<std::string, std::shared_ptr<Node>> durable_names_;
  std::set<std::string> directories_ = {"/", "."};
};

class QueueExecutor final : public rt::Executor {
 public:
  void post(rt::Work& work) override {
    if (!dead) queue_.push_back(&work);
  }
  void defer(rt::Work& work) override { post(work); }
  bool abandoned() const override { return dead; }
  bool run_one() {
    if (queue_.empty()) return false;
    rt::Work* work = queue_.front();
    queue_.pop_front();
    enter([&] { work->run(*work); });
    return true;
  }
  void enter(const std::function<void()>& act) {
    Scope scope(*this);
    act();
  }
  // The power is gone: nothing posted runs any more.
  void abandon() {
    dead = true;
    queue_.clear();
  }
  bool dead = false;

 private:
  std::deque<rt::Work*> queue_;
};

class SeedRng final : public rt::Rng {
 public:
  uint64_t next() override { return state_ += 0x9e3779b97f4a7c15; }

 private:
  uint64_t state_ = 1;
};

template <class T>
rt::Task<> store_result(rt::Task<T> task, std::optional<T>& into) {
  into.emplace(co_await std::move(task));
}

// A control executor that calls and a store executor that serves.
struct Machine {
  QueueExecutor control;
  QueueExecutor store;
  SeedRng rng;

  void run_until_idle() {
    while (control.run_one() || store.run_one()) {
    }
  }
  template <class T>
  T run(rt::Task<T> task) {
    std::optional<T> result;
    rt::TaskGroup group(control);
    control.enter([&] { group.spawn(store_result(std::move(task), result)); });
    run_until_idle();
    ASSERT(result.has_value());
    return *std::move(result);
  }
};

}  // namespace duplex::meta::test
