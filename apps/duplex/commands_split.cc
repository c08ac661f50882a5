// split, cut, group.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/text.h"
#include "duplex/commands_mirror.h"

namespace duplex::cli {
namespace {

std::string hold_text(const Json& cut) {
  return fmt::format("{:.3f} ms", cut["hold_us"].get<double>() / 1000);
}

void print_cuts(const Json& cuts) {
  Table table({">CUT", "TIME", "OUTCOME", ">HOLD", ">MIRRORS"});
  for (const Json& cut : cuts) {
    table.add({cut["cut"].dump(), text_or_dash(cut["time"]),
               cut["certified"].get<bool>() ? "split" : "void", hold_text(cut),
               fmt::format("{}", cut["members"].size())});
  }
  table.print();
}

void print_cut(const Json& cut) {
  fmt::print("cut {}: {}, writes were held up for {}\n", cut["cut"].dump(),
             cut["certified"].get<bool>() ? "one point in time" : "void", hold_text(cut));
  Table table({"MIRROR", "TARGET", "ID", "STATE"});
  for (const Json& member : cut["members"]) {
    table.add({text_or_dash(member["name"]), text_or_dash(member["target"]), member["target_id"],
               text_or_dash(member["state"])});
  }
  table.print();
}

void print_groups(const Json& groups) {
  Table table({"NAME", "MIRRORS"});
  for (const Json& group : groups) {
    std::string mirrors;
    for (const Json& name : group["mirrors"])
      mirrors += (mirrors.empty() ? "" : " ") + name.get<std::string>();
    table.add({group["name"], mirrors.empty() ? "-" : mirrors});
  }
  table.print();
}

// "250ms", "2s"; throws Failure (kUsage) for anything else.
uint64_t milliseconds_of(const std::string& text) {
  const bool is_ms = text.ends_with("ms");
  const bool is_s = !is_ms && text.ends_with("s");
  const auto number = parse_number(text.substr(0, text.size() - (is_ms ? 2 : is_s ? 1 : 0)));
  const uint64_t unit = is_s ? 1000 : 1;
  if ((is_ms || is_s) && number && *number >= 1 && *number <= 10'000 / unit) return *number * unit;
  throw Failure{kUsage, "e_invalid", fmt::format("'{}' is not a time to hold writes up", text),
                "give 1ms to 10s, like 250ms"};
}

// Of a pair file; no more than the array takes is read.
std::string contents_of(const std::string& path) {
  constexpr size_t kMost = size_t{1} << 20;
  const auto wrong = [&path](std::string_view what) {
    return Failure{kRefused, "e_invalid", fmt::format("cannot use {}: {}", path, what),
                   "give a file with a pair of volume ids on two lines each, or - for stdin"};
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> opened(
      path == "-" ? nullptr : std::fopen(path.c_str(), "rb"), std::fclose);
  std::FILE* const file = path == "-" ? stdin : opened.get();
  if (file == nullptr) throw wrong(std::strerror(errno));
  std::string text(kMost + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  if (std::ferror(file) != 0) throw wrong(std::strerror(errno));
  if (text.size() > kMost) throw wrong("it is longer than 1 MiB");
  if (!is_text(text)) throw wrong("it is not text");
  return text;
}

}  // namespace

void add_split(CLI::App& parent, Context& context) {
  struct Split {
    std::vector<std::string> names;
    std::string pairs, access = "rw", max_hold = "250ms";
  };
  auto split = std::make_shared<Split>();
  CLI::App* command = parent.add_subcommand("split", "Split mirrors and groups at one cut");
  command->add_option("names", split->names, "mirrors and groups");
  command->add_option("--pairs", split->pairs, "file with pairs of volume ids; - for stdin")
      ->type_name("FILE|-");
  command->add_option("--access", split->access, "of hosts to the targets; default: rw")
      ->check(CLI::IsMember({"rw", "ro"}));
  command->add_option("--max-hold", split->max_hold, "undo it when writes wait longer")
      ->type_name("250ms");
  command->callback([&context, split] {
    context.action = [&context, split](const Client& client) {
      if (split->names.empty() && split->pairs.empty())
        throw Failure{kUsage, "e_invalid", "no mirror, no group and no --pairs is given",
                      "duplex split NAME..., or duplex split --pairs FILE"};
      Json body = {{"names", split->names},
                   {"access", split->access},
                   {"max_hold_ms", milliseconds_of(split->max_hold)}};
      if (!split->pairs.empty()) body["pairs"] = contents_of(split->pairs);
      show(context, client.post("/api/v1/splits", body), print_cut);
    };
  });
}

void add_cut_commands(CLI::App& app, Context& context) {
  add_split(app, context);
  CLI::App* cut = app.add_subcommand("cut", "Points in time at which mirrors were split");
  cut->require_subcommand(1);
  cut->add_subcommand("list", "The last 1,000 cuts")->callback([&context] {
    context.action = [&context](const Client& client) {
      show(context, client.get("/api/v1/cuts"), print_cuts);
    };
  });
  auto id = std::make_shared<uint64_t>(0);
  CLI::App* one = cut->add_subcommand("show", "One cut and its mirrors");
  one->add_option("cut", *id)->required()->check(whole_number());
  one->callback([&context, id] {
    context.action = [&context, id](const Client& client) {
      show(context, client.get(fmt::format("/api/v1/cuts/{}", *id)), print_cut);
    };
  });
}

void add_group_commands(CLI::App& app, Context& context) {
  CLI::App* group = app.add_subcommand("group", "Names for several mirrors");
  group->require_subcommand(1);
  group->add_subcommand("list", "All groups")->callback([&context] {
    context.action = [&context](const Client& client) {
      show(context, client.get("/api/v1/groups"), print_groups);
    };
  });
  auto name = std::make_shared<std::string>();
  auto mirrors = std::make_shared<std::vector<std::string>>();
  const auto command = [&](const char* verb, const char* help, bool takes_mirrors, auto act) {
    CLI::App* made = group->add_subcommand(verb, help);
    made->add_option("name", *name)->required();
    if (takes_mirrors) made->add_option("mirrors", *mirrors)->required();
    made->callback([&context, name, act] {
      context.action = [name, act](const Client& client) {
        act(client, "/api/v1/groups/" + path_part(*name));
      };
    });
  };
  const auto print_one = [](const Json& json) { print_groups(Json::array({json})); };
  command("create", "Create a group; the same again is success", true,
          [&context, name, mirrors, print_one](const Client& client, const std::string&) {
            const Json body = {{"name", *name}, {"mirrors", *mirrors}};
            show(context, client.post("/api/v1/groups", body), print_one);
          });
  for (const auto& [verb, help] :
       {std::pair("add", "Add mirrors"), {"remove", "Take mirrors out; an emptied group stays"}}) {
    command(verb, help, true,
            [&context, mirrors, verb, print_one](const Client& client, const std::string& path) {
              show(context, client.post(path + "/" + verb, {{"mirrors", *mirrors}}), print_one);
            });
  }
  command("show", "One group", false,
          [&context, print_one](const Client& client, const std::string& path) {
            show(context, client.get(path), print_one);
          });
  command("delete", "Delete the name; its mirrors stay as they are", false,
          [&context](const Client& client, const std::string& path) {
            show(context, client.remove(path), [](const Json& json) {
              fmt::print("deleted {}\n", json["deleted"].get<std::string>());
            });
          });
}

}  // namespace duplex::cli
