// duplexd: one array. Options, world, array, front door, API; then it waits for a signal.
#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "api/http_server.h"
#include "api/routes.h"
#include "control/array.h"
#include "duplexd/options.h"
#include "duplexd/stop_watch.h"
#include "nbd/server.h"
#include "os/run_on.h"
#include "os/signals.h"
#include "os/systemd.h"

namespace duplex {
namespace {

constexpr int kRefused = 1;
constexpr int kUsage = 2;
constexpr auto kStopLimit = std::chrono::seconds(20);

int refuse(const Error& error, int code) {
  fmt::print(stderr, "duplexd: {}\n", error.message());
  fmt::print(stderr, "next: {}\n", error.next_step());
  return code;
}

void declare(CLI::App& app, Flags& flags) {
  app.set_version_flag("--version", DUPLEX_VERSION);
  app.add_option("--config", flags.config, "TOML file with these settings (docs/CONFIG.md)");
  const auto setting = [&](const char* flag, const char* key, const char* help, const char* form) {
    app.add_option_function<std::vector<std::string>>(
           flag,
           [&flags, key](const std::vector<std::string>& values) {
             for (const std::string& value : values) flags.settings.emplace_back(key, value);
           },
           help)
        ->type_name(form)
        ->allow_extra_args(false);
  };
  setting("--name", "name", "name of the array", "NAME");
  setting("--id", "id", "24-bit id of the array", "0x400104");
  setting("--state", "state", "state directory; made when absent", "DIR");
  setting("--nbd", "nbd", "where to serve volumes; may be repeated", "unix:PATH|tcp:HOST:PORT");
  setting("--api", "api", "where to serve the API; may be repeated", "unix:PATH|tcp:HOST:PORT");
  setting("--reactors", "reactors", "threads that serve volumes; default: one per processor", "N");
  setting("--engine", "engine", "how I/O is done: auto, io_uring or threads", "ENGINE");
  setting("--log-level", "log_level", "debug, info, warning or error", "LEVEL");
  app.add_flag("--insecure", flags.direct.insecure, "allow TCP that is not loopback, without TLS");
  app.add_flag("--rebuild", flags.direct.rebuild, "make a new state directory from the devices");
  app.add_option("--device", flags.direct.devices,
                 "with --rebuild: a device of the array; it names the others")
      ->type_name("PATH");
  app.add_flag("--accept-missing", flags.direct.accept_missing,
               "with --rebuild: go on without devices that are gone");
  app.allow_extras(false);
}

Result<void> rebuild(os::OsWorld& world, const control::ArrayOptions& array,
                     const DaemonOptions& options) {
  TRY_ASSIGN(
      const auto report,
      os::run_on(world.control(),
                 control::Array::rebuild(world, array, {options.devices, options.accept_missing})));
  fmt::print(stderr, "rebuilt from {} device(s): {} volume(s)\n", report.devices.size(),
             report.volumes.size());
  for (const std::string& name : report.missing_devices)
    fmt::print(stderr, "missing device: {}\n", name);
  for (const std::string& name : report.damaged_volumes)
    fmt::print(stderr, "damaged volume: {}\n", name);
  return {};
}

// The array and what stands in front of it, in order of their making.
struct Daemon {
  std::unique_ptr<control::Array> array;
  std::unique_ptr<nbd::Server> nbd;
  std::vector<std::unique_ptr<api::HttpServer>> api;
};

rt::Task<Result<void>> open_front_door(Daemon& daemon, const DaemonOptions& options,
                                       std::vector<int> fds) {
  daemon.nbd = std::make_unique<nbd::Server>(daemon.array->world(), daemon.array->volumes());
  for (const int fd : fds) {
    CO_TRY(daemon.nbd->adopt(fd));
  }
  for (const rt::Address& address : options.nbd) {
    CO_TRY(co_await daemon.nbd->listen(address, options.insecure));
  }
  daemon.array->set_nbd_addresses(daemon.nbd->addresses());
  co_return Result<void>();
}

api::Response run_request(control::Array& array, api::Request request) {
  return os::run_on(array.world().control(), api::handle(array, std::move(request)));
}

Result<void> start(Daemon& daemon, os::OsWorld& world, const control::ArrayOptions& array,
                   const DaemonOptions& options, std::vector<int> fds) {
  TRY_ASSIGN(daemon.array, os::run_on(world.control(), control::Array::open(world, array)));
  TRY(os::run_on(world.control(), open_front_door(daemon, options, std::move(fds))));
  for (const rt::Address& address : options.api) {
    TRY_ASSIGN(auto server,
               api::HttpServer::start(*daemon.array, address, options.insecure, run_request));
    daemon.api.push_back(std::move(server));
  }
  return {};
}

rt::Task<> release_waiters(control::Array& array) {
  array.release_waiters();
  co_return;
}

rt::Task<> close_array(Daemon& daemon, StopWatch& watch) {
  watch.waits_for("the requests of connected hosts");
  if (daemon.nbd) co_await daemon.nbd->stop();
  daemon.nbd.reset();
  watch.waits_for("jobs, devices and the state directory");
  if (daemon.array) co_await daemon.array->stop();
  daemon.array.reset();
}

void stop(Daemon& daemon, os::OsWorld& world) {
  StopWatch watch(kStopLimit);
  watch.waits_for("the commands under way");
  if (daemon.array) os::run_on(world.control(), release_waiters(*daemon.array));
  for (const auto& server : daemon.api) server->stop();
  daemon.api.clear();
  os::run_on(world.control(), close_array(daemon, watch));
}

// An array that nobody can reach would only look as if it worked.
Result<void> check_reachable(const DaemonOptions& options, const std::vector<int>& fds) {
  if (!options.nbd.empty() || !options.api.empty() || !fds.empty()) return {};
  return fail(Code::kInvalid, "neither hosts nor commands could reach the array",
              "add --nbd unix:PATH for hosts and --api unix:PATH for duplex (in the file: nbd, "
              "api), or pass sockets with LISTEN_FDS");
}

// What a running array gets over by itself needs another start here.
Error start_error(const Error& error) {
  if (error.code() != Code::kNoSpace) return error;
  return Error(error.code(), std::string(error.message()),
               "free space there, then start duplexd again");
}

int serve(const DaemonOptions& options, std::vector<int> fds) {
  set_log_level(options.log_level);
  auto world = os::OsWorld::create({.reactors = options.reactors, .engine = options.engine});
  if (!world) return refuse(world.error(), kRefused);
  const control::ArrayOptions array = {.name = options.name,
                                       .id = options.id,
                                       .state_directory = options.state,
                                       .engine = (*world)->engine_name()};
  if (options.rebuild) {
    const auto rebuilt = rebuild(**world, array, options);
    if (!rebuilt) return refuse(rebuilt.error(), kRefused);
  }
  Daemon daemon;
  const auto started = start(daemon, **world, array, options, std::move(fds));
  if (!started) {
    stop(daemon, **world);
    return refuse(start_error(started.error()), kRefused);
  }
  fmt::print("ready\n");
  std::fflush(stdout);
  os::notify_systemd("READY=1");
  os::wait_for_stop_signal();
  os::notify_systemd("STOPPING=1");
  stop(daemon, **world);
  return 0;
}

int run(int argc, char** argv) {
  os::block_signals();
  CLI::App app("Duplex storage array");
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : kUsage;
  }
  const auto options = combine(std::move(flags));
  if (!options) return refuse(options.error(), kUsage);
  std::vector<int> fds = os::take_listen_fds();
  if (const auto reachable = check_reachable(*options, fds); !reachable)
    return refuse(reachable.error(), kUsage);
  return serve(*options, std::move(fds));
}

}  // namespace
}  // namespace duplex

int main(int argc, char** argv) {
  // Data buffers beyond those the pools keep go back to the kernel when they are freed. By itself
  // the threshold rises to the largest block freed, and a burst would stay resident for good.
  mallopt(M_MMAP_THRESHOLD, 128 * 1024);
  return duplex::run(argc, argv);
}
