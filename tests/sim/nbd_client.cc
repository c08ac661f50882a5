#include "sim/nbd_client.h"

#include <cstring>

#include "base/bytes.h"

namespace duplex::simtest {
namespace {

// NBD protocol, "Values": magics, options and commands.
constexpr uint64_t kNbdMagic = 0x4e42444d41474943;
constexpr uint64_t kOptionMagic = 0x49484156454f5054;
constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;
constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kSimpleReplyMagic = 0x67446698;
constexpr uint32_t kOptGo = 7;
constexpr uint32_t kRepAck = 1;
constexpr uint32_t kRepInfo = 3;
constexpr uint16_t kInfoExport = 0;
enum : uint16_t { kRead = 0, kWrite = 1, kDisc = 2, kFlush = 3, kTrim = 4, kWriteZeroes = 6 };
enum : uint16_t { kFua = 1, kNoHole = 2 };

}  // namespace

rt::Task<bool> NbdClient::connect(rt::Address address, std::string name) {
  auto stream = co_await core_.net().connect(std::move(address));
  if (!stream) co_return false;
  stream_ = std::move(*stream);
  gone_ = false;
  if (!co_await negotiate(std::move(name))) {
    lose();
    co_return false;
  }
  tasks_.spawn(receive_replies());
  co_return true;
}

rt::Task<bool> NbdClient::negotiate(std::string name) {
  std::byte hello[18];
  if (!co_await recv_all(hello)) co_return false;
  if (load_be<uint64_t>(hello) != kNbdMagic || load_be<uint64_t>(hello + 8) != kOptionMagic)
    co_return false;
  ByteWriter go(std::endian::big);
  go.put(uint32_t{3});  // fixed newstyle, no zeroes
  go.put(kOptionMagic);
  go.put(kOptGo);
  go.put(static_cast<uint32_t>(4 + name.size() + 2));
  go.put(static_cast<uint32_t>(name.size()));
  go.put_string(name);
  go.put(uint16_t{0});
  if (!co_await send_all(go.bytes(), {})) co_return false;
  while (true) {
    std::byte head[20];
    if (!co_await recv_all(head)) co_return false;
    const uint32_t type = load_be<uint32_t>(head + 12);
    const uint32_t length = load_be<uint32_t>(head + 16);
    if (load_be<uint64_t>(head) != kOptionReplyMagic || length > 64 * 1024) co_return false;
    std::vector<std::byte> body(length);
    if (length > 0 && !co_await recv_all(body)) co_return false;
    if (type == kRepAck) co_return size_ > 0;
    if (type != kRepInfo) co_return false;
    if (length >= 12 && load_be<uint16_t>(body.data()) == kInfoExport)
      size_ = load_be<uint64_t>(body.data() + 2);
  }
}

rt::Task<bool> NbdClient::recv_all(std::span<std::byte> into) {
  while (!into.empty()) {
    const int64_t got = co_await stream_->recv(into);
    if (got <= 0) co_return false;
    into = into.subspan(static_cast<size_t>(got));
  }
  co_return true;
}

rt::Task<bool> NbdClient::send_all(std::span<const std::byte> head,
                                   std::span<const std::byte> body) {
  iovec parts[2] = {{const_cast<std::byte*>(head.data()), head.size()},
                    {const_cast<std::byte*>(body.data()), body.size()}};
  co_return co_await stream_->send(std::span(parts, body.empty() ? 1 : 2)) == 0;
}

rt::Task<int> NbdClient::call(uint16_t command, uint16_t flags, uint64_t offset, uint32_t length,
                              std::span<std::byte> into, std::span<const std::byte> from) {
  if (gone_) co_return kGone;
  Pending pending;
  pending.into = into;
  const uint64_t cookie = next_cookie_++;
  pending_[cookie] = &pending;
  {
    const auto held = co_await sending_.lock();
    if (!gone_) {
      std::byte head[28];
      store_be(head, kRequestMagic);
      store_be(head + 4, flags);
      store_be(head + 6, command);
      store_be(head + 8, cookie);
      store_be(head + 16, offset);
      store_be(head + 24, length);
      if (!co_await send_all(head, from)) lose();
    }
  }
  if (!gone_ || pending.done.is_set()) co_await pending.done.wait();
  pending_.erase(cookie);
  co_return pending.result;
}

rt::Task<> NbdClient::receive_replies() {
  while (true) {
    std::byte head[16];
    if (!co_await recv_all(head)) break;
    if (load_be<uint32_t>(head) != kSimpleReplyMagic) break;
    const auto it = pending_.find(load_be<uint64_t>(head + 8));
    if (it == pending_.end()) break;
    Pending& pending = *it->second;
    const uint32_t error = load_be<uint32_t>(head + 4);
    if (error == 0 && !pending.into.empty() && !co_await recv_all(pending.into)) break;
    pending.result = static_cast<int>(error);
    pending.done.set();
  }
  lose();
}

void NbdClient::lose() {
  gone_ = true;
  if (stream_) stream_->shutdown();
  for (auto& [cookie, pending] : pending_) pending->done.set();
}

rt::Task<int> NbdClient::read(uint64_t offset, std::span<std::byte> into) {
  return call(kRead, 0, offset, static_cast<uint32_t>(into.size()), into, {});
}
rt::Task<int> NbdClient::write(uint64_t offset, std::span<const std::byte> from, bool fua) {
  return call(kWrite, fua ? kFua : 0, offset, static_cast<uint32_t>(from.size()), {}, from);
}
rt::Task<int> NbdClient::zero(uint64_t offset, uint32_t length, bool fua, bool no_hole) {
  const auto flags = static_cast<uint16_t>((fua ? kFua : 0) | (no_hole ? kNoHole : 0));
  return call(kWriteZeroes, flags, offset, length, {}, {});
}
rt::Task<int> NbdClient::trim(uint64_t offset, uint32_t length) {
  return call(kTrim, 0, offset, length, {}, {});
}
rt::Task<int> NbdClient::flush() { return call(kFlush, 0, 0, 0, {}, {}); }

rt::Task<> NbdClient::close() {
  if (!gone_) {
    const auto held = co_await sending_.lock();
    std::byte head[28] = {};
    store_be(head, kRequestMagic);
    store_be(head + 6, uint16_t{kDisc});
    if (!gone_) co_await send_all(head, {});
  }
  lose();
  co_await tasks_.close();
  stream_.reset();
}

}  // namespace duplex::simtest
