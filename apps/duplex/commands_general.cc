// status, support, event.
#include <fmt/format.h>

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

// Times compare as text, so a shorter one is a beginning of them: 2026-11-21, 2026-11-21T03:30.
void check_time(const std::string& since) {
  constexpr std::string_view kForm = "0000-00-00T00:00:00.000Z";
  const auto fits = [&](size_t i) {
    return kForm[i] == '0' ? since[i] >= '0' && since[i] <= '9' : since[i] == kForm[i];
  };
  size_t end = 0;
  while (end < std::min(since.size(), kForm.size()) && fits(end)) ++end;
  const std::string_view rest = std::string_view(since).substr(end);
  if (since.empty() || (end >= 10 && (rest.empty() || rest == "Z"))) return;
  throw Failure{kUsage, "e_invalid", fmt::format("'{}' is not a time", since),
                "use UTC like 2026-11-21T03:30:00Z"};
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
  list->add_option("--since", *since, "only events at or after this time")
      ->type_name("2026-11-21T03:30:00Z");
  list->callback([&context, since] {
    context.action = [&context, since](const Client& client) {
      check_time(*since);
      // Without its Z it is a beginning of every time in its second.
      const std::string from = since->substr(0, since->find('Z'));
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
