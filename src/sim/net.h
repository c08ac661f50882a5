// The simulated network: byte pipes with delays, odd chunk sizes and small buffers.
//
// Streams connect cores of any machines of one simulation. A machine that stops takes its streams
// with it: the other side sees the end of stream or an error. Listeners are found by address text.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "rt/net.h"
#include "rt/world.h"
#include "sim/executor.h"

namespace duplex::sim {

class Machine;

inline constexpr size_t kPipeBytes =
    size_t{96} * 1024;  // what a direction holds before a send blocks

// One end of a connection.
struct Endpoint {
  SimExecutor* executor = nullptr;  // null while detached
  Endpoint* peer = nullptr;         // null: the other end is gone
  std::deque<std::byte> inbox;
  bool peer_closed = false;  // end of stream after the inbox
  bool shut = false;         // this side called shutdown()
  bool reset = false;        // the other machine is gone
  rt::StreamOp* receiving = nullptr;
  rt::StreamOp* sending = nullptr;
  std::string peer_name;
  // Every byte sent so far; the connection breaks when it reaches cut_at.
  uint64_t sent = 0;
  uint64_t cut_at = UINT64_MAX;
};

class SimStream;
class SimListener;

// The wires; one per simulation, shared by the Net doors of all cores.
class Network {
 public:
  explicit Network(Simulation& simulation) : simulation_(simulation) {}

  // Streams and listeners of this executor are gone (power cut).
  void drop(const SimExecutor& executor);
  // Connections made from now on break after a random number of bytes with this probability.
  double break_probability = 0;

 private:
  friend class SimNet;
  friend class SimStream;
  friend class SimListener;
  friend class SimDetachedStream;
  std::pair<Endpoint*, Endpoint*> connect(SimExecutor& client, const std::string& client_name);
  void close(Endpoint* end);
  void shutdown(Endpoint& end);
  bool start_recv(Endpoint& end, rt::StreamOp& op);
  bool start_send(Endpoint& end, rt::StreamOp& op);
  // Moves what can be moved for a send in progress; true when it has ended.
  bool push(Endpoint& end, rt::StreamOp& op);
  // Gives what is there to a receive; true when it has ended.
  bool pull(Endpoint& end, rt::StreamOp& op);
  void wake(Endpoint& end);
  void later_wake(Endpoint& end);
  static void on_wake(void* object, uint64_t argument);
  void break_connection(Endpoint& end);

  Simulation& simulation_;
  std::map<uint64_t, std::unique_ptr<Endpoint>> ends_;
  std::map<const Endpoint*, uint64_t> ids_;
  uint64_t next_id_ = 1;
  std::map<std::string, SimListener*> listeners_;
};

class SimNet final : public rt::Net {
 public:
  SimNet(Network& network, SimExecutor& executor, rt::Core& core, std::string host)
      : network_(network), executor_(executor), core_(core), host_(std::move(host)) {}
  rt::Task<Result<std::unique_ptr<rt::Listener>>> listen(rt::Address address) override;
  Result<std::unique_ptr<rt::Listener>> adopt_listener(int fd) override;
  rt::Task<Result<std::unique_ptr<rt::Stream>>> connect(rt::Address address) override;
  std::unique_ptr<rt::Stream> adopt(std::unique_ptr<rt::DetachedStream> stream) override;

 private:
  Network& network_;
  SimExecutor& executor_;
  rt::Core& core_;
  const std::string host_;
};

}  // namespace duplex::sim
