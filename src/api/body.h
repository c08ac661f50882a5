// Body: the JSON object of a request, read key by key; what nobody asked for is refused.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/error.h"

namespace duplex::api {

class Body {
 public:
  // `text` empty: an empty object.
  static Result<Body> parse(const std::string& text);

  // A missing optional key gives `fallback`; the wrong type or a missing required key is kInvalid,
  // told by done().
  std::string text(const char* key, bool required = false);
  bool flag(const char* key);
  // A number of bytes, or text like "10G".
  uint64_t size(const char* key, bool required = false);
  // After all keys were read: the first mistake, or a key nobody read.
  Result<void> done() const;

 private:
  void mistake(std::string text);
  nlohmann::json object_ = nlohmann::json::object();
  std::set<std::string> read_;
  std::string mistake_;
};

}  // namespace duplex::api
