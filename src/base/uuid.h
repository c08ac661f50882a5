// 128 random bits that name a device, a backing or a content line for good.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace duplex {

struct Uuid {
  std::array<uint8_t, 16> bytes{};

  // From two random words of the Rng door; version 4, variant 1 (RFC 9562 section 5.4).
  static Uuid from_random(uint64_t high, uint64_t low);
  static Result<Uuid> parse(std::string_view text);
  // "8-4-4-4-12" lower-case hexadecimal.
  std::string to_string() const;
  bool is_null() const { return *this == Uuid{}; }
  auto operator<=>(const Uuid&) const = default;
};

}  // namespace duplex
