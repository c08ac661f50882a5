#include "base/text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>

namespace duplex {
namespace {

constexpr std::array<char, 6> kSuffixes = {'\0', 'K', 'M', 'G', 'T', 'P'};

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

bool is_alnum(char c) { return (c >= '0' && c <= '9') || (upper(c) >= 'A' && upper(c) <= 'Z'); }

// Power of 1024 of a size suffix, or -1.
int suffix_power(std::string_view suffix) {
  if (suffix.empty()) return 0;
  std::string s;
  for (char c : suffix) s.push_back(upper(c));
  if (s == "B") return 0;
  for (size_t i = 1; i < kSuffixes.size(); ++i) {
    const std::string k(1, kSuffixes[i]);
    if (s == k || s == k + "B" || s == k + "IB") return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  const auto bad = [&] {
    return fail(
        Code::kInvalid, fmt::format("'{}' is not a size", text),
        "write whole bytes, or a number with K, M, G, T or P (1024-based): 4096, 10G, 1.5T");
  };
  const size_t split = text.find_first_not_of("0123456789.");
  const std::string_view number = text.substr(0, split);
  const int power = split == std::string_view::npos ? 0 : suffix_power(text.substr(split));
  if (number.empty() || power < 0) return bad();
  const uint64_t unit = uint64_t{1} << (10 * power);
  if (number.find('.') == std::string_view::npos) {
    uint64_t value = 0;
    const auto [end, err] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (err != std::errc() || end != number.data() + number.size()) return bad();
    if (value > kMaxBytes / unit) return bad();
    return value * unit;
  }
  double value = 0;
  const auto [end, err] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (err != std::errc() || end != number.data() + number.size()) return bad();
  const double bytes = value * static_cast<double>(unit);
  if (!(bytes >= 0) || bytes > static_cast<double>(kMaxBytes)) return bad();
  if (bytes != std::floor(bytes)) return bad();
  return static_cast<uint64_t>(bytes);
}

std::string format_size(uint64_t bytes) {
  size_t power = 0;
  while (bytes != 0 && bytes % 1024 == 0 && power + 1 < kSuffixes.size()) {
    bytes /= 1024;
    ++power;
  }
  return power == 0 ? fmt::format("{}", bytes) : fmt::format("{}{}", bytes, kSuffixes[power]);
}

std::string format_size_rounded(uint64_t bytes) {
  size_t power = 0;
  double value = static_cast<double>(bytes);
  while (value >= 1024 && power + 1 < kSuffixes.size()) {
    value /= 1024;
    ++power;
  }
  if (power == 0) return fmt::format("{}", bytes);
  if (value == std::floor(value) || value >= 100)
    return fmt::format("{:.0f}{}", value, kSuffixes[power]);
  return fmt::format("{:.1f}{}", value, kSuffixes[power]);
}

Result<void> check_name(std::string_view name, std::string_view what) {
  const std::string next =
      "use letters, digits, '.', '_' and '-', at most 63, starting with a letter or digit";
  bool ok = !name.empty() && name.size() <= 63 && is_alnum(name.front());
  for (char c : name) ok = ok && (is_alnum(c) || c == '.' || c == '_' || c == '-');
  if (!ok)
    return fail(Code::kInvalid, fmt::format("'{}' is not a valid {} name", name, what), next);
  if (name.starts_with("0x") || name.starts_with("0X")) {
    return fail(Code::kInvalid,
                fmt::format("a {} name must not start with 0x: those are numbers", what), next);
  }
  return {};
}

Result<uint64_t> parse_number(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = hex ? text.substr(2) : text;
  uint64_t value = 0;
  const auto [end, err] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (digits.empty() || err != std::errc() || end != digits.data() + digits.size()) {
    return fail(Code::kInvalid, fmt::format("'{}' is not a number", text));
  }
  return value;
}

Result<ArrayId> parse_array_id(std::string_view text) {
  const auto value = parse_number(text);
  if (!value || *value == 0 || *value > 0xffffff) {
    return fail(Code::kInvalid, fmt::format("'{}' is not an array id", text),
                "use 24 bits in hexadecimal, for example 0x400104");
  }
  return ArrayId(static_cast<uint32_t>(*value));
}

Result<VolumeNumber> parse_volume_number(std::string_view text) {
  const auto value = parse_number(text);
  if (!value || *value == 0 || *value > 0xffff) {
    return fail(Code::kInvalid, fmt::format("'{}' is not a volume number", text),
                "use 16 bits in hexadecimal, for example 0x0001");
  }
  return VolumeNumber(static_cast<uint16_t>(*value));
}

std::string format_id(ArrayId id) { return fmt::format("0x{:06x}", id.value()); }
std::string format_id(VolumeNumber number) { return fmt::format("0x{:04x}", number.value()); }

std::string format_time(int64_t wall_us) {
  // Rounded down, also before 1970.
  const int64_t rest = wall_us % 1'000'000;
  const int64_t seconds = wall_us / 1'000'000 - (rest < 0 ? 1 : 0);
  const int64_t millis = (rest < 0 ? rest + 1'000'000 : rest) / 1000;
  const std::time_t time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     millis);
}

}  // namespace duplex
