// Routes: REST verbs onto the array. src/api/openapi.json describes the same list; a test holds the
// two together.
//
// Thread: control core. Every answer of a verb is JSON; an error is
// {"error":{"code","message","next"}} with the HTTP status of docs/REFERENCE.md.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "api/request.h"
#include "control/array.h"
#include "rt/task.h"

namespace duplex::api {

struct RouteName {
  std::string method;
  std::string pattern;  // "/api/v1/volumes/{name}"
  std::vector<std::string> query;
  bool takes_body;
};
std::vector<RouteName> route_names();

rt::Task<Response> handle(control::Array& array, Request request);

Response error_response(const Error& error);

}  // namespace duplex::api
