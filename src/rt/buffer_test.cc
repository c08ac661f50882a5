#include "rt/buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace duplex::rt {
namespace {

TEST(BufferPool, BuffersAreAlignedAndDoNotOverlap) {
  BufferPool pool(4 << 20);
  std::vector<Buffer> held;
  for (size_t bytes : {size_t{1}, size_t{4096}, size_t{4097}, size_t{65536}, size_t{1} << 20,
                       size_t{3} << 20, BufferPool::kMaxBytes}) {
    for (int i = 0; i < 3; ++i) {
      Buffer buffer = pool.get(bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
      EXPECT_EQ(buffer.size(), bytes);
      std::memset(buffer.data(), static_cast<int>(held.size() + 1), bytes);
      held.push_back(std::move(buffer));
    }
  }
  for (size_t i = 0; i < held.size(); ++i) {
    EXPECT_EQ(held[i].data()[0], static_cast<std::byte>(i + 1));
    EXPECT_EQ(held[i].data()[held[i].size() - 1], static_cast<std::byte>(i + 1));
  }
}

TEST(BufferPool, WhatComesBackIsUsedAgain) {
  BufferPool pool(1 << 20);
  Buffer first = pool.get(5000);
  std::byte* at = first.data();
  EXPECT_TRUE(pool.in_arena(at));
  first.reset();
  EXPECT_EQ(pool.get(8192).data(), at);
}

TEST(BufferPool, AnExhaustedArenaFallsBackToTheHeap) {
  BufferPool pool(1 << 20, 1 << 20);
  const Buffer arena = pool.get(1 << 20);
  const Buffer heap = pool.get(1 << 20);
  EXPECT_TRUE(pool.in_arena(arena.data()));
  EXPECT_FALSE(pool.in_arena(heap.data()));
}

}  // namespace
}  // namespace duplex::rt
