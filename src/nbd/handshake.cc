#include "nbd/handshake.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"

namespace duplex::nbd {
namespace {

constexpr std::string_view kAllocation = "base:allocation";

std::vector<std::byte> text_bytes(std::string_view text) {
  // A string on the wire is at most 4096 bytes; our own are cut well below (CVE-2020-10761).
  text = text.substr(0, 1000);
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> info_export(uint64_t size, uint16_t flags) {
  ByteWriter out(std::endian::big);
  out.put(static_cast<uint16_t>(Info::kExport));
  out.put(size);
  out.put(flags);
  return std::move(out.bytes());
}

std::vector<std::byte> info_text(Info info, std::string_view text) {
  ByteWriter out(std::endian::big);
  out.put(static_cast<uint16_t>(info));
  out.put_string(text);
  return std::move(out.bytes());
}

// Smallest, preferred and largest request.
std::vector<std::byte> info_block_size() {
  ByteWriter out(std::endian::big);
  out.put(static_cast<uint16_t>(Info::kBlockSize));
  out.put(uint32_t{1});
  out.put(static_cast<uint32_t>(kBlockBytes));
  out.put(kMaxRequestBytes);
  return std::move(out.bytes());
}

// A length-prefixed string inside an option; nullopt when it does not fit.
std::optional<std::string> take_name(ByteReader& reader) {
  const uint32_t length = reader.take<uint32_t>();
  if (!reader.ok() || length > kMaxString || length > reader.remaining()) return std::nullopt;
  return reader.take_string(length);
}

}  // namespace

uint16_t transmission_flags(bool read_only, bool structured) {
  uint16_t flags = kHasFlags | kSendFlush | kSendFua | kCanMultiConn | kSendCache;
  if (structured) flags |= kSendDf;
  if (read_only) return flags | kReadOnly;
  return flags | kSendTrim | kSendWriteZeroes | kSendFastZero;
}

rt::Task<std::optional<Negotiated>> Handshake::run() {
  ByteWriter hello(std::endian::big);
  hello.put(kMagic);
  hello.put(kOptionMagic);
  hello.put(static_cast<uint16_t>(kFlagFixedNewstyle | kFlagNoZeroes));
  if (!co_await wire_.send(std::move(hello.bytes()))) co_return std::nullopt;
  std::array<std::byte, 4> client{};
  if (!co_await wire_.recv(client)) co_return std::nullopt;
  const uint32_t flags = load_be<uint32_t>(client.data());
  if ((flags & ~(kClientFixedNewstyle | kClientNoZeroes)) != 0) co_return std::nullopt;
  no_zeroes_ = (flags & kClientNoZeroes) != 0;
  for (int options = 0; options < kMaxOptions; ++options) {
    const Next next = co_await one_option();
    if (next == Next::kEnd) co_return std::nullopt;
    if (next == Next::kTransmission) {
      result_.received = wire_.take_rest();
      co_return std::move(result_);
    }
  }
  co_return std::nullopt;
}

rt::Task<Handshake::Next> Handshake::one_option() {
  std::array<std::byte, 16> head{};
  if (!co_await wire_.recv(head)) co_return Next::kEnd;
  if (load_be<uint64_t>(head.data()) != kOptionMagic) co_return Next::kEnd;
  const auto option = static_cast<Option>(load_be<uint32_t>(head.data() + 8));
  const uint32_t length = load_be<uint32_t>(head.data() + 12);
  if (length > kMaxOptionPayload) {
    // Never drained: an option of 4 GiB would be 4 GiB of work (CVE-2017-15119).
    if (option != Option::kExportName)
      co_await refuse(option, OptionReply::kErrTooBig, "the option is too long");
    co_return Next::kEnd;
  }
  std::vector<std::byte> payload(length);
  if (!co_await wire_.recv(payload)) co_return Next::kEnd;
  co_return co_await dispatch(option, std::move(payload));
}

rt::Task<Handshake::Next> Handshake::dispatch(Option option, std::vector<std::byte> payload) {
  switch (option) {
    case Option::kExportName:
      return export_name(std::move(payload));
    case Option::kList:
      return list(std::move(payload));
    case Option::kInfo:
    case Option::kGo:
      return info_or_go(option, std::move(payload));
    case Option::kStructuredReply:
      return structured_reply(std::move(payload));
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return meta_context(option, std::move(payload));
    case Option::kStartTls:
      return refuse(option, OptionReply::kErrPolicy, "this server has no TLS");
    case Option::kAbort:
      break;
    default:
      return refuse(option, OptionReply::kErrUnsupported, "unknown option");
  }
  struct Local {
    static rt::Task<Next> goodbye(Handshake& self) {
      co_await self.reply(Option::kAbort, OptionReply::kAck, {});
      co_return Next::kEnd;
    }
  };
  return Local::goodbye(*this);
}

// The empty name means the only volume, where there is just one.
Result<volume::VolumeSummary> Handshake::find(const std::string& name) const {
  if (!name.empty()) return exports_.find(name);
  auto all = exports_.list();
  if (all.size() == 1) return all.front();
  return fail(Code::kNoVolume, "name a volume: this array has no default export");
}

rt::Task<Handshake::Next> Handshake::export_name(std::vector<std::byte> payload) {
  if (payload.size() > kMaxString) co_return Next::kEnd;
  const auto found =
      find(std::string(reinterpret_cast<const char*>(payload.data()), payload.size()));
  if (!found) co_return Next::kEnd;
  auto opened = opener_(found->name);
  if (!opened) co_return Next::kEnd;
  result_.open = std::move(*opened);
  take_contexts(found->name);
  ByteWriter out(std::endian::big);
  out.put(result_.open->volume().size_bytes());
  out.put(transmission_flags(result_.open->read_only(), result_.structured));
  if (!no_zeroes_) out.pad_to(out.size() + 124);
  if (!co_await wire_.send(std::move(out.bytes()))) {
    exports_.close(std::move(result_.open));
    co_return Next::kEnd;
  }
  co_return Next::kTransmission;
}

rt::Task<Handshake::Next> Handshake::list(std::vector<std::byte> payload) {
  if (!payload.empty())
    co_return co_await refuse(Option::kList, OptionReply::kErrInvalid, "LIST takes no data");
  for (const volume::VolumeSummary& volume : exports_.list()) {
    ByteWriter out(std::endian::big);
    out.put(static_cast<uint32_t>(volume.name.size()));
    out.put_string(volume.name);
    if (!co_await reply(Option::kList, OptionReply::kServer, std::move(out.bytes())))
      co_return Next::kEnd;
  }
  co_return co_await reply(Option::kList, OptionReply::kAck, {}) ? Next::kOption : Next::kEnd;
}

rt::Task<Handshake::Next> Handshake::info_or_go(Option option, std::vector<std::byte> payload) {
  ByteReader reader(payload, std::endian::big);
  const auto name = take_name(reader);
  const uint16_t count = reader.take<uint16_t>();
  if (!name || !reader.ok() || reader.remaining() != size_t{count} * 2) {
    co_return co_await refuse(option, OptionReply::kErrInvalid,
                              "the lengths inside the option do not fit");
  }
  bool want_name = false;
  bool want_description = false;
  for (uint16_t i = 0; i < count; ++i) {
    const auto info = static_cast<Info>(reader.take<uint16_t>());
    want_name = want_name || info == Info::kName;
    want_description = want_description || info == Info::kDescription;
  }
  const auto found = find(*name);
  if (!found)
    co_return co_await refuse(option, OptionReply::kErrUnknown,
                              std::string(found.error().message()));
  uint64_t size = found->size_bytes;
  bool read_only = found->read_only;
  if (option == Option::kGo) {
    auto opened = opener_(found->name);
    if (!opened) {
      const bool stopping = opened.error().code() == Code::kShutdown;
      co_return co_await refuse(option,
                                stopping ? OptionReply::kErrShutdown : OptionReply::kErrPolicy,
                                opened.error().describe());
    }
    result_.open = std::move(*opened);
    size = result_.open->volume().size_bytes();
    read_only = result_.open->read_only();
  }
  bool sent = co_await reply(option, OptionReply::kInfo,
                             info_export(size, transmission_flags(read_only, result_.structured)));
  sent = sent && co_await reply(option, OptionReply::kInfo, info_block_size());
  if (want_name)
    sent = sent && co_await reply(option, OptionReply::kInfo, info_text(Info::kName, found->name));
  if (want_description) {
    const std::string text = fmt::format("Duplex volume {}", found->name);
    sent = sent && co_await reply(option, OptionReply::kInfo, info_text(Info::kDescription, text));
  }
  sent = sent && co_await reply(option, OptionReply::kAck, {});
  if (!sent) {
    if (result_.open) exports_.close(std::move(result_.open));
    co_return Next::kEnd;
  }
  take_contexts(found->name);
  co_return option == Option::kGo ? Next::kTransmission : Next::kOption;
}

rt::Task<Handshake::Next> Handshake::structured_reply(std::vector<std::byte> payload) {
  if (!payload.empty()) {
    co_return co_await refuse(Option::kStructuredReply, OptionReply::kErrInvalid,
                              "STRUCTURED_REPLY takes no data");
  }
  result_.structured = true;
  co_return co_await reply(Option::kStructuredReply, OptionReply::kAck, {}) ? Next::kOption
                                                                            : Next::kEnd;
}

rt::Task<Handshake::Next> Handshake::meta_context(Option option, std::vector<std::byte> payload) {
  const bool set = option == Option::kSetMetaContext;
  // A new SET forgets the one before, whatever comes of it ("SET_META_CONTEXT").
  if (set) chosen_ = {};
  if (set && !result_.structured) {
    co_return co_await refuse(option, OptionReply::kErrInvalid, "negotiate STRUCTURED_REPLY first");
  }
  ByteReader reader(payload, std::endian::big);
  const auto name = take_name(reader);
  const uint32_t queries = reader.take<uint32_t>();
  const auto invalid = [&] {
    return refuse(option, OptionReply::kErrInvalid, "the lengths inside the option do not fit");
  };
  // Each query takes at least its length word, so the count is bounded by what is there.
  if (!name || !reader.ok() || queries > reader.remaining() / 4) co_return co_await invalid();
  std::vector<std::string> wanted;
  for (uint32_t i = 0; i < queries; ++i) {
    auto query = take_name(reader);
    if (!query) co_return co_await invalid();
    wanted.push_back(*std::move(query));
  }
  if (reader.remaining() != 0) co_return co_await invalid();
  const auto found = find(*name);
  if (!found)
    co_return co_await refuse(option, OptionReply::kErrUnknown,
                              std::string(found.error().message()));
  if (!co_await answer_queries(option, found->name, wanted)) co_return Next::kEnd;
  co_return co_await reply(option, OptionReply::kAck, {}) ? Next::kOption : Next::kEnd;
}

// A namespace alone lists what is in it; ours may be chosen so as well. No query lists everything.
rt::Task<bool> Handshake::answer_queries(Option option, const std::string& volume,
                                         const std::vector<std::string>& queries) {
  const bool set = option == Option::kSetMetaContext;
  const auto asks_for = [&](std::string_view query) {
    return std::ranges::find(queries, query) != queries.end();
  };
  const bool all = !set && queries.empty();
  Chosen chosen;
  chosen.export_name = volume;
  chosen.allocation = all || asks_for(kAllocation) || (!set && asks_for("base:"));
  if (chosen.allocation && !co_await reply_context(option, kAllocationContext, kAllocation)) {
    co_return false;
  }
  const bool all_changed = all || asks_for("duplex:") || asks_for(kChangedPrefix);
  const std::vector<volume::ChangedContext> offered = exports_.contexts(volume);
  for (const volume::ChangedContext& context : offered) {
    const std::string name = std::string(kChangedPrefix) + context.mirror;
    if (!all_changed && !asks_for(name)) continue;
    if (set && chosen.changed.size() == kMaxChangedContexts) break;
    const auto id = kFirstChangedContext + static_cast<uint32_t>(chosen.changed.size());
    if (!co_await reply_context(option, id, name)) co_return false;
    chosen.changed.push_back(context.id);
  }
  if (set) chosen_ = std::move(chosen);
  co_return true;
}

rt::Task<bool> Handshake::reply_context(Option option, uint32_t id, std::string_view name) {
  ByteWriter out(std::endian::big);
  out.put(option == Option::kSetMetaContext ? id : uint32_t{0});
  out.put_string(name);
  return reply(option, OptionReply::kMetaContext, std::move(out.bytes()));
}

void Handshake::take_contexts(const std::string& volume) {
  const bool is_chosen = chosen_.export_name == volume;
  result_.allocation = is_chosen && chosen_.allocation;
  result_.changed = is_chosen ? chosen_.changed : std::vector<volume::ContextId>();
}

rt::Task<Handshake::Next> Handshake::refuse(Option option, OptionReply error, std::string text) {
  co_return co_await reply(option, error, text_bytes(text)) ? Next::kOption : Next::kEnd;
}

rt::Task<bool> Handshake::reply(Option option, OptionReply type, std::vector<std::byte> payload) {
  ByteWriter out(std::endian::big);
  out.put(kOptionReplyMagic);
  out.put(static_cast<uint32_t>(option));
  out.put(static_cast<uint32_t>(type));
  out.put(static_cast<uint32_t>(payload.size()));
  out.put_bytes(payload);
  co_return co_await wire_.send(std::move(out.bytes()));
}

}  // namespace duplex::nbd
