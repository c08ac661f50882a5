// job.
#include <fmt/format.h>

#include <memory>

#include "duplex/commands.h"

namespace duplex::cli {
namespace {

std::string state_text(const Json& job) {
  return job["stalled"].get<bool>() ? "running (stalled)" : job["state"].get<std::string>();
}

void print_jobs(const Json& jobs) {
  Table table({">ID", "KIND", "MIRROR", "TARGET", "STATE", ">PROGRESS", ">DONE", ">TOTAL", ">ETA"});
  for (const Json& j : jobs) {
    table.add({j["id"].dump(), j["kind"], text_or_dash(j["mirror"]), j["target"], state_text(j),
               fmt::format("{:.0f} %", j["progress"].get<double>()), size_text(j["bytes_done"]),
               size_text(j["bytes_total"]),
               j["state"] == "running" ? j["eta_s"].dump() + " s" : "-"});
  }
  table.print();
  for (const Json& j : jobs) {
    if (j["reason"] != "")
      fmt::print("job {} is stalled: {}\n", j["id"].dump(), j["reason"].get<std::string>());
    if (j["error"] != "") fmt::print("job {}: {}\n", j["id"].dump(), j["error"].get<std::string>());
  }
}

// What begins like an option or a negative number is a mistake of the one who types.
CLI::Validator job_name() {
  return {[](const std::string& text) {
            return text.empty() || text.front() == '-'
                       ? "'" + text + "' is neither a number nor the name of a mirror"
                       : std::string();
          },
          ""};
}

// Without --yes the array is asked first without it: its refusal tells what would be lost.
Json cancel(const Client& client, const Settings& settings, const std::string& path) {
  const std::string verb = path + "/cancel";
  if (settings.yes) return client.post(verb + "?confirmed=true", Json::object());
  try {
    return client.post(verb, Json::object());
  } catch (const Failure& failure) {
    if (!failure.next.contains("--yes")) throw;
    confirmed(settings, failure.message, failure.next);
  }
  return client.post(verb + "?confirmed=true", Json::object());
}

}  // namespace

void add_job_commands(CLI::App& app, Context& context) {
  CLI::App* job = app.add_subcommand("job", "Long work: progress, pause, cancel");
  job->require_subcommand(1);
  job->add_subcommand("list", "All jobs")->callback([&context] {
    context.action = [&context](const Client& client) {
      show(context, client.get("/api/v1/jobs"), print_jobs);
    };
  });
  auto id = std::make_shared<std::string>();
  auto timeout = std::make_shared<uint64_t>(0);
  auto rate = std::make_shared<std::string>();
  const auto command = [&](const char* verb, const char* help, const auto& act) {
    CLI::App* made = job->add_subcommand(verb, help);
    made->add_option("id", *id, "number, or name of a mirror")->required()->check(job_name());
    made->callback([&context, id, act] {
      context.action = [&context, id, act](const Client& client) {
        show(context, act(client, "/api/v1/jobs/" + path_part(*id)),
             [](const Json& j) { print_jobs(Json::array({j})); });
      };
    });
    return made;
  };
  command("show", "One job",
          [](const Client& client, const std::string& path) { return client.get(path); });
  for (const auto& [verb, help] : {std::pair("pause", "Stop for now, keep what is done"),
                                   {"resume", "Go on after a pause"}}) {
    command(verb, help, [verb](const Client& client, const std::string& path) {
      return client.post(path + "/" + verb, Json::object());
    });
  }
  command("cancel", "End it for good; what has been copied stays",
          [&context](const Client& client, const std::string& path) {
            return cancel(client, context.settings, path);
          });
  command("wait", "Until the job has ended",
          [&context, id, timeout](const Client& client, const std::string&) {
            return follow_job(client, context.settings, *id, *timeout);
          })
      ->add_option("--timeout", *timeout, "seconds, 0 for ever")
      ->check(whole_number());
  command("rate", "Limit a job",
          [rate](const Client& client, const std::string& path) {
            return client.post(path + "/rate", {{"rate", *rate == "none" ? 0 : size_of(*rate)}});
          })
      ->add_option("rate", *rate, "bytes per second, or none")
      ->required()
      ->type_name("100M|none");
}

}  // namespace duplex::cli
