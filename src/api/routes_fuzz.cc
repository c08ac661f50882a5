// Any requests to the API of a whole array in the simulator: each is answered in bounded time, an
// error in the form docs/REFERENCE.md gives, and afterwards the array stops and opens again.
#include <cstdint>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>

#include "api/routes.h"
#include "base/assert.h"
#include "base/log.h"
#include "sim/machine.h"

namespace {

using namespace duplex;

constexpr std::string_view kMethods[] = {"GET", "POST", "PATCH", "DELETE", "PUT"};
constexpr std::string_view kNames[] = {
    "db", "d1",   "1",  "0x0001", "own:db", "0x400104,0x0001", "x", "18446744073709551615",
    "",   "copy", "m1", "g1",     "true"};
constexpr std::string_view kQueryKeys[] = {"timeout",    "after", "limit",
                                           "disconnect", "plan",  "confirmed"};
constexpr std::string_view kBodies[] = {
    "",
    "{}",
    R"({"name":"db","size":"1M"})",
    R"({"name":"big","size":9223372036854775807})",
    R"({"name":"x","size":4096,"id":"0x0001"})",
    R"({"size":"2M"})",
    R"({"size":4096,"discard":true})",
    R"({"path":"/d2","size":"8M","extent_size":"64K"})",
    R"({"path":"/d3","name":"d3","size":"4M","overwrite":true})",
    R"({"path":"/d1"})",
    R"({"path":"/d4","name":"d4","size":18446744073709551615})",
    R"({"path":"/d1","overwrite":true})",
    R"({"rate":"1M"})",
    R"({"name":"thick","size":"1M","thick":true,"device":"d1"})",
    R"({"name":"m1","source":"db","target":"copy","overwrite":true})",
    R"({"name":"m1","source":"db","target":"copy","copy":"none","rate":"64K"})",
    R"({"name":"m2","source":"copy","target":"own:x","mode":"async","fence":"data"})",
    R"({"name":"g1","mirrors":["m1","m1"]})",
    R"({"mirrors":["m1","m2",""]})",
    R"({"names":["m1"]})",
    R"({"names":["g1","m1"],"disconnect":true})",
    R"({"names":["m1"],"then":"sync","online":true})",
    R"({"names":["m1"],"plan":true})",
    R"({"names":["g1"],"access":"ro","max_hold_ms":1})",
    R"({"pairs":"PVOL ID 1 0x400104, 0x0001\nSVOL ID 1 0x400104, 0x0002"})",
    R"({"pairs":[{"source":"0x400104,0x0001","target":"0x421014,0x0005"}]})"};

// The input: a byte chooses a known text, or that the text follows, up to a newline.
class Choices {
 public:
  explicit Choices(std::string_view rest) : rest_(rest) {}
  bool empty() const { return rest_.empty(); }
  uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  std::string text(std::span<const std::string_view> known) {
    const uint8_t choice = byte();
    if (choice < kOwnText) return std::string(known[choice % known.size()]);
    const size_t end = rest_.find('\n');
    const std::string own(rest_.substr(0, end));
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    return own;
  }

 private:
  static constexpr uint8_t kOwnText = 0xe0;
  std::string_view rest_;
};

api::Request next_request(Choices& choices, const std::vector<api::RouteName>& routes) {
  const api::RouteName& route = routes[choices.byte() % routes.size()];
  api::Request request{.method = route.method, .path = route.pattern, .query = {}, .body = {}};
  const uint8_t odd = choices.byte();
  if ((odd & 0x80) != 0) request.method = choices.text(kMethods);
  if ((odd & 0x40) != 0) request.query[choices.text(kQueryKeys)] = choices.text(kNames);
  if ((odd & 0x3f) == 0x3f) request.path = choices.text(kNames);
  const size_t open = request.path.find('{');
  const size_t close = request.path.find('}');
  if (open != std::string::npos && close != std::string::npos && open < close)
    request.path.replace(open, close + 1 - open, choices.text(kNames));
  if (request.method != "GET") request.body = choices.text(kBodies);
  return request;
}

void check(const api::Response& response) {
  ASSERT(response.status == 200 || (response.status >= 400 && response.status < 600));
  if (response.type != "application/json") return;
  const auto json = nlohmann::json::parse(response.body, nullptr, false);
  ASSERT(!json.is_discarded());
  if (response.status == 200) return;
  const auto& error = json.at("error");
  ASSERT(error.at("code").is_string() && error.at("message").is_string() &&
         error.at("next").is_string());
}

class ArrayUnderFuzz {
 public:
  ArrayUnderFuzz() {
    open();
    ask({.method = "POST",
         .path = "/api/v1/devices",
         .query = {},
         .body = R"({"path":"/d1","name":"d1","size":"8M","extent_size":"64K"})"});
    ask({.method = "POST",
         .path = "/api/v1/volumes",
         .query = {},
         .body = R"({"name":"db","size":"1M"})"});
    ask({.method = "POST",
         .path = "/api/v1/volumes",
         .query = {},
         .body = R"({"name":"copy","size":"1M"})"});
    ask({.method = "POST",
         .path = "/api/v1/mirrors",
         .query = {},
         .body = R"({"name":"m1","source":"db","target":"copy"})"});
  }
  ArrayUnderFuzz(const ArrayUnderFuzz&) = delete;
  ArrayUnderFuzz& operator=(const ArrayUnderFuzz&) = delete;
  ~ArrayUnderFuzz() { stop(); }
  void ask(api::Request request) {
    const auto response =
        sim_.run(box_.control(), api::handle(*array_, std::move(request)), kPatience);
    ASSERT(response);
    check(*response);
  }
  void reopen() {
    stop();
    open();
  }

 private:
  static constexpr rt::Micros kPatience = 600 * rt::kSecond;

  void open() {
    auto opened = sim_.run(box_.control(),
                           control::Array::open(box_, {.name = "own",
                                                       .id = ArrayId(0x400104),
                                                       .state_directory = "/state",
                                                       .engine = "simulated"}),
                           kPatience);
    ASSERT(opened && *opened);
    array_ = std::move(**opened);
  }
  void stop() {
    array_->release_waiters();
    ASSERT(sim_.run(box_.control(), array_->stop(), kPatience));
    array_.reset();
  }

  sim::Simulation sim_{5};
  sim::Machine& box_ = sim_.add_machine("box", {});
  std::unique_ptr<control::Array> array_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<api::RouteName> routes = api::route_names();
  set_log_level(LogLevel::kError);
  ArrayUnderFuzz array;
  Choices choices(std::string_view(reinterpret_cast<const char*>(data), size));
  const bool reopen = choices.byte() % 4 == 0;
  for (int i = 0; i < 30 && !choices.empty(); ++i) array.ask(next_request(choices, routes));
  if (reopen) array.reopen();
  return 0;
}
