#include "sim/net.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/assert.h"
#include "rt/wait.h"

namespace duplex::sim {

class SimDetachedStream final : public rt::DetachedStream {
 public:
  SimDetachedStream(Network& n, Endpoint* e) : network(n), end(e) {}
  ~SimDetachedStream() override;
  Network& network;
  Endpoint* end;
};

class SimStream final : public rt::Stream {
 public:
  SimStream(Network& network, Endpoint* end) : network_(network), end_(end) {}
  ~SimStream() override {
    if (end_ != nullptr) network_.close(end_);
  }
  bool start_recv(rt::StreamOp& op) override { return network_.start_recv(*end_, op); }
  bool start_send(rt::StreamOp& op) override { return network_.start_send(*end_, op); }
  void shutdown() override { network_.shutdown(*end_); }
  std::string peer() const override { return end_->peer_name; }
  std::string source() const override { return end_->peer_name; }
  std::unique_ptr<rt::DetachedStream> detach() override {
    ASSERT(end_->receiving == nullptr && end_->sending == nullptr);
    end_->executor = nullptr;
    return std::make_unique<SimDetachedStream>(network_, std::exchange(end_, nullptr));
  }

 private:
  Network& network_;
  Endpoint* end_;
};

class SimListener final : public rt::Listener {
 public:
  SimListener(Network& network, SimExecutor& executor, rt::Address address)
      : network_(network), executor_(executor), address_(std::move(address)) {
    network_.listeners_[address_.to_string()] = this;
  }
  ~SimListener() override { unlist(); }

  rt::Task<Result<std::unique_ptr<rt::Stream>>> accept() override {
    while (!closed_) {
      if (!waiting_.empty()) {
        Endpoint* end = waiting_.front();
        waiting_.pop_front();
        end->executor = &executor_;
        co_return std::make_unique<SimStream>(network_, end);
      }
      co_await arrived_.wait();
      arrived_.reset();
    }
    co_return fail(Code::kShutdown);
  }
  void close() override {
    if (closed_) return;
    closed_ = true;
    unlist();
    while (!waiting_.empty()) {
      network_.close(waiting_.front());
      waiting_.pop_front();
    }
    arrived_.set();
  }
  rt::Address address() const override { return address_; }

  void enqueue(Endpoint* end) {
    waiting_.push_back(end);
    executor_.enter([](void* self) { static_cast<SimListener*>(self)->arrived_.set(); }, this);
  }
  const SimExecutor& executor() const { return executor_; }
  // The machine is gone: whoever waited to be accepted is turned away.
  void forget() {
    closed_ = true;
    while (!waiting_.empty()) {
      network_.close(waiting_.front());
      waiting_.pop_front();
    }
  }

 private:
  void unlist() {
    const auto it = network_.listeners_.find(address_.to_string());
    if (it != network_.listeners_.end() && it->second == this) network_.listeners_.erase(it);
  }
  Network& network_;
  SimExecutor& executor_;
  rt::Address address_;
  std::deque<Endpoint*> waiting_;
  rt::Event arrived_;
  bool closed_ = false;
};

SimDetachedStream::~SimDetachedStream() {
  if (end != nullptr) network.close(end);
}

std::pair<Endpoint*, Endpoint*> Network::connect(SimExecutor& client,
                                                 const std::string& client_name) {
  Endpoint* made[2];
  for (Endpoint*& end : made) {
    auto fresh = std::make_unique<Endpoint>();
    end = fresh.get();
    ids_[end] = next_id_;
    ends_[next_id_++] = std::move(fresh);
  }
  made[0]->peer = made[1];
  made[1]->peer = made[0];
  made[0]->executor = &client;
  made[1]->peer_name = client_name;
  made[0]->peer_name = "server";
  if (simulation_.net().chance(break_probability))
    made[simulation_.net().below(2)]->cut_at = simulation_.net().skewed(64, 1 << 20);
  return {made[0], made[1]};
}

void Network::close(Endpoint* end) {
  if (Endpoint* peer = end->peer) {
    peer->peer = nullptr;
    peer->peer_closed = true;
    later_wake(*peer);
  }
  const auto it = ids_.find(end);
  ASSERT(it != ids_.end());
  ends_.erase(it->second);
  ids_.erase(it);
}

void Network::shutdown(Endpoint& end) {
  end.shut = true;
  if (Endpoint* peer = end.peer) {
    peer->peer_closed = true;
    later_wake(*peer);
  }
  later_wake(end);
}

void Network::break_connection(Endpoint& end) {
  simulation_.count("connection broken");
  for (Endpoint* side : {&end, end.peer}) {
    if (side == nullptr) continue;
    side->reset = true;
    later_wake(*side);
  }
}

bool Network::push(Endpoint& end, rt::StreamOp& op) {
  while (op.part_count > 0) {
    Endpoint* peer = end.peer;
    if (end.shut || end.reset || peer == nullptr || peer->shut) {
      op.result = -EPIPE;
      return true;
    }
    const size_t held = peer->inbox.size();
    if (held >= kPipeBytes) return false;
    size_t count = std::min(op.parts->iov_len, kPipeBytes - held);
    if (end.sent + count >= end.cut_at) {
      break_connection(end);
      op.result = -ECONNRESET;
      return true;
    }
    end.sent += count;
    const auto* from = static_cast<const std::byte*>(op.parts->iov_base);
    peer->inbox.insert(peer->inbox.end(), from, from + count);
    op.parts->iov_base = static_cast<std::byte*>(op.parts->iov_base) + count;
    op.parts->iov_len -= count;
    if (op.parts->iov_len == 0) {
      ++op.parts;
      --op.part_count;
    }
    later_wake(*peer);
  }
  op.result = 0;
  return true;
}

bool Network::pull(Endpoint& end, rt::StreamOp& op) {
  if (end.reset) {
    op.result = -ECONNRESET;
    return true;
  }
  if (end.shut) {
    op.result = 0;
    return true;
  }
  if (end.inbox.empty()) {
    if (!end.peer_closed) return false;
    op.result = 0;
    return true;
  }
  size_t count = std::min(end.inbox.size(), op.parts->iov_len);
  if (simulation_.net().chance(0.3)) count = simulation_.net().between(1, count);
  std::copy_n(end.inbox.begin(), count, static_cast<std::byte*>(op.parts->iov_base));
  end.inbox.erase(end.inbox.begin(), end.inbox.begin() + static_cast<std::ptrdiff_t>(count));
  op.result = static_cast<int64_t>(count);
  if (end.peer != nullptr) later_wake(*end.peer);
  return true;
}

bool Network::start_recv(Endpoint& end, rt::StreamOp& op) {
  ASSERT(end.receiving == nullptr);
  if (simulation_.net().chance(0.5) && pull(end, op)) return true;
  end.receiving = &op;
  later_wake(end);
  return false;
}

bool Network::start_send(Endpoint& end, rt::StreamOp& op) {
  ASSERT(end.sending == nullptr);
  if (push(end, op)) return true;
  end.sending = &op;
  return false;
}

// Looks again at what an end waits for, after a network delay.
void Network::later_wake(Endpoint& end) {
  const rt::Micros delay = simulation_.net().skewed(5, 2000);
  simulation_.at(simulation_.now() + delay,
                 {.fire = &Network::on_wake, .object = this, .argument = ids_.at(&end)});
}

void Network::on_wake(void* object, uint64_t argument) {
  auto& self = *static_cast<Network*>(object);
  const auto it = self.ends_.find(argument);
  if (it == self.ends_.end()) return;
  self.wake(*it->second);
}

void Network::wake(Endpoint& end) {
  if (end.executor == nullptr || end.executor->is_abandoned()) return;
  if (end.receiving != nullptr && pull(end, *end.receiving)) {
    rt::StreamOp* op = std::exchange(end.receiving, nullptr);
    if (end.sending != nullptr) later_wake(end);
    end.executor->enter(
        [](void* done) {
          static_cast<rt::StreamOp*>(done)->done(*static_cast<rt::StreamOp*>(done));
        },
        op);
    return;  // `end` may be gone
  }
  if (end.sending != nullptr && push(end, *end.sending)) {
    rt::StreamOp* op = std::exchange(end.sending, nullptr);
    end.executor->enter(
        [](void* done) {
          static_cast<rt::StreamOp*>(done)->done(*static_cast<rt::StreamOp*>(done));
        },
        op);
  }
}

void Network::drop(const SimExecutor& executor) {
  for (auto& [id, end] : ends_) {
    if (end->executor != &executor) continue;
    end->receiving = nullptr;
    end->sending = nullptr;
    if (Endpoint* peer = end->peer) {
      peer->reset = true;
      later_wake(*peer);
    }
  }
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    if (&it->second->executor() == &executor) {
      it->second->forget();
      it = listeners_.erase(it);
    } else {
      ++it;
    }
  }
}

rt::Task<Result<std::unique_ptr<rt::Listener>>> SimNet::listen(rt::Address address) {
  if (network_.listeners_.contains(address.to_string())) {
    co_return fail(Code::kBusy, "somebody listens on " + address.to_string(),
                   "stop that process or choose another path");
  }
  co_return std::make_unique<SimListener>(network_, executor_, std::move(address));
}

Result<std::unique_ptr<rt::Listener>> SimNet::adopt_listener(int /*fd*/) {
  return fail(Code::kNotSupported, "a simulated machine has no descriptors");
}

rt::Task<Result<std::unique_ptr<rt::Stream>>> SimNet::connect(rt::Address address) {
  co_await rt::sleep_for(core_.clock(), network_.simulation_.net().skewed(20, 2000));
  const auto it = network_.listeners_.find(address.to_string());
  if (it == network_.listeners_.end())
    co_return fail(Code::kConnection, "nobody listens on " + address.to_string());
  const auto [client, server] = network_.connect(executor_, host_);
  it->second->enqueue(server);
  co_return std::make_unique<SimStream>(network_, client);
}

std::unique_ptr<rt::Stream> SimNet::adopt(std::unique_ptr<rt::DetachedStream> stream) {
  auto& detached = static_cast<SimDetachedStream&>(*stream);
  Endpoint* end = std::exchange(detached.end, nullptr);
  end->executor = &executor_;
  return std::make_unique<SimStream>(network_, end);
}

}  // namespace duplex::sim
