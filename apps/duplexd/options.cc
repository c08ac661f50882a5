#include "duplexd/options.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <map>
#include <thread>

#include "base/text.h"

namespace duplex {
namespace {

// Those this process may run on, which taskset and containers restrict.
size_t usable_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return std::thread::hardware_concurrency();
  return static_cast<size_t>(CPU_COUNT(&set));
}

Result<rt::Address> address(const std::string& value) { return rt::Address::parse(value); }

template <class T>
Result<T> choice(const std::string& key, const std::string& value,
                 const std::map<std::string, T>& choices) {
  const auto it = choices.find(value);
  if (it != choices.end()) return it->second;
  std::string all;
  for (const auto& [name, meaning] : choices) all += (all.empty() ? "" : ", ") + name;
  return fail(Code::kInvalid, fmt::format("{} cannot be '{}'", key, value),
              fmt::format("use one of {}", all));
}

Result<void> check_rebuild(const DaemonOptions& options) {
  if (options.rebuild && options.devices.empty()) {
    return fail(Code::kInvalid, "--rebuild needs a device to start from",
                "add --device PATH; its label names the others");
  }
  if (!options.rebuild && (!options.devices.empty() || options.accept_missing)) {
    return fail(Code::kInvalid,
                fmt::format("{} means something with --rebuild only",
                            options.devices.empty() ? "--accept-missing" : "--device"),
                "to make a new state directory from the devices: duplexd --rebuild --device PATH; "
                "to add a device to a running array: duplex device add PATH");
  }
  return {};
}

Result<void> check_options(const DaemonOptions& options) {
  const std::string next =
      "duplexd --name NAME --id 0x400104 --state DIR, or --config FILE; see docs/CONFIG.md";
  if (options.name.empty()) return fail(Code::kInvalid, "the array has no name", next);
  if (options.id.value() == 0) return fail(Code::kInvalid, "the array has no id", next);
  if (options.state.empty()) return fail(Code::kInvalid, "the array has no state directory", next);
  return check_rebuild(options);
}

}  // namespace

Result<void> set_option(DaemonOptions& options, const std::string& key, const std::string& value) {
  if (key == "name") {
    TRY(check_name(value, "array"));
    options.name = value;
  } else if (key == "id") {
    TRY_ASSIGN(options.id, parse_array_id(value));
  } else if (key == "state") {
    options.state = value;
  } else if (key == "nbd") {
    TRY_ASSIGN(auto parsed, address(value));
    options.nbd.push_back(std::move(parsed));
  } else if (key == "api") {
    TRY_ASSIGN(auto parsed, address(value));
    options.api.push_back(std::move(parsed));
  } else if (key == "reactors") {
    const auto number = parse_number(value);
    if (!number || *number < 1 || *number > 64)
      return fail(Code::kInvalid, fmt::format("reactors must be 1 to 64, not '{}'", value),
                  "see docs/CONFIG.md");
    options.reactors = *number;
  } else if (key == "engine") {
    TRY_ASSIGN(options.engine, choice<os::EngineChoice>(key, value,
                                                        {{"auto", os::EngineChoice::kAuto},
                                                         {"io_uring", os::EngineChoice::kUring},
                                                         {"threads", os::EngineChoice::kThreads}}));
  } else if (key == "log_level") {
    TRY_ASSIGN(options.log_level, choice<LogLevel>(key, value,
                                                   {{"debug", LogLevel::kDebug},
                                                    {"info", LogLevel::kInfo},
                                                    {"warning", LogLevel::kWarning},
                                                    {"error", LogLevel::kError}}));
  } else if (key == "insecure") {
    TRY_ASSIGN(options.insecure, choice<bool>(key, value, {{"true", true}, {"false", false}}));
  } else {
    return fail(Code::kInvalid, fmt::format("unknown key '{}'", key));
  }
  return {};
}

Result<DaemonOptions> combine(Flags flags) {
  DaemonOptions options;
  if (!flags.config.empty()) {
    TRY(read_config(flags.config, options));
  }
  // Addresses given as flags replace those of the file.
  for (const char* key : {"nbd", "api"}) {
    const bool given = std::ranges::any_of(
        flags.settings, [&](const auto& setting) { return setting.first == key; });
    if (given) (std::string_view(key) == "nbd" ? options.nbd : options.api).clear();
  }
  for (const auto& [key, value] : flags.settings) {
    TRY(set_option(options, key, value));
  }
  options.insecure = options.insecure || flags.direct.insecure;
  options.rebuild = flags.direct.rebuild;
  options.accept_missing = flags.direct.accept_missing;
  options.devices = std::move(flags.direct.devices);
  TRY(check_options(options));
  if (options.reactors == 0) options.reactors = std::clamp<size_t>(usable_processors(), 1, 64);
  return options;
}

}  // namespace duplex
