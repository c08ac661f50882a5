#include "api/routes.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "api/body.h"
#include "api/json.h"
#include "api/openapi.h"
#include "api/reports.h"
#include "api/route.h"
#include "base/text.h"

namespace duplex::api {
namespace {

using control::Array;
using Names = PathNames;

// Longest a request may wait for something (a job, an event).
constexpr rt::Micros kMaxWait = 60 * rt::kSecond;
constexpr uint64_t kMaxEvents = 1000;

int http_status(Code code) {
  switch (code) {
    case Code::kInvalid:
    case Code::kSize:
      return 400;
    case Code::kWriteProtected:
    case Code::kDenied:
      return 403;
    case Code::kNoVolume:
    case Code::kNoDevice:
    case Code::kNoName:
      return 404;
    case Code::kState:
    case Code::kBusy:
    case Code::kExists:
      return 409;
    case Code::kNotSupported:
      return 501;
    case Code::kConnection:
      return 502;
    case Code::kShutdown:
      return 503;
    case Code::kTimeout:
      return 504;
    case Code::kNoSpace:
      return 507;
    default:
      return 500;
  }
}

// ?timeout=SECONDS
Result<rt::Micros> wait_until(Array& array, const Request& request) {
  TRY_ASSIGN(const uint64_t seconds, query_number(request, "timeout", 0, kMaxWait / rt::kSecond));
  return array.world().control().clock().now() + seconds * rt::kSecond;
}

// The number of a job, or the name of a mirror.
Result<uint32_t> job_id(Array& array, const Names& names) {
  return array.jobs().number_of(names.at("id"));
}

rt::Task<Result<Json>> job_json(Array& array, uint32_t id) {
  CO_TRY_ASSIGN(const auto info, co_await array.jobs().info(id));
  co_return to_json(info);
}

Result<volume::VolumeInfo> volume_of(Array& array, Names& names) {
  TRY_ASSIGN(const std::string name, own_volume(array, names["name"]));
  return array.volumes().info(name);
}

rt::Task<Result<Json>> list_volumes(Array& array, Request, Names) {
  const auto mirrors = co_await array.mirrors().list();
  Json all = Json::array();
  for (const auto& info : array.volumes().infos()) all.push_back(to_json(array, info, mirrors));
  co_return all;
}

rt::Task<Result<Json>> create_volume(Array& array, Request request, Names) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  volume::CreateVolume create;
  create.name = body.text("name", true);
  create.size_bytes = body.size("size", true);
  create.backing = body.text("backing");
  create.device = body.text("device");
  create.thick = body.flag("thick");
  const std::string number = body.text("id");
  CO_TRY(body.done());
  if (!number.empty()) {
    CO_TRY_ASSIGN(create.number, parse_volume_number(number));
  }
  CO_TRY_ASSIGN(const auto made, co_await array.create_volume(std::move(create)));
  Json json = to_json(array, made.info, co_await array.mirrors().list());
  json["created_now"] = made.created;
  co_return json;
}

// Tables 300 to 303 of docs/REFERENCE.md.
rt::Task<Result<Json>> show_volume(Array& array, Request, Names names) {
  CO_TRY_ASSIGN(const auto info, volume_of(array, names));
  CO_TRY_ASSIGN(const auto runs, co_await array.volumes().extents(info.name));
  std::set<std::string> devices;
  uint64_t extents = 0;
  for (const auto& run : runs) {
    extents += run.count;
    if (!run.device.empty()) devices.insert(run.device);
  }
  Json json = to_json(array, info, co_await array.mirrors().list());
  json["devices"] = devices;
  json["extents"] = extents;
  const auto members = array.pool().devices();
  json["extent_size"] = members.empty() ? 0 : members.front().extent_bytes;  // all have the same
  co_return json;
}

rt::Task<Result<Json>> delete_volume(Array& array, Request request, Names names) {
  CO_TRY_ASSIGN(const bool disconnect, query_flag(request, "disconnect"));
  CO_TRY_ASSIGN(const auto info, volume_of(array, names));
  CO_TRY(co_await array.volumes().remove(info.name, disconnect));
  co_return Json{{"deleted", info.name}, {"allocated", info.allocated_bytes}};
}

rt::Task<Result<Json>> resize_volume(Array& array, Request request, Names names) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  const uint64_t size = body.size("size", true);
  const bool discard = body.flag("discard");
  CO_TRY(body.done());
  CO_TRY_ASSIGN(const auto before, volume_of(array, names));
  CO_TRY_ASSIGN(const auto info, co_await array.volumes().resize(before.name, size, discard));
  co_return to_json(array, info, co_await array.mirrors().list());
}

rt::Task<Result<Json>> volume_extents(Array& array, Request, Names names) {
  CO_TRY_ASSIGN(const auto info, volume_of(array, names));
  CO_TRY_ASSIGN(const auto runs, co_await array.volumes().extents(info.name));
  Json all = Json::array();
  for (const auto& run : runs) all.push_back(to_json(run));
  co_return all;
}

rt::Task<Result<Json>> import_volume(Array& array, Request request, Names names) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  const std::string path = body.path("path");
  const bool overwrite = body.flag("overwrite");
  CO_TRY(body.done());
  CO_TRY_ASSIGN(const auto info, volume_of(array, names));
  CO_TRY_ASSIGN(const auto row, co_await array.jobs().start_import(info.name, path, overwrite));
  co_return co_await job_json(array, row.id);
}

rt::Task<Result<Json>> list_devices(Array& array, Request, Names) {
  Json all = Json::array();
  for (const auto& info : array.pool().devices()) all.push_back(to_json(info));
  co_return all;
}

rt::Task<Result<Json>> add_device(Array& array, Request request, Names) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  pool::AddDevice add;
  add.path = body.path("path");
  add.name = body.text("name");
  add.create_bytes = body.size("size");
  add.extent_bytes = body.size("extent_size");
  add.overwrite = body.flag("overwrite");
  CO_TRY(body.done());
  CO_TRY_ASSIGN(const auto made, co_await array.pool().add_device(std::move(add)));
  Json json = to_json(made.info);
  json["created_now"] = made.created;
  co_return json;
}

// Tables 400 to 413 of docs/REFERENCE.md.
rt::Task<Result<Json>> show_device(Array& array, Request, Names names) {
  CO_TRY_ASSIGN(const auto info, array.pool().device(names["name"]));
  CO_TRY_ASSIGN(const auto runs, co_await array.pool().device_map(info.name));
  std::map<std::string, std::string> volume_of;  // by backing
  for (const auto& volume : array.volumes().infos()) volume_of[volume.backing] = volume.name;
  std::set<std::string> volumes;
  Json json = to_json(info);
  json["map"] = Json::array();
  for (const auto& run : runs) {
    Json entry = to_json(run);
    const auto found = volume_of.find(run.backing);
    entry["volume"] = found == volume_of.end() ? Json() : Json(found->second);
    if (found != volume_of.end()) volumes.insert(found->second);
    json["map"].push_back(std::move(entry));
  }
  json["volumes"] = volumes;
  co_return json;
}

rt::Task<Result<Json>> remove_device(Array& array, Request, Names names) {
  CO_TRY(co_await array.pool().remove_device(names["name"]));
  co_return Json{{"removed", names["name"]}};
}

rt::Task<Result<Json>> resize_device(Array& array, Request, Names names) {
  CO_TRY_ASSIGN(const auto info, co_await array.pool().resize_device(names["name"]));
  co_return to_json(info);
}

rt::Task<Result<Json>> show_pool(Array& array, Request, Names) {
  co_return to_json(array.pool().usage());
}

rt::Task<Result<Json>> list_backings(Array& array, Request, Names) {
  Json all = Json::array();
  for (const auto& info : array.pool().backings()) all.push_back(to_json(info));
  co_return all;
}

rt::Task<Result<Json>> list_jobs(Array& array, Request, Names) {
  Json all = Json::array();
  for (const auto& info : co_await array.jobs().infos()) all.push_back(to_json(info));
  co_return all;
}

// Show, and wait with ?timeout=SECONDS.
rt::Task<Result<Json>> show_job(Array& array, Request request, Names names) {
  CO_TRY_ASSIGN(const rt::Micros until, wait_until(array, request));
  CO_TRY_ASSIGN(const uint32_t id, job_id(array, names));
  CO_TRY(co_await array.jobs().wait(id, until));
  co_return co_await job_json(array, id);
}

template <rt::Task<Result<meta::JobRow>> (control::Jobs::*verb)(uint32_t)>
rt::Task<Result<Json>> job_verb(Array& array, Request, Names names) {
  CO_TRY_ASSIGN(const uint32_t id, job_id(array, names));
  CO_TRY(co_await (array.jobs().*verb)(id));
  co_return co_await job_json(array, id);
}

rt::Task<Result<Json>> cancel_job(Array& array, Request request, Names names) {
  CO_TRY_ASSIGN(const bool confirmed, query_flag(request, "confirmed"));
  CO_TRY_ASSIGN(const uint32_t id, job_id(array, names));
  CO_TRY(co_await array.jobs().cancel(id, confirmed));
  co_return co_await job_json(array, id);
}

rt::Task<Result<Json>> job_rate(Array& array, Request request, Names names) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  const uint64_t rate = body.size("rate", true);
  CO_TRY(body.done());
  CO_TRY_ASSIGN(const uint32_t id, job_id(array, names));
  CO_TRY(co_await array.jobs().set_rate(id, rate));
  co_return co_await job_json(array, id);
}

// ?after=ID&limit=N; with ?timeout=SECONDS it waits for the first new one.
rt::Task<Result<Json>> list_events(Array& array, Request request, Names) {
  CO_TRY_ASSIGN(const uint64_t after, query_number(request, "after", 0, INT64_MAX));
  CO_TRY_ASSIGN(const uint64_t limit, query_number(request, "limit", 100, kMaxEvents));
  CO_TRY_ASSIGN(const rt::Micros until, wait_until(array, request));
  CO_TRY_ASSIGN(const auto rows, co_await array.events().after(after, limit, until));
  Json all = Json::array();
  for (const auto& row : rows) all.push_back(to_json(row));
  co_return all;
}

rt::Task<Result<Json>> show_status(Array& array, Request, Names) {
  co_return co_await status_report(array);
}

constexpr Route kRoutes[] = {
    {"GET", "/api/v1/status", show_status},
    {"GET", "/api/v1/volumes", list_volumes},
    {"POST", "/api/v1/volumes", create_volume, {}, true},
    {"GET", "/api/v1/volumes/{name}", show_volume},
    {"DELETE", "/api/v1/volumes/{name}", delete_volume, {"disconnect"}},
    {"PATCH", "/api/v1/volumes/{name}", resize_volume, {}, true},
    {"GET", "/api/v1/volumes/{name}/extents", volume_extents},
    {"POST", "/api/v1/volumes/{name}/import", import_volume, {}, true},
    {"GET", "/api/v1/devices", list_devices},
    {"POST", "/api/v1/devices", add_device, {}, true},
    {"GET", "/api/v1/devices/{name}", show_device},
    {"DELETE", "/api/v1/devices/{name}", remove_device},
    {"POST", "/api/v1/devices/{name}/resize", resize_device},
    {"GET", "/api/v1/pool", show_pool},
    {"GET", "/api/v1/backings", list_backings},
    {"GET", "/api/v1/jobs", list_jobs},
    {"GET", "/api/v1/jobs/{id}", show_job, {"timeout"}},
    {"POST", "/api/v1/jobs/{id}/pause", job_verb<&control::Jobs::pause>},
    {"POST", "/api/v1/jobs/{id}/resume", job_verb<&control::Jobs::resume>},
    {"POST", "/api/v1/jobs/{id}/cancel", cancel_job, {"confirmed"}},
    {"POST", "/api/v1/jobs/{id}/rate", job_rate, {}, true},
    {"GET", "/api/v1/events", list_events, {"after", "limit", "timeout"}},
};

const std::vector<Route>& all_routes() {
  static const std::vector<Route> routes = [] {
    std::vector<Route> all(std::begin(kRoutes), std::end(kRoutes));
    const auto more = mirror_routes();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }();
  return routes;
}

// Matches "/a/{x}/b" against a path; the parts in braces go to `names`.
bool matches(std::string_view pattern, std::string_view path, Names& names) {
  while (!pattern.empty()) {
    if (pattern.front() == '{') {
      const size_t close = pattern.find('}');
      const size_t end = std::min(path.find('/'), path.size());
      if (end == 0) return false;
      names[std::string(pattern.substr(1, close - 1))] = path.substr(0, end);
      pattern.remove_prefix(close + 1);
      path.remove_prefix(end);
      continue;
    }
    if (path.empty() || path.front() != pattern.front()) return false;
    pattern.remove_prefix(1);
    path.remove_prefix(1);
  }
  return path.empty();
}

// What no handler would look at is refused, so that a misspelt key is not silently ignored.
Result<void> check_request(const Route& route, const Request& request) {
  for (const auto& [key, value] : request.query) {
    if (std::ranges::find(route.query, key) == route.query.end())
      return fail(Code::kInvalid, fmt::format("'{}' is not known in this query", key),
                  "see /api/v1/openapi.json");
  }
  if (route.takes_body) return {};
  TRY_ASSIGN(const Body body, Body::parse(request.body));
  return body.done();
}

rt::Task<Result<Json>> run(const Route& route, Array& array, Request request, Names names) {
  CO_TRY(check_request(route, request));
  co_return co_await route.handler(array, std::move(request), std::move(names));
}

}  // namespace

Result<uint64_t> query_number(const Request& request, const char* key, uint64_t fallback,
                              uint64_t most) {
  const auto it = request.query.find(key);
  if (it == request.query.end()) return fallback;
  const auto number = parse_number(it->second);
  if (number) return std::min(*number, most);
  return fail(Code::kInvalid, fmt::format("'{}' must be a whole number, not '{}'", key, it->second),
              "see /api/v1/openapi.json");
}

Result<bool> query_flag(const Request& request, const char* key) {
  const auto it = request.query.find(key);
  if (it == request.query.end() || it->second == "false" || it->second == "0") return false;
  if (it->second == "true" || it->second == "1") return true;
  return fail(Code::kInvalid, fmt::format("'{}' must be true or false, not '{}'", key, it->second),
              "see /api/v1/openapi.json");
}

Result<std::string> own_volume(const control::Array& array, const std::string& text) {
  const size_t mark = text.find_first_of(":,");
  if (mark == std::string::npos) return text;
  const std::string owner = text.substr(0, mark);
  const auto id = parse_array_id(owner);
  const bool own =
      text[mark] == ':' ? owner == array.options().name : id && *id == array.options().id;
  if (!own)
    return fail(Code::kNoName,
                fmt::format("this array is {} ({}), not {}", array.options().name,
                            format_id(array.options().id), owner),
                "duplex status");
  std::string name = text.substr(mark + 1);
  name.erase(0, name.find_first_not_of(' '));
  return name;
}

Response error_response(const Error& error) {
  const Json json = {{"error",
                      {{"code", code_name(error.code())},
                       {"message", error.message()},
                       {"next", error.next_step()}}}};
  return {.status = http_status(error.code()),
          .body = json.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

std::vector<RouteName> route_names() {
  std::vector<RouteName> names;
  for (const Route& route : all_routes())
    names.push_back(
        {route.method, route.pattern, {route.query.begin(), route.query.end()}, route.takes_body});
  for (const char* page : {"/api/v1/support", "/api/v1/openapi.json", "/metrics"})
    names.push_back({"GET", page, {}, false});
  return names;
}

rt::Task<Response> handle(control::Array& array, Request request) {
  if (request.method == "GET" && request.path == "/metrics")
    co_return Response{.body = co_await metrics_page(array), .type = "text/plain; version=0.0.4"};
  if (request.method == "GET" && request.path == "/api/v1/openapi.json")
    co_return Response{.body = std::string(kOpenApi)};
  if (request.method == "GET" && request.path == "/api/v1/support")
    co_return Response{.body = co_await support_page(array), .type = "text/plain"};
  bool path_known = false;
  for (const Route& route : all_routes()) {
    Names names;
    if (!matches(route.pattern, request.path, names)) continue;
    path_known = true;
    if (route.method != request.method) continue;
    const auto result = co_await run(route, array, std::move(request), std::move(names));
    if (!result) co_return error_response(result.error());
    co_return Response{.body = result->dump(-1, ' ', false, Json::error_handler_t::replace)};
  }
  const std::string what = fmt::format("{} {}", request.method, request.path);
  Response response = error_response(Error(
      Code::kNoName, path_known ? what + " is not a verb of this path" : what + " does not exist",
      "GET /api/v1/openapi.json"));
  if (path_known) response.status = 405;
  co_return response;
}

}  // namespace duplex::api
