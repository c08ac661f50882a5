// The TOML file. Unknown keys are refused: a setting that is silently ignored is worse than none.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <numeric>

#include "duplexd/options.h"

namespace duplex {
namespace {

constexpr std::array<std::string_view, 9> kKeys = {
    "name", "id", "state", "nbd", "api", "reactors", "engine", "log_level", "insecure"};

// Edits between two words (Levenshtein).
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row.back();
}

std::string nearest_key(std::string_view key) {
  return std::string(*std::ranges::min_element(
      kKeys, {}, [&](std::string_view known) { return distance(key, known); }));
}

// One value as the text a flag would have; nullopt for what no setting can be.
std::optional<std::string> as_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  return std::nullopt;
}

// Debian's library throws; here it becomes a value.
Result<toml::table> parse(const std::string& path) {
  try {
    return toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return fail(Code::kInvalid,
                fmt::format("{} line {}: {}", path, error.source().begin.line, error.description()),
                "see docs/CONFIG.md");
  }
}

}  // namespace

Result<void> read_config(const std::string& path, DaemonOptions& options) {
  TRY_ASSIGN(const toml::table table, parse(path));
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    const auto where = fmt::format("{} line {}: ", path, node.source().begin.line);
    if (std::ranges::find(kKeys, name) == kKeys.end()) {
      return fail(Code::kInvalid, fmt::format("{}unknown key '{}'", where, name),
                  fmt::format("did you mean '{}'? see docs/CONFIG.md", nearest_key(name)));
    }
    std::vector<std::string> values;
    bool good = true;
    const auto add = [&](const toml::node& value) {
      const auto text = as_text(value);
      good = good && text.has_value();
      if (text) values.push_back(*text);
    };
    const toml::array* list = node.as_array();
    if (list != nullptr && (name == "nbd" || name == "api")) {
      for (const toml::node& value : *list) add(value);
    } else {
      add(node);
    }
    if (!good)
      return fail(Code::kInvalid, fmt::format("{}'{}' has a value of the wrong kind", where, name),
                  "see docs/CONFIG.md");
    for (const std::string& value : values) {
      const auto set = set_option(options, name, value);
      if (!set)
        return fail(Code::kInvalid, where + std::string(set.error().message()),
                    std::string(set.error().next()));
    }
  }
  return {};
}

}  // namespace duplex
