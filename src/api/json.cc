#include "api/json.h"

#include "api/health.h"
#include "base/text.h"

namespace duplex::api {
namespace {

std::string_view state_name(pool::DeviceState state) {
  switch (state) {
    case pool::DeviceState::kOnline:
      return "online";
    case pool::DeviceState::kFailing:
      return "failing";
    case pool::DeviceState::kAbsent:
      return "absent";
  }
  return "";
}

Json time_or_null(int64_t wall_us) {
  return wall_us == 0 ? Json(nullptr) : Json(format_time(wall_us));
}

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json number_or_null(uint64_t number) { return number == 0 ? Json(nullptr) : Json(number); }

// What hosts may do with the target.
std::string_view access_word(const mirror::MirrorInfo& info) {
  if (info.state == mirror::Relation::kSplit) return info.read_only ? "ro" : "rw";
  return info.state == mirror::Relation::kReverse ? "ro" : "none";
}

}  // namespace

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return "info";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
  }
  return "";
}

Json to_json(const control::Array& array, const volume::VolumeInfo& info,
             const std::vector<mirror::MirrorInfo>& mirrors) {
  const auto trouble = trouble_of(info, mirrors);
  return {{"name", info.name},
          {"id", format_id(info.number)},
          {"size", info.size_bytes},
          {"allocated", info.allocated_bytes},
          {"backing", info.backing},
          {"uri", array.uri_of(info.name)},
          {"device", info.device},
          {"thick", info.thick},
          {"damaged", info.damaged},
          {"consistent", info.consistent},
          {"trouble", trouble ? Json(trouble->text) : Json(nullptr)},
          {"next", trouble ? Json(trouble->next) : Json(nullptr)},
          {"mirrors", info.mirrors},
          {"created", time_or_null(info.created_us)},
          {"reactor", info.core},
          {"clients", info.clients},
          {"stats",
           {{"reads", info.stats.reads},
            {"writes", info.stats.writes},
            {"trims", info.stats.trims},
            {"flushes", info.stats.flushes},
            {"read_bytes", info.stats.read_bytes},
            {"written_bytes", info.stats.written_bytes},
            {"errors", info.stats.errors}}}};
}

Json to_json(const pool::DeviceInfo& info) {
  return {{"name", info.name},
          {"id", info.id.value()},
          {"path", info.path},
          {"uuid", info.uuid.to_string()},
          {"state", state_name(info.state)},
          {"reason", info.reason},
          {"size", info.size_bytes},
          {"extent_size", info.extent_bytes},
          {"extents", info.extent_count},
          {"extents_used", info.used_extents},
          {"extents_scrubbing", info.scrubbing_extents},
          {"read_errors", info.read_errors},
          {"write_errors", info.write_errors},
          {"flush_errors", info.flush_errors},
          {"direct", info.is_direct},
          {"engine", info.engine}};
}

Json to_json(const pool::PoolUsage& usage) {
  return {{"total", usage.total_bytes},
          {"used", usage.used_bytes},
          {"free", usage.free_bytes},
          {"scrubbing", usage.scrubbing_bytes},
          {"promised", usage.promised_bytes}};
}

Json to_json(const pool::Pool::BackingInfo& info) {
  return {{"name", info.name},       {"id", info.id.value()},
          {"size", info.size_bytes}, {"allocated", info.allocated_bytes},
          {"thick", info.thick},     {"device", info.device}};
}

Json to_json(const pool::ExtentRun& run) {
  if (run.device.empty())
    return {{"le", run.le.value()}, {"device", nullptr}, {"pe", nullptr}, {"count", run.count}};
  return {
      {"le", run.le.value()}, {"device", run.device}, {"pe", run.pe.value()}, {"count", run.count}};
}

Json to_json(const pool::PhysicalRun& run) {
  if (run.backing.empty())
    return {{"pe", run.pe.value()}, {"backing", nullptr}, {"le", nullptr}, {"count", run.count}};
  return {{"pe", run.pe.value()},
          {"backing", run.backing},
          {"le", run.le.value()},
          {"count", run.count}};
}

Json to_json(const control::JobInfo& info) {
  const meta::JobRow& row = info.row;
  const double progress = row.bytes_total == 0 ? 100.0
                                               : 100.0 * static_cast<double>(row.bytes_done) /
                                                     static_cast<double>(row.bytes_total);
  return {{"id", row.id},
          {"kind", row.kind},
          {"mirror", text_or_null(info.mirror)},
          {"target", row.target},
          {"source", row.source},
          {"state", row.state},
          {"stalled", info.is_stalled},
          {"reason", info.reason},
          {"error", row.error},
          {"progress", row.state == "done" ? 100.0 : progress},
          {"bytes_done", row.bytes_done},
          {"bytes_total", row.bytes_total},
          {"bytes_moved", info.bytes_moved ? Json(*info.bytes_moved) : Json(nullptr)},
          {"eta_s", info.eta_seconds},
          {"rate", row.rate},
          {"started", time_or_null(row.started_us)},
          {"ended", time_or_null(row.ended_us)}};
}

Json to_json(const mirror::MirrorInfo& info, ArrayId array) {
  const std::string id = format_id(array);
  return {{"number", info.id.value()},
          {"name", info.name},
          {"source", info.source},
          {"source_array", id},
          {"source_id", format_id(info.source_number)},
          {"target", info.target},
          {"target_array", id},
          {"target_id", format_id(info.target_number)},
          {"size", info.size_bytes},
          {"kind", "local"},
          {"mode", "sync"},
          {"state", mirror::shown_name(info.state)},
          {"reason", info.reason},
          {"access", access_word(info)},
          {"consistent", info.consistent},
          {"source_consistent", info.source_consistent},
          {"attached", info.attached},
          {"groups", info.groups},
          {"cut", number_or_null(info.cut)},
          {"hold", info.in_cut},
          {"progress", info.progress},
          {"job", info.job ? Json(*info.job) : Json(nullptr)},
          {"then", text_or_null(info.then)},
          {"changed_bytes", info.changed_bytes()},
          {"changed_bytes_source", info.changed_bytes_source},
          {"changed_bytes_target", info.changed_bytes_target},
          {"missing_bytes", info.missing_bytes},
          {"created", time_or_null(info.created_us)}};
}

Json to_json(const mirror::GroupInfo& info) {
  return {{"name", info.name}, {"mirrors", info.mirrors}};
}

Json to_json(const mirror::CutInfo& info) {
  Json json = {{"cut", info.id},
               {"epoch", info.epoch},
               {"certified", true},
               {"hold_us", info.hold},
               {"time", time_or_null(info.wall_us)},
               {"members", Json::array()}};
  for (const mirror::CutInfo::Member& member : info.members) {
    const bool is_there = !member.mirror.empty();
    json["members"].push_back(
        {{"name", text_or_null(member.mirror)},
         {"target", text_or_null(member.target)},
         {"target_id", format_id(member.number)},
         {"kept", is_there && member.is_kept},
         {"state", is_there ? Json(mirror::shown_name(member.state)) : Json(nullptr)}});
  }
  return json;
}

Json to_json(const mirror::Plan& plan) {
  return {{"plan", plan.lines},
          {"bytes_overwritten", plan.bytes_overwritten},
          {"volume", text_or_null(plan.volume)},
          {"destroys", plan.destroys}};
}

Json to_json(const meta::EventRow& row) {
  return {{"id", row.id},
          {"time", format_time(row.wall_us)},
          {"severity", severity_name(row.event.severity)},
          {"code", row.event.code},
          {"subject", row.event.subject},
          {"text", row.event.text},
          {"next", row.event.next}};
}

}  // namespace duplex::api
