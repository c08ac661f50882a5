// AlignedBytes: memory for rare, long transfers of labels and map logs (O_DIRECT alignment). It is
// given back to the system when done; the data path uses rt::BufferPool.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>

#include "base/units.h"

namespace duplex::pool {

class AlignedBytes {
 public:
  // Zeroed. `bytes` is a multiple of kBlockBytes.
  explicit AlignedBytes(size_t bytes) : size_(bytes) {
    ASSERT(bytes > 0 && bytes % kBlockBytes == 0);
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, bytes)));
    if (!data_) throw std::bad_alloc();
    std::memset(data_.get(), 0, bytes);
  }
  std::span<std::byte> span() { return {data_.get(), size_}; }
  std::span<const std::byte> span() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_;
};

// Longest transfer in one operation outside the data path.
inline constexpr uint64_t kTransferBytes = kMiB;

}  // namespace duplex::pool
