// Buffers for the data path: aligned for O_DIRECT, recycled, registered with the ring where the
// engine can.
//
// A BufferPool belongs to one core; buffers are taken and given back there. Sizes are rounded up
// to a power of two from 4 KiB to 32 MiB. Up to 1 MiB they come from the arena (one block of
// memory the engine may register) while it lasts, then from the heap; what comes back is kept up
// to `keep_bytes`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace duplex::rt {

class BufferPool;

// Move-only. Alignment 4096. Contents are undefined at first.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& o) noexcept
      : pool_(std::exchange(o.pool_, nullptr)),
        data_(std::exchange(o.data_, nullptr)),
        size_(std::exchange(o.size_, 0)),
        class_(o.class_) {}
  Buffer& operator=(Buffer&& o) noexcept {
    if (this != &o) {
      reset();
      pool_ = std::exchange(o.pool_, nullptr);
      data_ = std::exchange(o.data_, nullptr);
      size_ = std::exchange(o.size_, 0);
      class_ = o.class_;
    }
    return *this;
  }
  ~Buffer() { reset(); }

  explicit operator bool() const { return data_ != nullptr; }
  std::byte* data() const { return data_; }
  // The size asked for; capacity up to the next power of two is not part of the promise.
  size_t size() const { return size_; }
  std::span<std::byte> span() const { return {data_, size_}; }
  void reset();

 private:
  friend class BufferPool;
  Buffer(BufferPool* pool, std::byte* data, size_t size, uint8_t cls)
      : pool_(pool), data_(data), size_(size), class_(cls) {}
  BufferPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  uint8_t class_ = 0;
};

class BufferPool {
 public:
  static constexpr size_t kMaxBytes = size_t{32} << 20;

  // `arena_bytes`: multiple of 1 MiB, may be 0. Its pages are touched only when used (or pinned).
  explicit BufferPool(size_t arena_bytes, size_t keep_bytes = size_t{16} << 20);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // 1 <= bytes <= kMaxBytes.
  Buffer get(size_t bytes);

  std::span<std::byte> arena() const { return arena_; }
  bool in_arena(const std::byte* at) const {
    return at >= arena_.data() && at < arena_.data() + arena_.size();
  }

 private:
  friend class Buffer;
  static constexpr size_t kClasses = 14;  // 4 KiB << 0..13 = 32 MiB
  struct FreeBlock {
    FreeBlock* next;
  };
  void put(std::byte* data, uint8_t cls);
  std::byte* carve(uint8_t cls);

  std::span<std::byte> arena_;
  size_t carved_ = 0;            // bytes of the arena given out for the first time
  std::span<std::byte> slab_{};  // rest of the 1 MiB slab small classes are cut from
  size_t keep_bytes_;
  size_t kept_bytes_ = 0;  // heap bytes in the free lists
  std::array<FreeBlock*, kClasses> free_{};
};

inline void Buffer::reset() {
  if (data_ != nullptr) pool_->put(std::exchange(data_, nullptr), class_);
}

}  // namespace duplex::rt
