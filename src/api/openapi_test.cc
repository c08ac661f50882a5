// The document and the server are the same: routes, parameters, bodies, and every field of a real
// answer to each of them.
#include "api/openapi.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "api/test_api.h"

namespace duplex::api {
namespace {

using test::Answer;
using test::Json;
using test::TestApi;

const Json& document() {
  static const Json json = Json::parse(kOpenApi);
  return json;
}

const Json& resolved(const Json* schema) {
  if (!schema->contains("$ref")) return *schema;
  const std::string ref = (*schema)["$ref"];
  return document().at(Json::json_pointer(ref.substr(1)));
}

std::string type_of(const Json& value) {
  if (value.is_number_integer()) return "integer";
  if (value.is_number()) return "number";
  return value.type_name();
}

// What is wrong with `value`, or nothing. Strict both ways: an answer has every required field,
// and no field the document does not know.
std::string mistake(const Json& schema_or_ref, const Json& value, const std::string& where) {
  const Json& schema = resolved(&schema_or_ref);
  const Json& types = schema["type"];
  const std::string type = type_of(value);
  const auto fits = [&](const Json& wanted) {
    return wanted == type || (wanted == "number" && type == "integer");
  };
  if (types.is_array() ? std::ranges::none_of(types, fits) : !fits(types))
    return where + " is " + type + ", not " + types.dump();
  if (schema.contains("enum") && std::ranges::find(schema["enum"], value) == schema["enum"].end())
    return where + " cannot be " + value.dump();
  if (type == "array") {
    for (const Json& item : value) {
      const std::string bad = mistake(schema["items"], item, where + "[]");
      if (!bad.empty()) return bad;
    }
  }
  if (type != "object" || !schema.contains("properties")) return {};
  for (const Json& name : schema.value("required", Json::array())) {
    if (!value.contains(name)) return where + " has no " + name.dump();
  }
  for (const auto& [name, field] : value.items()) {
    if (!schema["properties"].contains(name))
      return fmt::format("{} has an undocumented {}", where, name);
    const std::string bad =
        mistake(schema["properties"][name], field, fmt::format("{}.{}", where, name));
    if (!bad.empty()) return bad;
  }
  return {};
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(c));
  return text;
}

const Json& operation(const std::string& method, const std::string& pattern) {
  return document()["paths"][pattern][lower(method)];
}

TEST(OpenApi, TheDocumentAndTheServerKnowTheSameRoutes) {
  std::set<std::string> documented;
  for (const auto& [path, verbs] : document()["paths"].items()) {
    for (const auto& [verb, what] : verbs.items()) {
      if (verb != "parameters") documented.insert(fmt::format("{} {}", verb, path));
    }
  }
  std::set<std::string> served;
  for (const RouteName& route : route_names())
    EXPECT_TRUE(served.insert(lower(route.method) + " " + route.pattern).second);
  EXPECT_EQ(served, documented);
}

TEST(OpenApi, EveryRouteTakesTheParametersAndBodyOfTheDocument) {
  for (const RouteName& route : route_names()) {
    const Json& verb = operation(route.method, route.pattern);
    const std::string what = route.method + " " + route.pattern;
    std::set<std::string> query;
    for (const Json& parameter : verb.value("parameters", Json::array())) {
      EXPECT_EQ(parameter["in"], "query");
      query.insert(parameter["name"]);
    }
    EXPECT_EQ(query, std::set<std::string>(route.query.begin(), route.query.end())) << what;
    EXPECT_EQ(verb.contains("requestBody"), route.takes_body) << what;
    std::set<std::string> in_path;
    for (const Json& parameter :
         document()["paths"][route.pattern].value("parameters", Json::array())) {
      EXPECT_EQ(parameter["in"], "path");
      in_path.insert("{" + parameter["name"].get<std::string>() + "}");
    }
    std::set<std::string> braces;
    for (size_t at = 0; (at = route.pattern.find('{', at)) != std::string::npos; ++at)
      braces.insert(route.pattern.substr(at, route.pattern.find('}', at) - at + 1));
    EXPECT_EQ(braces, in_path) << what;
  }
}

// Calls routes as a user would and keeps which of them have answered.
class OpenApiTest : public testing::Test {
 protected:
  void SetUp() override {
    api.start();
    api.add_source("/src", 4);
    api.add_source("/src1", 1);
  }
  Answer ask(const std::string& method, const std::string& pattern, const std::string& name = {},
             const std::string& body = {}) {
    std::string path = pattern;
    if (const size_t open = path.find('{'); open != std::string::npos)
      path.replace(open, path.find('}') - open + 1, name);
    const Answer answer = api.call(method, path, body);
    const std::string what = method + " " + path + ": " + answer.text.substr(0, 500);
    const Json& responses = operation(method, pattern)["responses"];
    EXPECT_EQ(answer.status, 200) << what;
    EXPECT_TRUE(responses.contains(std::to_string(answer.status))) << what;
    const Json& content = responses["200"]["content"];
    EXPECT_EQ(content.size(), 1u);
    const std::string type = content.begin().key();
    EXPECT_TRUE(answer.type.starts_with(type)) << answer.type << " is not " << type;
    if (type == "application/json") {
      EXPECT_EQ(mistake(content[type]["schema"], answer.json, "answer"), "") << what;
    }
    if (!body.empty()) {
      const Json& request = operation(method, pattern)["requestBody"]["content"];
      EXPECT_EQ(mistake(request["application/json"]["schema"], Json::parse(body), "body"), "")
          << what;
    }
    asked.insert(method + " " + pattern);
    return answer;
  }

  // Every verb on mirrors, with every key of its body.
  void ask_of_mirrors() {
    ask("POST", "/api/v1/volumes", "", R"({"name":"copy","size":"8M"})");
    ask("POST", "/api/v1/mirrors", "",
        R"({"name":"m1","source":"db","target":"copy","mode":"sync","fence":"never","copy":"full",
            "overwrite":true,"rate":"100M"})");
    wait_for("m1", "SYNC");
    ask("POST", "/api/v1/groups", "", R"({"name":"g1","mirrors":["m1"]})");
    ask("POST", "/api/v1/groups/{name}/remove", "g1", R"({"mirrors":["m1"]})");
    ask("POST", "/api/v1/groups/{name}/add", "g1", R"({"mirrors":["m1"]})");
    ask("GET", "/api/v1/groups/{name}", "g1");
    EXPECT_EQ(ask("GET", "/api/v1/groups").json.size(), 1u);
    const std::string cut =
        ask("POST", "/api/v1/splits", "",
            R"({"names":["g1"],"pairs":[{"source":"0x400104, 0x0007","target":"0x400104, 0x0002"}],
                "access":"ro","max_hold_ms":250})")
            .json["cut"]
            .dump();
    ask("GET", "/api/v1/cuts/{id}", cut);
    EXPECT_EQ(ask("GET", "/api/v1/cuts").json.size(), 1u);
    EXPECT_EQ(ask("GET", "/api/v1/mirrors").json.size(), 1u);
    const char* plan = R"({"names":["m1"],"then":"split","online":true,"plan":true})";
    EXPECT_TRUE(ask("POST", "/api/v1/restores", "", plan).json["destroys"]);
    ask("POST", "/api/v1/restores", "", R"({"names":["m1"],"confirmed":true})");
    wait_for("m1", "SPLIT");
    ask("POST", "/api/v1/resyncs", "", R"({"names":["m1"],"disconnect":true})");
    wait_for("m1", "SYNC");
    ask("POST", "/api/v1/verifies", "", R"({"names":["m1"]})");
    api.pass(60 * rt::kSecond);
    ask("GET", "/api/v1/status");
    ask("DELETE", "/api/v1/mirrors/{name}", "m1");
    ask("DELETE", "/api/v1/groups/{name}", "g1");
    ask("DELETE", "/api/v1/volumes/{name}", "copy");
  }
  void wait_for(const std::string& mirror, const std::string& state) {
    for (int i = 0; i < 60; ++i) {
      if (ask("GET", "/api/v1/mirrors/{name}", mirror).json["state"] == state) return;
      api.pass(rt::kSecond);
    }
    FAIL() << mirror << " does not become " << state;
  }

  TestApi api;
  std::set<std::string> asked;
};

TEST_F(OpenApiTest, EveryRouteAnswersAsTheDocumentSays) {
  ask("POST", "/api/v1/devices", "",
      R"({"path":"/d1","name":"d1","size":"32M","extent_size":"64K","overwrite":false})");
  const Answer created =
      ask("POST", "/api/v1/volumes", "",
          R"({"name":"db","size":"8M","id":"0x0007","backing":"B1","device":"d1","thick":false})");
  EXPECT_EQ(created.json["created_now"], true);
  ask("POST", "/api/v1/volumes", "", R"({"name":"v2","size":1048576})");
  const Answer job =
      ask("POST", "/api/v1/volumes/{name}/import", "db", R"({"path":"/src","overwrite":true})");
  const std::string id = job.json["id"].dump();
  ask("POST", "/api/v1/jobs/{id}/rate", id, R"({"rate":"1M"})");
  ask("POST", "/api/v1/jobs/{id}/pause", id);
  EXPECT_EQ(ask("GET", "/api/v1/status").json["lines"].size(), 1u);
  ask("POST", "/api/v1/jobs/{id}/resume", id);
  api.pass(60 * rt::kSecond);
  EXPECT_EQ(ask("GET", "/api/v1/jobs/{id}", id).json["state"], "done");
  EXPECT_EQ(ask("GET", "/api/v1/jobs").json.size(), 1u);
  const Answer other = ask("POST", "/api/v1/volumes/{name}/import", "v2", R"({"path":"/src1"})");
  EXPECT_EQ(other.status, 200);
  ask("POST", "/api/v1/jobs/{id}/cancel", other.json["id"].dump());
  EXPECT_EQ(ask("GET", "/api/v1/volumes").json.size(), 2u);
  ask("GET", "/api/v1/volumes/{name}", "0x0007");
  EXPECT_GE(ask("GET", "/api/v1/volumes/{name}/extents", "db").json.size(), 3u);
  ask("PATCH", "/api/v1/volumes/{name}", "v2", R"({"size":"4M","discard":false})");
  EXPECT_EQ(ask("GET", "/api/v1/devices").json.size(), 1u);
  EXPECT_GE(ask("GET", "/api/v1/devices/{name}", "d1").json["map"].size(), 2u);
  ask("POST", "/api/v1/devices/{name}/resize", "d1");
  ask("GET", "/api/v1/pool");
  EXPECT_EQ(ask("GET", "/api/v1/backings").json.size(), 2u);
  EXPECT_GE(ask("GET", "/api/v1/events").json.size(), 3u);
  ask_of_mirrors();
  for (const char* volume : {"db", "v2"}) ask("DELETE", "/api/v1/volumes/{name}", volume);
  api.pass(5 * rt::kSecond);
  ask("DELETE", "/api/v1/devices/{name}", "d1");
  ask("GET", "/api/v1/openapi.json");
  ask("GET", "/api/v1/support");
  ask("GET", "/metrics");
  for (const RouteName& route : route_names())
    EXPECT_TRUE(asked.contains(route.method + " " + route.pattern)) << route.pattern;
}

TEST_F(OpenApiTest, EveryRefusalHasTheFormAndStatusOfTheDocument) {
  api.add_device("/d1");
  api.add_volume("db", kMiB);
  struct Case {
    int status;
    std::string code, method, path, body;
  };
  const Case cases[] = {
      {404, "e_novol", "GET", "/api/v1/volumes/none", ""},
      {404, "e_novol", "DELETE", "/api/v1/volumes/0x0009", ""},
      {404, "e_novol", "PATCH", "/api/v1/volumes/none", R"({"size":"1M"})"},
      {404, "e_novol", "GET", "/api/v1/volumes/none/extents", ""},
      {404, "e_novol", "POST", "/api/v1/volumes/none/import", R"({"path":"/src"})"},
      {404, "e_noname", "GET", "/api/v1/volumes/other:db", ""},
      {404, "e_nodev", "GET", "/api/v1/devices/none", ""},
      {404, "e_nodev", "DELETE", "/api/v1/devices/none", ""},
      {404, "e_nodev", "POST", "/api/v1/devices/none/resize", ""},
      {404, "e_nodev", "POST", "/api/v1/devices", R"({"path":"/none"})"},
      {404, "e_nodev", "POST", "/api/v1/volumes", R"({"name":"a","size":"1M","device":"none"})"},
      {404, "e_noname", "GET", "/api/v1/jobs/7", ""},
      {404, "e_noname", "POST", "/api/v1/jobs/7/pause", ""},
      {404, "e_noname", "POST", "/api/v1/jobs/7/resume", ""},
      {404, "e_noname", "POST", "/api/v1/jobs/7/cancel", ""},
      {404, "e_noname", "POST", "/api/v1/jobs/7/rate", R"({"rate":1})"},
      {409, "e_exists", "POST", "/api/v1/volumes", R"({"name":"db","size":"2M"})"},
      {409, "e_exists", "POST", "/api/v1/volumes", R"({"name":"a","size":"2M","id":"0x0001"})"},
      {409, "e_exists", "POST", "/api/v1/volumes", R"({"name":"a","size":"2M","backing":"PD1"})"},
      {409, "e_state", "DELETE", "/api/v1/devices/d1", ""},
      {400, "e_size", "POST", "/api/v1/volumes/db/import", R"({"path":"/src"})"},
      {400, "e_size", "POST", "/api/v1/volumes", R"({"name":"a","size":0})"},
      {400, "e_size", "POST", "/api/v1/devices", R"({"path":"/d2","size":"1M"})"},
      {507, "e_nospace", "POST", "/api/v1/volumes", R"({"name":"a","size":"1G","thick":true})"},
      {404, "e_noname", "GET", "/api/v1/nothing", ""},
      {404, "e_noname", "GET", "/", ""},
      {404, "e_noname", "GET", "/api/v1/volumes/", ""},
      {404, "e_noname", "GET", "/api/v1/volumes/a/b/c", ""},
      {405, "e_noname", "PUT", "/api/v1/volumes", ""},
      {405, "e_noname", "DELETE", "/api/v1/status", ""},
  };
  const Json& form = document()["components"]["schemas"]["Error"];
  for (const Case& one : cases) {
    test::expect_refusal(api, one.status, one.code, one.method, one.path, one.body);
    EXPECT_EQ(mistake(form, api.call(one.method, one.path, one.body).json, "answer"), "");
  }
}

TEST(OpenApi, EveryRouteAnswersErrorsInTheOneForm) {
  for (const RouteName& route : route_names()) {
    const Json& other = operation(route.method, route.pattern)["responses"]["default"];
    EXPECT_EQ(other["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Error");
  }
}

}  // namespace
}  // namespace duplex::api
