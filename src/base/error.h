// Error and Result: what the world can do wrong is a value with a cause and a next step.
//
// One error type for the whole program. An Error without text costs no allocation, so the data
// path returns plain codes; whatever a person may read carries a message and the next command.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>

namespace duplex {

// Codes of docs/REFERENCE.md "Error codes"; code_name() gives the stable lower-case form that
// --json prints. The list only grows.
enum class Code : uint8_t {
  kInvalid,         // the request itself makes no sense (usage)
  kNoVolume,        // named volume does not exist
  kNoDevice,        // named device does not exist or is absent
  kNoName,          // any other named object does not exist
  kState,           // not allowed in the current state; nothing was changed
  kSize,            // sizes or ranges do not fit
  kBusy,            // under another operation, or in use by a client; retry later
  kExists,          // the name is taken by something different
  kWriteProtected,  // write to a write-inhibited volume
  kMediumRead,      // unrecoverable read error of a device
  kMediumWrite,     // unrecoverable write error of a device
  kFlushLost,       // a flush failed: writes since the last good flush may be lost
  kNoSpace,         // pool, device or state directory is full
  kTimeout,         // took longer than allowed; rolled back
  kInDoubt,         // the state directory failed: whether it was done shows at the next start
  kPartial,         // outcome not uniform; the message lists each member
  kNotSupported,    // not possible on this device, kernel or export
  kCorrupt,         // stored bytes fail their check
  kStale,           // stored state is older than the devices it describes
  kDenied,          // permission, or a rule of safety (for example TCP without TLS)
  kShutdown,        // the array is stopping
  kConnection,      // the other end of a connection is gone
  kSystem,          // any other failure of the operating system
};

// "e_novol", "e_state", ... : the stable name of a code.
std::string_view code_name(Code code);

class [[nodiscard]] Error {
 public:
  // A bare code: no allocation; message() falls back to the general meaning of the code.
  explicit Error(Code code) : code_(code) {}
  // `message`: what was refused and why. `next`: the command or act that helps; may be empty.
  Error(Code code, std::string message, std::string next = {});

  Code code() const { return code_; }
  std::string_view message() const;
  std::string_view next() const;
  // next(), or what helps with most errors of this code; never empty.
  std::string_view next_step() const;
  // "message (next: ...)": for logs and for people without --json.
  std::string describe() const;

 private:
  struct Text {
    std::string message;
    std::string next;
  };
  Code code_;
  std::shared_ptr<const Text> text_;  // null: bare code
};

template <class T = void>
using Result = std::expected<T, Error>;

// return fail(Code::kState, "…", "…");
inline std::unexpected<Error> fail(Code code) { return std::unexpected(Error(code)); }
inline std::unexpected<Error> fail(Code code, std::string message, std::string next = {}) {
  return std::unexpected(Error(code, std::move(message), std::move(next)));
}

// The Error for an errno of the operating system. `what` names the act and the object
// ("open /dev/sdb"). ENOSPC and EDQUOT are kNoSpace, EIO is kMediumWrite or kMediumRead only
// where the caller says so; here it is kSystem.
Error system_error(int errnum, std::string_view what, std::string next = {});

}  // namespace duplex

// TRY(expr): in a plain function, hands an error on; TRY_ASSIGN(decl, expr) also takes the value.
// CO_TRY and CO_TRY_ASSIGN do the same in a coroutine.
#define DUPLEX_CONCAT_(a, b) a##b
#define DUPLEX_CONCAT(a, b) DUPLEX_CONCAT_(a, b)
#define DUPLEX_TRY_(ret, tmp, expr)         \
  if (auto tmp = (expr); !tmp) [[unlikely]] \
  ret std::unexpected(std::move(tmp).error())
#define DUPLEX_TRY_ASSIGN_(ret, tmp, decl, expr) \
  auto tmp = (expr);                             \
  if (!tmp) [[unlikely]]                         \
    ret std::unexpected(std::move(tmp).error()); \
  decl = *std::move(tmp)
#define TRY(expr) DUPLEX_TRY_(return, DUPLEX_CONCAT(try_, __LINE__), expr)
#define CO_TRY(expr) DUPLEX_TRY_(co_return, DUPLEX_CONCAT(try_, __LINE__), expr)
#define TRY_ASSIGN(decl, expr) DUPLEX_TRY_ASSIGN_(return, DUPLEX_CONCAT(try_, __LINE__), decl, expr)
#define CO_TRY_ASSIGN(decl, expr) \
  DUPLEX_TRY_ASSIGN_(co_return, DUPLEX_CONCAT(try_, __LINE__), decl, expr)
