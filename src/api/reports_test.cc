// Status: worst first, ten lines at most, each with a next step. Metrics: what Prometheus reads.
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "api/test_api.h"

namespace duplex::api {
namespace {

using test::Json;
using test::TestApi;

class ReportsTest : public testing::Test {
 protected:
  void SetUp() override { api.start(); }
  // Checked for what holds of every status.
  Json status() {
    const Json json = api.get("/api/v1/status").json;
    const Json& lines = json["lines"];
    EXPECT_LE(lines.size(), 10u);
    int worst = 2;
    bool attention = false;
    for (size_t i = 0; i < lines.size(); ++i) {
      EXPECT_NE(lines[i]["text"], "");
      EXPECT_NE(lines[i]["next"], "") << lines[i];
      const std::string severity = lines[i]["severity"];
      const int weight = severity == "error" ? 2 : severity == "warning" ? 1 : 0;
      EXPECT_LE(weight, worst) << "the worst comes first: " << lines;
      worst = weight;
      attention = attention || weight > 0;
    }
    EXPECT_EQ(json["ok"], !attention);
    return json;
  }
  std::string first_line() {
    const Json json = status();
    return json["lines"].empty() ? "" : json["lines"][0]["text"].get<std::string>();
  }
  bool ok() { return status()["ok"]; }
  void run_failing_import(const std::string& volume) {
    api.box.disk().find("/src")->faults.read_error = 1;
    ASSERT_EQ(api.post("/api/v1/volumes/" + volume + "/import", {{"path", "/src"}}).status, 200);
    api.pass(10 * rt::kSecond);
    api.box.disk().find("/src")->faults.read_error = 0;
  }

  TestApi api;
};

TEST_F(ReportsTest, AnArrayWithoutADeviceAsksForOne) {
  EXPECT_FALSE(ok());
  EXPECT_EQ(status()["lines"][0]["next"], "duplex device add PATH --size 20G");
}

TEST_F(ReportsTest, AHealthyArrayHasNothingToSay) {
  api.add_device();
  api.add_volume("db", kMiB);
  const Json json = status();
  EXPECT_EQ(json["ok"], true);
  EXPECT_TRUE(json["lines"].empty());
  EXPECT_EQ(json["array"], "a1");
  EXPECT_EQ(json["id"], "0x400104");
  EXPECT_EQ(json["volumes"], 1);
  EXPECT_EQ(json["devices"], 1);
  EXPECT_EQ(json["reactors"], 2);
  EXPECT_EQ(json["pool"]["promised"], kMiB);
}

TEST_F(ReportsTest, AStateDirectoryThatTakesNoChangesComesFirst) {
  api.add_device();
  api.add_volume("db", kMiB);
  ASSERT_TRUE(api.write("db", 0, kBlockBytes));
  ASSERT_TRUE(ok());
  api.box.disk().find("/state/state.db-wal")->faults.flush_error = 1;
  EXPECT_FALSE(api.run(api.array->volumes().create(TestApi::volume_of("more", kMiB))));
  api.box.disk().find("/d1")->faults.gone = true;
  EXPECT_FALSE(api.write("db", 0, kBlockBytes));
  EXPECT_NE(first_line().find("changes are not stored: "), std::string::npos) << first_line();
  EXPECT_EQ(status()["lines"].size(), 2u);
  EXPECT_FALSE(ok());
}

TEST_F(ReportsTest, DevicesThatFailOrAreGoneComeFirst) {
  api.add_device("/d1");
  api.add_device("/d2");
  for (const char* name : {"d1", "d2"}) {
    auto volume = TestApi::volume_of(std::string("on-") + name, kMiB);
    volume.device = name;
    ASSERT_TRUE(api.run(api.array->volumes().create(volume)));
    ASSERT_TRUE(api.write(std::string("on-") + name, 0, kBlockBytes));
  }
  api.box.disk().find("/d1")->faults.read_error = 1;
  api.box.disk().find("/d1")->faults.write_error = 1;
  EXPECT_FALSE(api.write("on-d1", 0, kBlockBytes));
  EXPECT_NE(first_line().find("device d1 is failing: 0 read, 1 write"), std::string::npos)
      << first_line();
  api.box.disk().find("/d2")->faults.gone = true;
  EXPECT_FALSE(api.write("on-d2", 0, kBlockBytes));
  api.pass(2 * rt::kSecond);
  const Json json = status();
  ASSERT_EQ(json["lines"].size(), 2u);
  EXPECT_NE(json["lines"][1]["text"].get<std::string>().find("device d2 is absent"),
            std::string::npos);
  api.box.disk().find("/d2")->faults.gone = false;
  api.pass(5 * rt::kSecond);
  EXPECT_EQ(status()["lines"].size(), 1u) << "it is back";
}

TEST_F(ReportsTest, AFullPoolIsAWarningAndThenAnError) {
  api.add_device("/d1", 30 * kMiB);
  api.add_volume("db", 64 * kMiB);
  const uint64_t total = api.array->pool().usage().total_bytes;
  uint64_t written = 0;
  for (const auto& [percent, severity] :
       {std::pair<uint64_t, const char*>{79, ""}, {81, "warning"}, {96, "error"}}) {
    for (; written < total * percent / 100; written += TestApi::kExtent)
      ASSERT_TRUE(api.write("db", written, kBlockBytes));
    const Json lines = status()["lines"];
    EXPECT_EQ(lines.empty() ? "" : lines[0]["severity"].get<std::string>(), severity) << lines;
  }
}

TEST_F(ReportsTest, AFailedJobAsksForAttentionUntilItIsDoneAgainOrItsVolumeIsGone) {
  api.add_device();
  api.add_source("/src", 1);
  api.add_volume("a", kMiB);
  api.add_volume("b", kMiB);
  run_failing_import("a");
  EXPECT_FALSE(ok());
  EXPECT_EQ(status()["lines"][0]["next"], "duplex job show 1");
  ASSERT_EQ(api.post("/api/v1/volumes/a/import", {{"path", "/src"}}).status, 200);
  api.pass(10 * rt::kSecond);
  EXPECT_TRUE(ok());
  run_failing_import("b");
  EXPECT_FALSE(ok());
  ASSERT_EQ(api.call("DELETE", "/api/v1/volumes/b").status, 200);
  EXPECT_TRUE(ok());
}

TEST_F(ReportsTest, JobsUnderWayAreToldAndAreNoTrouble) {
  api.add_device("/d1", 40 * kMiB);
  api.add_source("/src", 8);
  api.add_volume("a", 8 * kMiB);
  ASSERT_EQ(api.post("/api/v1/volumes/a/import", {{"path", "/src"}}).status, 200);
  ASSERT_EQ(api.post("/api/v1/jobs/1/rate", {{"rate", "1M"}}).status, 200);
  EXPECT_TRUE(ok());
  EXPECT_EQ(status()["lines"][0]["next"], "duplex job wait 1");
  ASSERT_EQ(api.call("POST", "/api/v1/jobs/1/pause").status, 200);
  EXPECT_EQ(status()["lines"][0]["next"], "duplex job resume 1");
}

TEST_F(ReportsTest, MoreThanTenLinesAreCutToTheWorstTen) {
  api.add_device("/d1", 64 * kMiB);
  api.add_source("/src", 1);
  for (int i = 0; i < 12; ++i) {
    const std::string name = fmt::format("v{}", i);
    api.add_volume(name, kMiB);
    run_failing_import(name);
  }
  api.box.disk().find("/d1")->faults.write_error = 1;
  EXPECT_FALSE(api.write("v0", 0, kBlockBytes));
  const Json lines = status()["lines"];
  ASSERT_EQ(lines.size(), 10u);
  EXPECT_EQ(lines[0]["severity"], "error");
  EXPECT_EQ(lines[9]["text"], "and 4 more");
  EXPECT_EQ(lines[9]["next"], "duplex support") << "which shows all of them";
  const std::string support = api.get("/api/v1/support").text;
  EXPECT_NE(support.find("\"v11\""), std::string::npos);
}

TEST_F(ReportsTest, TheSupportPageHoldsEverythingAsOneText) {
  api.add_device();
  api.add_volume("db", kMiB);
  const auto answer = api.get("/api/v1/support");
  EXPECT_EQ(answer.type, "text/plain");
  ASSERT_TRUE(answer.json.is_object());
  EXPECT_EQ(answer.json["status"]["array"], "a1");
  EXPECT_EQ(answer.json["volumes"].size(), 1u);
  EXPECT_EQ(answer.json["devices"].size(), 1u);
  EXPECT_FALSE(answer.json["events"].empty());
  EXPECT_TRUE(answer.json["jobs"].empty());
}

// The text format of Prometheus: HELP and TYPE before the samples of a name, which stand together.
std::map<std::string, double> samples(const std::string& page) {
  static const std::regex kHead(R"(# (HELP|TYPE) ([a-z_]+) (.+))");
  static const std::regex kSample(
      R"(([a-z_]+)(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})? ([0-9.eE+-]+))");
  std::map<std::string, double> found;
  std::map<std::string, std::string> types;
  std::set<std::string> helped, closed;
  std::string current;
  std::istringstream in(page);
  for (std::string line; std::getline(in, line);) {
    std::smatch match;
    if (std::regex_match(line, match, kHead)) {
      const std::string name = match[2];
      if (match[1] == "HELP") {
        EXPECT_TRUE(helped.insert(name).second) << line;
        closed.insert(current);
        current = name;
      } else {
        EXPECT_EQ(name, current);
        EXPECT_TRUE(match[3] == "counter" || match[3] == "gauge") << line;
        types[name] = match[3];
      }
      continue;
    }
    EXPECT_TRUE(std::regex_match(line, match, kSample)) << line;
    const std::string name = match[1];
    EXPECT_EQ(name, current) << line;
    EXPECT_FALSE(closed.contains(name)) << line;
    EXPECT_TRUE(types.contains(name)) << line;
    EXPECT_EQ(types[name] == "counter", name.ends_with("_total")) << line;
    EXPECT_TRUE(found.emplace(name + match[2].str(), std::stod(match[4])).second)
        << "twice: " << line;
  }
  EXPECT_TRUE(page.ends_with('\n'));
  return found;
}

TEST_F(ReportsTest, MetricsAreInTheFormOfPrometheus) {
  api.add_device();
  api.add_volume("db", kMiB);
  ASSERT_TRUE(api.write("db", 0, 3 * kBlockBytes));
  const auto answer = api.get("/metrics");
  EXPECT_EQ(answer.type, "text/plain; version=0.0.4");
  const auto found = samples(answer.text);
  EXPECT_EQ(found.at(R"(duplex_info{array="a1",id="0x400104",engine="simulated"})"), 1);
  EXPECT_EQ(found.at(R"(duplex_pool_bytes{state="used"})"), TestApi::kExtent);
  EXPECT_EQ(found.at(R"(duplex_device_state{device="d1",state="online"})"), 1);
  EXPECT_EQ(found.at(R"(duplex_device_state{device="d1",state="absent"})"), 0);
  EXPECT_EQ(found.at(R"(duplex_volume_size_bytes{volume="db"})"), kMiB);
  EXPECT_EQ(found.at(R"(duplex_volume_written_bytes_total{volume="db"})"), 3 * kBlockBytes);
  EXPECT_EQ(found.at(R"(duplex_volume_writes_total{volume="db"})"), 1);
  EXPECT_TRUE(found.contains("duplex_uptime_seconds"));
}

TEST_F(ReportsTest, MetricsTellErrorsOfDevicesAndVolumes) {
  api.add_device();
  api.add_volume("db", kMiB);
  ASSERT_TRUE(api.write("db", 0, kBlockBytes));
  api.box.disk().find("/d1")->faults.write_error = 1;
  EXPECT_FALSE(api.write("db", 0, kBlockBytes));
  api.pass(rt::kSecond);
  const auto found = samples(api.get("/metrics").text);
  EXPECT_EQ(found.at(R"(duplex_device_state{device="d1",state="failing"})"), 1);
  EXPECT_EQ(found.at(R"(duplex_device_state{device="d1",state="online"})"), 0);
  EXPECT_GE(found.at(R"(duplex_device_errors_total{device="d1",kind="write"})"), 1);
  EXPECT_EQ(found.at(R"(duplex_volume_errors_total{volume="db"})"), 1);
  EXPECT_EQ(found.at(R"(duplex_events_total{severity="error"})"), 1);
}

TEST_F(ReportsTest, MetricsOfAnEmptyArrayAreWellFormedToo) {
  EXPECT_EQ(samples(api.get("/metrics").text).at(R"(duplex_pool_bytes{state="free"})"), 0);
}

}  // namespace
}  // namespace duplex::api
