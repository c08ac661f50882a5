#include "api/body.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"

namespace duplex::api {

Result<Body> Body::parse(const std::string& text) {
  Body body;
  if (text.empty()) return body;
  if (text.size() > kMaxLength)
    return fail(Code::kInvalid, "the body is longer than 1 MiB", "see /api/v1/openapi.json");
  body.object_ = nlohmann::json::parse(text, nullptr, false);
  if (!body.object_.is_object())
    return fail(Code::kInvalid, "the body is not a JSON object", "see /api/v1/openapi.json");
  return body;
}

void Body::mistake(std::string text) {
  if (mistake_.empty()) mistake_ = std::move(text);
}

std::string Body::text(const char* key, bool required) {
  read_.insert(key);
  const auto it = object_.find(key);
  if (it == object_.end() || it->is_null()) {
    if (required) mistake(fmt::format("'{}' is missing", key));
    return {};
  }
  if (!it->is_string()) {
    mistake(fmt::format("'{}' must be text", key));
    return {};
  }
  const std::string& text = it->get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos) {
    mistake(fmt::format("'{}' holds a zero byte", key));
    return {};
  }
  return text;
}

std::string Body::path(const char* key) {
  std::string path = text(key, true);
  if (!path.starts_with('/')) mistake(fmt::format("'{}' must be a path that begins with /", key));
  return path;
}

bool Body::flag(const char* key) {
  read_.insert(key);
  const auto it = object_.find(key);
  if (it == object_.end() || it->is_null()) return false;
  if (!it->is_boolean()) mistake(fmt::format("'{}' must be true or false", key));
  return it->is_boolean() && it->get<bool>();
}

uint64_t Body::size(const char* key, bool required) {
  read_.insert(key);
  const auto it = object_.find(key);
  if (it == object_.end() || it->is_null()) {
    if (required) mistake(fmt::format("'{}' is missing", key));
    return 0;
  }
  if (it->is_number_unsigned() && it->get<uint64_t>() <= kMaxBytes) return it->get<uint64_t>();
  if (it->is_string()) {
    const auto bytes = parse_size(it->get_ref<const std::string&>());
    if (bytes) return *bytes;
  }
  mistake(fmt::format("'{}' must be a number of bytes or a size like \"10G\", at most {}", key,
                      format_size(kMaxBytes)));
  return 0;
}

uint64_t Body::number(const char* key, uint64_t fallback, uint64_t most) {
  const nlohmann::json value = raw(key);
  if (value.is_null()) return fallback;
  if (value.is_number_unsigned() && value.get<uint64_t>() <= most) return value.get<uint64_t>();
  mistake(fmt::format("'{}' must be a whole number, at most {}", key, most));
  return fallback;
}

std::vector<std::string> Body::texts(const char* key) {
  const nlohmann::json value = raw(key);
  if (value.is_null()) return {};
  std::vector<std::string> all;
  for (const nlohmann::json& one : value.is_array() ? value : nlohmann::json::array()) {
    if (one.is_string()) all.push_back(one.get<std::string>());
    if (all.empty() || all.back().empty() || all.back().contains('\0') || !one.is_string())
      mistake(fmt::format("'{}' must be a list of names", key));
  }
  if (!value.is_array()) mistake(fmt::format("'{}' must be a list of names", key));
  return all;
}

std::string Body::word(const char* key, std::initializer_list<std::string_view> words) {
  std::string given = text(key);
  if (given.empty()) return std::string(*words.begin());
  if (std::ranges::find(words, given) == words.end())
    mistake(fmt::format("'{}' must be {}", key, fmt::join(words, " or ")));
  return given;
}

nlohmann::json Body::raw(const char* key) {
  read_.insert(key);
  const auto it = object_.find(key);
  return it == object_.end() ? nlohmann::json() : *it;
}

Result<void> Body::done() const {
  if (!mistake_.empty()) return fail(Code::kInvalid, mistake_, "see /api/v1/openapi.json");
  for (const auto& [key, value] : object_.items()) {
    if (!read_.contains(key))
      return fail(Code::kInvalid, fmt::format("'{}' is not known here", key),
                  "see /api/v1/openapi.json");
  }
  return {};
}

}  // namespace duplex::api
