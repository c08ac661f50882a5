// The handshake: from the first byte to the transmission phase (proto.md, "Handshake phase").
//
// Thread: control core. No volume is opened before GO or EXPORT_NAME. Every length is checked
// against the length around it before it is used, an option's payload is at most
// kMaxOptionPayload, and a client gets kMaxOptions options; the caller sets the deadline by
// shutting the stream down.
//
//   option              payload must be                     answer
//   EXPORT_NAME         a name of at most 4096 bytes        transmission; on an error, the end
//   ABORT               anything                            ACK, the end
//   LIST                empty                               SERVER per volume, ACK
//   STARTTLS            empty                               ERR_POLICY: no TLS on this server
//   INFO, GO            name, list of infos, nothing else   INFO..., ACK; GO: transmission
//   STRUCTURED_REPLY    empty                               ACK
//   LIST_META_CONTEXT   name, queries, nothing else         META_CONTEXT..., ACK
//   SET_META_CONTEXT    the same, after STRUCTURED_REPLY    META_CONTEXT..., ACK; what it chose
//                                                           holds for that export until the next
//   any other           at most kMaxOptionPayload           ERR_UNSUP
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nbd/protocol.h"
#include "nbd/wire.h"
#include "rt/task.h"
#include "volume/volume.h"

namespace duplex::nbd {

// What the transmission phase needs to know.
struct Negotiated {
  std::unique_ptr<volume::OpenVolume> open;
  bool structured = false;
  bool allocation = false;                 // base:allocation was chosen for this export
  std::vector<volume::ContextId> changed;  // so were these, in the order of their ids here
  std::vector<std::byte> received;         // bytes of the transmission phase that are here already
};

// `structured`: DF means something only then.
uint16_t transmission_flags(bool read_only, bool structured);

class Handshake {
 public:
  // Opens the named volume for this client.
  using Opener = std::function<Result<std::unique_ptr<volume::OpenVolume>>(const std::string&)>;

  Handshake(rt::Stream& stream, volume::Exports& exports, Opener opener)
      : wire_(stream), exports_(exports), opener_(std::move(opener)) {}

  // Nothing: the client left, was refused or broke a rule; the connection is over.
  rt::Task<std::optional<Negotiated>> run();

 private:
  // What follows an option.
  enum class Next { kOption, kTransmission, kEnd };

  rt::Task<Next> one_option();
  rt::Task<Next> dispatch(Option option, std::vector<std::byte> payload);
  rt::Task<Next> export_name(std::vector<std::byte> payload);
  rt::Task<Next> list(std::vector<std::byte> payload);
  rt::Task<Next> info_or_go(Option option, std::vector<std::byte> payload);
  rt::Task<Next> structured_reply(std::vector<std::byte> payload);
  rt::Task<Next> meta_context(Option option, std::vector<std::byte> payload);
  rt::Task<bool> answer_queries(Option option, const std::string& volume,
                                const std::vector<std::string>& queries);
  rt::Task<bool> reply_context(Option option, uint32_t id, std::string_view name);
  void take_contexts(const std::string& volume);
  rt::Task<Next> refuse(Option option, OptionReply error, std::string text);
  rt::Task<bool> reply(Option option, OptionReply type, std::vector<std::byte> payload);
  Result<volume::VolumeSummary> find(const std::string& name) const;

  Wire wire_;
  volume::Exports& exports_;
  Opener opener_;
  Negotiated result_;
  // What SET_META_CONTEXT chose, and for which export.
  struct Chosen {
    std::string export_name;
    bool allocation = false;
    std::vector<volume::ContextId> changed;
  };
  Chosen chosen_;
  bool no_zeroes_ = false;
};

}  // namespace duplex::nbd
