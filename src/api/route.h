// Route: one verb of the API, and what its handlers have in common.
//
// Thread: control core. routes.cc has the table of the array's own nouns and finds the route of a
// request; routes_mirror.cc has the table of mirrors, groups and cuts.
#pragma once

#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "api/json.h"
#include "api/request.h"
#include "control/array.h"
#include "rt/task.h"

namespace duplex::api {

using PathNames = std::map<std::string, std::string>;  // parts of the path: {name}, {id}
using Handler = rt::Task<Result<Json>> (*)(control::Array&, Request, PathNames);

struct Route {
  const char* method;
  const char* pattern;
  Handler handler;
  std::initializer_list<std::string_view> query = {};  // the keys it takes
  bool takes_body = false;
};
std::span<const Route> mirror_routes();

Result<uint64_t> query_number(const Request& request, const char* key, uint64_t fallback,
                              uint64_t most);
Result<bool> query_flag(const Request& request, const char* key);

// NAME, 0xNUMBER, ARRAY:NAME or 0xARRAY,0xNUMBER as Volumes::info() takes it; kNoName for a volume
// of another array.
Result<std::string> own_volume(const control::Array& array, const std::string& text);

}  // namespace duplex::api
