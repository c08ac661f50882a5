// Mirrors, groups and cuts through the API: refusals that change nothing, names, what is shown.
#include "api/test_api.h"

namespace duplex::api {
namespace {

using test::Answer;
using test::expect_refusal;
using test::Json;
using test::TestApi;

class MirrorsApiTest : public testing::Test {
 protected:
  void SetUp() override {
    api.start();
    api.add_device("/d1", 40 * kMiB);
    for (const char* name : {"db", "log", "db2", "log2"}) api.add_volume(name, 4 * kMiB);
  }
  void create(const std::string& name, const std::string& source, const std::string& target) {
    const Answer made =
        api.post("/api/v1/mirrors", {{"name", name}, {"source", source}, {"target", target}});
    ASSERT_EQ(made.status, 200) << made.text;
    wait_for(name, "SYNC");
  }
  void create_both() {
    create("m1", "db", "0x0003");
    create("m2", "a1:log", "0x400104, 0x0004");
  }
  void wait_for(const std::string& name, const std::string& state) {
    for (int i = 0; i < 60; ++i) {
      if (mirror(name)["state"] == state) return;
      api.pass(rt::kSecond);
    }
    FAIL() << name << " does not become " << state << ": " << mirror(name).dump();
  }
  Json mirror(const std::string& name) { return api.get("/api/v1/mirrors/" + name).json; }

  TestApi api;
};

// Mutation: create_mirror() takes the names as they are.
TEST_F(MirrorsApiTest, VolumesAreNamedInEveryFormThatVolumesHave) {
  create_both();
  EXPECT_EQ(mirror("m1")["target"], "db2");
  EXPECT_EQ(mirror("m1")["target_id"], "0x0003");
  EXPECT_EQ(mirror("m2")["source"], "log");
  EXPECT_EQ(mirror("m2")["source_array"], "0x400104");
  expect_refusal(api, 404, "e_noname", "POST", "/api/v1/mirrors",
                 R"({"name":"m3","source":"other:db","target":"db2"})");
}

TEST_F(MirrorsApiTest, ACreatedMirrorCreatedAgainIsTheSameOne) {
  create("m1", "db", "db2");
  const Json body = {{"name", "m1"}, {"source", "db"}, {"target", "db2"}};
  const Answer again = api.post("/api/v1/mirrors", body);
  ASSERT_EQ(again.status, 200) << again.text;
  EXPECT_EQ(again.json["created_now"], false);
}

// Mutation: check_local() is left out.
TEST_F(MirrorsApiTest, WhatNeedsAnotherArrayOrIsNoRequestAtAllIsRefused) {
  const auto refused = [&](int status, const std::string& code, const std::string& path,
                           const Json& body) {
    expect_refusal(api, status, code, "POST", "/api/v1/" + path, body.dump());
  };
  const Json local = {{"name", "m1"}, {"source", "db"}, {"target", "db2"}};
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, Json>>{{"mode", "async"}, {"fence", "data"}}) {
    Json body = local;
    body[key] = value;
    refused(501, "e_notsup", "mirrors", body);
    body[key] = "fast";
    refused(400, "e_invalid", "mirrors", body);
  }
  refused(404, "e_novol", "mirrors", {{"name", "m1"}, {"source", "db"}, {"target", "none"}});
  for (const char* verb : {"resyncs", "restores", "verifies", "splits"}) {
    refused(400, "e_invalid", verb, Json::object());
    refused(400, "e_invalid", verb, {{"names", "m1"}});
    refused(400, "e_invalid", verb, {{"names", {"m1", ""}}});
    refused(400, "e_invalid", verb, {{"names", {"m1", 7}}});
    refused(400, "e_invalid", verb, {{"names", {"m1"}}, {"nonsense", 1}});
    refused(404, "e_noname", verb, {{"names", {"m1"}}});
  }
  for (const Json& hold : {Json(0), Json(10'001), Json(-1), Json("250ms"), Json(1.5)})
    refused(400, "e_invalid", "splits", {{"names", {"m1"}}, {"max_hold_ms", hold}});
  refused(400, "e_invalid", "restores", {{"names", {"m1"}}, {"then", "again"}});
  expect_refusal(api, 400, "e_invalid", "GET", "/api/v1/cuts/first");
  expect_refusal(api, 404, "e_noname", "GET", "/api/v1/cuts/7");
  expect_refusal(api, 404, "e_noname", "DELETE", "/api/v1/mirrors/m1");
  expect_refusal(api, 404, "e_noname", "GET", "/api/v1/groups/g1");
}

// Mutation: pairs_of() ignores what it does not know.
TEST_F(MirrorsApiTest, PairsComeAsAFileOrAsAListAndAWrongEntrySplitsNothing) {
  create_both();
  const std::string text =
      "PVOL ID 1 0x400104, 0x0001\nSVOL ID 1 0x400104, 0x0003\n"
      "PVOL ID 2 0x400104, 0x0002\nSVOL ID 2 0x400104, 0x0004\n";
  const Json entry = {{"source", "0x400104, 0x0001"}, {"target", "0x400104, 0x0003"}};
  const Json more = {{"source", "0x400104, 0x0001"}, {"target", "0x400104, 0x0003"}, {"x", 1}};
  for (const Json& wrong :
       {Json("PVOL"), Json(""), Json(7), Json::array({1}), Json::array({Json::object()}),
        Json::array({entry, {{"source", "0x400104, 0x0001"}, {"target", "db2"}}}),
        Json::array({more}),
        Json::array({{{"source", "0x400104,0x1\n0x400104,0x1\n0x400104,0x1"},
                      {"target", "0x400104,0x3"}}})}) {
    expect_refusal(api, 400, "e_invalid", "POST", "/api/v1/splits", Json{{"pairs", wrong}}.dump());
  }
  expect_refusal(api, 404, "e_noname", "POST", "/api/v1/splits",
                 Json{{"pairs", text + "0x400104,0x0001\n0x421014,0x0005\n"}}.dump());
  expect_refusal(api, 404, "e_noname", "POST", "/api/v1/splits",
                 Json{{"pairs", text + "0x400104,0x0001\n0x400104,0x0002\n"}}.dump());
  const Answer cut = api.post("/api/v1/splits", {{"pairs", text}});
  ASSERT_EQ(cut.status, 200) << cut.text;
  EXPECT_EQ(cut.json["members"].size(), 2u);
  EXPECT_EQ(cut.json["certified"], true);
  EXPECT_TRUE(cut.json["hold_us"].is_number());
  EXPECT_EQ(mirror("m1")["cut"], cut.json["cut"]);
  EXPECT_EQ(mirror("m1")["access"], "rw");
}

// Mutation: create_volume() does not ask for groups, or create_group() not for volumes.
TEST_F(MirrorsApiTest, AVolumeAndAGroupNeverShareAName) {
  create_both();
  expect_refusal(api, 409, "e_exists", "POST", "/api/v1/groups",
                 R"({"name":"db","mirrors":["m1"]})");
  ASSERT_EQ(api.post("/api/v1/groups", {{"name", "all"}, {"mirrors", {"m1", "m2"}}}).status, 200);
  expect_refusal(api, 409, "e_exists", "POST", "/api/v1/volumes", R"({"name":"all","size":"1M"})");
  ASSERT_EQ(api.call("DELETE", "/api/v1/groups/all").status, 200);
  EXPECT_EQ(api.post("/api/v1/volumes", {{"name", "all"}, {"size", "1M"}}).status, 200);
}

// Mutation: create_group() does not look at the volumes that are being created.
TEST_F(MirrorsApiTest, AVolumeAndAGroupCreatedAtTheSameTimeDoNotGetOneName) {
  create_both();
  auto& core = api.box.control();
  const auto volume =
      api.sim.start(core, handle(*api.array, TestApi::request_of("POST", "/api/v1/volumes",
                                                                 R"({"name":"new","size":"1M"})")));
  const auto group = api.sim.start(
      core, handle(*api.array, TestApi::request_of("POST", "/api/v1/groups",
                                                   R"({"name":"new","mirrors":["m1"]})")));
  api.pass(10 * rt::kSecond);
  ASSERT_TRUE(volume->done && group->done);
  EXPECT_EQ(volume->value->status, 200);
  EXPECT_EQ(group->value->status, 409);
}

TEST_F(MirrorsApiTest, AnEmptiedGroupStaysAndCannotBeSplit) {
  create_both();
  ASSERT_EQ(api.post("/api/v1/groups", {{"name", "g"}, {"mirrors", {"m1"}}}).status, 200);
  const Json more = api.post("/api/v1/groups/g/add", {{"mirrors", {"m2"}}}).json;
  EXPECT_EQ(more["mirrors"], Json({"m1", "m2"}));
  EXPECT_EQ(mirror("m1")["groups"], Json({"g"}));
  EXPECT_EQ(api.post("/api/v1/groups/g/remove", {{"mirrors", {"m1", "m2"}}}).json["mirrors"],
            Json::array());
  expect_refusal(api, 409, "e_state", "POST", "/api/v1/splits", R"({"names":["g"]})");
  expect_refusal(api, 400, "e_invalid", "POST", "/api/v1/groups/g/add", "{}");
  EXPECT_EQ(api.get("/api/v1/groups").json,
            Json::array({{{"name", "g"}, {"mirrors", Json::array()}}}));
}

// Mutation: a suspended mirror is not told in status.
TEST_F(MirrorsApiTest, StatusAndMetricsCountMirrorsByState) {
  create("m1", "db", "db2");
  ASSERT_EQ(api.post("/api/v1/mirrors",
                     {{"name", "m2"}, {"source", "log"}, {"target", "log2"}, {"rate", 1}})
                .status,
            200);
  Json mirrors = api.get("/api/v1/status").json["mirrors"];
  EXPECT_EQ(mirrors["count"], 2);
  EXPECT_EQ(mirrors["last_cut"], Json(nullptr));
  ASSERT_EQ(api.post("/api/v1/splits", {{"names", {"m1"}}}).status, 200);
  mirrors = api.get("/api/v1/status").json["mirrors"];
  EXPECT_EQ(mirrors["states"]["SPLIT"], 1);
  EXPECT_EQ(mirrors["states"]["SUSPENDED"], 0);
  EXPECT_TRUE(mirrors["last_hold_us"].is_number());
  const std::string page = api.get("/metrics").text;
  for (const char* line :
       {"duplex_mirrors{state=\"SPLIT\"} 1\n", "duplex_mirrors{state=\"REVERSE\"} 0\n",
        "duplex_mirror_changed_bytes{mirror=\"m1\",side=\"source\"} 0\n",
        "duplex_mirror_missing_bytes{mirror=\"m1\"} 0\n", "\nduplex_last_cut_hold_seconds 0."})
    EXPECT_TRUE(page.contains(line)) << line;
}

// Mutation: restore() does not look at `confirmed`: db is overwritten.
TEST_F(MirrorsApiTest, ARestoreWithoutConsentIsRefusedWithItsPlan) {
  create("m1", "db", "db2");
  ASSERT_EQ(api.post("/api/v1/splits", {{"names", {"m1"}}}).status, 200);
  const Json names = {{"names", {"m1"}}};
  expect_refusal(api, 409, "e_state", "POST", "/api/v1/restores", names.dump());
  std::string told = api.post("/api/v1/restores", names).text;
  EXPECT_TRUE(told.contains("nothing of it is overwritten")) << told;
  ASSERT_TRUE(api.write("db", 0, 2 * kMiB));
  expect_refusal(api, 409, "e_state", "POST", "/api/v1/restores", names.dump());
  told = api.post("/api/v1/restores", names).text;
  EXPECT_TRUE(told.contains("at most 2M of it") && told.contains("'confirmed'")) << told;
  EXPECT_EQ(mirror("m1")["changed_bytes"], 2 * kMiB);
  const Json agreed = {{"names", {"m1"}}, {"confirmed", true}};
  ASSERT_EQ(api.post("/api/v1/restores", agreed).status, 200);
  wait_for("m1", "SPLIT");
  EXPECT_EQ(mirror("m1")["changed_bytes"], 0);
}

// Mutation: trouble_of() answers nothing.
TEST_F(MirrorsApiTest, ASourceThatIsHalfRestoredIsShownWithWhatHelps) {
  create("m1", "db", "db2");
  ASSERT_EQ(api.post("/api/v1/splits", {{"names", {"m1"}}}).status, 200);
  ASSERT_TRUE(api.write("db", 0, 2 * kMiB));
  api.box.disk().find("/d1")->faults.write_error = 1;  // the restore stands still
  const Json agreed = {{"names", {"m1"}}, {"confirmed", true}};
  ASSERT_EQ(api.post("/api/v1/restores", agreed).status, 200);
  ASSERT_EQ(api.call("POST", "/api/v1/jobs/m1/pause").status, 200);
  api.box.disk().find("/d1")->faults.write_error = 0;
  ASSERT_EQ(api.call("POST", "/api/v1/jobs/m1/cancel?confirmed=true").status, 200);
  wait_for("m1", "SPLIT");
  const Json db = api.get("/api/v1/volumes/db").json;
  EXPECT_EQ(db["consistent"], false);
  EXPECT_EQ(db["next"], "duplex mirror restore m1");
  EXPECT_EQ(mirror("m1")["source_consistent"], false);
  const Json lines = api.get("/api/v1/status").json["lines"];
  const bool is_told = std::ranges::any_of(lines, [](const Json& line) {
    return line["severity"] == "error" && line["next"] == "duplex mirror restore m1";
  });
  EXPECT_TRUE(is_told) << lines;
  ASSERT_EQ(api.call("DELETE", "/api/v1/mirrors/m1").status, 200);
  const std::string next = api.get("/api/v1/volumes/db").json["next"];
  EXPECT_TRUE(next.contains("mirror create NAME SOURCE db --overwrite")) << next;
}

// Mutation: as_target() has a copy that runs told in status.
TEST_F(MirrorsApiTest, ATargetThatIsHalfCopiedIsToldOfWhenNobodyCopiesToItAnyMore) {
  ASSERT_TRUE(api.write("db", 0, 2 * kMiB));
  const Json slow = {{"name", "m1"}, {"source", "db"}, {"target", "db2"}, {"rate", 65536}};
  ASSERT_EQ(api.post("/api/v1/mirrors", slow).status, 200);
  EXPECT_EQ(api.get("/api/v1/volumes/db2").json["next"], "duplex job wait m1");
  EXPECT_EQ(api.get("/api/v1/status").json["ok"], true);
  ASSERT_EQ(api.call("DELETE", "/api/v1/mirrors/m1").status, 200);
  const Json line = api.get("/api/v1/status").json["lines"][0];
  EXPECT_EQ(line["severity"], "error");
  EXPECT_TRUE(line["text"].get<std::string>().starts_with("volume db2 is inconsistent")) << line;
  EXPECT_TRUE(line["next"].get<std::string>().contains("SOURCE db2 --overwrite")) << line;
  const Json again = {{"name", "m1"}, {"source", "db"}, {"target", "db2"}, {"overwrite", true}};
  ASSERT_EQ(api.post("/api/v1/mirrors", again).status, 200);
  wait_for("m1", "SYNC");
  EXPECT_EQ(api.get("/api/v1/volumes/db2").json["trouble"], Json(nullptr));
  EXPECT_EQ(api.get("/api/v1/status").json["ok"], true);
}

// Mutation: refusal() names the mirror although it was asked for by a group.
TEST_F(MirrorsApiTest, ASplitOfASplitGroupNamesTheGroupInItsNextStep) {
  create_both();
  ASSERT_EQ(api.post("/api/v1/groups", {{"name", "g"}, {"mirrors", {"m1", "m2"}}}).status, 200);
  ASSERT_EQ(api.post("/api/v1/splits", {{"names", {"g"}}}).status, 200);
  const auto next = [&](const Json& names) {
    return api.post("/api/v1/splits", {{"names", names}}).next();
  };
  EXPECT_EQ(next({"g"}), "duplex mirror resync g");
  EXPECT_EQ(next({"m1"}), "duplex mirror resync m1");
  EXPECT_EQ(next({"g", "m1"}), "duplex mirror resync m1");
}

// Mutation: job_id() takes numbers only.
TEST_F(MirrorsApiTest, AJobIsFoundByTheNameOfItsMirror) {
  ASSERT_TRUE(api.write("db", 0, 2 * kMiB));
  ASSERT_EQ(api.post("/api/v1/mirrors",
                     {{"name", "m1"}, {"source", "db"}, {"target", "db2"}, {"rate", 65536}})
                .status,
            200);
  const Json job = api.get("/api/v1/jobs/m1").json;
  EXPECT_EQ(job["kind"], "copy");
  EXPECT_EQ(job["mirror"], "m1");
  EXPECT_EQ(job["id"], mirror("m1")["job"]);
  EXPECT_EQ(api.call("POST", "/api/v1/jobs/m1/pause").json["state"], "paused");
  EXPECT_EQ(api.call("POST", "/api/v1/jobs/m1/resume").json["state"], "running");
  EXPECT_EQ(api.post("/api/v1/jobs/m1/rate", {{"rate", 0}}).json["rate"], 0);
  EXPECT_EQ(api.get("/api/v1/jobs/m1?timeout=60").json["state"], "done");
  wait_for("m1", "SYNC");
  expect_refusal(api, 404, "e_noname", "GET", "/api/v1/jobs/m2");
}

// Mutation: the array opens its mirrors without what the start found of marks.
TEST_F(MirrorsApiTest, AMirrorThatWasInSyncIsInSyncAgainAfterAKillAndAPowerCut) {
  create("m1", "db", "db2");
  for (const bool power : {false, true}) {
    ASSERT_TRUE(api.write("db", kMiB, kBlockBytes));
    api.crash(power);
    api.start();
    wait_for("m1", "SYNC");
    api.pass(rt::kSecond);
    for (const Json& job : api.get("/api/v1/jobs").json) EXPECT_NE(job["state"], "running");
  }
}

// Mutation: Array::stop() leaves the mirrors out.
TEST_F(MirrorsApiTest, AStopLeavesNoJobBehindAndTheMirrorInSync) {
  create("m1", "db", "db2");
  ASSERT_TRUE(api.write("db", kMiB, kBlockBytes));
  const size_t jobs = api.get("/api/v1/jobs").json.size();
  api.stop();
  api.start();
  EXPECT_EQ(mirror("m1")["state"], "SYNC");
  EXPECT_EQ(api.get("/api/v1/jobs").json.size(), jobs) << "nothing was copied";
}

}  // namespace
}  // namespace duplex::api
