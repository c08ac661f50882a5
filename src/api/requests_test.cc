// Requests that make no sense: refused with e_invalid and a next step, and nothing changes.
#include "api/test_api.h"

namespace duplex::api {
namespace {

using test::expect_refusal;
using test::Json;
using test::TestApi;

class RequestsTest : public testing::Test {
 protected:
  void SetUp() override {
    api.start();
    api.add_device("/d1");
    api.add_volume("db", kMiB);
    api.add_source("/src", 1);
  }
  void invalid(const std::string& method, const std::string& path, const std::string& body = {}) {
    expect_refusal(api, 400, "e_invalid", method, path, body);
  }

  TestApi api;
};

struct BodyCase {
  const char* method;
  const char* path;
  Json good;
};

const std::vector<BodyCase>& bodies() {
  static const std::vector<BodyCase> all = {
      {"POST",
       "/api/v1/volumes",
       {{"name", "a"},
        {"size", kMiB},
        {"id", "0x0009"},
        {"backing", "B"},
        {"device", "d1"},
        {"thick", true}}},
      {"PATCH", "/api/v1/volumes/db", {{"size", 2 * kMiB}, {"discard", true}}},
      {"POST", "/api/v1/volumes/db/import", {{"path", "/src"}, {"overwrite", true}}},
      {"POST",
       "/api/v1/devices",
       {{"path", "/d2"},
        {"name", "x"},
        {"size", 16 * kMiB},
        {"extent_size", "64K"},
        {"overwrite", true}}},
      {"POST", "/api/v1/jobs/1/rate", {{"rate", "1M"}}}};
  return all;
}

TEST_F(RequestsTest, AFieldOfTheWrongTypeIsRefused) {
  const Json others[] = {1, -1, 1.5, true, "text", "", Json::array(), Json::object(), nullptr};
  for (const BodyCase& one : bodies()) {
    for (const auto& [key, good] : one.good.items()) {
      const bool is_size = key == "size" || key == "extent_size" || key == "rate";
      const bool is_text = good.is_string() && !is_size;
      for (const Json& other : others) {
        if (is_text && (other.is_string() || other.is_null())) continue;
        if (good.is_boolean() && (other.is_boolean() || other.is_null())) continue;
        if (is_size && (other == 1 || other.is_null())) continue;
        Json body = one.good;
        body[key] = other;
        invalid(one.method, one.path, body.dump());
      }
    }
  }
}

TEST_F(RequestsTest, AFieldThatIsNeededIsMissed) {
  for (const auto& [method, path, body] : std::vector<std::array<std::string, 3>>{
           {"POST", "/api/v1/volumes", R"({"size":"1M"})"},
           {"POST", "/api/v1/volumes", R"({"name":"a"})"},
           {"POST", "/api/v1/volumes", R"({"name":null,"size":"1M"})"},
           {"POST", "/api/v1/volumes", ""},
           {"PATCH", "/api/v1/volumes/db", "{}"},
           {"PATCH", "/api/v1/volumes/db", R"({"size":null})"},
           {"POST", "/api/v1/volumes/db/import", "{}"},
           {"POST", "/api/v1/devices", R"({"name":"d2"})"},
           {"POST", "/api/v1/jobs/1/rate", "{}"}}) {
    invalid(method, path, body);
  }
}

TEST_F(RequestsTest, AFieldNobodyKnowsIsRefused) {
  for (const BodyCase& one : bodies()) {
    for (const char* key : {"sise", "Size", "", "created_now"}) {
      Json body = one.good;
      body[key] = 1;
      invalid(one.method, one.path, body.dump());
    }
  }
  for (const RouteName& route : route_names()) {
    if (route.takes_body || !route.pattern.starts_with("/api/v1/") || route.method == "GET")
      continue;
    std::string path = route.pattern;
    for (const auto& [from, to] : {std::pair("{name}", "db"), {"{id}", "1"}}) {
      if (const size_t at = path.find(from); at != std::string::npos)
        path.replace(at, std::string_view(from).size(), to);
    }
    invalid(route.method, path, R"({"force":true})");
  }
}

TEST_F(RequestsTest, ASizeThatCannotBeIsRefused) {
  for (const char* size :
       {"-1", "-1048576", "1.5", "1e9", "1e400", "18446744073709551615", "18446744073709551616",
        "9223372036854775807", "\"-1\"", "\"9000000P\"", "\"1X\"", "\"10 G\"", "\" 1M\"",
        "\"0x10\"", "\"\"", "\"1.3\"", "[1]", "true"}) {
    invalid("POST", "/api/v1/volumes", fmt::format(R"({{"name":"a","size":{}}})", size));
    invalid("PATCH", "/api/v1/volumes/db", fmt::format(R"({{"size":{}}})", size));
    invalid("POST", "/api/v1/devices", fmt::format(R"({{"path":"/d2","size":{}}})", size));
    invalid("POST", "/api/v1/devices",
            fmt::format(R"({{"path":"/d2","size":"16M","extent_size":{}}})", size));
    invalid("POST", "/api/v1/jobs/1/rate", fmt::format(R"({{"rate":{}}})", size));
  }
}

TEST_F(RequestsTest, ANameThatCannotBeIsRefused) {
  const std::string names[] = {"",
                               ".",
                               "-a",
                               "a b",
                               "a/b",
                               "../a",
                               "0x0001",
                               "ä",
                               std::string(64, 'a'),
                               std::string("a\0b", 3),
                               "a\nb",
                               "\"",
                               "a:b"};
  for (const std::string& name : names) {
    invalid("POST", "/api/v1/volumes", Json{{"name", name}, {"size", "1M"}}.dump());
    if (name.empty()) continue;
    invalid("POST", "/api/v1/volumes",
            Json{{"name", "a"}, {"size", "1M"}, {"backing", name}}.dump());
    invalid("POST", "/api/v1/devices",
            Json{{"path", "/d2"}, {"size", "16M"}, {"extent_size", "64K"}, {"name", name}}.dump());
  }
  for (const char* number : {"0", "0x10000", "-1", "one", "0x", " 1"})
    invalid("POST", "/api/v1/volumes", Json{{"name", "a"}, {"size", "1M"}, {"id", number}}.dump());
}

TEST_F(RequestsTest, APathThatIsNotWholeIsRefused) {
  for (const std::string& path : {std::string(), std::string("d2"), std::string("./d2"),
                                  std::string("nbd://host/d"), std::string("/d2\0/x", 6)}) {
    invalid("POST", "/api/v1/devices",
            Json{{"path", path}, {"size", "16M"}, {"extent_size", "64K"}}.dump());
    invalid("POST", "/api/v1/volumes/db/import", Json{{"path", path}}.dump());
  }
}

TEST_F(RequestsTest, WhatIsNoJsonObjectIsRefused) {
  const std::string texts[] = {"{",
                               "[]",
                               "null",
                               "1",
                               "\"a\"",
                               "{\"name\":}",
                               "{'name':'a'}",
                               "{} {}",
                               " ",
                               "\xff",
                               "name=a",
                               "{\"name\":\"\xc3\x28\"}",
                               "{\"name\":\"\xed\xa0\x80\"}",
                               "{\"\\ud800\":1}",
                               "{\"a\":1,}",
                               "NaN",
                               std::string(1, '\0')};
  for (const std::string& text : texts) {
    for (const RouteName& route : route_names()) {
      if (route.method == "GET") continue;
      std::string path = route.pattern;
      if (const size_t at = path.find('{'); at != std::string::npos)
        path.replace(at, path.find('}') - at + 1, at > 15 ? "db" : "1");
      invalid(route.method, path, text);
    }
  }
}

TEST_F(RequestsTest, JsonThatIsTooDeepOrTooLongIsRefused) {
  constexpr size_t kDeep = 200'000;
  std::string deep;
  for (size_t i = 0; i < kDeep; ++i) deep += "{\"a\":";
  invalid("POST", "/api/v1/volumes", deep + "1" + std::string(kDeep, '}'));
  invalid("POST", "/api/v1/volumes", std::string(kDeep, '['));
  invalid("POST", "/api/v1/volumes", std::string(kDeep, '[') + std::string(kDeep, ']'));
  const std::string start = R"({"name":"a","size":"1M","device":")";
  invalid("POST", "/api/v1/volumes", start + std::string(kMiB, 'x') + "\"}");
  const std::string spaces(kMiB, ' ');
  invalid("POST", "/api/v1/volumes", spaces + R"({"name":"a","size":"1M"})");
}

TEST_F(RequestsTest, AQueryThatMakesNoSenseIsRefused) {
  for (const char* value : {"", "x", "-1", "1.5", "1s", " 1", "0x", "18446744073709551616"}) {
    for (const char* key : {"after", "limit", "timeout"})
      invalid("GET", fmt::format("/api/v1/events?{}={}", key, value));
    invalid("GET", fmt::format("/api/v1/jobs/1?timeout={}", value));
  }
  for (const char* value : {"", "yes", "2", "TRUE", "null"})
    invalid("DELETE", fmt::format("/api/v1/volumes/db?disconnect={}", value));
  for (const RouteName& route : route_names()) {
    if (!route.pattern.starts_with("/api/v1/") || route.pattern.ends_with(".json") ||
        route.pattern.ends_with("/support"))
      continue;
    std::string path = route.pattern;
    if (const size_t at = path.find('{'); at != std::string::npos)
      path.replace(at, path.find('}') - at + 1, "db");
    invalid(route.method, path + "?forse=1");
  }
  for (const char* id : {"-1", "_x", "a,b", "0x100000000", "1 "}) {
    invalid("GET", fmt::format("/api/v1/jobs/{}", id));
    invalid("POST", fmt::format("/api/v1/jobs/{}/cancel", id));
  }
}

TEST_F(RequestsTest, HugeNumbersInAQueryAreCutToTheLimits) {
  const auto all = api.get("/api/v1/events?limit=18446744073709551615");
  EXPECT_EQ(all.status, 200);
  EXPECT_FALSE(all.json.empty());
  EXPECT_EQ(api.get("/api/v1/events?after=18446744073709551615").json, Json::array());
  const rt::Micros before = api.sim.now();
  const std::string last = api.events().back().id ? std::to_string(api.events().back().id) : "0";
  EXPECT_EQ(api.get("/api/v1/events?timeout=18446744073709551615&after=" + last).json,
            Json::array());
  const rt::Micros waited = api.sim.now() - before;
  EXPECT_GE(waited, 60 * rt::kSecond);
  EXPECT_LE(waited, 70 * rt::kSecond);
}

TEST_F(RequestsTest, WhatSoundsOddButMakesSenseIsTaken) {
  EXPECT_EQ(
      api.call("POST", "/api/v1/volumes",
               R"( {"name":"a","size":"1.5K","thick":null,"device":null,"backing":"","id":null} )")
          .status,
      200);
  EXPECT_EQ(api.get("/api/v1/volumes/a").json["size"], kBlockBytes) << "whole blocks";
  EXPECT_EQ(api.get("/api/v1/volumes/a1:a").json["name"], "a");
  EXPECT_EQ(api.get("/api/v1/volumes/0x400104, 0x0002").json["name"], "a");
  EXPECT_EQ(
      api.call("DELETE", "/api/v1/volumes/0x400104,0x0002?disconnect=false", "{}").json["deleted"],
      "a");
}

}  // namespace
}  // namespace duplex::api
