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
//   SET_META_CONTEXT    the same, after STRUCTURED_REPLY    META_CONTEXT..., ACK
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
  bool allocation = false;          // base:allocation was chosen for this export
  std::vector<std::byte> received;  // bytes of the transmission phase that are here already
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
  rt::Task<Next> refuse(Option option, OptionReply error, std::string text);
  rt::Task<bool> reply(Option option, OptionReply type, std::vector<std::byte> payload);
  Result<volume::VolumeSummary> find(const std::string& name) const;

  Wire wire_;
  volume::Exports& exports_;
  Opener opener_;
  Negotiated result_;
  std::string allocation_export_;  // export the meta context was set for
  bool allocation_set_ = false;
  bool no_zeroes_ = false;
};

}  // namespace duplex::nbd
