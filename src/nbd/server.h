// Server: the NBD front door of an array. Listens, negotiates, hands each client to the core of its
// volume.
//
// Owner: main() or a test. Thread: control core, except what runs inside a Connection.
// Limits (docs/LIMITS.md): connections in all and per source, handshakes at a time, a deadline for
// the whole handshake. A client over a limit is turned away at once, before it costs anything.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/event.h"
#include "nbd/connection.h"
#include "nbd/handshake.h"
#include "rt/task_group.h"
#include "rt/world.h"
#include "volume/volume.h"

namespace duplex::nbd {

struct ServerOptions {
  size_t max_connections = 1024;
  size_t max_per_source = 256;
  size_t max_handshakes = 128;
  rt::Micros handshake_deadline = 10 * rt::kSecond;
  rt::Micros stop_deadline = 5 * rt::kSecond;  // for answering what is under way at stop()
};

class Server {
 public:
  // `world` and `exports` outlive the server.
  Server(rt::World& world, volume::Exports& exports, ServerOptions options = {});
  ~Server();

  // kDenied: TCP that is not loopback needs `insecure`, because there is no TLS.
  rt::Task<Result<void>> listen(rt::Address address, bool insecure);
  // A listening descriptor from the service manager.
  Result<void> adopt(int fd);
  std::vector<rt::Address> addresses() const;
  size_t connections() const { return clients_.size(); }

  // Nothing is accepted any more; requests under way are answered, at most until the deadline;
  // then every connection is closed.
  rt::Task<> stop();

 private:
  // One client from accept() to the end. Lives in the frame of serve().
  struct Client {
    std::string source;
    std::string name;                   // for people
    rt::Stream* handshaking = nullptr;  // until the transmission phase
    rt::Core* core = nullptr;           // then these two
    Connection* connection = nullptr;
    bool end_wanted = false;
  };
  void start(std::unique_ptr<rt::Listener> listener);
  rt::Task<> accept_loop(rt::Listener& listener);
  bool admit(rt::Stream& stream);
  rt::Task<> serve(std::unique_ptr<rt::Stream> stream);
  rt::Task<std::optional<Negotiated>> negotiate(rt::Stream& stream, Client& client);
  rt::Task<> transmit(std::unique_ptr<rt::Stream> stream, Negotiated negotiated, Client& client);
  void end(Client& client);
  rt::Task<> tell(Client& client, void (Connection::*what)());

  rt::Core& control_;
  volume::Exports& exports_;
  const ServerOptions options_;
  std::vector<std::unique_ptr<rt::Listener>> listeners_;
  std::map<uint64_t, Client*> clients_;
  uint64_t next_client_ = 1;
  std::map<std::string, size_t> per_source_;
  size_t handshakes_ = 0;
  std::vector<CoreShare> shares_;  // by core index
  rt::Event changed_;              // pulsed when a client has gone
  bool stopping_ = false;
  rt::TaskGroup tasks_;
};

}  // namespace duplex::nbd
