#include "api/http_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <semaphore>
#include <thread>

#include "api/body.h"
#include "api/connections.h"
#include "api/json.h"
#include "api/routes.h"
#include "base/text.h"

namespace duplex::api {
namespace {

constexpr int kAtOnce = 16;
constexpr int kMaxWaiting = 8;
constexpr int kQueue = 256;                   // connections not yet accepted
constexpr size_t kBodies = size_t{16} << 20;  // bytes of all bodies under way
constexpr const char* kTooLong = "the body is longer than 1 MiB";
constexpr std::string_view kStreamWait = "10";  // seconds; then a comment line shows who is gone

// True when somebody accepts connections at the socket file.
bool is_alive(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return true;
  const int result = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const bool refused = result != 0 && (errno == ECONNREFUSED || errno == ENOENT);
  ::close(fd);
  return !refused;
}

// A page in a browser on this machine must not command the array: browsers name the page's origin
// in whatever changes something, and a name of their own making in the host.
bool is_foreign(const httplib::Request& in) {
  if (in.has_header("Origin")) return true;
  std::string host = in.get_header_value("Host");
  if (!host.starts_with('[')) host = host.substr(0, host.find(':'));
  const bool numeric =
      host.starts_with('[') || host.find_first_not_of("0123456789.") == std::string::npos;
  return !numeric && host != "localhost" && host != "duplex";
}

// The library accepts and understands requests; its connections are ours.
class Listener : public httplib::Server {
 public:
  std::function<void(int)> admit;

  // The library's queue of connections not yet accepted is short (5), and a client of a unix socket
  // that finds it full is refused at once.
  bool lengthen_queue() { return ::listen(svr_sock_, kQueue) == 0; }
  // One request for a connection: what is left of a refused body is never read as the next one.
  void serve(httplib::Stream& stream) {
    bool closed = false;
    process_request(stream, true, closed, nullptr);
  }

 private:
  bool process_and_close_socket(socket_t fd) override {
    admit(fd);
    return true;
  }
};

// Has the library hand over each connection at once, on the thread that accepts.
class HandOver : public httplib::TaskQueue {
 public:
  explicit HandOver(Connections& connections) : connections_(connections) {}
  void enqueue(std::function<void()> task) override { task(); }
  void shutdown() override {}
  void on_idle() override { connections_.tidy(); }

 private:
  Connections& connections_;
};

// What one request holds of the bytes all bodies together may have.
class Share {
 public:
  explicit Share(std::atomic<size_t>& all) : all_(all) {}
  ~Share() { all_ -= mine_; }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;
  bool take(size_t bytes) {
    mine_ += bytes;
    return all_.fetch_add(bytes) + bytes <= kBodies;
  }

 private:
  std::atomic<size_t>& all_;
  size_t mine_ = 0;
};

class HttpServerImpl final : public HttpServer {
 public:
  HttpServerImpl(control::Array& array, bool insecure, Run run, ConnectionLimits limits)
      : array_(array),
        insecure_(insecure),
        run_(run),
        connections_(limits, [this](httplib::Stream& stream) { server_.serve(stream); }) {}
  ~HttpServerImpl() override { stop(); }

  Result<void> listen(const rt::Address& address) {
    address_ = address;
    server_.admit = [this](int fd) { connections_.admit(fd); };
    server_.new_task_queue = [this] { return new HandOver(connections_); };
    server_.set_idle_interval(1);
    server_.set_payload_max_length(Body::kMaxLength);
    // The library's default also sets SO_REUSEPORT: two arrays would share one port unnoticed.
    server_.set_socket_options([](socket_t fd) {
      const int yes = 1;
      ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    const auto serve = [this](const httplib::Request& in, httplib::Response& out) {
      answer(in, out, {});
    };
    // What the library refuses by itself (too long, not HTTP) gets our form of an error.
    server_.set_error_handler([](const httplib::Request&, httplib::Response& out) {
      if (!out.body.empty()) return;
      const std::string what =
          out.status == 413 ? kTooLong : fmt::format("HTTP error {}", out.status);
      out.set_content(error_response(Error(Code::kInvalid, what, "see /api/v1/openapi.json")).body,
                      "application/json");
    });
    const auto serve_body = [this](const httplib::Request& in, httplib::Response& out,
                                   const httplib::ContentReader& reader) {
      Share share(bodies_);
      std::string body;
      if (take_body(in, out, reader, share, body)) answer(in, out, std::move(body));
    };
    server_.Get(".*", serve);
    server_.Post(".*", serve_body);
    server_.Patch(".*", serve_body);
    server_.Delete(".*", serve_body);
    server_.Put(".*", serve_body);
    if (address.kind == rt::Address::Kind::kUnix) {
      TRY(bind_unix());
    } else if (address.port == 0) {
      const int port = server_.bind_to_any_port(address.host.c_str());
      if (port <= 0) return refused();
      address_.port = static_cast<uint16_t>(port);
    } else if (!server_.bind_to_port(address.host.c_str(), address.port)) {
      return refused();
    }
    if (!server_.lengthen_queue()) return refused();
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      ended_ = true;
    });
    // The library forgets a stop() that comes before it runs.
    while (!server_.is_running() && !ended_) std::this_thread::yield();
    return {};
  }

  rt::Address address() const override { return address_; }

  void stop() override {
    if (!thread_.joinable()) return;
    stopping_ = true;
    server_.stop();
    thread_.join();
    connections_.stop();
    if (address_.kind == rt::Address::Kind::kUnix) ::unlink(address_.host.c_str());
  }

 private:
  Result<void> refused() const {
    return fail(Code::kBusy, fmt::format("cannot listen on {}", address_.to_string()),
                "choose another address, or stop who uses it");
  }

  // A socket file that nobody listens on is left over from a crash.
  Result<void> bind_unix() {
    struct stat status{};
    if (::lstat(address_.host.c_str(), &status) == 0) {
      if (!S_ISSOCK(status.st_mode))
        return fail(Code::kBusy, address_.host + " exists and is not a socket",
                    "choose another path or remove it");
      if (is_alive(address_.host))
        return fail(Code::kBusy,
                    fmt::format("somebody already listens on {}", address_.to_string()),
                    "stop that one or choose another path");
      ::unlink(address_.host.c_str());
    }
    server_.set_address_family(AF_UNIX);
    // The port is of no use here, but must not be 0 for the library.
    const mode_t before = ::umask(0117);  // the owner and the group may connect
    const bool bound = server_.bind_to_port(address_.host.c_str(), 80);
    ::umask(before);
    return bound ? Result<void>() : refused();
  }

  // One of the few requests that may wait; false: there are enough.
  std::shared_ptr<void> take_place() {
    if (waiting_.fetch_add(1) < kMaxWaiting)
      return {this, [this](void*) { waiting_.fetch_sub(1); }};
    waiting_.fetch_sub(1);
    return nullptr;
  }

  // The library knows a limit only for bodies that tell their length. False: refused.
  static bool take_body(const httplib::Request& in, httplib::Response& out,
                        const httplib::ContentReader& reader, Share& share, std::string& body) {
    bool fits = true;
    bool room = true;
    const auto take = [&](const char* data, size_t size) {
      fits = body.size() + size <= Body::kMaxLength;
      room = share.take(size);
      if (fits && room) body.append(data, size);
      return fits && room;
    };
    // Neither says that a body follows: the library would read until the client leaves.
    if (!in.has_header("Content-Length") && !in.has_header("Transfer-Encoding")) return true;
    if (!in.is_multipart_form_data() && reader(take)) return true;
    if (!room) {
      out.status = 503;
      out.set_content(error_response(Error(Code::kBusy, "too many long requests at once",
                                           "try again in a moment"))
                          .body,
                      "application/json");
      return false;
    }
    fits = fits && out.status != 413;  // the library's own refusal
    out.status = fits ? 400 : 413;
    const char* what = fits ? "the body cannot be read, or is not JSON" : kTooLong;
    out.set_content(error_response(Error(Code::kInvalid, what, "see /api/v1/openapi.json")).body,
                    "application/json");
    return false;
  }

  void answer(const httplib::Request& in, httplib::Response& out, std::string body) {
    Request request{.method = in.method, .path = in.path, .query = {}, .body = std::move(body)};
    for (const auto& [key, value] : in.params) request.query[key] = value;
    const bool streams = in.method == "GET" && in.path == "/api/v1/events" &&
                         in.get_header_value("Accept") == "text/event-stream";
    const bool waits = streams || request.query.contains("timeout");
    auto place = waits ? take_place() : nullptr;
    Response response;
    if (address_.kind == rt::Address::Kind::kTcp && !insecure_ && is_foreign(in)) {
      response =
          error_response(Error(Code::kDenied, "requests from web pages are not served",
                               "use the command line, or --insecure on a network you trust"));
    } else if (waits && !place) {
      response = error_response(
          Error(Code::kBusy, "too many requests wait for events or jobs", "try again in a moment"));
    } else if (streams) {
      return stream(in, out, std::move(place));
    } else {
      response = waits ? run_(array_, std::move(request)) : run_in_turn(std::move(request));
    }
    out.status = response.status;
    out.set_content(response.body, response.type.c_str());
  }

  // Answers may be large while they are made: few at a time.
  Response run_in_turn(Request request) {
    turns_.acquire();
    Response response = run_(array_, std::move(request));
    turns_.release();
    return response;
  }

  // Server-sent events: one "data:" line of JSON each; Last-Event-ID goes on after that one.
  void stream(const httplib::Request& in, httplib::Response& out, std::shared_ptr<void> place) {
    const auto from = parse_number(in.get_header_value("Last-Event-ID"));
    auto last = std::make_shared<uint64_t>(from ? *from : 0);
    if (!from) {
      for (const Json& event : events({{"limit", "1"}})) *last = event["id"];
    }
    out.set_chunked_content_provider("text/event-stream", [this, last, place = std::move(place)](
                                                              size_t, httplib::DataSink& sink) {
      std::string text;
      for (const Json& event :
           events({{"after", fmt::format("{}", *last)}, {"timeout", std::string(kStreamWait)}})) {
        *last = event["id"];
        text += fmt::format("id: {}\nevent: {}\ndata: {}\n\n", *last,
                            event["code"].get<std::string>(), event.dump());
      }
      if (text.empty()) text = ":\n\n";
      return !stopping_ && sink.write(text.data(), text.size());
    });
  }

  Json events(std::map<std::string, std::string> query) {
    const Response response = run_(
        array_, {.method = "GET", .path = "/api/v1/events", .query = std::move(query), .body = {}});
    return response.status == 200 ? Json::parse(response.body) : Json::array();
  }

  control::Array& array_;
  const bool insecure_;
  const Run run_;
  Listener server_;
  rt::Address address_;
  std::atomic<int> waiting_ = 0;
  std::atomic<size_t> bodies_ = 0;
  std::counting_semaphore<> turns_{kAtOnce};
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
  Connections connections_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(control::Array& array,
                                                      const rt::Address& address, bool insecure,
                                                      Run run, ConnectionLimits limits) {
  if (!address.is_local() && !insecure) {
    return fail(Code::kDenied,
                address.to_string() + " can be reached from outside and the API has no TLS here",
                "listen on 127.0.0.1 or a unix socket, or add --insecure on a network you trust");
  }
  auto server = std::make_unique<HttpServerImpl>(array, insecure, run, limits);
  TRY(server->listen(address));
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace duplex::api
