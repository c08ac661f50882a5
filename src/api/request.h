// A request and its answer, free of any transport: what the routes see.
#pragma once

#include <map>
#include <string>

namespace duplex::api {

struct Request {
  std::string method;  // "GET", "POST", "PATCH", "DELETE"
  std::string path;    // decoded, without the query
  std::map<std::string, std::string> query;
  std::string body;  // JSON or empty
};

struct Response {
  int status = 200;
  std::string body;
  std::string type = "application/json";
};

}  // namespace duplex::api
