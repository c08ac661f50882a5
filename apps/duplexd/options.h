// What duplexd is told: by a TOML file (docs/CONFIG.md), by flags, or both; flags win.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "os/world.h"
#include "rt/net.h"

namespace duplex {

struct DaemonOptions {
  std::string name;
  ArrayId id;
  std::string state;
  std::vector<rt::Address> nbd;
  std::vector<rt::Address> api;
  size_t reactors = 0;  // 0: one per processor
  os::EngineChoice engine = os::EngineChoice::kAuto;
  LogLevel log_level = LogLevel::kInfo;
  bool insecure = false;
  bool rebuild = false;
  bool accept_missing = false;
  std::vector<std::string> devices;  // for --rebuild
};

// Adds what the file says to `options`. kInvalid names the key, the line and the nearest known key.
Result<void> read_config(const std::string& path, DaemonOptions& options);

// One setting by its key, from the file or a flag. Keys as in docs/CONFIG.md.
Result<void> set_option(DaemonOptions& options, const std::string& key, const std::string& value);

// What the command line says. What the file can say as well stands in `settings`, in order.
struct Flags {
  std::string config;
  std::vector<std::pair<std::string, std::string>> settings;
  DaemonOptions direct;  // the rest
};

// The file, then the flags over it; everything that is needed is there.
Result<DaemonOptions> combine(Flags flags);

}  // namespace duplex
