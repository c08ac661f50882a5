// Client: one call of the array's API, from the command line.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace duplex::cli {

using Json = nlohmann::json;

// How a command ends; docs/CLI.md "Exit codes".
enum Exit {
  kDone = 0,
  kRefused = 1,
  kUsage = 2,
  kUnreachable = 3,
  kPartial = 4,
  kInterrupted = 130
};

// A command that cannot go on: what to print and how to exit.
struct Failure {
  Exit exit = kRefused;
  std::string code;
  std::string message;
  std::string next;
};

class Client {
 public:
  // "unix:PATH" or "http://HOST:PORT". Throws Failure for anything else.
  explicit Client(const std::string& address);

  // Answers as JSON; throws Failure for a refusal (kRefused) and when the array cannot be reached.
  Json get(const std::string& path) const { return call("GET", path, {}); }
  Json post(const std::string& path, const Json& body) const {
    return call("POST", path, body.dump());
  }
  Json patch(const std::string& path, const Json& body) const {
    return call("PATCH", path, body.dump());
  }
  Json remove(const std::string& path) const { return call("DELETE", path, {}); }
  std::string text(const std::string& path) const;

 private:
  Json call(const char* method, const std::string& path, const std::string& body) const;
  std::string raw(const char* method, const std::string& path, const std::string& body,
                  int& status) const;

  std::string address_;
  std::string host_;  // socket path or host name
  int port_ = 0;      // 0: a unix socket
};

// Percent-encodes a name for a path. One that is empty or cannot be a name throws Failure (kUsage):
// the path would be that of something else.
std::string path_part(const std::string& name);

}  // namespace duplex::cli
