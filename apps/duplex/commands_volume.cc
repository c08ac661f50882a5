// volume.
#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <memory>

#include "base/text.h"
#include "duplex/commands.h"

namespace duplex::cli {
namespace {

void print_volumes(const Json& volumes) {
  Table table({"NAME", "ID", ">SIZE", ">ALLOCATED", "BACKING", "URI"});
  for (const Json& v : volumes)
    table.add({v["name"], v["id"], size_text(v["size"]), size_text(v["allocated"]), v["backing"],
               v["damaged"].get<bool>()       ? "(damaged)"
               : !v["consistent"].get<bool>() ? "(inconsistent)"
                                              : v["uri"].get<std::string>()});
  table.print();
}

// Lines to paste; which ones depends on whether the array is reached by a socket file or by TCP.
void print_recipes(const std::string& name, const std::string& uri) {
  if (uri.empty()) {
    fmt::print("not served: duplexd was started without --nbd\n");
    return;
  }
  const size_t socket = uri.find("?socket=");
  const bool local = socket != std::string::npos;
  const std::string path = local ? uri.substr(socket + 8) : "";
  std::string host, port;
  if (!local) {
    const std::string authority = uri.substr(6, uri.find('/', 6) - 6);
    const size_t colon = authority.rfind(':');
    host = authority.substr(0, colon);
    port = authority.substr(colon + 1);
  }
  fmt::print("uri         {}\n", uri);
  fmt::print("nbd-client  nbd-client {} -N {} /dev/nbd0 -C 4\n",
             local ? "-unix " + path : host + " " + port, name);
  fmt::print("nbdtab      nbd0 {} {} {}\n", local ? path : host, name,
             local ? "unix,connections=4" : "port=" + port + ",connections=4");
  fmt::print("qemu        -drive driver=nbd,{},export={},if=virtio,cache=none,discard=unmap\n",
             local ? "server.type=unix,server.path=" + path
                   : "server.type=inet,server.host=" + host + ",server.port=" + port,
             name);
  const std::string source = local ? fmt::format("<host transport='unix' socket='{}'/>", path)
                                   : fmt::format("<host name='{}' port='{}'/>", host, port);
  fmt::print(
      "libvirt     <disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' "
      "discard='unmap'/>"
      "<source protocol='nbd' name='{}'>{}<reconnect delay='10'/></source><target dev='vda' "
      "bus='virtio'/></disk>\n",
      name, source);
}

void print_volume(const Json& v) {
  fmt::print("volume {} ({}): {}, {} allocated, {} {}\n", v["name"].get<std::string>(),
             v["id"].get<std::string>(), size_text(v["size"]), size_text(v["allocated"]),
             v["thick"].get<bool>() ? "thick" : "thin", v["backing"].get<std::string>());
  std::string devices;
  for (const Json& device : v["devices"])
    devices += (devices.empty() ? "" : ", ") + device.get<std::string>();
  fmt::print("extents     {} of {} on {}\n", v["extents"].dump(), size_text(v["extent_size"]),
             devices.empty() ? "no device yet" : devices);
  if (v["damaged"].get<bool>()) {
    fmt::print("DAMAGED: data may be missing since a rebuild, so hosts cannot open it\n");
    fmt::print("next: duplex volume delete {} --yes; then create it again and restore its data\n",
               v["name"].get<std::string>());
    return;
  }
  if (!v["trouble"].is_null()) {
    fmt::print("INCONSISTENT, so hosts cannot open it: {}\nnext: {}\n",
               v["trouble"].get<std::string>(), v["next"].get<std::string>());
    return;
  }
  for (const Json& client : v["clients"]) fmt::print("client      {}\n", client.get<std::string>());
  print_recipes(v["name"], v["uri"]);
}

// Told by the first bytes of a file.
std::string format_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char head[8] = {};
  file.read(head, sizeof head);
  const std::string_view magic(head, sizeof head);
  if (magic.starts_with("QFI\xfb")) return "qcow2";
  if (magic.starts_with("KDMV")) return "vmdk";
  if (magic.starts_with("vhdxfile")) return "vhdx";
  if (magic.starts_with("conectix")) return "vpc";
  return "raw";
}

// qemu-img writes through the array's own front door. Never a shell: names are arguments.
void convert(const std::string& format, const std::string& path, const std::string& uri) {
  const std::vector<std::string> words = {"qemu-img", "convert",          "-n", "-f", format, "-O",
                                          "raw",      "--target-is-zero", "--", path, uri};
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp("qemu-img", argv.data());
  throw Failure{kRefused, "e_notsup",
                fmt::format("{} is a {} image and qemu-img cannot be run", path, format),
                "apt-get install qemu-utils, or convert it to raw"};
}

struct CreateVolume {
  std::string name, size, id, backing, device;
  bool thick = false;
};

void add_create(CLI::App& volume, Context& context) {
  auto create = std::make_shared<CreateVolume>();
  CLI::App* command =
      volume.add_subcommand("create", "Create a thin volume; the same again is success");
  command->add_option("name", create->name)->required();
  command->add_option("--size", create->size)->required()->type_name("10G");
  command->add_option("--id", create->id, "number, default: the lowest free one")
      ->type_name("0x0001");
  command->add_option("--backing", create->backing, "name of its backing, default: PD<n>");
  command->add_option("--device", create->device, "take extents from this device only");
  command->add_flag("--thick", create->thick, "allocate all of it now");
  command->callback([&context, create] {
    context.action = [&context, create](const Client& client) {
      const Json body = {{"name", create->name},     {"size", size_of(create->size)},
                         {"id", create->id},         {"backing", create->backing},
                         {"device", create->device}, {"thick", create->thick}};
      show(context, client.post("/api/v1/volumes", body), [](const Json& v) {
        fmt::print("{}\n",
                   v["uri"] == "" ? v["name"].get<std::string>() : v["uri"].get<std::string>());
      });
    };
  });
}

void add_import(CLI::App& volume, Context& context) {
  struct Import {
    std::string name, source, format;
    bool overwrite = false, wait = false;
    uint64_t timeout = 0;
  };
  auto import = std::make_shared<Import>();
  CLI::App* command = volume.add_subcommand(
      "import",
      "Fill a volume from a file; raw files become a job, other formats go through qemu-img");
  command->add_option("name", import->name)->required();
  command->add_option("source", import->source)->required();
  command->add_option("--format", import->format, "of the file, default: by its first bytes")
      ->check(CLI::IsMember({"raw", "qcow2", "vmdk", "vhdx", "vpc"}));
  command->add_flag("--overwrite", import->overwrite, "replace the data the volume holds");
  command->add_flag("--wait", import->wait, "follow the job to its end");
  command->add_option("--timeout", import->timeout, "with --wait: seconds, 0 for ever")
      ->check(whole_number());
  command->callback([&context, import] {
    context.action = [&context, import](const Client& client) {
      const std::string path = "/api/v1/volumes/" + path_part(import->name);
      const std::string source = absolute_path(import->source);
      const std::string format = import->format.empty() ? format_of(source) : import->format;
      if (format != "raw") {
        const Json v = client.get(path);
        if (v["allocated"] != 0)
          throw Failure{kRefused, "e_state",
                        "the volume holds data; images that are not raw go into an empty volume",
                        "duplex volume create NAME --size 10G"};
        if (v["uri"] == "")
          throw Failure{kRefused, "e_state", "the array serves no NBD, which qemu-img writes to",
                        "start duplexd with --nbd, or convert the image to raw"};
        return convert(format, source, v["uri"]);
      }
      Json job =
          client.post(path + "/import", {{"path", source}, {"overwrite", import->overwrite}});
      if (import->wait)
        job = follow_job(client, context.settings, job["id"].dump(), import->timeout);
      show(context, job, [](const Json& j) {
        fmt::print("job {} {}\n", j["id"].dump(), j["state"].get<std::string>());
      });
    };
  });
}

void add_named(CLI::App& volume, Context& context) {
  auto name = std::make_shared<std::string>();
  auto flag = std::make_shared<bool>(false);
  auto size = std::make_shared<std::string>();
  const auto command = [&](const char* verb, const char* help, const auto& act) {
    CLI::App* made = volume.add_subcommand(verb, help);
    made->add_option("name", *name)->required();
    made->callback([&context, name, act] {
      context.action = [name, act](const Client& client) {
        act(client, "/api/v1/volumes/" + path_part(*name));
      };
    });
    return made;
  };
  command("show", "One volume, with lines to paste for its clients",
          [&context](const Client& client, const std::string& path) {
            show(context, client.get(path), print_volume);
          });
  command("extents", "Where the volume lies",
          [&context](const Client& client, const std::string& path) {
            show(context, client.get(path + "/extents"), [](const Json& runs) {
              Table table({">LE", ">COUNT", "DEVICE", ">PE"});
              for (const Json& run : runs)
                table.add({run["le"].dump(), run["count"].dump(), text_or_dash(run["device"]),
                           text_or_dash(run["pe"])});
              table.print();
            });
          });
  CLI::App* remove = destructive(
      command("delete", "Delete a volume and its data",
              [&context, flag](const Client& client, const std::string& path) {
                const Json v = client.get(path);
                if (v["allocated"] != 0 || context.settings.plan) {
                  if (!confirmed(
                          context.settings,
                          fmt::format("volume {} with up to {} of data will be gone",
                                      v["name"].get<std::string>(), size_text(v["allocated"]))))
                    return;
                }
                show(context, client.remove(path + (*flag ? "?disconnect=1" : "")),
                     [](const Json& json) {
                       fmt::print("deleted {}\n", json["deleted"].get<std::string>());
                     });
              }),
      context);
  remove->add_flag("--disconnect", *flag, "disconnect its clients first");
  CLI::App* resize = destructive(
      command("resize", "Change the size online",
              [&context, flag, size](const Client& client, const std::string& path) {
                const uint64_t bytes = size_of(*size);
                const Json v = client.get(path);
                const bool loses = bytes < v["size"].get<uint64_t>() && *flag;
                const std::string what =
                    fmt::format("volume {} goes from {} to {}{}", v["name"].get<std::string>(),
                                size_text(v["size"]), format_size_rounded(bytes),
                                loses ? "; data beyond the new end will be gone" : "");
                if ((loses || context.settings.plan) && !confirmed(context.settings, what)) return;
                show(context, client.patch(path, {{"size", bytes}, {"discard", *flag}}),
                     [](const Json& json) { print_volumes(Json::array({json})); });
              }),
      context);
  resize->add_option("--size", *size)->required()->type_name("20G");
  resize->add_flag("--discard", *flag, "when shrinking: give up the data beyond the new end");
}

}  // namespace

void add_volume_commands(CLI::App& app, Context& context) {
  CLI::App* volume = app.add_subcommand("volume", "What hosts see");
  volume->require_subcommand(1);
  add_create(*volume, context);
  volume->add_subcommand("list", "All volumes")->callback([&context] {
    context.action = [&context](const Client& client) {
      show(context, client.get("/api/v1/volumes"), print_volumes);
    };
  });
  add_import(*volume, context);
  add_named(*volume, context);
}

}  // namespace duplex::cli
