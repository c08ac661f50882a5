// The transport: real sockets in front of a simulated array. What may come in, what is too much,
// and how it ends.
#include "api/http_server.h"

#include <fcntl.h>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "api/test_api.h"

namespace duplex::api {
namespace {

using test::Json;
using test::TestApi;

class HttpServerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "duplex-http-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    current = this;
    api.start();
    api.add_device();
    api.add_volume("db", kMiB);
  }
  void TearDown() override {
    server.reset();
    std::filesystem::remove_all(directory);
  }
  // On the server's threads, one at a time: the simulated world has one thread.
  static Response run(control::Array& array, Request request) {
    HttpServerTest& test = *current;
    std::unique_lock lock(test.mutex);
    if (request.query.contains("timeout") && test.hold) {
      ++test.held;
      test.changed.notify_all();
      test.changed.wait(lock, [&] { return !test.hold; });
    }
    return test.api.run(handle(array, std::move(request)));
  }
  Result<std::unique_ptr<HttpServer>> open(const std::string& address, bool insecure = false) {
    return HttpServer::start(*api.array, *rt::Address::parse(address), insecure, run, limits);
  }
  void serve(const std::string& address, bool insecure = false) {
    auto opened = open(address, insecure);
    ASSERT_TRUE(opened) << opened.error().describe();
    server = std::move(*opened);
  }
  std::string socket() const { return directory + "/api.sock"; }
  std::unique_ptr<httplib::Client> client() {
    const rt::Address address = server->address();
    const bool local = address.kind == rt::Address::Kind::kUnix;
    auto made = std::make_unique<httplib::Client>(address.host, local ? 80 : address.port);
    if (local) made->set_address_family(AF_UNIX);
    made->set_default_headers({{"Host", "duplex"}});
    return made;
  }
  const sockaddr* address_of_socket() {
    unix_address.sun_family = AF_UNIX;
    std::strncpy(unix_address.sun_path, socket().c_str(), sizeof unix_address.sun_path - 1);
    return reinterpret_cast<const sockaddr*>(&unix_address);
  }
  // Bytes as they are; what comes back until the other end closes.
  std::string raw(const std::string& text, bool leave = false) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::connect(fd, address_of_socket(), sizeof(sockaddr_un)), 0);
    size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t n = ::send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<size_t>(n);
    }
    if (leave) ::shutdown(fd, SHUT_WR);
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::string answer;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::recv(fd, buffer, sizeof buffer, 0)) > 0;)
      answer.append(buffer, static_cast<size_t>(n));
    ::close(fd);
    return answer;
  }
  size_t volumes() { return Json::parse(client()->Get("/api/v1/volumes")->body).size(); }
  // An error in our form with this status; the array is as it was and goes on.
  void refused(const std::string& answer, int status, const std::string& code) {
    EXPECT_TRUE(answer.starts_with(fmt::format("HTTP/1.1 {} ", status))) << answer;
    const size_t head = answer.find("\r\n\r\n");
    ASSERT_NE(head, std::string::npos);
    const Json json = Json::parse(answer.substr(head + 4), nullptr, false);
    ASSERT_TRUE(json.is_object()) << answer;
    EXPECT_EQ(json["error"]["code"], code);
    EXPECT_NE(json["error"]["next"], "");
    EXPECT_EQ(volumes(), 1u);
  }
  static std::string post(const std::string& headers, const std::string& body) {
    return "POST /api/v1/volumes HTTP/1.1\r\nHost: duplex\r\nConnection: close\r\n" + headers +
           "\r\n" + body;
  }

  static inline HttpServerTest* current = nullptr;
  std::mutex mutex;
  std::condition_variable changed;
  bool hold = false;
  int held = 0;
  ConnectionLimits limits;
  std::string directory;
  sockaddr_un unix_address{};
  TestApi api;
  std::unique_ptr<HttpServer> server;
};

TEST_F(HttpServerTest, RequestsReachTheArrayAndAnswersComeBack) {
  serve("unix:" + socket());
  EXPECT_EQ(Json::parse(client()->Get("/api/v1/status")->body)["array"], "a1");
  const auto made =
      client()->Post("/api/v1/volumes", R"({"name":"a","size":"1M"})", "application/json");
  EXPECT_EQ(made->status, 200);
  EXPECT_EQ(made->get_header_value("Content-Type"), "application/json");
  EXPECT_EQ(client()->Patch("/api/v1/volumes/a", R"({"size":"2M"})", "application/json")->status,
            200);
  EXPECT_EQ(Json::parse(client()->Get("/api/v1/volumes/a1%3Aa")->body)["size"], 2 * kMiB);
  EXPECT_EQ(client()->Delete("/api/v1/volumes/a?disconnect=true")->status, 200);
  EXPECT_EQ(client()->Get("/api/v1/volumes/a")->status, 404);
  EXPECT_EQ(client()->Put("/api/v1/volumes/a", "", "application/json")->status, 405);
  EXPECT_EQ(Json::parse(client()->Get("/api/v1/events?limit=1")->body).size(), 1u);
  EXPECT_EQ(client()->Get("/api/v1/events?limit=x")->status, 400);
}

TEST_F(HttpServerTest, ABodyLongerThanAMebibyteIsRefused) {
  serve("unix:" + socket());
  const std::string body = R"({"name":"a","size":"1M"})" + std::string(kMiB, ' ');
  refused(raw(post(fmt::format("Content-Length: {}\r\n", body.size()), body)), 413, "e_invalid");
}

TEST_F(HttpServerTest, ABodyInPiecesHasTheSameLimit) {
  serve("unix:" + socket());
  const std::string piece = fmt::format("{:x}\r\n{}\r\n", kMiB / 4, std::string(kMiB / 4, ' '));
  const std::string body = "18\r\n" + std::string(R"({"name":"a","size":"1M"})") + "\r\n" + piece +
                           piece + piece + piece + piece + "0\r\n\r\n";
  refused(raw(post("Transfer-Encoding: chunked\r\n", body)), 413, "e_invalid");
}

TEST_F(HttpServerTest, WhatIsNoJsonBodyIsRefused) {
  serve("unix:" + socket());
  const std::string form = "name=a&size=1M";
  refused(raw(post(fmt::format(
                       "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                       form.size()),
                   form)),
          400, "e_invalid");
  const std::string part =
      "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\na\r\n--x--\r\n";
  refused(raw(post(
              fmt::format("Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n",
                          part.size()),
              part)),
          400, "e_invalid");
}

// Mutation: take_body() reads whatever the head says: it takes as long as a request may.
TEST_F(HttpServerTest, ARequestThatTellsOfNoBodyHasNone) {
  serve("unix:" + socket());
  const auto begin = std::chrono::steady_clock::now();
  for (const char* path : {"/api/v1/jobs/1/pause", "/api/v1/volumes/db"}) {
    const bool is_post = std::string_view(path).ends_with("pause");
    const std::string answer = raw(
        fmt::format("{} {} HTTP/1.1\r\nHost: duplex\r\n\r\n", is_post ? "POST" : "PATCH", path));
    refused(answer, is_post ? 404 : 400, is_post ? "e_noname" : "e_invalid");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

// A page may post such a body without being asked, and what follows would not carry its origin.
TEST_F(HttpServerTest, ABodyIsNeverTakenForTheNextRequest) {
  serve("unix:" + socket());
  const std::string hidden = "DELETE /api/v1/volumes/db HTTP/1.1\r\nHost: duplex\r\n\r\n";
  std::string body;
  while (body.size() < 64 * kKiB) body += hidden;
  for (const char* type :
       {"multipart/form-data; boundary=x", "multipart/form-data", "text/plain"}) {
    const std::string head = fmt::format(
        "POST /api/v1/volumes HTTP/1.1\r\nHost: duplex\r\nOrigin: http://evil.example\r\n"
        "Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
        type, body.size());
    const std::string answer = raw(head + body);
    EXPECT_EQ(volumes(), 1u) << type << " " << answer;
  }
}

TEST_F(HttpServerTest, WhatIsNoHttpIsRefusedAndTheServerGoesOn) {
  serve("unix:" + socket());
  for (const std::string& text :
       {std::string("\r\n\r\n"), std::string("GET\r\n\r\n"), std::string(100'000, 'x'),
        std::string("GET / HTTP/1.1\r\nHost: ") + std::string(20'000, 'h') + "\r\n\r\n",
        std::string("\0\x01\x02\xff", 4)}) {
    const std::string answer = raw(text, true);
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 4")) << answer;
  }
  EXPECT_EQ(volumes(), 1u);
}

TEST_F(HttpServerTest, RequestsOfWebPagesAreRefusedOnTcp) {
  serve("tcp:127.0.0.1:0");
  ASSERT_NE(server->address().port, 0);
  const auto get = [&](const httplib::Headers& headers) {
    httplib::Client http("127.0.0.1", server->address().port);
    return http.Get("/api/v1/status", headers)->status;
  };
  EXPECT_EQ(get({{"Host", "127.0.0.1:7000"}}), 200);
  EXPECT_EQ(get({{"Host", "localhost:7000"}}), 200);
  EXPECT_EQ(get({{"Host", "[::1]:7000"}}), 200);
  EXPECT_EQ(get({{"Host", "evil.example"}}), 403);
  EXPECT_EQ(get({{"Host", "localhost.evil.example"}}), 403);
  EXPECT_EQ(get({{"Host", "127.0.0.1"}, {"Origin", "http://evil.example"}}), 403);
  EXPECT_EQ(get({{"Host", "127.0.0.1"}, {"Origin", "null"}}), 403);
  server.reset();
  serve("tcp:127.0.0.1:0", true);
  EXPECT_EQ(get({{"Host", "array.example"}}), 200) << "allowed by --insecure";
}

TEST_F(HttpServerTest, ItListensOnlyWhereNobodyElseDoes) {
  const auto outside = open("tcp:0.0.0.0:0");
  ASSERT_FALSE(outside);
  EXPECT_EQ(outside.error().code(), Code::kDenied);
  serve("tcp:127.0.0.1:0");
  const auto same_port = open(server->address().to_string());
  ASSERT_FALSE(same_port);
  EXPECT_EQ(same_port.error().code(), Code::kBusy);
  server.reset();
  serve("unix:" + socket());
  const auto same_socket = open("unix:" + socket());
  ASSERT_FALSE(same_socket);
  EXPECT_EQ(same_socket.error().code(), Code::kBusy);
  EXPECT_EQ(volumes(), 1u) << "the first one still serves";
  std::ofstream(directory + "/file") << "mine";
  const auto file = open("unix:" + directory + "/file");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code(), Code::kBusy);
  EXPECT_EQ(std::filesystem::file_size(directory + "/file"), 4u);
}

TEST_F(HttpServerTest, TheSocketIsForItsOwnerAndGroupAndGoesWithTheServer) {
  serve("unix:" + socket());
  struct stat status{};
  ASSERT_EQ(::stat(socket().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0660u);
  // A hard link keeps the file when the server goes: that is what a crash leaves behind.
  std::filesystem::create_hard_link(socket(), directory + "/left");
  server.reset();
  EXPECT_FALSE(std::filesystem::exists(socket()));
  serve("unix:" + directory + "/left");
  EXPECT_EQ(volumes(), 1u);
}

TEST_F(HttpServerTest, AStreamOfEventsGoesOnAfterTheLastOneSeen) {
  for (const char* name : {"a", "b"}) api.add_volume(name, kMiB);
  const uint64_t newest = api.events().back().id;
  ASSERT_GE(newest, 3u);
  serve("unix:" + socket());
  const auto follow = [&](const std::string& last) {
    std::string text;
    client()->Get("/api/v1/events", {{"Accept", "text/event-stream"}, {"Last-Event-ID", last}},
                  [&](const char* data, size_t size) {
                    text.append(data, size);
                    return !text.ends_with(":\n\n");  // all there are: then a line shows it lives
                  });
    return text;
  };
  const std::string all = follow("1");
  EXPECT_TRUE(all.starts_with("id: 2\nevent: ")) << all;
  const size_t data = all.find("data: ");
  ASSERT_NE(data, std::string::npos);
  const Json event = Json::parse(all.substr(data + 6, all.find('\n', data) - data - 6));
  EXPECT_EQ(event["id"], 2);
  EXPECT_EQ(follow(std::to_string(newest)), ":\n\n");
}

TEST_F(HttpServerTest, ManyClientsAtOnceAreAllLetIn) {
  serve("unix:" + socket());
  std::vector<int> connections;
  int refused = 0;
  for (int i = 0; i < 200; ++i) {
    connections.push_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    refused += ::connect(connections.back(), address_of_socket(), sizeof(sockaddr_un)) != 0;
  }
  EXPECT_EQ(refused, 0);
  for (const int fd : connections) ::close(fd);
  // The server may still be busy with seeing that they are gone.
  int status = 503;
  for (int i = 0; i < 200 && status == 503; ++i) {
    status = client()->Get("/api/v1/status")->status;
    if (status == 503) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(status, 200);
}

TEST_F(HttpServerTest, ARequestThatIsNotThereInTimeIsGivenUp) {
  limits.request = std::chrono::milliseconds(300);
  serve("unix:" + socket());
  for (const std::string& text :
       {std::string(), std::string("GET"), std::string("GET /api/v1/status HTTP/1.1\r\nHost: d"),
        post("Content-Length: 100\r\n", "{"),
        post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n")})
    refused(raw(text), 408, "e_timeout");
}

TEST_F(HttpServerTest, AHeadOfManyLinesIsRefusedLikeALongOne) {
  serve("unix:" + socket());
  std::string lines;
  while (lines.size() < limits.head_bytes) lines += "a: b\r\n";
  refused(raw(post(lines, "")), 431, "e_invalid");
  lines.resize(lines.size() - 600);
  lines.resize(lines.rfind('\n') + 1);
  EXPECT_TRUE(raw(post(lines + "Content-Length: 2\r\n", "{}")).starts_with("HTTP/1.1 400 "))
      << "long enough is not too long";
}

TEST_F(HttpServerTest, ConnectionsAboveTheLimitAreToldSo) {
  limits.at_once = 3;
  serve("unix:" + socket());
  std::vector<int> connections;
  for (int i = 0; i < 3; ++i) {
    connections.push_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(connections.back(), address_of_socket(), sizeof(sockaddr_un)), 0);
  }
  const auto answer = client()->Get("/api/v1/status");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 503);
  EXPECT_EQ(Json::parse(answer->body)["error"]["code"], "e_busy");
  for (const int fd : connections) ::close(fd);
}

TEST_F(HttpServerTest, AStopWaitsForNoClientThatSendsOrTakesNothing) {
  serve("unix:" + socket());
  std::vector<int> connections;
  for (const std::string& text : {std::string("GET /"), post("Content-Length: 100\r\n", "{"),
                                  std::string("GET /api/v1/events HTTP/1.1\r\nHost: duplex\r\n"
                                              "Accept: text/event-stream\r\n\r\n")}) {
    connections.push_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(connections.back(), address_of_socket(), sizeof(sockaddr_un)), 0);
    ASSERT_EQ(::send(connections.back(), text.data(), text.size(), 0),
              static_cast<ssize_t>(text.size()));
  }
  EXPECT_EQ(volumes(), 1u);
  {
    const std::lock_guard lock(mutex);
    api.array->release_waiters();
  }
  const auto begin = std::chrono::steady_clock::now();
  server->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
  for (const int fd : connections) ::close(fd);
}

TEST_F(HttpServerTest, ThoseWhoWaitDoNotKeepOutTheRest) {
  serve("unix:" + socket());
  hold = true;
  std::atomic<int> good = 0;
  std::vector<std::thread> waiting;
  for (int i = 0; i < 8; ++i) {
    waiting.emplace_back([&] {
      const auto answer = client()->Get("/api/v1/events?timeout=1");
      good += answer && answer->status == 200;
    });
  }
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(30), [&] { return held == 8; }));
  }
  const auto ninth = client()->Get("/api/v1/events?timeout=1");
  EXPECT_EQ(ninth->status, 409);
  EXPECT_EQ(Json::parse(ninth->body)["error"]["code"], "e_busy");
  EXPECT_EQ(client()->Get("/api/v1/status")->status, 200);
  {
    const std::lock_guard lock(mutex);
    hold = false;
  }
  changed.notify_all();
  for (std::thread& thread : waiting) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(client()->Get("/api/v1/events?timeout=1")->status, 200)
      << "their places are free again";
}

}  // namespace
}  // namespace duplex::api
