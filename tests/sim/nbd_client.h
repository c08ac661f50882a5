// A small NBD client for the simulator: fixed newstyle, GO, simple replies, many requests in
// flight. Written from the protocol text alone; it shares no code with the server.
//
// Thread: one core. Every call returns 0, an NBD error number, or kGone once the connection is
// lost; after that every call returns kGone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "rt/task.h"
#include "rt/task_group.h"
#include "rt/wait.h"
#include "rt/world.h"

namespace duplex::simtest {

class NbdClient {
 public:
  static constexpr int kGone = -1;

  explicit NbdClient(rt::Core& core) : core_(core), tasks_(core) {}

  // Connects, negotiates `name`. False when refused or lost.
  rt::Task<bool> connect(rt::Address address, std::string name);
  uint64_t size_bytes() const { return size_; }

  rt::Task<int> read(uint64_t offset, std::span<std::byte> into);
  rt::Task<int> write(uint64_t offset, std::span<const std::byte> from, bool fua);
  rt::Task<int> zero(uint64_t offset, uint32_t length, bool fua, bool no_hole);
  rt::Task<int> trim(uint64_t offset, uint32_t length);
  rt::Task<int> flush();

  // Says goodbye and waits until nothing is left running.
  rt::Task<> close();

 private:
  struct Pending {
    std::span<std::byte> into;
    int result = kGone;
    rt::Event done;
  };
  rt::Task<int> call(uint16_t command, uint16_t flags, uint64_t offset, uint32_t length,
                     std::span<std::byte> into, std::span<const std::byte> from);
  rt::Task<bool> send_all(std::span<const std::byte> head, std::span<const std::byte> body);
  rt::Task<bool> recv_all(std::span<std::byte> into);
  rt::Task<bool> negotiate(std::string name);
  rt::Task<> receive_replies();
  void lose();

  rt::Core& core_;
  std::unique_ptr<rt::Stream> stream_;
  rt::Mutex sending_;
  std::map<uint64_t, Pending*> pending_;
  uint64_t next_cookie_ = 1;
  uint64_t size_ = 0;
  bool gone_ = true;
  rt::TaskGroup tasks_;
};

}  // namespace duplex::simtest
