// Verbs on mirrors, groups and cuts. What may be done when is decided by mirror::Mirrors.
#include <fmt/format.h>

#include "api/body.h"
#include "api/pair_file.h"
#include "api/route.h"
#include "base/text.h"

namespace duplex::api {
namespace {

using control::Array;
using mirror::MirrorInfo;

constexpr uint64_t kMaxHoldMs = 10'000;

Json mirror_list(const Array& array, const std::vector<MirrorInfo>& infos) {
  Json all = Json::array();
  for (const MirrorInfo& info : infos) all.push_back(to_json(info, array.options().id));
  return all;
}

rt::Task<Result<Json>> list_mirrors(Array& array, Request, PathNames) {
  co_return mirror_list(array, co_await array.mirrors().list());
}

// What only mirrors between arrays can be asked for.
Result<void> check_local(const std::string& mode, const std::string& fence) {
  if (mode == "sync" && fence == "never") return {};
  return fail(Code::kNotSupported,
              mode == "sync"
                  ? "a mirror within one array has no link to fence, so 'fence' must be never"
                  : "a mirror within one array is always synchronous, so 'mode' must be sync",
              "leave it out");
}

rt::Task<Result<Json>> create_mirror(Array& array, Request request, PathNames) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  mirror::CreateMirror create;
  create.name = body.text("name", true);
  const std::string source = body.text("source", true);
  const std::string target = body.text("target", true);
  const std::string mode = body.word("mode", {"sync", "async"});
  const std::string fence = body.word("fence", {"never", "data"});
  create.copy = body.word("copy", {"full", "none"}) == "full";
  create.overwrite = body.flag("overwrite");
  create.rate = body.size("rate");
  CO_TRY(body.done());
  CO_TRY(check_local(mode, fence));
  CO_TRY_ASSIGN(create.source, own_volume(array, source));
  CO_TRY_ASSIGN(create.target, own_volume(array, target));
  CO_TRY_ASSIGN(const auto made, co_await array.mirrors().create(std::move(create)));
  Json json = to_json(made.info, array.options().id);
  json["created_now"] = made.created;
  co_return json;
}

rt::Task<Result<Json>> show_mirror(Array& array, Request, PathNames names) {
  CO_TRY_ASSIGN(const MirrorInfo info, co_await array.mirrors().show(names["name"]));
  co_return to_json(info, array.options().id);
}

// ?plan=true: what it would do; ?confirmed=true: bytes that only the target holds may be lost.
rt::Task<Result<Json>> delete_mirror(Array& array, Request request, PathNames names) {
  CO_TRY_ASSIGN(const bool plan, query_flag(request, "plan"));
  CO_TRY_ASSIGN(const bool confirmed, query_flag(request, "confirmed"));
  if (plan) {
    CO_TRY_ASSIGN(const mirror::Plan what, co_await array.mirrors().plan_remove(names["name"]));
    co_return to_json(what);
  }
  CO_TRY(co_await array.mirrors().remove(names["name"], confirmed));
  co_return Json{{"deleted", names["name"]}};
}

Result<void> check_named(const std::vector<std::string>& names) {
  if (!names.empty()) return {};
  return fail(Code::kInvalid, "'names' names no mirror and no group", "duplex mirror list");
}

rt::Task<Result<Json>> resync(Array& array, Request request, PathNames) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  mirror::Mirrors::Names which;
  which.names = body.texts("names");
  which.disconnect = body.flag("disconnect");
  CO_TRY(body.done());
  CO_TRY(check_named(which.names));
  CO_TRY_ASSIGN(const auto infos, co_await array.mirrors().resync(std::move(which)));
  co_return mirror_list(array, infos);
}

// What a restore without consent is told; anything it would be refused for comes first.
Error unconfirmed(const mirror::Plan& plan) {
  std::string text;
  for (const std::string& line : plan.lines) text += (text.empty() ? "" : " ") + line;
  return Error(Code::kState, std::move(text), "set 'confirmed' to do it, or 'plan' to see it only");
}

// Always an object: the plan, or the mirrors that are being restored.
rt::Task<Result<Json>> restore(Array& array, Request request, PathNames) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  mirror::Mirrors::Restore restore;
  restore.names = body.texts("names");
  const bool to_sync = body.word("then", {"split", "sync"}) == "sync";
  restore.then = to_sync ? mirror::Then::kSync : mirror::Then::kSplit;
  restore.online = body.flag("online");
  const bool plan = body.flag("plan");
  const bool confirmed = body.flag("confirmed");
  CO_TRY(body.done());
  CO_TRY(check_named(restore.names));
  if (plan || !confirmed) {
    CO_TRY_ASSIGN(const mirror::Plan what,
                  co_await array.mirrors().plan_restore(std::move(restore)));
    if (!plan) co_return std::unexpected(unconfirmed(what));
    co_return to_json(what);
  }
  CO_TRY_ASSIGN(const auto infos, co_await array.mirrors().restore(std::move(restore)));
  co_return Json{{"mirrors", mirror_list(array, infos)}};
}

rt::Task<Result<Json>> verify(Array& array, Request request, PathNames) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  std::vector<std::string> names = body.texts("names");
  CO_TRY(body.done());
  CO_TRY(check_named(names));
  CO_TRY_ASSIGN(const auto infos, co_await array.mirrors().verify(std::move(names)));
  co_return mirror_list(array, infos);
}

// A pair file as text, or a list of {"source","target"} with an id each.
Result<std::vector<mirror::PairId>> pairs_of(const Json& given) {
  if (given.is_null()) return std::vector<mirror::PairId>();
  if (given.is_string()) return parse_pairs(given.get_ref<const std::string&>());
  const auto wrong = fail(Code::kInvalid,
                          "'pairs' must be a pair file as text, or a list of objects with "
                          "'source' and 'target', each like \"0x400104, 0x0001\"",
                          "see /api/v1/openapi.json");
  if (!given.is_array()) return wrong;
  std::vector<mirror::PairId> pairs;
  for (const Json& entry : given) {
    if (!entry.is_object() || entry.size() != 2) return wrong;
    std::string two;
    for (const char* side : {"source", "target"}) {
      const auto it = entry.find(side);
      if (it == entry.end() || !it->is_string()) return wrong;
      two += it->get<std::string>() + "\n";
    }
    const auto pair = parse_pairs(two);
    if (!pair || pair->size() != 1) return wrong;
    pairs.push_back(pair->front());
  }
  return pairs;
}

rt::Task<Result<Json>> split(Array& array, Request request, PathNames) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  mirror::SplitRequest split;
  split.names = body.texts("names");
  const Json pairs = body.raw("pairs");
  split.read_only = body.word("access", {"rw", "ro"}) == "ro";
  const uint64_t hold_ms = body.number("max_hold_ms", split.lease / rt::kMillisecond, kMaxHoldMs);
  CO_TRY(body.done());
  if (hold_ms == 0) {
    co_return fail(Code::kInvalid, "'max_hold_ms' must be 1 to 10000", "leave it out for 250 ms");
  }
  split.lease = hold_ms * rt::kMillisecond;
  CO_TRY_ASSIGN(split.pairs, pairs_of(pairs));
  CO_TRY(check_pairs(split.pairs, array.options().id));
  if (split.pairs.empty()) {
    CO_TRY(check_named(split.names));
  }
  CO_TRY_ASSIGN(const mirror::CutInfo cut, co_await array.mirrors().split(std::move(split)));
  co_return to_json(cut);
}

rt::Task<Result<Json>> list_cuts(Array& array, Request, PathNames) {
  Json all = Json::array();
  for (const mirror::CutInfo& cut : array.mirrors().cuts()) all.push_back(to_json(cut));
  co_return all;
}

rt::Task<Result<Json>> show_cut(Array& array, Request, PathNames names) {
  const auto id = parse_number(names["id"]);
  if (!id) {
    co_return fail(Code::kInvalid, fmt::format("'{}' is not the number of a cut", names["id"]),
                   "duplex cut list");
  }
  CO_TRY_ASSIGN(const mirror::CutInfo cut, array.mirrors().cut(*id));
  co_return to_json(cut);
}

rt::Task<Result<Json>> list_groups(Array& array, Request, PathNames) {
  Json all = Json::array();
  for (const mirror::GroupInfo& info : array.mirrors().groups()) all.push_back(to_json(info));
  co_return all;
}

rt::Task<Result<Json>> create_group(Array& array, Request request, PathNames) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  const std::string name = body.text("name", true);
  std::vector<std::string> mirrors = body.texts("mirrors");
  CO_TRY(body.done());
  CO_TRY_ASSIGN(const bool created, co_await array.create_group(name, std::move(mirrors)));
  CO_TRY_ASSIGN(const mirror::GroupInfo info, array.mirrors().group(name));
  Json json = to_json(info);
  json["created_now"] = created;
  co_return json;
}

rt::Task<Result<Json>> show_group(Array& array, Request, PathNames names) {
  CO_TRY_ASSIGN(const mirror::GroupInfo info, array.mirrors().group(names["name"]));
  co_return to_json(info);
}

rt::Task<Result<Json>> delete_group(Array& array, Request, PathNames names) {
  CO_TRY(co_await array.mirrors().delete_group(names["name"]));
  co_return Json{{"deleted", names["name"]}};
}

using GroupVerb =
    rt::Task<Result<mirror::GroupInfo>> (mirror::Mirrors::*)(std::string, std::vector<std::string>);
template <GroupVerb verb>
rt::Task<Result<Json>> change_group(Array& array, Request request, PathNames names) {
  CO_TRY_ASSIGN(Body body, Body::parse(request.body));
  std::vector<std::string> mirrors = body.texts("mirrors");
  CO_TRY(body.done());
  if (mirrors.empty())
    co_return fail(Code::kInvalid, "'mirrors' names no mirror", "duplex mirror list");
  CO_TRY_ASSIGN(const mirror::GroupInfo info,
                co_await (array.mirrors().*verb)(names["name"], std::move(mirrors)));
  co_return to_json(info);
}

constexpr Route kRoutes[] = {
    {"GET", "/api/v1/mirrors", list_mirrors},
    {"POST", "/api/v1/mirrors", create_mirror, {}, true},
    {"GET", "/api/v1/mirrors/{name}", show_mirror},
    {"DELETE", "/api/v1/mirrors/{name}", delete_mirror, {"plan", "confirmed"}},
    {"POST", "/api/v1/resyncs", resync, {}, true},
    {"POST", "/api/v1/restores", restore, {}, true},
    {"POST", "/api/v1/verifies", verify, {}, true},
    {"POST", "/api/v1/splits", split, {}, true},
    {"GET", "/api/v1/cuts", list_cuts},
    {"GET", "/api/v1/cuts/{id}", show_cut},
    {"GET", "/api/v1/groups", list_groups},
    {"POST", "/api/v1/groups", create_group, {}, true},
    {"GET", "/api/v1/groups/{name}", show_group},
    {"DELETE", "/api/v1/groups/{name}", delete_group},
    {"POST", "/api/v1/groups/{name}/add", change_group<&mirror::Mirrors::add_to_group>, {}, true},
    {"POST",
     "/api/v1/groups/{name}/remove",
     change_group<&mirror::Mirrors::remove_from_group>,
     {},
     true},
};

}  // namespace

std::span<const Route> mirror_routes() { return kRoutes; }

}  // namespace duplex::api
