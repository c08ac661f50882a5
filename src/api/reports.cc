#include "api/reports.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "api/health.h"
#include "api/json.h"
#include "base/text.h"

namespace duplex::api {
namespace {

constexpr size_t kMaxLines = 10;

struct Line {
  Severity severity;
  std::string text;
  std::string next;
};

void store_lines(control::Array& array, std::vector<Line>& lines) {
  if (const auto& trouble = array.store_trouble()) {
    lines.push_back(
        {Severity::kError, std::string(trouble->message()), std::string(trouble->next())});
  }
}

void device_lines(control::Array& array, std::vector<Line>& lines) {
  for (const auto& info : array.pool().devices()) {
    if (info.state == pool::DeviceState::kAbsent) {
      lines.push_back({Severity::kError,
                       fmt::format("device {} is absent: {}", info.name, info.reason),
                       fmt::format("make {} available; it is taken back by itself", info.path)});
    } else if (info.state == pool::DeviceState::kFailing) {
      lines.push_back(
          {Severity::kError,
           fmt::format("device {} is failing: {} read, {} write, {} flush errors", info.name,
                       info.read_errors, info.write_errors, info.flush_errors),
           fmt::format("duplex device show {}", info.name)});
    }
  }
}

void pool_lines(control::Array& array, std::vector<Line>& lines) {
  const pool::PoolUsage usage = array.pool().usage();
  if (usage.total_bytes == 0) {
    lines.push_back(
        {Severity::kWarning, "the pool has no device", "duplex device add PATH --size 20G"});
    return;
  }
  const uint64_t percent = usage.used_bytes * 100 / usage.total_bytes;
  if (percent < 80) return;
  const Severity severity = percent >= 95 ? Severity::kError : Severity::kWarning;
  lines.push_back({severity,
                   fmt::format("the pool is {} % full, {} free", percent,
                               format_size_rounded(usage.free_bytes)),
                   "duplex device add PATH"});
}

void volume_lines(control::Array& array, const std::vector<mirror::MirrorInfo>& mirrors,
                  std::vector<Line>& lines) {
  for (const auto& info : array.volumes().infos()) {
    const auto trouble = trouble_of(info, mirrors);
    if (trouble && !trouble->is_told_elsewhere) {
      lines.push_back({Severity::kError,
                       fmt::format("volume {} is inconsistent, so hosts cannot open it: {}",
                                   info.name, trouble->text),
                       trouble->next});
    }
    if (info.damaged) {
      lines.push_back(
          {Severity::kError,
           fmt::format("volume {} is damaged: a rebuild did not find all of it", info.name),
           fmt::format("duplex volume show {}", info.name)});
    }
  }
}

// A failed job asks for attention until a later one has the same target, or the target is gone.
bool is_settled(control::Array& array, const std::vector<meta::JobRow>& jobs,
                const meta::JobRow& failed) {
  const bool again = std::ranges::any_of(jobs, [&](const meta::JobRow& later) {
    return later.id > failed.id && later.kind == failed.kind && later.target == failed.target;
  });
  return again || !array.volumes().info(failed.target);
}

void job_lines(control::Array& array, std::vector<Line>& lines) {
  const std::vector<meta::JobRow> jobs = array.jobs().list();
  for (const meta::JobRow& row : jobs) {
    if (row.state == "failed") {
      if (is_settled(array, jobs, row)) continue;
      lines.push_back(
          {Severity::kWarning,
           fmt::format("job {} ({} {}) failed: {}", row.id, row.kind, row.target, row.error),
           fmt::format("duplex job show {}", row.id)});
    } else if (row.state == "running" || row.state == "paused") {
      lines.push_back(
          {Severity::kInfo,
           fmt::format("job {} ({} {}) is {}", row.id, row.kind, row.target, row.state),
           fmt::format("duplex job {} {}", row.state == "paused" ? "resume" : "wait", row.id)});
    }
  }
}

void mirror_lines(const std::vector<mirror::MirrorInfo>& mirrors, std::vector<Line>& lines) {
  for (const auto& info : mirrors) {
    if (info.state == mirror::Relation::kSuspended) {
      lines.push_back(
          {Severity::kError,
           fmt::format("mirror {} of {} is suspended: {}, {} behind", info.name, info.source,
                       info.reason, format_size_rounded(info.changed_bytes())),
           fmt::format("duplex mirror resync {}", info.name)});
    }
    if (info.missing_bytes > 0 && info.state != mirror::Relation::kReverse) {
      lines.push_back({Severity::kWarning,
                       fmt::format("volume {} is degraded: {} of it are read from {}", info.source,
                                   format_size_rounded(info.missing_bytes), info.target),
                       fmt::format("duplex mirror show {}", info.name)});
    }
  }
}

// How many mirrors are in each state, also those in which none is.
std::map<std::string_view, uint64_t> mirror_counts(const std::vector<mirror::MirrorInfo>& mirrors) {
  using enum mirror::Relation;
  std::map<std::string_view, uint64_t> counts;
  for (const auto state : {kCopying, kSync, kSplitting, kSplit, kReverse, kSuspended})
    counts[mirror::shown_name(state)] = 0;
  for (const auto& info : mirrors) ++counts[mirror::shown_name(info.state)];
  return counts;
}

Json mirrors_report(control::Array& array, const std::vector<mirror::MirrorInfo>& mirrors) {
  Json json = {{"count", mirrors.size()},
               {"states", Json::object()},
               {"last_cut", nullptr},
               {"last_hold_us", nullptr}};
  for (const auto& [state, count] : mirror_counts(mirrors)) json["states"][state] = count;
  const auto cuts = array.mirrors().cuts();
  if (cuts.empty()) return json;
  json["last_cut"] = cuts.back().id;
  json["last_hold_us"] = cuts.back().hold;
  return json;
}

void mirror_metrics(control::Array& array, const std::vector<mirror::MirrorInfo>& mirrors,
                    std::string& out) {
  const auto head = [&](const char* name, const char* type, const char* help) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  };
  head("duplex_mirrors", "gauge", "Mirrors by state.");
  for (const auto& [state, count] : mirror_counts(mirrors))
    out += fmt::format("duplex_mirrors{{state=\"{}\"}} {}\n", state, count);
  head("duplex_mirror_changed_bytes", "gauge", "Bytes in which the two sides of a mirror differ.");
  for (const auto& info : mirrors) {
    out += fmt::format(
        "duplex_mirror_changed_bytes{{mirror=\"{0}\",side=\"source\"}} "
        "{1}\nduplex_mirror_changed_bytes{{mirror=\"{0}\",side=\"target\"}} {2}\n",
        info.name, info.changed_bytes_source, info.changed_bytes_target);
  }
  head("duplex_mirror_missing_bytes", "gauge", "Bytes that only the target holds.");
  for (const auto& info : mirrors)
    out += fmt::format("duplex_mirror_missing_bytes{{mirror=\"{}\"}} {}\n", info.name,
                       info.missing_bytes);
  const auto cuts = array.mirrors().cuts();
  head("duplex_last_cut", "gauge", "Number of the last cut.");
  out += fmt::format("duplex_last_cut {}\n", cuts.empty() ? 0 : cuts.back().id);
  head("duplex_last_cut_hold_seconds", "gauge", "How long the last cut held writes up.");
  out += fmt::format("duplex_last_cut_hold_seconds {:.6f}\n",
                     cuts.empty() ? 0.0 : static_cast<double>(cuts.back().hold) / rt::kSecond);
}

}  // namespace

rt::Task<nlohmann::json> status_report(control::Array& array) {
  const std::vector<mirror::MirrorInfo> mirrors = co_await array.mirrors().list();
  std::vector<Line> lines;
  mirror_lines(mirrors, lines);
  store_lines(array, lines);
  device_lines(array, lines);
  pool_lines(array, lines);
  volume_lines(array, mirrors, lines);
  job_lines(array, lines);
  std::vector<Line> sorted;
  for (const Severity severity : {Severity::kError, Severity::kWarning, Severity::kInfo}) {
    std::ranges::copy_if(lines, std::back_inserter(sorted),
                         [&](const Line& line) { return line.severity == severity; });
  }
  lines = std::move(sorted);
  const bool ok = lines.empty() || lines.front().severity == Severity::kInfo;
  if (lines.size() > kMaxLines) {
    const size_t more = lines.size() - (kMaxLines - 1);
    lines.resize(kMaxLines - 1);
    lines.push_back({Severity::kInfo, fmt::format("and {} more", more), "duplex support"});
  }
  Json json = {
      {"array", array.options().name},
      {"id", format_id(array.options().id)},
      {"ok", ok},
      {"volumes", array.volumes().infos().size()},
      {"devices", array.pool().devices().size()},
      {"pool", to_json(array.pool().usage())},
      {"mirrors", mirrors_report(array, mirrors)},
      {"engine", array.options().engine},
      {"reactors", array.world().reactor_count()},
      {"uptime_s", (array.world().control().clock().now() - array.started()) / rt::kSecond},
      {"lines", Json::array()}};
  for (const Line& line : lines)
    json["lines"].push_back(
        {{"severity", severity_name(line.severity)}, {"text", line.text}, {"next", line.next}});
  co_return json;
}

rt::Task<std::string> support_page(control::Array& array) {
  const std::vector<mirror::MirrorInfo> mirrors = co_await array.mirrors().list();
  Json json = {{"status", co_await status_report(array)},
               {"volumes", Json::array()},
               {"devices", Json::array()},
               {"mirrors", Json::array()},
               {"groups", Json::array()},
               {"cuts", Json::array()},
               {"jobs", Json::array()},
               {"events", Json::array()}};
  for (const auto& info : array.volumes().infos())
    json["volumes"].push_back(to_json(array, info, mirrors));
  for (const auto& info : array.pool().devices()) json["devices"].push_back(to_json(info));
  for (const auto& info : mirrors) json["mirrors"].push_back(to_json(info, array.options().id));
  for (const auto& info : array.mirrors().groups()) json["groups"].push_back(to_json(info));
  for (const auto& info : array.mirrors().cuts()) json["cuts"].push_back(to_json(info));
  for (const auto& info : co_await array.jobs().infos()) json["jobs"].push_back(to_json(info));
  const auto events = co_await array.events().after(0, 1000, 0);
  if (events) {
    for (const auto& row : *events) json["events"].push_back(to_json(row));
  }
  co_return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

rt::Task<std::string> metrics_page(control::Array& array) {
  const std::vector<mirror::MirrorInfo> mirrors = co_await array.mirrors().list();
  std::string out;
  const auto head = [&](const char* name, const char* type, const char* help) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  };
  head("duplex_info", "gauge", "The array; always 1.");
  out += fmt::format("duplex_info{{array=\"{}\",id=\"{}\",engine=\"{}\"}} 1\n",
                     array.options().name, format_id(array.options().id), array.options().engine);
  head("duplex_uptime_seconds", "gauge", "Seconds since the start.");
  out += fmt::format("duplex_uptime_seconds {}\n",
                     (array.world().control().clock().now() - array.started()) / rt::kSecond);
  const pool::PoolUsage usage = array.pool().usage();
  head("duplex_pool_bytes", "gauge", "Bytes of the pool by state.");
  out += fmt::format(
      "duplex_pool_bytes{{state=\"used\"}} {}\nduplex_pool_bytes{{state=\"free\"}} "
      "{}\nduplex_pool_bytes{{state=\"scrubbing\"}} {}\n",
      usage.used_bytes, usage.free_bytes, usage.scrubbing_bytes);
  head("duplex_device_state", "gauge", "1 for the state a device is in.");
  for (const auto& info : array.pool().devices()) {
    for (const char* state : {"online", "failing", "absent"}) {
      out += fmt::format("duplex_device_state{{device=\"{}\",state=\"{}\"}} {}\n", info.name, state,
                         to_json(info)["state"] == state ? 1 : 0);
    }
  }
  head("duplex_device_errors_total", "counter", "Errors a device has answered with.");
  for (const auto& info : array.pool().devices()) {
    out += fmt::format(
        "duplex_device_errors_total{{device=\"{0}\",kind=\"read\"}} "
        "{1}\nduplex_device_errors_total{{device=\"{0}\",kind=\"write\"}} "
        "{2}\nduplex_device_errors_total{{device=\"{0}\",kind=\"flush\"}} {3}\n",
        info.name, info.read_errors, info.write_errors, info.flush_errors);
  }
  const auto volumes = array.volumes().infos();
  const auto per_volume = [&](const char* name, const char* type, const char* help, auto value) {
    head(name, type, help);
    for (const auto& info : volumes)
      out += fmt::format("{}{{volume=\"{}\"}} {}\n", name, info.name, value(info));
  };
  per_volume("duplex_volume_size_bytes", "gauge", "Size of a volume.",
             [](const auto& v) { return v.size_bytes; });
  per_volume("duplex_volume_allocated_bytes", "gauge", "Bytes of extents a volume holds.",
             [](const auto& v) { return v.allocated_bytes; });
  per_volume("duplex_volume_clients", "gauge", "Clients that have a volume open.",
             [](const auto& v) { return v.clients.size(); });
  per_volume("duplex_volume_reads_total", "counter", "Read requests.",
             [](const auto& v) { return v.stats.reads; });
  per_volume("duplex_volume_writes_total", "counter", "Write and zero requests.",
             [](const auto& v) { return v.stats.writes; });
  per_volume("duplex_volume_flushes_total", "counter", "Flush requests.",
             [](const auto& v) { return v.stats.flushes; });
  per_volume("duplex_volume_trims_total", "counter", "Trim requests.",
             [](const auto& v) { return v.stats.trims; });
  per_volume("duplex_volume_read_bytes_total", "counter", "Bytes read.",
             [](const auto& v) { return v.stats.read_bytes; });
  per_volume("duplex_volume_written_bytes_total", "counter", "Bytes written.",
             [](const auto& v) { return v.stats.written_bytes; });
  per_volume("duplex_volume_errors_total", "counter", "Requests that failed.",
             [](const auto& v) { return v.stats.errors; });
  head("duplex_events_total", "counter", "Events by severity since the start.");
  out += fmt::format(
      "duplex_events_total{{severity=\"error\"}} {}\nduplex_events_total{{severity=\"warning\"}} "
      "{}\n",
      array.events().errors(), array.events().warnings());
  mirror_metrics(array, mirrors, out);
  co_return out;
}

}  // namespace duplex::api
