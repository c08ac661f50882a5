// The verbs, one function per noun that adds its commands to the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "duplex/output.h"

namespace duplex::cli {

// A command sets `action`; main() runs it after parsing.
struct Context {
  Settings settings;
  std::function<void(const Client&)> action;
};

void add_general_commands(CLI::App& app, Context& context);  // status, support, event
void add_device_commands(CLI::App& app, Context& context);   // device, pool, backing
void add_volume_commands(CLI::App& app, Context& context);
void add_job_commands(CLI::App& app, Context& context);

// Prints the answer as JSON, or hands it to `table`.
template <class Print>
void show(const Context& context, const Json& json, Print table) {
  if (context.settings.json) {
    print_json(json);
  } else {
    table(json);
  }
}

}  // namespace duplex::cli
