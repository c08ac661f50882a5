#include "api/body.h"

#include <fmt/format.h>

#include "base/text.h"

namespace duplex::api {

Result<Body> Body::parse(const std::string& text) {
  Body body;
  if (text.empty()) return body;
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
  return it->get<std::string>();
}

bool Body::flag(const char* key) {
  read_.insert(key);
  const auto it = object_.find(key);
  if (it == object_.end()) return false;
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
  if (it->is_number_unsigned()) return it->get<uint64_t>();
  if (it->is_string()) {
    const auto bytes = parse_size(it->get<std::string>());
    if (bytes) return *bytes;
  }
  mistake(fmt::format("'{}' must be a number of bytes or a size like \"10G\"", key));
  return 0;
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
