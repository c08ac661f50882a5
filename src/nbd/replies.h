// Sent: what a request awaits after it has queued its reply (see Connection).
#pragma once

#include "nbd/connection.h"

namespace duplex::nbd {

struct Connection::Sent : rt::Waiter {
  Sent(Connection& c, Reply& r) : connection(c), reply(r) {}
  bool await_ready() const { return connection.gone_; }
  void await_suspend(std::coroutine_handle<> h) {
    handle = h;
    reply.waiter = this;
    connection.enqueue(reply);
  }
  void await_resume() const {}
  Connection& connection;
  Reply& reply;
};

inline Connection::Sent Connection::send(Reply& reply) { return Sent(*this, reply); }

}  // namespace duplex::nbd
