// The blocking door: plain system calls, for the store's executor.
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
