// The TOML file. Unknown keys are refused: a setting that is silently ignored is worse than none.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <numeric>
#include <system_error>

#include "duplexd/options.h"

namespace duplex {
namespace {

enum class Kind { kText, kTexts, kId, kNumber, kFlag };
struct Key {
  std::string_view name;
  Kind kind;
  std::string_view needs;  // what its value must be, for people
};
constexpr std::string_view kNeedsText = "text in quotes";
constexpr Key kKeys[] = {{"name", Kind::kText, kNeedsText},
                         {"id", Kind::kId, "a number, or text such as \"0x400104\""},
                         {"state", Kind::kText, kNeedsText},
                         {"nbd", Kind::kTexts, "text, or a list of texts"},
                         {"api", Kind::kTexts, "text, or a list of texts"},
                         {"reactors", Kind::kNumber, "a number"},
                         {"engine", Kind::kText, kNeedsText},
                         {"log_level", Kind::kText, kNeedsText},
                         {"insecure", Kind::kFlag, "true or false"}};

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

const Key& nearest_key(std::string_view key) {
  return *std::ranges::min_element(kKeys, {},
                                   [&](const Key& known) { return distance(key, known.name); });
}

// The value as the texts flags would have; nullopt when it is of another kind.
std::optional<std::vector<std::string>> as_texts(const toml::node& node, Kind kind) {
  const bool is_text = kind == Kind::kText || kind == Kind::kTexts || kind == Kind::kId;
  if (const auto* text = node.as_string(); text && is_text) return {{text->get()}};
  const auto* number = node.as_integer();
  if (number && (kind == Kind::kNumber || kind == Kind::kId))
    return {{fmt::format("{}", number->get())}};
  if (const auto* flag = node.as_boolean(); flag && kind == Kind::kFlag)
    return {{flag->get() ? "true" : "false"}};
  const toml::array* list = node.as_array();
  if (!list || kind != Kind::kTexts) return std::nullopt;
  std::vector<std::string> texts;
  for (const toml::node& value : *list) {
    const auto* text = value.as_string();
    if (!text) return std::nullopt;
    texts.push_back(text->get());
  }
  return texts;
}

constexpr size_t kMaxBytesOfFile = 1 << 20;

Result<std::string> read_text(const std::string& path) {
  const auto refused = [&](const std::string& why) {
    return fail(Code::kInvalid, fmt::format("{} cannot be read: {}", path, why),
                "check --config; what belongs into the file says docs/CONFIG.md");
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"),
                                                             std::fclose);
  if (!file) return refused(std::generic_category().message(errno));
  std::string text(kMaxBytesOfFile + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return refused(std::generic_category().message(errno));
  if (text.size() > kMaxBytesOfFile) return refused("it is longer than 1 MiB");
  return text;
}

// Debian's library throws; here it becomes a value.
Result<toml::table> parse(const std::string& path) {
  TRY_ASSIGN(const std::string text, read_text(path));
  try {
    return toml::parse(text, path);
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
    const Key& known = nearest_key(name);
    if (known.name != name) {
      return fail(Code::kInvalid, fmt::format("{}unknown key '{}'", where, name),
                  fmt::format("did you mean '{}'? see docs/CONFIG.md", known.name));
    }
    const auto values = as_texts(node, known.kind);
    if (!values) {
      return fail(Code::kInvalid, fmt::format("{}'{}' must be {}", where, name, known.needs),
                  "see docs/CONFIG.md");
    }
    for (const std::string& value : *values) {
      const auto set = set_option(options, name, value);
      if (set) continue;
      return fail(Code::kInvalid, where + std::string(set.error().message()),
                  std::string(set.error().next()));
    }
  }
  return {};
}

}  // namespace duplex
