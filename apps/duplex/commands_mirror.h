// What the verbs on mirrors, groups and cuts share.
#pragma once

#include <string>
#include <vector>

#include "duplex/commands.h"

namespace duplex::cli {

struct Waiting {
  bool on = false;
  uint64_t timeout_s = 0;
};

void print_mirrors(const Json& mirrors);
void add_names(CLI::App& command, std::vector<std::string>& names);
void add_waiting(CLI::App& command, Waiting& wait);
void add_split(CLI::App& parent, Context& context);

// With --wait follows the jobs of `mirrors` one after the other; the mirrors as they are then. A
// job that does not end well throws Failure.
Json wait_for_jobs(const Client& client, const Settings& settings, const Json& mirrors,
                   const Waiting& wait);

// Prints the plan of a destructive verb with --plan (false); asks, or needs --yes, if it destroys.
bool agreed(const Context& context, const Json& plan);

}  // namespace duplex::cli
