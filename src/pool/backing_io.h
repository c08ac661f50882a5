// IoBatch: up to nine device operations that run side by side, awaited together.
//
// Nine: a request of 32 MiB that is not aligned to extents of 4 MiB touches nine of them. Lives
// in the frame of the coroutine that awaits it; nothing is allocated.
//   IoBatch batch; batch.add(...); Result<void> done = co_await batch;
#pragma once

#include <array>
#include <coroutine>
#include <cstddef>
#include <new>

#include "pool/backing_impl.h"
#include "rt/file.h"

namespace duplex::pool {

class IoBatch {
 public:
  static constexpr size_t kMax = 9;

  IoBatch() = default;
  IoBatch(const IoBatch&) = delete;
  IoBatch& operator=(const IoBatch&) = delete;

  bool is_full() const { return count_ == kMax; }
  bool empty() const { return count_ == 0; }
  void add(DeviceUse& use, rt::FileOp::Kind kind, uint64_t offset, uint64_t length,
           std::byte* data);

  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> handle);
  // What the operations came to. The batch is empty again.
  Result<void> await_resume();

 private:
  struct Piece : rt::FileOp {
    IoBatch* batch;
    DeviceUse* use;
    uint64_t losses;
    bool changes() const { return kind != Kind::kRead; }
  };
  static void ended(rt::FileOp& op);
  static void settle(Piece& piece);
  Piece& piece(size_t i) { return *std::launder(reinterpret_cast<Piece*>(&memory_[i])); }

  struct alignas(Piece) Memory {
    std::byte bytes[sizeof(Piece)];
  };
  std::array<Memory, kMax> memory_;  // pieces are made in place, only as many as are needed
  size_t count_ = 0;
  size_t open_ = 0;
  std::coroutine_handle<> waiting_;
};

}  // namespace duplex::pool
