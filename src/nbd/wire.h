// Wire: exact receives and small sends on a stream, for the handshake. Bytes that arrive beyond
// what was asked for are kept and handed on to the transmission phase.
//
// Owner and thread: the handshake of one connection, control core.
#pragma once

#include <span>
#include <vector>

#include "rt/net.h"
#include "rt/task.h"

namespace duplex::nbd {

class Wire {
 public:
  explicit Wire(rt::Stream& stream) : stream_(stream) {}

  // False: the peer is gone before all of it came.
  rt::Task<bool> recv(std::span<std::byte> into);
  rt::Task<bool> send(std::vector<std::byte> bytes);
  // What came in after the last recv(); ends the life of this buffer.
  std::vector<std::byte> take_rest();

 private:
  rt::Stream& stream_;
  std::vector<std::byte> held_;
  size_t used_ = 0;
};

}  // namespace duplex::nbd
