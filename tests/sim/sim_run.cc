// sim_run: many scenes, from seeds, in several processes (SQLite keeps its random numbers per
// process, so one process is one run at a time).
//
//   sim_run --seconds 180 [--processes 2] [--first SEED] [--violations 5]
//                             ends early when all processes together have found so many
//   sim_run --seed S          one run, described; ends with what it found
//   --mirrors PER_CENT        of the seeds play a MirrorScene, the others a Scene; default 50
//
// Last line: seeds, operations, faults, power cuts, kills, virtual hours, doubled, violations.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <span>

#include "base/log.h"
#include "base/text.h"
#include "sim/mirror_scene.h"
#include "sim/scene.h"

namespace duplex::simtest {
namespace {

struct Totals {
  uint64_t seeds = 0, operations = 0, errors = 0, faults = 0, power_cuts = 0, kills = 0, lives = 0,
           doubled = 0, violations = 0, virtual_us = 0;
  void add(const Totals& o) {
    seeds += o.seeds;
    operations += o.operations;
    errors += o.errors;
    faults += o.faults;
    power_cuts += o.power_cuts;
    kills += o.kills;
    lives += o.lives;
    doubled += o.doubled;
    violations += o.violations;
    virtual_us += o.virtual_us;
  }
};

uint64_t count_of(const SceneResult& result, const char* what) {
  const auto it = result.counts.find(what);
  return it == result.counts.end() ? 0 : it->second;
}

// Which seeds have mirrors does not depend on how many have.
bool has_mirrors(uint64_t seed, uint64_t per_cent) { return sim::Dice(seed).below(100) < per_cent; }

SceneResult play(uint64_t seed, uint64_t mirrors) {
  return has_mirrors(seed, mirrors) ? MirrorScene(seed).run() : Scene(seed).run();
}

void run_seed(uint64_t seed, uint64_t mirrors, Totals& totals) {
  SceneResult result = play(seed, mirrors);
  ++totals.seeds;
  totals.operations += result.operations;
  totals.errors += result.errors;
  totals.faults += result.faults;
  totals.power_cuts += count_of(result, "power cut");
  totals.kills += count_of(result, "kill");
  totals.lives += result.lives;
  totals.virtual_us += result.virtual_time;
  if (seed % 100 == 0 && result.violation.empty()) {
    ++totals.doubled;
    if (play(seed, mirrors).hash != result.hash)
      result.violation = "the same seed gave another run (P13)";
  }
  if (result.violation.empty()) return;
  ++totals.violations;
  fmt::print("VIOLATION seed {}: {}\n  again: sim_run --seed {} --mirrors {}\n", seed,
             result.violation, seed, has_mirrors(seed, mirrors) ? 100 : 0);
  std::fflush(stdout);
}

// What all processes share: how many violations they may still find.
using Allowance = std::atomic<int64_t>;
Allowance& share_allowance(uint64_t violations) {
  void* page =
      mmap(nullptr, sizeof(Allowance), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) std::abort();
  return *new (page) Allowance(static_cast<int64_t>(violations));
}

// A share of the seeds: first, first + step, ... until the time is up.
Totals run_share(uint64_t first, uint64_t step, uint64_t mirrors,
                 std::chrono::steady_clock::time_point end, Allowance& allowance) {
  Totals totals;
  for (uint64_t seed = first; std::chrono::steady_clock::now() < end && allowance > 0;
       seed += step) {
    const uint64_t before = totals.violations;
    run_seed(seed, mirrors, totals);
    allowance -= static_cast<int64_t>(totals.violations - before);
  }
  return totals;
}

Totals run_processes(uint64_t first, uint64_t processes, uint64_t seconds, uint64_t violations,
                     uint64_t mirrors) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  Allowance& allowance = share_allowance(violations);
  std::vector<std::pair<pid_t, int>> children;
  std::fflush(stdout);
  for (uint64_t i = 0; i < processes; ++i) {
    int ends[2];
    if (pipe(ends) != 0) std::abort();
    const pid_t pid = fork();
    if (pid == 0) {
      close(ends[0]);
      const Totals totals = run_share(first + i, processes, mirrors, end, allowance);
      const bool sent =
          write(ends[1], &totals, sizeof totals) == static_cast<ssize_t>(sizeof totals);
      std::_Exit(sent ? 0 : 1);
    }
    close(ends[1]);
    children.emplace_back(pid, ends[0]);
  }
  Totals all;
  for (const auto& [pid, from] : children) {
    Totals totals;
    int status = 0;
    const bool came = read(from, &totals, sizeof totals) == static_cast<ssize_t>(sizeof totals);
    waitpid(pid, &status, 0);
    close(from);
    if (came && status == 0) {
      all.add(totals);
    } else {
      fmt::print("VIOLATION: a process of the simulation died (status {})\n", status);
      ++all.violations;
    }
  }
  return all;
}

template <class AnyScene>
int one_seed(uint64_t seed) {
  set_log_level(LogLevel::kDebug);
  AnyScene scene(seed);
  fmt::print("{}\n", scene.describe());
  const SceneResult result = scene.run();
  for (const auto& [what, count] : result.counts) fmt::print("  {:>8}  {}\n", count, what);
  fmt::print("{} operations, {} with an error, {} lives, hash {:016x}\n", result.operations,
             result.errors, result.lives, result.hash);
  fmt::print("{}\n", result.violation.empty() ? "no violation" : "VIOLATION: " + result.violation);
  return result.violation.empty() ? 0 : 1;
}

struct Options {
  uint64_t seconds = 10, processes = 1, first = 1, violations = 5;
  std::optional<uint64_t> seed;
  uint64_t mirrors = 50;  // per cent of the seeds
};

// nullopt: something on the command line means nothing here.
std::optional<Options> parse(std::span<char*> words) {
  Options options;
  for (size_t i = 0; i < words.size(); i += 2) {
    const auto value = parse_number(i + 1 < words.size() ? words[i + 1] : "");
    if (!value) return std::nullopt;
    const std::string_view key = words[i];
    if (key == "--seconds") {
      options.seconds = *value;
    } else if (key == "--processes" && *value > 0) {
      options.processes = *value;
    } else if (key == "--first") {
      options.first = *value;
    } else if (key == "--violations") {
      options.violations = *value;
    } else if (key == "--mirrors" && *value <= 100) {
      options.mirrors = *value;
    } else if (key == "--seed") {
      options.seed = *value;
    } else {
      return std::nullopt;
    }
  }
  return options;
}

int main(int argc, char** argv) {
  const auto options = parse(std::span(argv, static_cast<size_t>(argc)).subspan(1));
  if (!options) {
    fmt::print(stderr,
               "sim_run [--seconds N] [--processes N] [--first SEED] [--violations N] "
               "[--mirrors PER_CENT], or sim_run --seed SEED [--mirrors PER_CENT]\n");
    return 2;
  }
  if (options->seed) {
    return has_mirrors(*options->seed, options->mirrors) ? one_seed<MirrorScene>(*options->seed)
                                                         : one_seed<Scene>(*options->seed);
  }
  set_log_sink([](LogLevel, std::string_view) {});
  const Totals totals = run_processes(options->first, options->processes, options->seconds,
                                      options->violations, options->mirrors);
  fmt::print(
      "{} seeds, {} operations, {} faults, {} power cuts, {} kills, {:.1f} virtual hours, {} "
      "doubled, {} violations\n",
      totals.seeds, totals.operations, totals.faults, totals.power_cuts, totals.kills,
      static_cast<double>(totals.virtual_us) / 3.6e9, totals.doubled, totals.violations);
  return totals.violations == 0 && totals.operations > 0 ? 0 : 1;
}

}  // namespace
}  // namespace duplex::simtest

int main(int argc, char** argv) { return duplex::simtest::main(argc, argv); }
