#include "base/error.h"

#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace duplex {
namespace {

struct CodeText {
  std::string_view name;
  std::string_view meaning;
  std::string_view next;  // for errors that name no better one
};

CodeText text_of(Code code) {
  switch (code) {
    case Code::kInvalid:
      return {"e_invalid", "the request is not valid",
              "duplex --help shows the form of each command"};
    case Code::kNoVolume:
      return {"e_novol", "no such volume", "duplex volume list"};
    case Code::kNoDevice:
      return {"e_nodev", "no such device, or it is absent", "duplex device list"};
    case Code::kNoName:
      return {"e_noname", "no such object", "duplex job list"};
    case Code::kState:
      return {"e_state", "not allowed in the current state", "duplex status"};
    case Code::kSize:
      return {"e_size", "sizes or ranges do not fit", "duplex pool show"};
    case Code::kBusy:
      return {"e_busy", "in use by another operation or client", "wait, or see duplex status"};
    case Code::kExists:
      return {"e_exists", "the name is taken", "choose another name"};
    case Code::kWriteProtected:
      return {"e_wp", "write to a write-inhibited volume", "duplex volume list"};
    case Code::kMediumRead:
      return {"e_medium_r", "unrecoverable read error of a device", "duplex device list"};
    case Code::kMediumWrite:
      return {"e_medium_w", "unrecoverable write error of a device", "duplex device list"};
    case Code::kFlushLost:
      return {"e_flush", "a flush failed, unflushed writes may be lost", "duplex device list"};
    case Code::kNoSpace:
      return {"e_nospace", "no space left", "duplex pool show"};
    case Code::kTimeout:
      return {"e_timeout", "took longer than allowed", "duplex status"};
    case Code::kInDoubt:
      return {"e_in_doubt", "whether it was done shows at the next start",
              "check the disk of the state directory, then start duplexd again"};
    case Code::kPartial:
      return {"e_partial", "the outcome is not uniform", "duplex status"};
    case Code::kNotSupported:
      return {"e_notsup", "not supported here", "see docs/LIMITS.md"};
    case Code::kCorrupt:
      return {"e_corrupt", "stored bytes fail their check", "duplex support"};
    case Code::kStale:
      return {"e_stale", "stored state is older than its devices", "duplex support"};
    case Code::kDenied:
      return {"e_denied", "not permitted", "run it as the user the array runs as"};
    case Code::kShutdown:
      return {"e_shutdown", "the array is stopping", "try again when the array is up"};
    case Code::kConnection:
      return {"e_connection", "the connection is gone", "see whether duplexd runs"};
    case Code::kSystem:
      return {"e_system", "the operating system refused", "duplex status"};
  }
  ASSERT(false);
}

}  // namespace

std::string_view code_name(Code code) { return text_of(code).name; }

Error::Error(Code code, std::string message, std::string next)
    : code_(code), text_(std::make_shared<const Text>(Text{std::move(message), std::move(next)})) {}

std::string_view Error::message() const {
  return text_ ? std::string_view(text_->message) : text_of(code_).meaning;
}

std::string_view Error::next() const { return text_ ? std::string_view(text_->next) : ""; }

std::string_view Error::next_step() const { return next().empty() ? text_of(code_).next : next(); }

std::string Error::describe() const {
  std::string out(message());
  if (!next().empty()) out.append(" (next: ").append(next()).append(")");
  return out;
}

Error system_error(int errnum, std::string_view what, std::string next) {
  char buffer[128];
  std::string message(what);
  message.append(": ").append(strerror_r(errnum, buffer, sizeof buffer));
  Code code = Code::kSystem;
  if (errnum == ENOSPC || errnum == EDQUOT) code = Code::kNoSpace;
  if (errnum == EACCES || errnum == EPERM) code = Code::kDenied;
  if (errnum == ENOENT || errnum == ENODEV || errnum == ENXIO) code = Code::kNoDevice;
  if (errnum == EBUSY || errnum == EAGAIN || errnum == EADDRINUSE) code = Code::kBusy;
  if (errnum == EOPNOTSUPP) code = Code::kNotSupported;
  return Error(code, std::move(message), std::move(next));
}

}  // namespace duplex
