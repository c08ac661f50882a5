// device, pool, backing.
#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "duplex/commands.h"

namespace duplex::cli {
namespace {

void print_devices(const Json& devices) {
  Table table({"NAME", "STATE", ">SIZE", ">USED", "ENGINE", "PATH"});
  for (const Json& d : devices) {
    const uint64_t used = d["extents_used"].get<uint64_t>() * d["extent_size"].get<uint64_t>();
    table.add({d["name"], d["state"], size_text(d["size"]), format_size_rounded(used), d["engine"],
               d["path"]});
  }
  table.print();
}

// Tables 400 and 410 of docs/REFERENCE.md.
void print_device(const Json& d) {
  fmt::print("device {} ({}) at {}\n", d["name"].get<std::string>(), d["state"].get<std::string>(),
             d["path"].get<std::string>());
  if (d["reason"] != "") fmt::print("reason: {}\n", d["reason"].get<std::string>());
  fmt::print("{} extents of {}, {} used, {} being cleaned; errors: {} read, {} write, {} flush\n",
             d["extents"].dump(), size_text(d["extent_size"]), d["extents_used"].dump(),
             d["extents_scrubbing"].dump(), d["read_errors"].dump(), d["write_errors"].dump(),
             d["flush_errors"].dump());
  Table table({">PE", ">COUNT", "VOLUME", "BACKING", ">LE"});
  for (const Json& run : d["map"])
    table.add({run["pe"].dump(), run["count"].dump(), text_or_dash(run["volume"]),
               text_or_dash(run["backing"]), text_or_dash(run["le"])});
  table.print();
}

struct AddDevice {
  std::string path, name, size;
  bool overwrite = false;
};

// With --overwrite but without --yes the array is asked first without it: its refusal tells what
// would be destroyed.
Json add_device(const Client& client, const Settings& settings, const AddDevice& add) {
  const std::string path = add.path.contains("://") ? add.path : absolute_path(add.path);
  Json body = {{"path", path}, {"name", add.name}, {"overwrite", add.overwrite && settings.yes}};
  if (!add.size.empty()) body["size"] = size_of(add.size);
  try {
    return client.post("/api/v1/devices", body);
  } catch (const Failure& failure) {
    const bool carries_something = failure.next.contains("--overwrite");
    if (!carries_something || !add.overwrite || settings.yes) throw;
    confirmed(settings, failure.message + "; what is there will be destroyed",
              fmt::format("to destroy it: duplex device add {} --overwrite --yes", path));
  }
  body["overwrite"] = true;
  return client.post("/api/v1/devices", body);
}

void add_pool_commands(CLI::App& app, Context& context) {
  CLI::App* pool = app.add_subcommand("pool", "Space of all devices together");
  pool->require_subcommand(1);
  pool->add_subcommand("show", "Used, free and promised space")->callback([&context] {
    context.action = [&context](const Client& client) {
      show(context, client.get("/api/v1/pool"), [](const Json& p) {
        Table table({">TOTAL", ">USED", ">FREE", ">CLEANING", ">PROMISED"});
        table.add({size_text(p["total"]), size_text(p["used"]), size_text(p["free"]),
                   size_text(p["scrubbing"]), size_text(p["promised"])});
        table.print();
      });
    };
  });
}

void add_backing_commands(CLI::App& app, Context& context) {
  CLI::App* backing = app.add_subcommand("backing", "Containers that hold the data of volumes");
  backing->require_subcommand(1);
  backing->add_subcommand("list", "All backings")->callback([&context] {
    context.action = [&context](const Client& client) {
      show(context, client.get("/api/v1/backings"), [](const Json& all) {
        Table table({"NAME", ">SIZE", ">ALLOCATED", "KIND", "DEVICE"});
        for (const Json& b : all)
          table.add({b["name"], size_text(b["size"]), size_text(b["allocated"]),
                     b["thick"].get<bool>() ? "thick" : "thin", text_or_dash(b["device"])});
        table.print();
      });
    };
  });
}

}  // namespace

void add_device_commands(CLI::App& app, Context& context) {
  CLI::App* device = app.add_subcommand("device", "Files and disks that provide space");
  device->require_subcommand(1);

  auto add = std::make_shared<AddDevice>();
  CLI::App* add_command =
      device->add_subcommand("add", "Add a file (made with --size when absent) or a disk");
  add_command->add_option("path", add->path)->required();
  add_command->add_option("--name", add->name, "default: from the path");
  add_command->add_option("--size", add->size, "size of a file that does not exist yet")
      ->type_name("20G");
  add_command->add_flag("--overwrite", add->overwrite, "destroy what it carries; asks first");
  add_command->callback([&context, add] {
    context.action = [&context, add](const Client& client) {
      const Json made = add_device(client, context.settings, *add);
      show(context, made, [](const Json& d) { print_devices(Json::array({d})); });
      say(context.settings, "next: duplex volume create NAME --size 10G");
    };
  });
  device->add_subcommand("list", "All devices")->callback([&context] {
    context.action = [&context](const Client& client) {
      show(context, client.get("/api/v1/devices"), print_devices);
    };
  });
  auto name = std::make_shared<std::string>();
  const auto named = [&](const char* verb, const char* help, auto act) {
    CLI::App* command = device->add_subcommand(verb, help);
    command->add_option("name", *name)->required();
    command->callback([&context, name, act] {
      context.action = [&context, name, act](const Client& client) {
        act(context, client, "/api/v1/devices/" + path_part(*name), *name);
      };
    });
    return command;
  };
  named("show", "One device and what lies on it",
        [](const Context& c, const Client& client, const std::string& path, const std::string&) {
          show(c, client.get(path), print_device);
        });
  named("resize", "Take the new size of a grown file or disk into use",
        [](const Context& c, const Client& client, const std::string& path, const std::string&) {
          show(c, client.post(path + "/resize", Json::object()),
               [](const Json& d) { print_devices(Json::array({d})); });
        });
  destructive(named("remove", "Take an unused device out of the pool",
                    [](const Context& c, const Client& client, const std::string& path,
                       const std::string& which) {
                      const Json d = client.get(path);
                      const std::string what = fmt::format(
                          "device {} at {} leaves the pool; {} of its {} extents are in use", which,
                          d["path"].get<std::string>(), d["extents_used"].dump(),
                          d["extents"].dump());
                      if (!confirmed(c.settings, what)) return;
                      show(c, client.remove(path), [](const Json& json) {
                        fmt::print("removed {}\n", json["removed"].get<std::string>());
                      });
                    }),
              context);
  add_pool_commands(app, context);
  add_backing_commands(app, context);
}

}  // namespace duplex::cli
