// Verbs asked again: the same is success, anything else is refused; and what they leave behind.
#include "api/test_api.h"

namespace duplex::api {
namespace {

using test::Answer;
using test::expect_refusal;
using test::Json;
using test::TestApi;

class VerbsTest : public testing::Test {
 protected:
  void SetUp() override { api.start(); }
  // Asks again; the answer is the same but for what the array counts.
  void same_again(const std::string& path, const Json& body, const Answer& first) {
    const Json before = api.everything();
    const Answer again = api.post(path, body);
    ASSERT_EQ(again.status, 200) << again.text;
    Json expected = first.json;
    EXPECT_EQ(expected["created_now"], true);
    expected["created_now"] = false;
    EXPECT_EQ(again.json, expected);
    EXPECT_EQ(api.everything(), before);
  }
  void restart() {
    api.crash();
    api.start();
  }

  TestApi api;
};

const Json kDevice = {{"path", "/d1"}, {"size", "16M"}, {"extent_size", "64K"}};

TEST_F(VerbsTest, AVolumeCreatedAgainIsTheSameOne) {
  api.add_device();
  const Json body = {
      {"name", "db"}, {"size", "1M"}, {"device", "d1"}, {"backing", "B"}, {"id", "0x0005"}};
  const Answer first = api.post("/api/v1/volumes", body);
  ASSERT_EQ(first.status, 200) << first.text;
  same_again("/api/v1/volumes", body, first);
  same_again("/api/v1/volumes", {{"name", "db"}, {"size", kMiB}, {"device", "d1"}}, first);
  same_again("/api/v1/volumes", {{"name", "db"}, {"size", kMiB - 1}, {"device", "d1"}}, first);
  restart();
  same_again("/api/v1/volumes", body, first);
}

TEST_F(VerbsTest, AVolumeCreatedAgainWithAnotherDefinitionIsRefused) {
  api.add_device();
  const Json body = {{"name", "db"}, {"size", "1M"}};
  ASSERT_EQ(api.post("/api/v1/volumes", body).status, 200);
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{
           {"size", "2M"}, {"thick", true}, {"device", "d1"}, {"backing", "B"}, {"id", "0x0002"}}) {
    Json other = body;
    other[key] = value;
    expect_refusal(api, 409, "e_exists", "POST", "/api/v1/volumes", other.dump());
  }
}

TEST_F(VerbsTest, AResizeToTheSameSizeIsSuccess) {
  api.add_device();
  api.add_volume("db", kMiB);
  for (int i = 0; i < 2; ++i) {
    const Answer answer = api.call("PATCH", "/api/v1/volumes/db", R"({"size":"2M"})");
    ASSERT_EQ(answer.status, 200) << answer.text;
    EXPECT_EQ(answer.json["size"], 2 * kMiB);
  }
  EXPECT_EQ(api.count_events("volume_resized"), 1u);
  restart();
  EXPECT_EQ(api.get("/api/v1/volumes/db").json["size"], 2 * kMiB);
}

TEST_F(VerbsTest, ADeviceAddedAgainIsTheSameOne) {
  const Answer first = api.post("/api/v1/devices", kDevice);
  ASSERT_EQ(first.status, 200) << first.text;
  same_again("/api/v1/devices", kDevice, first);
  same_again("/api/v1/devices", {{"path", "/d1"}}, first);
  same_again("/api/v1/devices", {{"path", "/d1"}, {"name", "d1"}}, first);
  same_again("/api/v1/devices", {{"path", "/d1"}, {"overwrite", true}}, first);
  restart();
  same_again("/api/v1/devices", kDevice, first);
  api.add_volume("db", kMiB);
  ASSERT_TRUE(api.write("db", 0, kMiB));
  const Answer again = api.post("/api/v1/devices", {{"path", "/d1"}, {"overwrite", true}});
  EXPECT_EQ(again.json["extents_used"], 16) << "what is on it stays";
}

TEST_F(VerbsTest, ADeviceAddedAgainWithAnotherDefinitionIsRefused) {
  ASSERT_EQ(api.post("/api/v1/devices", kDevice).status, 200);
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{
           {"name", "other"}, {"size", "32M"}, {"extent_size", "128K"}}) {
    Json other = kDevice;
    other[key] = value;
    expect_refusal(api, 409, "e_exists", "POST", "/api/v1/devices", other.dump());
  }
  // Another path with the name of this one.
  expect_refusal(api, 409, "e_exists", "POST", "/api/v1/devices",
                 R"({"path":"/x/d1","size":"16M"})");
}

TEST_F(VerbsTest, ADeviceAddedTwiceAtOnceIsAddedOnce) {
  const auto ask = [&] {
    return api.sim.start(
        api.box.control(),
        handle(*api.array, TestApi::request_of("POST", "/api/v1/devices", kDevice.dump())));
  };
  const auto one = ask();
  const auto two = ask();
  ASSERT_TRUE(api.sim.finish(*one) && api.sim.finish(*two));
  const Json first = TestApi::answer_of(*one->value).json;
  const Json second = TestApi::answer_of(*two->value).json;
  EXPECT_EQ(first["uuid"], second["uuid"]);
  EXPECT_NE(first["created_now"], second["created_now"]);
  EXPECT_EQ(api.get("/api/v1/devices").json.size(), 1u);
}

TEST_F(VerbsTest, AVolumeCreatedTwiceAtOnceIsCreatedOnce) {
  api.add_device();
  const auto ask = [&] {
    return api.sim.start(api.box.control(),
                         handle(*api.array, TestApi::request_of("POST", "/api/v1/volumes",
                                                                R"({"name":"db","size":"1M"})")));
  };
  const auto one = ask();
  const auto two = ask();
  ASSERT_TRUE(api.sim.finish(*one) && api.sim.finish(*two));
  EXPECT_EQ(one->value->status + two->value->status, 200 + 409) << "one is told to try again";
  EXPECT_EQ(api.get("/api/v1/volumes").json.size(), 1u);
}

TEST_F(VerbsTest, ADeletedVolumeIsGoneAfterARestartAndItsBackingsNumberIsNotUsedAgain) {
  api.add_device();
  api.add_volume("a", kMiB);
  api.add_volume("b", kMiB);
  ASSERT_EQ(api.get("/api/v1/volumes/b").json["backing"], "PD2");
  ASSERT_EQ(api.call("DELETE", "/api/v1/volumes/b").status, 200);
  expect_refusal(api, 404, "e_novol", "DELETE", "/api/v1/volumes/b");
  restart();
  expect_refusal(api, 404, "e_novol", "GET", "/api/v1/volumes/b");
  api.add_volume("b", kMiB);
  EXPECT_EQ(api.get("/api/v1/volumes/b").json["backing"], "PD3");
  EXPECT_EQ(api.get("/api/v1/volumes/b").json["id"], "0x0002") << "numbers of volumes are";
  restart();
  EXPECT_EQ(api.get("/api/v1/backings").json.size(), 2u);
}

TEST_F(VerbsTest, AnsweredVerbsSurviveAPowerCut) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    TestApi cut(seed);
    cut.start();
    ASSERT_EQ(cut.post("/api/v1/devices", kDevice).status, 200);
    ASSERT_EQ(cut.post("/api/v1/volumes", {{"name", "db"}, {"size", "1M"}}).status, 200);
    cut.crash();
    cut.start();
    EXPECT_EQ(cut.get("/api/v1/devices/d1").json["state"], "online") << "seed " << seed;
    EXPECT_EQ(cut.get("/api/v1/volumes/db").json["size"], kMiB) << "seed " << seed;
    EXPECT_TRUE(cut.write("db", 0, kBlockBytes)) << "seed " << seed;
  }
}

TEST_F(VerbsTest, AVolumeInUseIsDeletedOnlyByForce) {
  api.add_device();
  api.add_volume("db", kMiB);
  auto& volumes = api.array->volumes();
  std::unique_ptr<volume::OpenVolume> open;
  auto opened = volumes.open("db", "nbd host", [&] { volumes.close(std::move(open)); });
  ASSERT_TRUE(opened);
  open = std::move(*opened);
  expect_refusal(api, 409, "e_busy", "DELETE", "/api/v1/volumes/db");
  expect_refusal(api, 409, "e_busy", "DELETE", "/api/v1/volumes/db?disconnect=false");
  const Answer answer = api.call("DELETE", "/api/v1/volumes/db?disconnect=true");
  EXPECT_EQ(answer.status, 200) << answer.text;
  EXPECT_EQ(open, nullptr);
}

TEST_F(VerbsTest, AShrinkThatWouldLoseDataNeedsItsConsent) {
  api.add_device();
  api.add_volume("db", kMiB);
  ASSERT_TRUE(api.write("db", kMiB / 2, kBlockBytes));
  expect_refusal(api, 409, "e_state", "PATCH", "/api/v1/volumes/db", R"({"size":"64K"})");
  const Answer answer = api.call("PATCH", "/api/v1/volumes/db", R"({"size":"64K","discard":true})");
  EXPECT_EQ(answer.status, 200) << answer.text;
  EXPECT_EQ(api.get("/api/v1/volumes/db").json["allocated"], 0);
}

TEST_F(VerbsTest, AJobIsWaitedForAtMostAsLongAsAsked) {
  api.add_device("/d1", 40 * kMiB);
  api.add_volume("db", 8 * kMiB);
  api.add_source("/src", 8);
  const Answer job = api.post("/api/v1/volumes/db/import", {{"path", "/src"}});
  ASSERT_EQ(job.status, 200) << job.text;
  ASSERT_EQ(api.post("/api/v1/jobs/1/rate", {{"rate", "1M"}}).json["rate"], kMiB);
  const rt::Micros before = api.sim.now();
  EXPECT_EQ(api.get("/api/v1/jobs/1").json["state"], "running");
  EXPECT_LT(api.sim.now() - before, rt::kSecond);
  EXPECT_EQ(api.get("/api/v1/jobs/1?timeout=3").json["state"], "running");
  EXPECT_GE(api.sim.now() - before, 3 * rt::kSecond);
  const Json done = api.get("/api/v1/jobs/1?timeout=60").json;
  EXPECT_LT(api.sim.now() - before, 12 * rt::kSecond) << "its end ends the wait";
  EXPECT_EQ(done["state"], "done");
  EXPECT_EQ(done["progress"], 100.0);
  EXPECT_EQ(done["bytes_done"], done["bytes_total"]);
}

}  // namespace
}  // namespace duplex::api
