// Any bytes as the daemon's configuration file: no crash; what is wrong in the file is told with
// its place, and every refusal says what to do next.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "base/assert.h"
#include "duplexd/options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace duplex;
  const int fd = ::memfd_create("config", MFD_CLOEXEC);
  ASSERT(fd >= 0 && ::write(fd, data, size) == static_cast<ssize_t>(size));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  DaemonOptions options;
  const auto read = read_config(path, options);
  const auto combined = combine({.config = path, .settings = {}, .direct = {}});
  ::close(fd);
  if (!read) {
    ASSERT(read.error().message().starts_with(path) && !read.error().next().empty());
    ASSERT(!combined);
  } else if (combined) {
    ASSERT(combined->reactors >= 1 && combined->reactors <= 64);
  } else {
    ASSERT(!combined.error().message().empty() && !combined.error().next().empty());
  }
  return 0;
}
