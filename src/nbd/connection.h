// Connection: the transmission phase of one client (proto.md, "Transmission phase").
//
// Owner: the server's task of this client. Thread: the volume's core; end() only there too.
//
// Requests are taken out of one receive buffer, as many as are in it, and each runs as a task of
// its own; replies of one turn leave in one send. A request's task lives until its reply is sent,
// so what a slow reader leaves unread counts against its budget.
// Invariants:
// 1. Bytes of requests in flight stay below kBudgetBytes (each counts for at least kMinCharge, so
//    their number is bounded too); at the limit nothing more is read from the socket.
// 2. A write exists for the volume only when its payload is complete (trace F19).
// 3. After the peer is gone no request is started; those that run end, their replies are dropped.
// 4. A byte that makes no sense ends the connection; it never trips an assertion.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nbd/protocol.h"
#include "rt/net.h"
#include "rt/task.h"
#include "rt/task_group.h"
#include "rt/wait.h"
#include "rt/world.h"
#include "volume/volume.h"

namespace duplex::nbd {

// What the connections of one core share: how many large receive buffers may be held while idle.
struct CoreShare {
  size_t large_buffers = 0;
};

class Connection {
 public:
  static constexpr uint64_t kBudgetBytes = 40 * kMiB;
  static constexpr uint64_t kMinCharge = 64 * kKiB;

  struct Options {
    bool structured;
    bool allocation;
    std::vector<volume::ContextId> changed;
    bool read_only;
  };
  Connection(rt::Core& core, std::unique_ptr<rt::Stream> stream, volume::Volume& volume,
             Options options, CoreShare& share, std::string client);
  ~Connection();

  // Until the client leaves or end() was called; every request has ended by then. `received`:
  // bytes of this phase that came with the handshake.
  rt::Task<> run(std::vector<std::byte> received);
  // New requests are refused from now on; when those under way are answered the connection ends.
  void drain();
  // The connection is cut.
  void end();

 private:
  struct Request {
    uint16_t flags;
    Command command;
    uint64_t cookie;
    uint64_t offset;
    uint32_t length;
  };
  // One reply on its way out; lives in the frame of its request.
  struct Reply {
    std::array<std::byte, 48> head;
    size_t head_bytes = 0;
    std::span<std::byte> body;
    rt::Waiter* waiter = nullptr;
    Reply* next = nullptr;
  };
  struct Sent;  // co_await: the reply has left or never will

  // Receiving (connection.cc).
  rt::Task<bool> receive_more();
  rt::Task<bool> take_requests();
  rt::Task<bool> take_one(Request request);
  rt::Task<bool> take_write(Request request);
  rt::Task<bool> recv_rest(std::span<std::byte> into);
  void use_buffer(size_t bytes);
  bool has(size_t bytes) const { return filled_ - parsed_ >= bytes; }

  // Requests (requests.cc): one task each.
  Errno check(const Request& request) const;
  rt::Task<> serve(Request request, rt::Buffer payload);
  rt::Task<> serve_read(Request request);
  rt::Task<> serve_status(Request request);
  bool has_contexts() const { return options_.allocation || !options_.changed.empty(); }
  rt::Task<Errno> execute(const Request& request, rt::Buffer payload);
  rt::Task<> refuse(Request request, Errno error);
  rt::Task<> finish(Request request, Errno error);
  void ended(uint64_t charge);

  // Replies (replies.cc).
  Sent send(Reply& reply);
  void enqueue(Reply& reply);
  void plan_flush();
  void flush();
  void send_ended(int64_t result);
  void drop_replies();
  static void encode_simple(Reply& reply, const Request& request, Errno error);
  static void encode_chunk(Reply& reply, const Request& request, Chunk type, uint16_t flags,
                           uint32_t length);

  rt::Core& core_;
  std::unique_ptr<rt::Stream> stream_;
  volume::Volume& volume_;
  const Options options_;
  CoreShare& share_;
  const std::string client_;

  rt::Buffer buffer_;  // bytes parsed_..filled_ have arrived and wait to be parsed
  size_t parsed_ = 0;
  size_t filled_ = 0;
  bool large_ = false;  // buffer_ is a large one, counted in share_

  rt::Limit budget_{kBudgetBytes};
  size_t in_flight_ = 0;
  bool gone_ = false;
  bool draining_ = false;

  struct FlushWork : rt::Work {
    explicit FlushWork(Connection& c) : Work(&FlushWork::go), connection(c) {}
    static void go(rt::Work& work) { static_cast<FlushWork&>(work).connection.flush(); }
    Connection& connection;
  };
  struct SendOp : rt::StreamOp {
    Connection* connection = nullptr;
  };
  FlushWork flush_work_{*this};
  bool flush_planned_ = false;
  bool sending_ = false;
  Reply* first_reply_ = nullptr;  // waiting to be sent
  Reply* last_reply_ = nullptr;
  Reply* sending_first_ = nullptr;  // in the send under way
  SendOp send_op_;
  std::vector<iovec> parts_;
  rt::Event send_idle_;  // nothing planned, nothing under way

  rt::TaskGroup requests_;
};

}  // namespace duplex::nbd
