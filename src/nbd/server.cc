#include "nbd/server.h"

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"

namespace duplex::nbd {
namespace {

// Shuts a stream when the handshake takes too long.
struct Deadline : rt::Timer {
  Deadline(rt::Clock& c, rt::Stream& s, rt::Micros time)
      : Timer(&Deadline::expire), clock(c), stream(s) {
    clock.arm(*this, clock.now() + time);
  }
  ~Deadline() { clock.cancel(*this); }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;
  static void expire(Timer& timer) { static_cast<Deadline&>(timer).stream.shutdown(); }
  rt::Clock& clock;
  rt::Stream& stream;
};

}  // namespace

Server::Server(rt::World& world, volume::Exports& exports, ServerOptions options)
    : control_(world.control()),
      exports_(exports),
      options_(options),
      shares_(world.core_count()),
      tasks_(control_) {}

Server::~Server() = default;

rt::Task<Result<void>> Server::listen(rt::Address address, bool insecure) {
  if (!address.is_local() && !insecure) {
    co_return fail(
        Code::kDenied, address.to_string() + " can be reached from outside and NBD has no TLS here",
        "listen on 127.0.0.1 or a unix socket, or add --insecure on a network you trust");
  }
  CO_TRY_ASSIGN(auto listener, co_await control_.net().listen(std::move(address)));
  start(std::move(listener));
  co_return Result<void>();
}

Result<void> Server::adopt(int fd) {
  TRY_ASSIGN(auto listener, control_.net().adopt_listener(fd));
  start(std::move(listener));
  return {};
}

void Server::start(std::unique_ptr<rt::Listener> listener) {
  listeners_.push_back(std::move(listener));
  tasks_.spawn(accept_loop(*listeners_.back()));
}

std::vector<rt::Address> Server::addresses() const {
  std::vector<rt::Address> all;
  for (const auto& listener : listeners_) all.push_back(listener->address());
  return all;
}

rt::Task<> Server::accept_loop(rt::Listener& listener) {
  while (!stopping_) {
    auto stream = co_await listener.accept();
    if (!stream && stream.error().code() == Code::kShutdown) co_return;
    if (!stream) {
      // No descriptors left: the ones in use come back; a pause keeps the log readable.
      log_warning("nbd: {}", stream.error().describe());
      co_await rt::sleep_for(control_.clock(), 200 * rt::kMillisecond);
      continue;
    }
    if (!stopping_ && admit(**stream)) tasks_.spawn(serve(std::move(*stream)));
  }
}

bool Server::admit(rt::Stream& stream) {
  const auto it = per_source_.find(stream.source());
  const size_t same = it == per_source_.end() ? 0 : it->second;
  const char* limit = nullptr;
  if (clients_.size() >= options_.max_connections) limit = "connections";
  if (!stream.source().empty() && same >= options_.max_per_source)
    limit = "connections of one source";
  if (handshakes_ >= options_.max_handshakes) limit = "handshakes at a time";
  if (limit == nullptr) return true;
  log_warning("nbd: {} turned away: too many {}", stream.peer(), limit);
  return false;
}

// A client from beginning to end.
rt::Task<> Server::serve(std::unique_ptr<rt::Stream> stream) {
  Client client{
      .source = stream->source(), .name = "nbd " + stream->peer(), .handshaking = stream.get()};
  const uint64_t id = next_client_++;
  clients_[id] = &client;
  ++per_source_[client.source];
  ++handshakes_;
  std::optional<Negotiated> negotiated = co_await negotiate(*stream, client);
  --handshakes_;
  client.handshaking = nullptr;
  if (negotiated) co_await transmit(std::move(stream), std::move(*negotiated), client);
  if (--per_source_[client.source] == 0) per_source_.erase(client.source);
  clients_.erase(id);
  changed_.pulse();
}

rt::Task<std::optional<Negotiated>> Server::negotiate(rt::Stream& stream, Client& client) {
  const Deadline deadline(control_.clock(), stream, options_.handshake_deadline);
  Handshake handshake(stream, exports_, [this, &client](const std::string& name) {
    return exports_.open(name, client.name, [this, &client] { end(client); });
  });
  co_return co_await handshake.run();
}

// Moves to the volume's core, serves, comes back.
rt::Task<> Server::transmit(std::unique_ptr<rt::Stream> stream, Negotiated negotiated,
                            Client& client) {
  volume::Volume& volume = negotiated.open->volume();
  rt::Core& core = volume.core();
  auto detached = stream->detach();
  stream.reset();
  co_await rt::hop(core);
  {
    Connection connection(core, core.net().adopt(std::move(detached)), volume,
                          {.structured = negotiated.structured,
                           .allocation = negotiated.allocation,
                           .changed = std::move(negotiated.changed),
                           .read_only = negotiated.open->read_only()},
                          shares_[core.index()], client.name);
    co_await rt::hop(control_);
    client.core = &core;
    client.connection = &connection;
    const bool refused = client.end_wanted || stopping_;
    co_await rt::hop(core);
    if (!refused) co_await connection.run(std::move(negotiated.received));
    co_await rt::hop(control_);
    client.connection = nullptr;
    // A message to the connection may still stand in the core's queue: let it pass before the
    // connection goes.
    co_await rt::hop(core);
  }
  co_await rt::hop(control_);
  exports_.close(std::move(negotiated.open));
}

// The operator wants this client gone.
void Server::end(Client& client) {
  client.end_wanted = true;
  if (client.handshaking != nullptr) client.handshaking->shutdown();
  if (client.connection != nullptr) tasks_.spawn(tell(client, &Connection::end));
}

// Calls a function of a client's connection on its core. `client` may be gone afterwards.
rt::Task<> Server::tell(Client& client, void (Connection::*what)()) {
  rt::Core& core = *client.core;
  Connection& connection = *client.connection;
  co_await rt::hop(core);
  (connection.*what)();
  co_await rt::hop(control_);
}

rt::Task<> Server::stop() {
  stopping_ = true;
  for (const auto& listener : listeners_) listener->close();
  const auto tell_all = [this](void (Connection::*what)()) {
    for (const auto& [id, client] : clients_) {
      if (client->handshaking != nullptr) client->handshaking->shutdown();
      if (client->connection != nullptr) tasks_.spawn(tell(*client, what));
    }
  };
  tell_all(&Connection::drain);
  const rt::Micros deadline = control_.clock().now() + options_.stop_deadline;
  while (!clients_.empty() && control_.clock().now() < deadline) {
    co_await changed_.wait_until(control_.clock(), deadline);
  }
  tell_all(&Connection::end);
  co_await tasks_.close();
  listeners_.clear();
}

}  // namespace duplex::nbd
