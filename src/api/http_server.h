// HttpServer: the API on a unix socket or TCP, by cpp-httplib.
//
// Owner: main(). Threads: its own (few); each hands its request to the control core and waits. It
// never touches the array itself. Limits: those of ConnectionLimits, body 1 MiB, one request for a
// connection, 16 requests at a time. A request may wait up to a minute for an event or a job, or
// stream events ("Accept: text/event-stream"); 8 more may do that at a time, so that they cannot
// starve the rest. On TCP requests that come from web pages are refused.
#pragma once

#include <memory>

#include "api/connections.h"
#include "api/request.h"
#include "base/error.h"
#include "control/array.h"
#include "rt/net.h"

namespace duplex::api {

class HttpServer {
 public:
  // `run` hands a request to the array and waits for the answer; called on the server's threads.
  using Run = Response (*)(control::Array& array, Request request);

  // kDenied: TCP that is not loopback needs `insecure`. kBusy: somebody listens there.
  static Result<std::unique_ptr<HttpServer>> start(control::Array& array,
                                                   const rt::Address& address, bool insecure,
                                                   Run run, ConnectionLimits limits = {});
  virtual ~HttpServer() = default;
  // Where it listens; the real port where 0 was asked for.
  virtual rt::Address address() const = 0;
  // Answers what is under way, as far as its clients take the answers at once, then ends; call
  // Array::release_waiters() first.
  virtual void stop() = 0;
};

}  // namespace duplex::api
