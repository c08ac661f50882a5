// Requests: checked at the edge, done by the volume, answered.
#include <algorithm>

#include "base/bytes.h"
#include "nbd/connection.h"
#include "nbd/replies.h"

namespace duplex::nbd {
namespace {

// What a failure of the volume is called on the wire ("Error values").
Errno errno_of(Code code) {
  switch (code) {
    case Code::kWriteProtected:
      return Errno::kPerm;
    case Code::kNoSpace:
      return Errno::kNoSpace;
    case Code::kNotSupported:
      return Errno::kNotSup;
    case Code::kShutdown:
      return Errno::kShutdown;
    case Code::kSize:
    case Code::kInvalid:
      return Errno::kInval;
    default:
      return Errno::kIo;
  }
}

Errno errno_of(const Result<void>& result) {
  return result ? Errno::kOk : errno_of(result.error().code());
}

// Flags a command may carry. FUA is accepted everywhere ("Command flags": it is meaningless but
// legal on commands that write nothing).
uint16_t allowed_flags(Command command) {
  switch (command) {
    case Command::kRead:
      return kCmdFua | kCmdDf;
    case Command::kWriteZeroes:
      return kCmdFua | kCmdNoHole | kCmdFastZero;
    case Command::kBlockStatus:
      return kCmdFua | kCmdReqOne;
    default:
      return kCmdFua;
  }
}

}  // namespace

Errno Connection::check(const Request& request) const {
  if (draining_) return Errno::kShutdown;
  if ((request.flags & ~allowed_flags(request.command)) != 0) return Errno::kInval;
  const bool inside = range_fits(request.offset, request.length, volume_.size_bytes());
  switch (request.command) {
    case Command::kFlush:
      return request.offset == 0 && request.length == 0 ? Errno::kOk : Errno::kInval;
    case Command::kRead:
      if (request.length > kMaxRequestBytes) return Errno::kOverflow;
      return inside ? Errno::kOk : Errno::kInval;
    case Command::kWrite:
    case Command::kWriteZeroes:
    case Command::kTrim:
      if (options_.read_only) return Errno::kPerm;
      if (inside) return Errno::kOk;
      return request.command == Command::kTrim ? Errno::kInval : Errno::kNoSpace;
    case Command::kCache:
      return inside ? Errno::kOk : Errno::kInval;
    case Command::kBlockStatus:
      return inside && request.length > 0 && has_contexts() ? Errno::kOk : Errno::kInval;
    case Command::kDisconnect:
      break;
  }
  return Errno::kInval;
}

rt::Task<> Connection::serve(Request request, rt::Buffer payload) {
  const Errno bad = check(request);
  if (bad != Errno::kOk) return finish(request, bad);
  if (request.command == Command::kRead) return serve_read(request);
  if (request.command == Command::kBlockStatus) return serve_status(request);
  struct Local {
    static rt::Task<> other(Connection& self, Request r, rt::Buffer p) {
      const Errno error = co_await self.execute(r, std::move(p));
      co_await self.finish(r, error);
    }
  };
  return Local::other(*this, request, std::move(payload));
}

rt::Task<Errno> Connection::execute(const Request& request, rt::Buffer payload) {
  const ByteRange range{request.offset, request.length};
  const bool fua = (request.flags & kCmdFua) != 0;
  switch (request.command) {
    case Command::kWrite:
      co_return errno_of(co_await volume_.write(request.offset, payload.span(), fua));
    case Command::kFlush:
      co_return errno_of(co_await volume_.flush());
    case Command::kTrim:
      co_return errno_of(co_await volume_.trim(range, fua));
    case Command::kWriteZeroes:
      co_return errno_of(
          co_await volume_.zero(range, {.fua = fua,
                                        .no_hole = (request.flags & kCmdNoHole) != 0,
                                        .fast = (request.flags & kCmdFastZero) != 0}));
    case Command::kCache:
      co_return Errno::kOk;  // there is no cache to fill: devices are read directly
    default:
      co_return Errno::kInval;
  }
}

rt::Task<> Connection::serve_read(Request request) {
  if (request.length == 0) {
    co_await finish(request, Errno::kOk);
    co_return;
  }
  rt::Buffer data = core_.buffers().get(request.length);
  const Errno error = errno_of(co_await volume_.read(request.offset, data.span()));
  if (error != Errno::kOk) {
    co_await finish(request, error);
    co_return;
  }
  Reply reply;
  if (options_.structured) {
    encode_chunk(reply, request, Chunk::kOffsetData, kChunkDone, 8 + request.length);
    store_be(reply.head.data() + reply.head_bytes, request.offset);
    reply.head_bytes += 8;
  } else {
    encode_simple(reply, request, Errno::kOk);
  }
  reply.body = data.span();
  co_await send(reply);
  ended(std::max<uint64_t>(request.length, kMinCharge));
}

// One chunk for each context that was chosen: the head of the first stands in the reply, what
// follows in its body.
rt::Task<> Connection::serve_status(Request request) {
  const size_t limit = (request.flags & kCmdReqOne) != 0 ? 1 : kMaxStatusRuns;
  const ByteRange range{request.offset, request.length};
  std::vector<ByteWriter> bodies;
  if (options_.allocation) {
    auto runs = co_await volume_.status(range, limit);
    if (!runs || runs->empty()) {
      co_await finish(request, runs ? Errno::kIo : errno_of(runs.error().code()));
      co_return;
    }
    ByteWriter& body = bodies.emplace_back(std::endian::big);
    body.put(kAllocationContext);
    for (const volume::StatusRun& run : *runs) {
      body.put(static_cast<uint32_t>(run.length));
      body.put((run.hole ? kStateHole : 0) | (run.zero ? kStateZero : 0));
    }
  }
  uint32_t id = kFirstChangedContext;
  for (const volume::ContextId context : options_.changed) {
    ByteWriter& body = bodies.emplace_back(std::endian::big);
    body.put(id++);
    for (const volume::ChangedRun& run : volume_.changed(context, range, limit)) {
      body.put(static_cast<uint32_t>(run.length));
      body.put(run.changed ? kStateChanged : 0);
    }
  }
  Reply reply, next;
  ByteWriter all(std::endian::big);
  for (size_t i = 0; i < bodies.size(); ++i) {
    Reply& head = i == 0 ? reply : next;
    encode_chunk(head, request, Chunk::kBlockStatus, i + 1 == bodies.size() ? kChunkDone : 0,
                 static_cast<uint32_t>(bodies[i].size()));
    if (i > 0) all.put_bytes(std::span(head.head).first(head.head_bytes));
    all.put_bytes(bodies[i].bytes());
  }
  reply.body = all.bytes();
  co_await send(reply);
  ended(kMinCharge);
}

// The reply of everything that carries no data back.
rt::Task<> Connection::finish(Request request, Errno error) {
  Reply reply;
  const bool structured =
      request.command == Command::kRead || request.command == Command::kBlockStatus;
  if (options_.structured && structured) {
    if (error == Errno::kOk) {
      encode_chunk(reply, request, Chunk::kNone, kChunkDone, 0);
    } else {
      encode_chunk(reply, request, Chunk::kError, kChunkDone, 6);
      store_be(reply.head.data() + reply.head_bytes, static_cast<uint32_t>(error));
      store_be(reply.head.data() + reply.head_bytes + 4, uint16_t{0});
      reply.head_bytes += 6;
    }
  } else {
    encode_simple(reply, request, error);
  }
  co_await send(reply);
  const bool sized = request.command == Command::kRead || request.command == Command::kWrite;
  ended(sized ? std::max<uint64_t>(request.length, kMinCharge) : kMinCharge);
}

void Connection::ended(uint64_t charge) {
  budget_.release(charge);
  if (--in_flight_ == 0 && draining_) end();
}

}  // namespace duplex::nbd
