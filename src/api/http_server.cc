#include "api/http_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <thread>

#include "api/routes.h"

namespace duplex::api {
namespace {

constexpr size_t kMaxBody = size_t{1} << 20;
constexpr size_t kThreads = 16;
constexpr int kMaxWaiting = 8;

class HttpServerImpl final : public HttpServer {
 public:
  HttpServerImpl(control::Array& array, Run run) : array_(array), run_(run) {}
  ~HttpServerImpl() override { stop(); }

  Result<void> listen(const rt::Address& address) {
    address_ = address;
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_.set_payload_max_length(kMaxBody);
    server_.set_read_timeout(5);
    server_.set_write_timeout(5);
    server_.set_keep_alive_timeout(5);
    const auto serve = [this](const httplib::Request& in, httplib::Response& out) { answer(in, out); };
    server_.Get(".*", serve);
    server_.Post(".*", serve);
    server_.Patch(".*", serve);
    server_.Delete(".*", serve);
    server_.Put(".*", serve);
    if (address.kind == rt::Address::Kind::kUnix) {
      TRY(bind_unix());
    } else if (address.port == 0) {
      const int port = server_.bind_to_any_port(address.host.c_str());
      if (port <= 0) return refused();
      address_.port = static_cast<uint16_t>(port);
    } else if (!server_.bind_to_port(address.host.c_str(), address.port)) {
      return refused();
    }
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    return {};
  }

  rt::Address address() const override { return address_; }

  void stop() override {
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.join();
    if (address_.kind == rt::Address::Kind::kUnix) ::unlink(address_.host.c_str());
  }

 private:
  Result<void> refused() const {
    return fail(Code::kBusy, fmt::format("cannot listen on {}", address_.to_string()), "choose another address, or stop who uses it");
  }

  // A socket file that nobody listens on is left over from a crash.
  Result<void> bind_unix() {
    struct stat status{};
    if (::lstat(address_.host.c_str(), &status) == 0) {
      if (!S_ISSOCK(status.st_mode)) return fail(Code::kBusy, address_.host + " exists and is not a socket", "choose another path or remove it");
      httplib::Client probe(address_.host, 80);
      probe.set_address_family(AF_UNIX);
      probe.set_connection_timeout(1);
      if (probe.Get("/api/v1/status")) return fail(Code::kBusy, fmt::format("an array already listens on {}", address_.to_string()), "stop it or choose another path");
      ::unlink(address_.host.c_str());
    }
    server_.set_address_family(AF_UNIX);
    // The port is of no use here, but must not be 0 for the library.
    const mode_t before = ::umask(0117);  // the owner and the group may connect
    const bool bound = server_.bind_to_port(address_.host.c_str(), 80);
    ::umask(before);
    return bound ? Result<void>() : refused();
  }

  void answer(const httplib::Request& in, httplib::Response& out) {
    Request request{.method = in.method, .path = in.path, .query = {}, .body = in.body};
    for (const auto& [key, value] : in.params) request.query[key] = value;
    const bool waits = request.query.contains("timeout");
    Response response;
    if (waits && waiting_.fetch_add(1) >= kMaxWaiting) {
      response = error_response(Error(Code::kBusy, "too many requests wait for events or jobs", "try again in a moment"));
    } else {
      response = run_(array_, std::move(request));
    }
    if (waits) waiting_.fetch_sub(1);
    out.status = response.status;
    out.set_content(response.body, response.type);
  }

  control::Array& array_;
  const Run run_;
  httplib::Server server_;
  rt::Address address_;
  std::atomic<int> waiting_ = 0;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(control::Array& array, const rt::Address& address, bool insecure, Run run) {
  if (!address.is_local() && !insecure) {
    return fail(Code::kDenied, address.to_string() + " can be reached from outside and the API has no TLS here",
                "listen on 127.0.0.1 or a unix socket, or add --insecure on a network you trust");
  }
  auto server = std::make_unique<HttpServerImpl>(array, run);
  TRY(server->listen(address));
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace duplex::api
