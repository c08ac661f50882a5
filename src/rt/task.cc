// Recycled coroutine frames: per thread, one list of free blocks per 64 bytes of size.
#include "rt/task.h"

#include <array>
#include <cstdlib>
#include <new>

namespace duplex::rt::detail {
namespace {

constexpr size_t kStep = 64;
constexpr size_t kClasses = 64;         // frames up to 4 KiB are recycled
constexpr size_t kKeptPerClass = 4096;  // at most 64 classes * 4096 blocks stay with a thread

struct FreeBlock {
  FreeBlock* next;
};

struct FrameLists {
  std::array<FreeBlock*, kClasses> head{};
  std::array<size_t, kClasses> count{};
  ~FrameLists() {
    for (FreeBlock* block : head) {
      while (block != nullptr) std::free(std::exchange(block, block->next));
    }
    head.fill(nullptr);
    count.fill(kKeptPerClass);  // frames freed after this thread's lists are gone go to free()
  }
};

thread_local FrameLists t_lists;

size_t class_of(size_t bytes) { return (bytes + kStep - 1) / kStep - 1; }

}  // namespace

void* allocate_frame(size_t bytes) {
  const size_t c = class_of(bytes);
  if (c < kClasses) {
    FrameLists& lists = t_lists;
    if (FreeBlock* block = lists.head[c]) {
      lists.head[c] = block->next;
      --lists.count[c];
      return block;
    }
  }
  void* fresh = std::malloc(c < kClasses ? (c + 1) * kStep : bytes);
  if (fresh == nullptr) throw std::bad_alloc();
  return fresh;
}

void free_frame(void* frame, size_t bytes) noexcept {
  const size_t c = class_of(bytes);
  FrameLists& lists = t_lists;
  if (c >= kClasses || lists.count[c] >= kKeptPerClass) {
    std::free(frame);
    return;
  }
  auto* block = static_cast<FreeBlock*>(frame);
  block->next = lists.head[c];
  lists.head[c] = block;
  ++lists.count[c];
}

}  // namespace duplex::rt::detail
