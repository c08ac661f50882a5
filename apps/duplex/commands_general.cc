// status, support, event.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>

#include "duplex/commands.h"

namespace duplex::cli {
namespace {

void print_status(const Json& status) {
  fmt::print("array {} ({}): {}\n", status["array"].get<std::string>(),
             status["id"].get<std::string>(), status["ok"].get<bool>() ? "ok" : "needs attention");
  for (const Json& line : status["lines"]) {
    fmt::print("{:<8}{}\n", line["severity"].get<std::string>(), line["text"].get<std::string>());
    if (line["next"] != "") fmt::print("        next: {}\n", line["next"].get<std::string>());
  }
  const Json& pool = status["pool"];
  fmt::print("pool    {} used, {} free of {}, {} promised, {} device(s), {} volume(s)\n",
             size_text(pool["used"]), size_text(pool["free"]), size_text(pool["total"]),
             size_text(pool["promised"]), status["devices"].get<int>(),
             status["volumes"].get<int>());
}

void print_event(const Json& event) {
  fmt::print("{}  {:<7}  {}{}\n", event["time"].get<std::string>(),
             event["severity"].get<std::string>(), event["text"].get<std::string>(),
             event["next"] == "" ? "" : "  (next: " + event["next"].get<std::string>() + ")");
}

// Whether `time` is 2026-11-21T03:30:00.000 or a beginning of it that ends with a whole number, the
// day at least, and exists in the calendar.
bool is_time(std::string_view time) {
  constexpr std::string_view kForm = "0000-00-00T00:00:00.000";
  constexpr std::array<size_t, 5> kEnds = {10, 13, 16, 19, 23};
  if (std::ranges::find(kEnds, time.size()) == kEnds.end()) return false;
  for (size_t i = 0; i < time.size(); ++i) {
    const bool digit = time[i] >= '0' && time[i] <= '9';
    if (kForm[i] == '0' ? !digit : time[i] != kForm[i]) return false;
  }
  const auto part = [&](size_t at, size_t length) {
    return at < time.size() ? static_cast<unsigned>(*parse_number(time.substr(at, length))) : 0;
  };
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(part(0, 4))),
                                         std::chrono::month(part(5, 2)),
                                         std::chrono::day(part(8, 2))};
  return date.ok() && part(11, 2) < 24 && part(14, 2) < 60 && part(17, 2) < 60;
}

// Times compare as text. Without its Z one is a beginning of every time in its second, or its day.
std::string since_of(const std::string& text) {
  const std::string time = text.ends_with('Z') ? text.substr(0, text.size() - 1) : text;
  if (is_time(time)) return time;
  throw Failure{kUsage, "e_invalid", fmt::format("'{}' is not a time", text),
                "use UTC like 2026-11-21T03:30:00Z, or a beginning of it: 2026-11-21"};
}

void follow_events(const Context& context, const Client& client) {
  uint64_t last = 0;
  for (const Json& event : client.get("/api/v1/events?limit=1")) last = event["id"];
  while (true) {
    for (const Json& event : client.get(fmt::format("/api/v1/events?after={}&timeout=30", last))) {
      last = event["id"];
      if (context.settings.json) {
        fmt::print("{}\n", event.dump());
      } else {
        print_event(event);
      }
      std::fflush(stdout);
    }
  }
}

}  // namespace

void add_general_commands(CLI::App& app, Context& context) {
  CLI::App* status = app.add_subcommand("status", "How the array is, worst first");
  auto check = std::make_shared<bool>(false);
  status->add_flag("--check", *check,
                   "for monitoring: one line, exit 1 when something needs attention");
  status->callback([&context, check] {
    context.action = [&context, check](const Client& client) {
      const Json json = client.get("/api/v1/status");
      if (!*check) return show(context, json, print_status);
      const bool ok = json["ok"];
      const std::string line =
          json["lines"].empty() ? "ok" : json["lines"][0]["text"].get<std::string>();
      if (context.settings.json) {
        print_json(json);
      } else {
        fmt::print("{}\n", line);
      }
      if (!ok) throw Failure{kRefused, "", "", ""};
    };
  });

  CLI::App* support =
      app.add_subcommand("support", "Everything a person who helps needs, as one text");
  support->callback([&context] {
    context.action = [](const Client& client) { fmt::print("{}", client.text("/api/v1/support")); };
  });

  CLI::App* event = app.add_subcommand("event", "What has happened");
  event->require_subcommand(1);
  CLI::App* list = event->add_subcommand("list", "The last events");
  auto since = std::make_shared<std::string>();
  const CLI::Option* given = list->add_option("--since", *since, "only events from this time on")
                                 ->type_name("2026-11-21T03:30:00Z");
  list->callback([&context, since, given] {
    const bool is_given = given->count() > 0;
    context.action = [&context, since, is_given](const Client& client) {
      const std::string from = is_given ? since_of(*since) : std::string();
      Json all = Json::array();
      for (const Json& one : client.get("/api/v1/events?limit=1000")) {
        if (one["time"].get<std::string>() >= from) all.push_back(one);
      }
      show(context, all, [](const Json& events) {
        for (const Json& one : events) print_event(one);
      });
    };
  });
  event->add_subcommand("follow", "New events as they come, until interrupted")
      ->callback([&context] {
        context.action = [&context](const Client& client) { follow_events(context, client); };
      });
}

}  // namespace duplex::cli
