#include "nbd/wire.h"

#include <algorithm>
#include <cstring>

namespace duplex::nbd {

rt::Task<bool> Wire::recv(std::span<std::byte> into) {
  while (!into.empty()) {
    if (used_ == held_.size()) {
      held_.resize(4096);
      const int64_t got = co_await stream_.recv(held_);
      held_.resize(got > 0 ? static_cast<size_t>(got) : 0);
      used_ = 0;
      if (got <= 0) co_return false;
    }
    const size_t count = std::min(into.size(), held_.size() - used_);
    std::memcpy(into.data(), held_.data() + used_, count);
    used_ += count;
    into = into.subspan(count);
  }
  co_return true;
}

rt::Task<bool> Wire::send(std::vector<std::byte> bytes) {
  iovec part{bytes.data(), bytes.size()};
  co_return co_await stream_.send(std::span(&part, 1)) == 0;
}

std::vector<std::byte> Wire::take_rest() {
  return std::vector<std::byte>(held_.begin() + static_cast<std::ptrdiff_t>(used_), held_.end());
}

}  // namespace duplex::nbd
