// mirror.
#include "duplex/commands_mirror.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <thread>

#include "base/text.h"
#include "duplex/commands.h"

namespace duplex::cli {
namespace {

std::string percent(const Json& mirror) {
  // Rounded down: what is not all of it is not 100 %.
  return fmt::format("{:.0f} %", std::floor(mirror["progress"].get<double>()));
}

std::string volume_id(const Json& mirror, const char* side) {
  return mirror[std::string(side) + "_array"].get<std::string>() + "," +
         mirror[std::string(side) + "_id"].get<std::string>();
}

// The Copy Management Table of docs/REFERENCE.md, column by column.
void print_copy_table(const Json& mirrors) {
  Table table({">MIRROR", "NAME", "PVOL", "SVOL", "TYPE", "STATUS", "MODE", ">POSITION",
               ">PENDING-P", ">PENDING-S", "HOLD"});
  for (const Json& m : mirrors) {
    table.add({m["number"].dump(), m["name"], volume_id(m, "source"), volume_id(m, "target"),
               m["kind"], m["state"], m["mode"], percent(m), m["changed_bytes_source"].dump(),
               m["changed_bytes_target"].dump(), m["hold"].get<bool>() ? "hold" : "-"});
  }
  table.print();
}

void print_mirror(const Json& m) {
  const auto text = [&m](const char* key) { return m[key].get<std::string>(); };
  fmt::print("mirror {} (number {}): {} to {}, {} {}, {}\n", text("name"), m["number"].dump(),
             text("source"), text("target"), text("kind"), text("mode"), size_text(m["size"]));
  fmt::print("state       {}{}\n", text("state"), m["reason"] == "" ? "" : ": " + text("reason"));
  fmt::print("PVOL        {}  {}{}\n", volume_id(m, "source"), text("source"),
             m["source_consistent"].get<bool>() ? "" : ", inconsistent");
  fmt::print("SVOL        {}  {}{}{}\n", volume_id(m, "target"), text("target"),
             m["attached"].get<bool>() ? "" : ", away",
             m["consistent"].get<bool>() ? "" : ", inconsistent");
  const std::string access = text("access");
  fmt::print("hosts of S  {}\n", access == "rw"   ? "read and write"
                                 : access == "ro" ? "read only"
                                                  : "refused");
  fmt::print("position    {}{}{}\n", percent(m),
             m["job"].is_null() ? "" : ", job " + m["job"].dump(),
             m["then"].is_null() ? "" : ", then " + text("then"));
  fmt::print("pending     {} of P, {} of S\n", size_text(m["changed_bytes_source"]),
             size_text(m["changed_bytes_target"]));
  if (m["missing_bytes"] != 0)
    fmt::print("missing     {} of P are read from S\n", size_text(m["missing_bytes"]));
  fmt::print("cut         {}{}\n", text_or_dash(m["cut"]),
             m["hold"].get<bool>() ? ", held by a cut" : "");
  std::string groups;
  for (const Json& group : m["groups"])
    groups += (groups.empty() ? "" : ", ") + group.get<std::string>();
  fmt::print("groups      {}\n", groups.empty() ? "-" : groups);
}

// With what helps where hosts cannot open a volume of it.
void print_mirror_and_next(const Client& client, const Json& m) {
  print_mirror(m);
  for (const char* side : {"source", "target"}) {
    const std::string name = m[side];
    const bool is_source = std::string_view(side) == "source";
    if (m[is_source ? "source_consistent" : "consistent"].get<bool>()) continue;
    const Json volume = client.get("/api/v1/volumes/" + path_part(name));
    if (volume["trouble"].is_null()) continue;  // it has ended meanwhile
    fmt::print("hosts cannot open {}: {}\nnext: {}\n", name, volume["trouble"].get<std::string>(),
               volume["next"].get<std::string>());
  }
}

struct Verb {
  std::vector<std::string> names;
  Waiting wait;
};

struct CreateMirror {
  std::string name, source, target, mode = "sync", copy = "full", fence = "never", rate;
  bool overwrite = false;
  Waiting wait;
};

void add_create(CLI::App& mirror, Context& context) {
  auto create = std::make_shared<CreateMirror>();
  CLI::App* command =
      mirror.add_subcommand("create", "Make TARGET a mirror of SOURCE; the same again is success");
  command->add_option("name", create->name)->required();
  command->add_option("source", create->source, "NAME, 0xNUMBER, 0xARRAY,0xNUMBER or ARRAY:NAME")
      ->required();
  command->add_option("target", create->target, "the same; as large as the source")->required();
  command->add_option("--mode", create->mode)->check(CLI::IsMember({"sync", "async"}));
  command->add_option("--copy", create->copy, "none: the two are known to be equal")
      ->check(CLI::IsMember({"full", "none"}));
  command->add_option("--fence", create->fence)->check(CLI::IsMember({"never", "data"}));
  command->add_flag("--overwrite", create->overwrite, "replace the data the target holds");
  command->add_option("--rate", create->rate, "of the copy, bytes per second")->type_name("100M");
  add_waiting(*command, create->wait);
  command->callback([&context, create] {
    context.action = [&context, create](const Client& client) {
      Json body = {{"name", create->name},          {"source", create->source},
                   {"target", create->target},      {"mode", create->mode},
                   {"copy", create->copy},          {"fence", create->fence},
                   {"overwrite", create->overwrite}};
      if (!create->rate.empty()) body["rate"] = size_of(create->rate);
      const Json made = client.post("/api/v1/mirrors", body);
      const Json all = wait_for_jobs(client, context.settings, Json::array({made}), create->wait);
      Json m = all.front();
      m["created_now"] = made["created_now"];
      show(context, m, [](const Json& json) { print_mirrors(Json::array({json})); });
    };
  });
}

void add_list(CLI::App& mirror, Context& context) {
  auto kind = std::make_shared<std::string>();
  CLI::App* list = mirror.add_subcommand("list", "All mirrors");
  list->add_option("--table", *kind, "every column of the Copy Management Table")
      ->check(CLI::IsMember({"copy"}));
  list->callback([&context, kind] {
    context.action = [&context, kind](const Client& client) {
      show(context, client.get("/api/v1/mirrors"),
           kind->empty() ? print_mirrors : print_copy_table);
    };
  });
  auto name = std::make_shared<std::string>();
  CLI::App* one = mirror.add_subcommand("show", "One mirror, every column");
  one->add_option("name", *name)->required();
  one->callback([&context, name] {
    context.action = [&context, name](const Client& client) {
      show(context, client.get("/api/v1/mirrors/" + path_part(*name)),
           [&client](const Json& m) { print_mirror_and_next(client, m); });
    };
  });
}

struct Restore : Verb {
  std::string then = "split";
  bool online = false;
};

// Shows the plan first; it needs --yes, or a yes.
void restore(const Context& context, const Client& client, const Restore& restore) {
  Json body = {
      {"names", restore.names}, {"then", restore.then}, {"online", restore.online}, {"plan", true}};
  if (!agreed(context, client.post("/api/v1/restores", body))) return;
  body["plan"] = false;
  body["confirmed"] = true;
  const Json begun = client.post("/api/v1/restores", body)["mirrors"];
  show(context, wait_for_jobs(client, context.settings, begun, restore.wait), print_mirrors);
}

void add_resync(CLI::App& mirror, Context& context) {
  struct Resync : Restore {
    bool reverse = false, disconnect = false;
  };
  auto resync = std::make_shared<Resync>();
  resync->then = "sync";
  CLI::App* command = destructive(
      mirror.add_subcommand("resync", "Copy what differs, so that the target is as its source"),
      context);
  add_names(*command, resync->names);
  command->add_flag("--reverse", resync->reverse,
                    "the other way: a restore that goes on to SYNC; overwrites the source");
  command->add_flag("--disconnect", resync->disconnect, "disconnect the clients of the target");
  command->add_flag("--online", resync->online,
                    "with --reverse: although a client has the source open for writing");
  add_waiting(*command, resync->wait);
  command->callback([&context, resync] {
    context.action = [&context, resync](const Client& client) {
      if (resync->reverse) {
        if (resync->disconnect)
          throw Failure{kUsage, "e_invalid", "--disconnect does not go with --reverse",
                        "close the source, or use --online"};
        return restore(context, client, *resync);
      }
      if (context.settings.plan || resync->online)
        throw Failure{
            kUsage, "e_invalid",
            fmt::format("{} goes with --reverse only", resync->online ? "--online" : "--plan"),
            "leave it out: without --reverse the source is never overwritten; or add --reverse"};
      const Json begun = client.post(
          "/api/v1/resyncs", {{"names", resync->names}, {"disconnect", resync->disconnect}});
      show(context, wait_for_jobs(client, context.settings, begun, resync->wait), print_mirrors);
    };
  });
}

void add_restore(CLI::App& mirror, Context& context) {
  auto wanted = std::make_shared<Restore>();
  CLI::App* command = destructive(
      mirror.add_subcommand("restore", "Give the source the content of its target"), context);
  add_names(*command, wanted->names);
  command->add_option("--then", wanted->then, "default: split, the target is never written")
      ->check(CLI::IsMember({"split", "sync"}));
  command->add_flag("--online", wanted->online,
                    "although a client has the source open for writing");
  add_waiting(*command, wanted->wait);
  command->callback([&context, wanted] {
    context.action = [&context, wanted](const Client& client) {
      restore(context, client, *wanted);
    };
  });
}

void add_verify(CLI::App& mirror, Context& context) {
  auto verify = std::make_shared<Verb>();
  CLI::App* command = mirror.add_subcommand("verify", "Compare both sides");
  add_names(*command, verify->names);
  add_waiting(*command, verify->wait);
  command->callback([&context, verify] {
    context.action = [&context, verify](const Client& client) {
      const Json begun = client.post("/api/v1/verifies", {{"names", verify->names}});
      show(context, wait_for_jobs(client, context.settings, begun, verify->wait), print_mirrors);
    };
  });
}

void add_delete(CLI::App& mirror, Context& context) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = destructive(
      mirror.add_subcommand("delete", "End a mirror; both volumes stay as they are"), context);
  command->add_option("name", *name)->required();
  command->callback([&context, name] {
    context.action = [&context, name](const Client& client) {
      const std::string path = "/api/v1/mirrors/" + path_part(*name);
      const Json plan = client.remove(path + "?plan=true");
      if (!agreed(context, plan)) return;
      const bool confirmed = plan["destroys"].get<bool>() || context.settings.yes;
      show(
          context, client.remove(path + (confirmed ? "?confirmed=true" : "")),
          [](const Json& json) { fmt::print("deleted {}\n", json["deleted"].get<std::string>()); });
    };
  });
}

// Follows job after job: what was restored may go on to SYNC. Between the end of one and what
// follows it the mirror has none for a moment.
Json at_rest(const Client& client, const Settings& settings, Json m, const Waiting& wait) {
  constexpr int kLooks = 100;
  const std::string path = "/api/v1/mirrors/" + path_part(m["name"]);
  for (int looks = 0; looks < kLooks; ++looks) {
    if (!m["job"].is_null()) {
      follow_job(client, settings, m["job"].dump(), wait.timeout_s);
    } else if (m["state"] != "COPYING" && m["state"] != "REVERSE") {
      break;
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    m = client.get(path);
  }
  return m;
}

}  // namespace

void print_mirrors(const Json& mirrors) {
  Table table({"NAME", "SOURCE", "TARGET", "STATE", ">PROGRESS", ">CHANGED", ">CUT", ">JOB"});
  for (const Json& m : mirrors) {
    table.add({m["name"], m["source"], m["target"], m["state"], percent(m),
               size_text(m["changed_bytes"]), text_or_dash(m["cut"]), text_or_dash(m["job"])});
  }
  table.print();
  for (const Json& m : mirrors) {
    if (m["reason"] != "")
      fmt::print("{}: {}\n", m["name"].get<std::string>(), m["reason"].get<std::string>());
  }
}

void add_names(CLI::App& command, std::vector<std::string>& names) {
  command.add_option("names", names, "mirrors and groups")->required();
}

void add_waiting(CLI::App& command, Waiting& wait) {
  command.add_flag("--wait", wait.on, "follow the job to its end");
  command.add_option("--timeout", wait.timeout_s, "with --wait: seconds, 0 for ever")
      ->check(whole_number());
}

Json wait_for_jobs(const Client& client, const Settings& settings, const Json& mirrors,
                   const Waiting& wait) {
  if (!wait.on) return mirrors;
  Json ended = Json::array();
  for (const Json& m : mirrors) ended.push_back(at_rest(client, settings, m, wait));
  return ended;
}

bool agreed(const Context& context, const Json& plan) {
  std::string text;
  for (const Json& line : plan["plan"])
    text += (text.empty() ? "" : "\n") + line.get<std::string>();
  if (context.settings.plan) {
    show(context, plan, [&text](const Json&) { fmt::print("{}\n", text); });
    return false;
  }
  return !plan["destroys"].get<bool>() || confirmed(context.settings, text);
}

void add_mirror_commands(CLI::App& app, Context& context) {
  CLI::App* mirror = app.add_subcommand("mirror", "Pairs of volumes: copy, split, resync, restore");
  mirror->require_subcommand(1);
  add_create(*mirror, context);
  add_list(*mirror, context);
  add_split(*mirror, context);
  add_resync(*mirror, context);
  add_restore(*mirror, context);
  add_verify(*mirror, context);
  add_delete(*mirror, context);
}

}  // namespace duplex::cli
