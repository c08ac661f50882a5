#include "rt/buffer.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <new>

#include "base/assert.h"

namespace duplex::rt {
namespace {

constexpr size_t kSmallest = 4096;
constexpr size_t kSlab = size_t{1} << 20;

uint8_t class_of(size_t bytes) {
  return static_cast<uint8_t>(bytes <= kSmallest ? 0 : std::bit_width((bytes - 1) / kSmallest));
}
size_t bytes_of(uint8_t cls) { return kSmallest << cls; }

}  // namespace

BufferPool::BufferPool(size_t arena_bytes, size_t keep_bytes) : keep_bytes_(keep_bytes) {
  ASSERT(arena_bytes % kSlab == 0);
  if (arena_bytes == 0) return;
  void* memory =
      mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) arena_ = {static_cast<std::byte*>(memory), arena_bytes};
}

BufferPool::~BufferPool() {
  for (FreeBlock* block : free_) {
    while (block != nullptr) {
      FreeBlock* next = block->next;
      if (!in_arena(reinterpret_cast<std::byte*>(block))) std::free(block);
      block = next;
    }
  }
  if (!arena_.empty()) munmap(arena_.data(), arena_.size());
}

Buffer BufferPool::get(size_t bytes) {
  ASSERT(bytes >= 1 && bytes <= kMaxBytes);
  const uint8_t cls = class_of(bytes);
  if (FreeBlock* block = free_[cls]) {
    free_[cls] = block->next;
    auto* data = reinterpret_cast<std::byte*>(block);
    if (!in_arena(data)) kept_bytes_ -= bytes_of(cls);
    return Buffer(this, data, bytes, cls);
  }
  if (std::byte* data = carve(cls)) return Buffer(this, data, bytes, cls);
  void* memory = std::aligned_alloc(4096, bytes_of(cls));
  if (memory == nullptr) throw std::bad_alloc();
  return Buffer(this, static_cast<std::byte*>(memory), bytes, cls);
}

// First use of arena memory: whole slabs for 1 MiB buffers, smaller ones share a slab.
std::byte* BufferPool::carve(uint8_t cls) {
  const size_t bytes = bytes_of(cls);
  if (bytes > kSlab) return nullptr;
  if (slab_.size() < bytes) {
    if (arena_.size() - carved_ < kSlab) return nullptr;
    // What is left of the old slab stays unused: less than a slab, and a slab is cut up only once.
    slab_ = arena_.subspan(carved_, kSlab);
    carved_ += kSlab;
  }
  std::byte* data = slab_.data();
  slab_ = slab_.subspan(bytes);
  return data;
}

void BufferPool::put(std::byte* data, uint8_t cls) {
  if (!in_arena(data)) {
    if (kept_bytes_ + bytes_of(cls) > keep_bytes_) {
      std::free(data);
      return;
    }
    kept_bytes_ += bytes_of(cls);
  }
  auto* block = reinterpret_cast<FreeBlock*>(data);
  block->next = free_[cls];
  free_[cls] = block;
}

}  // namespace duplex::rt
