// What people type and read: names, sizes, rates, numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/units.h"

namespace duplex {

// "10G", "512", "4KiB", "1.5T": 1024-based, suffixes K M G T P with optional "iB" or "B",
// any case. At most kMaxBytes.
Result<uint64_t> parse_size(std::string_view text);
// Shortest exact form: "10G", "1536K", "513".
std::string format_size(uint64_t bytes);
// For tables: at most one decimal, "1.5G".
std::string format_size_rounded(uint64_t bytes);

// Names of volumes, devices, backings and so on: [A-Za-z0-9][A-Za-z0-9._-]{0,62}, never starting
// with "0x" (those are numbers). `what` names the kind in the message.
Result<void> check_name(std::string_view name, std::string_view what);

// "0x400104" (1..0xffffff) and "0x0001" (1..0xffff).
Result<ArrayId> parse_array_id(std::string_view text);
Result<VolumeNumber> parse_volume_number(std::string_view text);
std::string format_id(ArrayId id);
std::string format_id(VolumeNumber number);

// A whole unsigned number in decimal or 0x form, nothing before or after it.
Result<uint64_t> parse_number(std::string_view text);

// ISO 8601 UTC with milliseconds, of microseconds since 1970.
std::string format_time(int64_t wall_us);

}  // namespace duplex
