// Numbers of the NBD protocol, under the names of its text (doc/proto.md, "Values" of each
// section). Everything on the wire is big-endian.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/units.h"

namespace duplex::nbd {

// Handshake.
inline constexpr uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr uint16_t kFlagFixedNewstyle = 1 << 0;
inline constexpr uint16_t kFlagNoZeroes = 1 << 1;
inline constexpr uint32_t kClientFixedNewstyle = 1 << 0;
inline constexpr uint32_t kClientNoZeroes = 1 << 1;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};
enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrUnsupported = 0x80000001,
  kErrPolicy = 0x80000002,
  kErrInvalid = 0x80000003,
  kErrPlatform = 0x80000004,
  kErrTlsRequired = 0x80000005,
  kErrUnknown = 0x80000006,
  kErrShutdown = 0x80000007,
  kErrBlockSizeRequired = 0x80000008,
  kErrTooBig = 0x80000009,
};
enum class Info : uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

// Longest string the protocol allows (section "Handshake phase", "Conventions").
inline constexpr uint32_t kMaxString = 4096;

// Transmission flags of an export.
inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kReadOnly = 1 << 1;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kSendDf = 1 << 7;
inline constexpr uint16_t kCanMultiConn = 1 << 8;
inline constexpr uint16_t kSendCache = 1 << 10;
inline constexpr uint16_t kSendFastZero = 1 << 11;

// Transmission.
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr size_t kRequestBytes = 28;

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};
inline constexpr uint16_t kCmdFua = 1 << 0;
inline constexpr uint16_t kCmdNoHole = 1 << 1;
inline constexpr uint16_t kCmdDf = 1 << 2;
inline constexpr uint16_t kCmdReqOne = 1 << 3;
inline constexpr uint16_t kCmdFastZero = 1 << 4;

inline constexpr uint16_t kChunkDone = 1 << 0;
enum class Chunk : uint16_t {
  kNone = 0,
  kOffsetData = 1,
  kOffsetHole = 2,
  kBlockStatus = 5,
  kError = 0x8001
};

enum class Errno : uint32_t {
  kOk = 0,
  kPerm = 1,
  kIo = 5,
  kNoMem = 12,
  kInval = 22,
  kNoSpace = 28,
  kOverflow = 75,
  kNotSup = 95,
  kShutdown = 108,
};

// Flags of base:allocation ("Metadata querying").
inline constexpr uint32_t kStateHole = 1 << 0;
inline constexpr uint32_t kStateZero = 1 << 1;
inline constexpr uint32_t kAllocationContext = 1;  // our id of base:allocation

// Ours: "duplex:changed/MIRROR", its flags and the id of the first one that was chosen.
inline constexpr std::string_view kChangedPrefix = "duplex:changed/";
inline constexpr uint32_t kStateChanged = 1 << 0;
inline constexpr uint32_t kFirstChangedContext = 2;

// Limits of ours. docs/LIMITS.md.
inline constexpr uint32_t kMaxOptionPayload = 64 * 1024;
inline constexpr int kMaxOptions = 64;
inline constexpr uint32_t kMaxRequestBytes = 32 * kMiB;
inline constexpr size_t kMaxStatusRuns = 1024;
inline constexpr size_t kMaxChangedContexts = 16;

}  // namespace duplex::nbd
