// The verbs, one function per noun that adds its commands to the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "base/text.h"
#include "duplex/output.h"

namespace duplex::cli {

// A command sets `action`; main() runs it after parsing.
struct Context {
  Settings settings;
  std::function<void(const Client&)> action;
  bool has_plan = false;  // the verb destroys something and can tell what
};

// Says that `command` knows --plan and --yes.
inline CLI::App* destructive(CLI::App* command, Context& context) {
  command->preparse_callback([&context](size_t) { context.has_plan = true; });
  return command;
}

// CLI11 reads "-1" as a very large number.
inline CLI::Validator whole_number() {
  return {[](const std::string& text) {
            return parse_number(text) ? std::string() : "'" + text + "' is not a whole number";
          },
          ""};
}

void add_general_commands(CLI::App& app, Context& context);  // status, support, event
void add_device_commands(CLI::App& app, Context& context);   // device, pool, backing
void add_volume_commands(CLI::App& app, Context& context);
void add_mirror_commands(CLI::App& app, Context& context);
void add_group_commands(CLI::App& app, Context& context);
void add_cut_commands(CLI::App& app, Context& context);  // split, cut
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
