// What people see: tables on stdout, prose and progress on stderr, colour only on a terminal.
#pragma once

#include <string>
#include <vector>

#include "duplex/client.h"

namespace duplex::cli {

struct Settings {
  std::string api;
  bool json = false;
  bool quiet = false;
  bool yes = false;
  bool plan = false;
};

class Table {
 public:
  // A title that starts with '>' is a column of numbers, set to the right.
  explicit Table(std::vector<std::string> titles);
  void add(std::vector<std::string> row);
  void print() const;

 private:
  std::vector<std::string> titles_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

void print_json(const Json& json);
// One sentence for people on stderr; nothing with -q or --json.
void say(const Settings& settings, const std::string& text);
void print_failure(const Settings& settings, const Failure& failure);

// UTF-8, as JSON can carry it.
bool is_text(const std::string& bytes);
// The array has another working directory.
std::string absolute_path(const std::string& path);
std::string size_text(const Json& bytes);
std::string text_or_dash(const Json& value);

// A size as people write it; throws Failure (kUsage) with the rule.
uint64_t size_of(const std::string& text);

// Shows what an act destroys. With --plan prints it and returns false; on a terminal asks; else
// needs --yes (throws Failure without it, and `next` as the way on).
bool confirmed(const Settings& settings, const std::string& what,
               const std::string& next = "add --yes to do it, or --plan to see it only");

// Follows the job `which` (a number, or the name of a mirror) with a progress line until it ends or
// `timeout_s` is over (0: for ever). A job that is not done (failed, cancelled, paused), and the
// end of the time, throw Failure.
Json follow_job(const Client& client, const Settings& settings, const std::string& which,
                uint64_t timeout_s);

}  // namespace duplex::cli
