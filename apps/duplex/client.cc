#include "duplex/client.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "rt/net.h"

namespace duplex::cli {

Client::Client(const std::string& address) : address_(address) {
  const bool http = address.starts_with("http://");
  const std::string rest = http ? address.substr(7) : std::string();
  const auto parsed = rt::Address::parse(http ? "tcp:" + rest.substr(0, rest.find('/')) : address);
  if (!parsed || (parsed->kind == rt::Address::Kind::kTcp && !http)) {
    throw Failure{kUsage, "e_invalid", fmt::format("'{}' is not the address of an API", address),
                  "use --api unix:PATH or --api http://HOST:PORT"};
  }
  host_ = parsed->host;
  port_ = parsed->kind == rt::Address::Kind::kTcp ? parsed->port : 0;
}

std::string Client::raw(const char* method, const std::string& path, const std::string& body,
                        int& status) const {
  httplib::Client http(host_, port_ == 0 ? 80 : port_);
  if (port_ == 0) http.set_address_family(AF_UNIX);
  http.set_connection_timeout(5);
  http.set_read_timeout(120);  // the longest wait of the API is a minute
  httplib::Request request;
  request.method = method;
  request.path = path;
  request.body = body;
  request.set_header("Host", "duplex");
  if (!body.empty()) request.set_header("Content-Type", "application/json");
  const auto result = http.send(request);
  if (!result) {
    const bool denied =
        port_ == 0 && access(host_.c_str(), F_OK) == 0 && access(host_.c_str(), R_OK | W_OK) != 0;
    if (denied)
      throw Failure{kUnreachable, "e_denied", fmt::format("no permission to use {}", host_),
                    "run it as the user or in the group that owns the socket"};
    throw Failure{kUnreachable, "e_connection",
                  fmt::format("cannot reach the array at {}", address_),
                  "check that duplexd runs, and --api or DUPLEX_API"};
  }
  status = result->status;
  return result->body;
}

Json Client::call(const char* method, const std::string& path, const std::string& body) const {
  int status = 0;
  Json json = Json::parse(raw(method, path, body, status), nullptr, false);
  if (json.is_discarded())
    throw Failure{kUnreachable, "e_connection",
                  fmt::format("what answers at {} is not an array", address_),
                  "check --api or DUPLEX_API"};
  if (status < 400) return json;
  const Json error = json.value("error", Json::object());
  const std::string code = error.value("code", "e_system");
  throw Failure{code == "e_partial" ? kPartial : kRefused, code,
                error.value("message", "the array refused"), error.value("next", "")};
}

std::string Client::text(const std::string& path) const {
  int status = 0;
  return raw("GET", path, {}, status);
}

// NAME, NUMBER, ARRAY:NAME or 0xARRAY,0xNUMBER, blanks after the comma.
static bool may_be_name(std::string_view text) {
  const size_t mark = text.find_first_of(":,");
  if (mark != std::string_view::npos) {
    if (!may_be_name(text.substr(0, mark))) return false;
    text.remove_prefix(mark + 1);
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.find_first_of(":,") != std::string_view::npos) return false;
  }
  return check_name(text, "") || parse_number(text);
}

std::string path_part(const std::string& name) {
  if (name.empty())
    throw Failure{kUsage, "e_invalid", "the name is empty", "give the name, see --help"};
  if (!may_be_name(name))
    throw Failure{kUsage, "e_invalid", fmt::format("'{}' cannot be the name of anything", name),
                  "use letters, digits, '.', '_' and '-', at most 63, starting with a letter or "
                  "digit; a number like 0x0001; or ARRAY:NAME"};
  std::string out;
  for (const char c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       std::string_view("-._").contains(c);
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace duplex::cli
