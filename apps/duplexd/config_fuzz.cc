// Any bytes as the daemon's configuration file: no crash; a refusal says where and what next.
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
  ::close(fd);
  if (!read) {
    ASSERT(read.error().message().starts_with(path) && !read.error().next().empty());
    return 0;
  }
  ASSERT(options.reactors <= 64);
  static_cast<void>(check_options(options));
  return 0;
}
