#include "rt/executor.h"

#include "base/assert.h"

namespace duplex::rt {

thread_local Executor* Executor::current_ = nullptr;

Executor& Executor::current() {
  ASSERT(current_ != nullptr);
  return *current_;
}

}  // namespace duplex::rt
