// Body: the JSON object of a request, read key by key; what nobody asked for is refused.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace duplex::api {

class Body {
 public:
  static constexpr size_t kMaxLength = size_t{1} << 20;
  // `text` empty: an empty object.
  static Result<Body> parse(const std::string& text);

  // A missing optional key, or null, gives `fallback`; the wrong type or a missing required key is
  // kInvalid, told by done().
  std::string text(const char* key, bool required = false);
  bool flag(const char* key);
  // The whole path of a file or disk.
  std::string path(const char* key);
  // A number of bytes, or text like "10G"; at most kMaxBytes.
  uint64_t size(const char* key, bool required = false);
  // A whole number up to `most`.
  uint64_t number(const char* key, uint64_t fallback, uint64_t most);
  // A list of texts; none is empty.
  std::vector<std::string> texts(const char* key);
  // One of `words`, of which the first is the fallback.
  std::string word(const char* key, std::initializer_list<std::string_view> words);
  // The value as it is, null when it is missing.
  nlohmann::json raw(const char* key);
  // After all keys were read: the first mistake, or a key nobody read.
  Result<void> done() const;

 private:
  void mistake(std::string text);
  nlohmann::json object_ = nlohmann::json::object();
  std::set<std::string> read_;
  std::string mistake_;
};

}  // namespace duplex::api
