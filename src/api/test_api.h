// A simulated array and its API, without a transport: a request in, status and JSON out.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "api/routes.h"
#include "control/test_array.h"

namespace duplex::api::test {

using Json = nlohmann::json;

struct Answer {
  int status = 0;
  std::string type;
  std::string text;
  Json json;  // discarded when the text is none
  std::string code() const { return json["error"]["code"]; }
  std::string next() const { return json["error"]["next"]; }
};

class TestApi : public control::test::TestArray {
 public:
  using TestArray::TestArray;
  // `path` may have a query.
  static Request request_of(const std::string& method, const std::string& path,
                            std::string body = {}) {
    Request request{.method = method, .path = path, .query = {}, .body = std::move(body)};
    const size_t mark = path.find('?');
    if (mark == std::string::npos) return request;
    request.path = path.substr(0, mark);
    for (size_t at = mark; at != std::string::npos;) {
      const size_t next = path.find('&', at + 1);
      const std::string pair = path.substr(at + 1, next - at - 1);
      const size_t equal = pair.find('=');
      request.query[pair.substr(0, equal)] =
          equal == std::string::npos ? "" : pair.substr(equal + 1);
      at = next;
    }
    return request;
  }
  Answer call(const std::string& method, const std::string& path, std::string body = {}) {
    return answer_of(run(handle(*array, request_of(method, path, std::move(body)))));
  }
  static Answer answer_of(const Response& response) {
    return {.status = response.status,
            .type = response.type,
            .text = response.body,
            .json = Json::parse(response.body, nullptr, false)};
  }
  Answer get(const std::string& path) { return call("GET", path); }
  Answer post(const std::string& path, const Json& body) { return call("POST", path, body.dump()); }

  // Everything a verb could have changed.
  Json everything() {
    Json all;
    for (const char* path : {"volumes", "devices", "pool", "backings", "jobs", "mirrors", "groups", "cuts"})
      all[path] = get(std::string("/api/v1/") + path).json;
    return all;
  }
};

// An error in the form the document gives, with a next step; nothing has changed.
inline void expect_refusal(TestApi& api, int status, const std::string& code,
                           const std::string& method, const std::string& path,
                           const std::string& body = {}) {
  const Json before = api.everything();
  const Answer answer = api.call(method, path, body);
  const std::string what = method + " " + path + " " + body.substr(0, 100) + " -> " + answer.text;
  EXPECT_EQ(answer.status, status) << what;
  ASSERT_TRUE(answer.json.is_object() && answer.json.contains("error")) << what;
  EXPECT_EQ(answer.code(), code) << what;
  EXPECT_NE(answer.json["error"]["message"], "") << what;
  EXPECT_NE(answer.next(), "") << what;
  EXPECT_EQ(api.everything(), before) << what;
}

}  // namespace duplex::api::test
