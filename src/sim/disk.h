// The simulated disk of one machine: files with a volatile cache, and the faults they can have.
//
// Model. Reads see the *current* content. Every write and zero is also kept in a list of unflushed
// changes until a flush that was issued after it had ended. A power cut throws the current content
// away: what is durable stays, and of the unflushed changes, in any order, each is applied, lost
// or torn at 512 bytes. Changes still in flight are treated the same way. A process kill keeps the
// current content.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sim/dice.h"

namespace duplex::sim {

class Simulation;

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kTornUnit = 512;

// Sparse bytes: pages that were never written, or zeroed whole, take no memory.
class Image {
 public:
  void read(uint64_t offset, std::span<std::byte> into) const;
  void write(uint64_t offset, std::span<const std::byte> from);
  void zero(uint64_t offset, uint64_t length);
  uint64_t pages() const { return pages_.size(); }

  using Page = std::array<std::byte, kPage>;
  const Page* find(uint64_t page) const {
    const auto it = pages_.find(page);
    return it == pages_.end() ? nullptr : it->second.get();
  }
  // Null: all zeroes.
  void put(uint64_t page, std::unique_ptr<Page> content);
  // Pages present from `first` to before `end`.
  std::vector<uint64_t> present(uint64_t first, uint64_t end) const;

 private:
  std::map<uint64_t, std::unique_ptr<Page>> pages_;
};

// Unflushed changes that did not survive the loss of a cache, or only in part.
struct Toll {
  uint64_t lost = 0;
  uint64_t torn = 0;
  void add(const Toll& other) {
    lost += other.lost;
    torn += other.torn;
  }
};

// What can go wrong with one file. All off at first; a test sets the fields.
struct DiskFaults {
  double read_error = 0;   // probability per operation
  double write_error = 0;  // the change may be applied, torn or not
  double flush_error = 0;  // and the cache is lost (see cache_lost below)
  double zero_error = 0;
  double slow = 0;           // probability of 10 ms to 5 s instead of microseconds
  bool gone = false;         // every operation: ENXIO; opening: ENOENT
  bool full = false;         // writes to pages that hold nothing yet: ENOSPC
  bool lying_flush = false;  // flushes say yes and do nothing
  // Called when unflushed changes are lost while the machine runs.
  void (*cache_lost)(void* object) = nullptr;
  void* object = nullptr;
};

class DiskFile {
 public:
  DiskFile(std::string path, uint64_t size, bool block_device)
      : path_(std::move(path)), size_(size), block_device_(block_device) {}

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  bool block_device() const { return block_device_; }
  bool exists = true;
  bool entry_durable = false;  // its directory entry survives a power cut
  const void* locked_by = nullptr;
  DiskFaults faults;

  void read(uint64_t offset, std::span<std::byte> into) const { current_.read(offset, into); }
  // A change begins: returns its number. It becomes visible with end_change().
  uint64_t begin_write(uint64_t offset, std::span<const std::byte> from);
  uint64_t begin_zero(uint64_t offset, uint64_t length);
  // `applied`: false when it failed without effect.
  void end_change(uint64_t change, bool applied);
  // Failed half way: some of its 512-byte units are applied.
  void tear_change(uint64_t change, Dice& dice);

  uint64_t flush_point() const { return next_change_; }
  // Every change that had ended before flush_point() returned `point` is durable now.
  void flush(uint64_t point);
  void truncate(uint64_t size);

  // Content planted by a test, durable at once.
  void plant(uint64_t offset, std::span<const std::byte> bytes);

  Toll power_cut(Dice& dice);
  void kill(Dice& dice);
  // The device loses its cache while the machine runs: as a power cut, but in-flight changes go on.
  Toll lose_cache(Dice& dice);
  bool has_unflushed() const { return !changes_.empty(); }
  bool holds_page(uint64_t page) const { return current_.find(page) != nullptr; }

 private:
  struct Change {
    uint64_t number;
    uint64_t offset;
    uint64_t length;
    std::vector<std::byte> data;  // empty: zeroes
    bool ended = false;
    uint64_t ended_at = 0;  // value of next_change_ when it ended
  };
  Change* find(uint64_t number);
  void apply(Image& image, const Change& change) const;
  void apply_part(Image& image, const Change& change, uint64_t from, uint64_t to) const;
  void apply_torn(Image& image, const Change& change, Dice& dice) const;
  void remember(uint64_t offset, uint64_t length);
  void back_to_durable();
  Toll survive(Dice& dice, bool in_flight_too);

  const std::string path_;
  uint64_t size_;
  const bool block_device_;
  Image current_;
  // Durable content of every page that differs, or may differ, from current_.
  std::map<uint64_t, std::unique_ptr<Image::Page>> durable_;
  std::vector<Change> changes_;  // unflushed or in flight, by number
  uint64_t next_change_ = 1;
};

class Disk {
 public:
  // Null when absent.
  DiskFile* find(const std::string& path);
  DiskFile& create(const std::string& path, uint64_t size, bool block_device = false);
  void remove(const std::string& path);
  void rename(const std::string& from, const std::string& to);
  void sync_directory(const std::string& path);
  bool is_directory(const std::string& path) const;
  void make_directory(const std::string& path) { directories_.push_back(path); }

  Toll power_cut(Dice& dice);
  void kill(Dice& dice);

 private:
  std::map<std::string, std::unique_ptr<DiskFile>> files_;
  std::vector<std::unique_ptr<DiskFile>> removed_;  // still open somewhere
  std::vector<std::string> directories_;
};

}  // namespace duplex::sim
