// duplex: the command line of an array. Parses, calls the API, prints.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <span>

#include "duplex/commands.h"

namespace duplex::cli {
namespace {

// Parsing ended in the middle: says where, and where help is.
Failure usage_failure(const CLI::App& app, const CLI::ParseError& error) {
  std::string words = "duplex";
  const CLI::App* reached = &app;
  while (!reached->get_subcommands().empty()) {
    reached = reached->get_subcommands().front();
    words += " " + reached->get_name();
  }
  const bool verb_missing =
      error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) &&
      !reached->get_subcommands(nullptr).empty();
  const std::vector<std::string> rest = app.remaining(true);
  std::string message = error.what();
  if (verb_missing && rest.empty()) {
    message = fmt::format("a command is missing after '{}'", words);
  } else if (verb_missing && rest.front().starts_with('-')) {
    message = fmt::format("there is no option {}", rest.front());
  } else if (verb_missing) {
    message = fmt::format("there is no command '{} {}'", words, rest.front());
  }
  return {kUsage, "e_invalid", message, words + " --help"};
}

// What goes to the array is JSON, so all of the line must be text.
void check_text(std::span<char*> words) {
  for (size_t i = 1; i < words.size(); ++i) {
    if (is_text(words[i])) continue;
    throw Failure{kUsage, "e_invalid", fmt::format("word {} of the command is not UTF-8", i),
                  "names are letters, digits, '.', '_' and '-'; give a file another name"};
  }
}

int run(int argc, char** argv) {
  CLI::App app("Commands for a Duplex storage array");
  app.set_version_flag("--version", DUPLEX_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  Context context;
  const char* from_environment = std::getenv("DUPLEX_API");
  context.settings.api =
      from_environment != nullptr ? from_environment : "unix:/run/duplex/api.sock";
  app.add_option("--api", context.settings.api, "where the array's API is (or DUPLEX_API)")
      ->type_name("unix:PATH|http://HOST:PORT");
  app.add_flag("--json", context.settings.json, "print JSON");
  app.add_flag("-q,--quiet", context.settings.quiet, "no prose");
  app.add_flag("--yes", context.settings.yes, "do what destroys data without asking");
  app.add_flag("--plan", context.settings.plan, "only show what would be destroyed");
  add_general_commands(app, context);
  add_device_commands(app, context);
  add_volume_commands(app, context);
  add_mirror_commands(app, context);
  add_group_commands(app, context);
  add_cut_commands(app, context);
  add_job_commands(app, context);
  const std::span words(argv, static_cast<size_t>(argc));
  try {
    check_text(words);
    app.parse(argc, argv);
  } catch (const Failure& failure) {
    context.settings.json = std::ranges::find(words, std::string_view("--json")) != words.end();
    print_failure(context.settings, failure);
    return failure.exit;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    // Options take effect only when all of the line is understood.
    context.settings.json = std::ranges::find(words, std::string_view("--json")) != words.end();
    print_failure(context.settings, usage_failure(app, error));
    return kUsage;
  }
  try {
    if (context.settings.plan && !context.has_plan) {
      throw Failure{kUsage, "e_invalid", "this verb has no --plan", "leave it out"};
    }
    context.action(Client(context.settings.api));
  } catch (const Failure& failure) {
    if (!failure.message.empty()) print_failure(context.settings, failure);
    return failure.exit;
  } catch (const Json::exception&) {
    print_failure(context.settings, {kUnreachable, "e_connection",
                                     "the array's answer has another form than this program knows",
                                     "use the duplex that came with this duplexd"});
    return kUnreachable;
  }
  return kDone;
}

}  // namespace
}  // namespace duplex::cli

int main(int argc, char** argv) {
  // A job that is being followed goes on when the follower is interrupted.
  std::signal(SIGINT, [](int) { std::_Exit(130); });
  return duplex::cli::run(argc, argv);
}
