#include <cerrno>

#include "sim/core.h"

namespace duplex::sim {
namespace {

class SimSyncFile final : public rt::SyncFile {
 public:
  SimSyncFile(Machine& machine, DiskFile& file) : machine_(machine), file_(file) {}
  ~SimSyncFile() override {
    if (file_.locked_by == this) file_.locked_by = nullptr;
  }

  int64_t read(uint64_t offset, std::span<std::byte> into) override {
    if (machine_.sync_io() || hit(file_.faults.read_error, "store read error")) return -EIO;
    if (offset >= file_.size()) return 0;
    const uint64_t count = std::min<uint64_t>(into.size(), file_.size() - offset);
    file_.read(offset, into.first(count));
    return static_cast<int64_t>(count);
  }
  int write(uint64_t offset, std::span<const std::byte> from) override {
    const uint64_t change = file_.begin_write(offset, from);
    if (machine_.sync_io()) return EIO;  // in flight when the power went
    if (file_.faults.full && offset + from.size() > file_.size()) {
      file_.end_change(change, false);
      machine_.simulation().count("store full");
      return ENOSPC;
    }
    if (hit(file_.faults.write_error, "store write error")) {
      file_.tear_change(change, machine_.simulation().disk());
      return EIO;
    }
    file_.end_change(change, true);
    return 0;
  }
  int sync() override {
    const uint64_t point = file_.flush_point();
    if (machine_.sync_io()) return EIO;
    if (hit(file_.faults.flush_error, "store flush error")) {
      machine_.simulation().count(file_.lose_cache(machine_.simulation().disk()));
      return EIO;
    }
    if (!file_.faults.lying_flush) file_.flush(point);
    return 0;
  }
  int truncate(uint64_t bytes) override {
    if (machine_.sync_io()) return EIO;
    file_.truncate(bytes);
    return 0;
  }
  int64_t size() override { return static_cast<int64_t>(file_.size()); }
  int lock() override {
    if (file_.locked_by != nullptr && file_.locked_by != this) return EWOULDBLOCK;
    file_.locked_by = this;
    return 0;
  }

 private:
  bool hit(double probability, const char* what) {
    if (probability <= 0 || !machine_.simulation().faults().chance(probability)) return false;
    machine_.simulation().count(what);
    return true;
  }
  Machine& machine_;
  DiskFile& file_;
};

}  // namespace

std::unique_ptr<rt::SyncFile> SimSyncFiles::open(const std::string& path, bool create, int* error) {
  *error = 0;
  DiskFile* file = machine_.disk().find(path);
  if (machine_.sync_io()) {
    *error = EIO;
    return nullptr;
  }
  if (file == nullptr && !create) {
    *error = ENOENT;
    return nullptr;
  }
  if (file == nullptr) file = &machine_.disk().create(path, 0);
  return std::make_unique<SimSyncFile>(machine_, *file);
}

int SimSyncFiles::remove(const std::string& path) {
  if (machine_.sync_io()) return EIO;
  if (machine_.disk().find(path) == nullptr) return ENOENT;
  machine_.disk().remove(path);
  return 0;
}

int SimSyncFiles::rename(const std::string& from, const std::string& to) {
  if (machine_.sync_io()) return EIO;
  if (machine_.disk().find(from) == nullptr) return ENOENT;
  machine_.disk().rename(from, to);
  return 0;
}

bool SimSyncFiles::exists(const std::string& path) {
  return machine_.disk().find(path) != nullptr || machine_.disk().is_directory(path);
}

int SimSyncFiles::make_directories(const std::string& path) {
  if (!machine_.disk().is_directory(path)) machine_.disk().make_directory(path);
  return 0;
}

int SimSyncFiles::sync_directory(const std::string& path) {
  if (machine_.sync_io()) return EIO;
  machine_.disk().sync_directory(path);
  return 0;
}

}  // namespace duplex::sim
