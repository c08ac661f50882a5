#include "api/pair_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>

#include "base/text.h"

namespace duplex::api {
namespace {

constexpr std::string_view kBlanks = " \t\r";
constexpr std::string_view kForm =
    "give one id per line, source then target, like: PVOL ID 1  0x400104, 0x0001";

std::string_view trimmed(std::string_view text) {
  const size_t from = text.find_first_not_of(kBlanks);
  if (from == std::string_view::npos) return {};
  return text.substr(from, text.find_last_not_of(kBlanks) + 1 - from);
}

bool begins_with_word(std::string_view label, std::string_view word) {
  return label.size() >= word.size() &&
         std::ranges::equal(label.substr(0, word.size()), word, {},
                            [](unsigned char c) { return std::toupper(c); });
}

struct VolumeId {
  std::string_view label;
  ArrayId array;
  VolumeNumber number;
};

// "PVOL ID 1  0x400104, 0x0001"
std::optional<VolumeId> volume_id(std::string_view line) {
  const size_t comma = line.rfind(',');
  if (comma == std::string_view::npos) return {};
  const std::string_view before = trimmed(line.substr(0, comma));
  const size_t blank = before.find_last_of(kBlanks);
  const size_t at = blank == std::string_view::npos ? 0 : blank + 1;
  const auto array = parse_array_id(before.substr(at));
  const auto number = parse_volume_number(trimmed(line.substr(comma + 1)));
  if (!array || !number) return {};
  return VolumeId{trimmed(before.substr(0, at)), *array, *number};
}

std::unexpected<Error> wrong(size_t line, std::string_view what) {
  return fail(Code::kInvalid, fmt::format("line {} of the pairs {}", line, what),
              std::string(kForm));
}

}  // namespace

Result<std::vector<mirror::PairId>> parse_pairs(std::string_view text) {
  std::vector<mirror::PairId> pairs;
  bool expects_target = false;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    line = trimmed(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const auto id = volume_id(line);
    if (!id) return wrong(number, "is no id of a volume");
    const bool is_wrong_side = begins_with_word(id->label, expects_target ? "PVOL" : "SVOL");
    if (is_wrong_side)
      return wrong(number, expects_target ? "must be the target of the pair" : "must be a source");
    if (expects_target) {
      pairs.back().target_array = id->array;
      pairs.back().target = id->number;
    } else {
      pairs.push_back({id->array, id->number, {}, {}});
    }
    expects_target = !expects_target;
  }
  if (expects_target)
    return wrong(number, "is the last one, and the target of its pair is missing");
  if (pairs.empty()) return fail(Code::kInvalid, "the pairs are empty", std::string(kForm));
  return pairs;
}

Result<void> check_pairs(const std::vector<mirror::PairId>& pairs, ArrayId own) {
  for (size_t i = 0; i < pairs.size(); ++i) {
    const mirror::PairId& pair = pairs[i];
    if (pair.source_array == own && pair.target_array == own) continue;
    const bool is_source = pair.source_array != own;
    return fail(Code::kNoName,
                fmt::format("entry {} of the pairs: its {} {},{} is in another array; none is "
                            "linked to {}",
                            i + 1, is_source ? "source" : "target",
                            format_id(is_source ? pair.source_array : pair.target_array),
                            format_id(is_source ? pair.source : pair.target), format_id(own)),
                "duplex mirror list --table copy");
  }
  return {};
}

}  // namespace duplex::api
