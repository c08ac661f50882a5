// OsWorld: the machine the daemon runs on. Starts the threads, stops them when it ends.
//
// Owner: main(). What runs on the cores must have ended before the world does.
#pragma once

#include <memory>
#include <string>

#include "base/error.h"
#include "rt/world.h"

namespace duplex::os {

enum class EngineChoice { kAuto, kUring, kThreads };

struct OsOptions {
  size_t reactors = 1;  // 1..64
  EngineChoice engine = EngineChoice::kAuto;
  size_t arena_bytes = size_t{8} << 20;  // registered data buffers, shared out over the reactors
};

class OsWorld : public rt::World {
 public:
  // Says in the log which engine was taken and why. kNotSupported: the chosen one is not possible.
  static Result<std::unique_ptr<OsWorld>> create(OsOptions options);
  virtual std::string engine_name() const = 0;
};

}  // namespace duplex::os
