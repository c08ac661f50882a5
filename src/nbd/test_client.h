// For tests of the front door: a client that may say anything, and the messages of an honest one.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "nbd/protocol.h"
#include "rt/task_group.h"
#include "rt/world.h"

namespace duplex::nbd {

using Bytes = std::vector<std::byte>;

inline Bytes client_flags(uint32_t flags = 3) {
  ByteWriter out(std::endian::big);
  out.put(flags);
  return out.bytes();
}
inline Bytes option(uint32_t number, const Bytes& payload, std::optional<uint32_t> length = {}) {
  ByteWriter out(std::endian::big);
  out.put(kOptionMagic);
  out.put(number);
  out.put(length.value_or(static_cast<uint32_t>(payload.size())));
  out.put_bytes(payload);
  return out.bytes();
}
inline Bytes go_payload(std::string_view name, const std::vector<uint16_t>& infos = {}) {
  ByteWriter out(std::endian::big);
  out.put(static_cast<uint32_t>(name.size()));
  out.put_string(name);
  out.put(static_cast<uint16_t>(infos.size()));
  for (const uint16_t info : infos) out.put(info);
  return out.bytes();
}
inline Bytes meta_payload(std::string_view name, const std::vector<std::string>& queries) {
  ByteWriter out(std::endian::big);
  out.put(static_cast<uint32_t>(name.size()));
  out.put_string(name);
  out.put(static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) {
    out.put(static_cast<uint32_t>(query.size()));
    out.put_string(query);
  }
  return out.bytes();
}
inline Bytes request(uint16_t command, uint64_t offset, uint32_t length, uint16_t flags = 0,
                     uint64_t cookie = 7, const Bytes& payload = {}) {
  ByteWriter out(std::endian::big);
  out.put(kRequestMagic);
  out.put(flags);
  out.put(command);
  out.put(cookie);
  out.put(offset);
  out.put(length);
  out.put_bytes(payload);
  return out.bytes();
}
inline Bytes join(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Sends `bytes` (in pieces of `step`) to unix:/nbd, then reads until the server closes or `until`
// bytes came; with `until` 0 it hangs up as soon as all is sent. Returns what it heard.
inline rt::Task<Bytes> converse(rt::Core& core, Bytes bytes, size_t until, size_t step) {
  auto stream = co_await core.net().connect(*rt::Address::parse("unix:/nbd"));
  ASSERT(stream);
  Bytes heard;
  rt::TaskGroup tasks(core);
  struct Local {
    static rt::Task<> talk(rt::Stream& to, Bytes out, size_t piece) {
      for (size_t at = 0; at < out.size(); at += piece) {
        iovec part{out.data() + at, std::min(piece, out.size() - at)};
        if (co_await to.send(std::span(&part, 1)) != 0) co_return;
      }
    }
  };
  tasks.spawn(Local::talk(**stream, std::move(bytes), step));
  Bytes buffer(65536);
  while (heard.size() < until) {
    const int64_t got = co_await (*stream)->recv(buffer);
    if (got <= 0) break;
    heard.insert(heard.end(), buffer.begin(), buffer.begin() + got);
  }
  if (until == 0) co_await tasks.close();  // all of it is sent, then the client hangs up
  (*stream)->shutdown();
  co_await tasks.close();
  co_return heard;
}

}  // namespace duplex::nbd
