// The blocking door: plain system calls, for the store's executor.
//
// Writes go past the page cache where the file system can do that. A kernel that throttles writeback
// (blk-wbt, on by default) lets the flush of a cached page wait for seconds while somebody else
// writes directly to the same disk, as our devices do; direct writes it does not throttle. They
// write whole blocks: a file may end up to a block of zeroes behind its last byte. Reads go through
// the cache, which the kernel keeps true.
#pragma once

#include "rt/file.h"

namespace duplex::os {

class OsSyncFiles final : public rt::SyncFiles {
 public:
  std::unique_ptr<rt::SyncFile> open(const std::string& path, bool create, int* error) override;
  int remove(const std::string& path) override;
  int rename(const std::string& from, const std::string& to) override;
  bool exists(const std::string& path) override;
  int make_directories(const std::string& path) override;
  int sync_directory(const std::string& path) override;
};

}  // namespace duplex::os
