// Core and World: the doors bundled as the array gets them.
#pragma once

#include <cstddef>

#include "rt/buffer.h"
#include "rt/clock.h"
#include "rt/executor.h"
#include "rt/file.h"
#include "rt/net.h"

namespace duplex::rt {

// One thread of execution with its doors. A reactor serves volumes; the control core runs the
// verbs, accepts connections and does their handshake.
class Core : public Executor {
 public:
  virtual Clock& clock() = 0;
  virtual Rng& rng() = 0;
  virtual Files& files() = 0;
  virtual Net& net() = 0;
  virtual BufferPool& buffers() = 0;
  // 0 is the control core, 1..N are the reactors.
  virtual size_t index() const = 0;
};

// Everything an array needs from outside. The os and sim rooms implement it; apps and tests
// choose one.
class World {
 public:
  virtual ~World() = default;
  virtual Core& control() = 0;
  virtual size_t reactor_count() const = 0;  // at least 1
  virtual Core& reactor(size_t i) = 0;       // i < reactor_count(); its index() is i + 1
  // Work here may block: the store runs on it, and nothing else.
  virtual Executor& store() = 0;
  virtual SyncFiles& sync_files() = 0;

  // All cores: 0 = control, then the reactors.
  size_t core_count() const { return reactor_count() + 1; }
  Core& core(size_t index) { return index == 0 ? control() : reactor(index - 1); }
};

}  // namespace duplex::rt
