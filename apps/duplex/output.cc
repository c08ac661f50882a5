#include "duplex/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/text.h"

namespace duplex::cli {
namespace {

bool colour() { return isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr; }

}  // namespace

Table::Table(std::vector<std::string> titles) : titles_(std::move(titles)) {
  for (std::string& title : titles_) {
    right_.push_back(title.starts_with('>'));
    if (right_.back()) title.erase(0, 1);
  }
}

void Table::add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

void Table::print() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < titles_.size(); ++c) {
    size_t width = titles_[c].size();
    for (const auto& row : rows_) width = std::max(width, row[c].size());
    widths.push_back(width);
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (size_t c = 0; c < cells.size(); ++c) {
      if (c > 0) out += "  ";
      out += right_[c] ? fmt::format("{:>{}}", cells[c], widths[c])
                       : fmt::format("{:<{}}", cells[c], widths[c]);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out;
  };
  if (colour()) {
    fmt::print("\033[1m{}\033[0m\n", line(titles_));
  } else {
    fmt::print("{}\n", line(titles_));
  }
  for (const auto& row : rows_) fmt::print("{}\n", line(row));
}

void print_json(const Json& json) { fmt::print("{}\n", json.dump(2)); }

void say(const Settings& settings, const std::string& text) {
  if (!settings.quiet && !settings.json) fmt::print(stderr, "{}\n", text);
}

void print_failure(const Settings& settings, const Failure& failure) {
  if (settings.json) {
    const Json json = {
        {"error", {{"code", failure.code}, {"message", failure.message}, {"next", failure.next}}}};
    fmt::print(stderr, "{}\n", json.dump());
    return;
  }
  fmt::print(stderr, "duplex: {}\n", failure.message);
  if (!failure.next.empty()) fmt::print(stderr, "next: {}\n", failure.next);
}

bool is_text(const std::string& bytes) {
  const std::string kept = Json(bytes).dump(-1, ' ', false, Json::error_handler_t::ignore);
  return Json::parse(kept) == bytes;
}

std::string absolute_path(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

std::string size_text(const Json& bytes) { return format_size_rounded(bytes.get<uint64_t>()); }

std::string text_or_dash(const Json& value) {
  if (value.is_null() || value == "") return "-";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

uint64_t size_of(const std::string& text) {
  const auto bytes = parse_size(text);
  if (bytes) return *bytes;
  throw Failure{kUsage, "e_invalid", std::string(bytes.error().message()),
                std::string(bytes.error().next())};
}

bool confirmed(const Settings& settings, const std::string& what, const std::string& next) {
  if (settings.plan) {
    fmt::print("{}\n", what);
    return false;
  }
  if (settings.yes) return true;
  if (isatty(STDIN_FILENO) == 0) {
    throw Failure{kRefused, "e_state", what, next};
  }
  fmt::print(stderr, "{}\nGo on? [y/N] ", what);
  std::string answer;
  std::getline(std::cin, answer);
  if (answer == "y" || answer == "yes") return true;
  throw Failure{kRefused, "e_state", "not done", ""};
}

namespace {

void print_progress(const Json& job) {
  const bool stalled = job["stalled"].get<bool>();
  const std::string left = stalled ? "stalled: " + job["reason"].get<std::string>()
                                   : fmt::format("about {} s left", job["eta_s"].get<uint64_t>());
  fmt::print(stderr, "\r\033[Kjob {} {}: {:.0f} %  {} of {}  {}", job["id"].dump(),
             job["state"].get<std::string>(), job["progress"].get<double>(),
             size_text(job["bytes_done"]), size_text(job["bytes_total"]), left);
}

// Throws Failure when a job that was waited for is not done.
void check_end(const Json& job) {
  const std::string state = job["state"];
  const std::string id = job["id"].dump();
  const std::string error = job["error"];
  if (state == "cancelled")
    throw Failure{kRefused, "e_state",
                  fmt::format("job {} was cancelled{}", id, error.empty() ? "" : ": " + error),
                  job["mirror"].is_null()
                      ? fmt::format("duplex job show {}", id)
                      : fmt::format("duplex mirror show {}", job["mirror"].get<std::string>())};
  if (state == "failed")
    throw Failure{kRefused, "e_state", fmt::format("job {} failed: {}", id, error),
                  fmt::format("duplex job show {}", id)};
  if (state == "paused")
    throw Failure{kRefused, "e_state", fmt::format("job {} is paused", id),
                  fmt::format("duplex job resume {}", id)};
  if (state == "running")
    throw Failure{kRefused, "e_timeout",
                  job["stalled"].get<bool>()
                      ? fmt::format("job {} is stalled: {}", id, job["reason"].get<std::string>())
                      : fmt::format("job {} is still {}", id, state),
                  fmt::format("duplex job wait {}", id)};
}

}  // namespace

Json follow_job(const Client& client, const Settings& settings, const std::string& which,
                uint64_t timeout_s) {
  const auto start = std::chrono::steady_clock::now();
  const bool live = isatty(STDERR_FILENO) != 0 && !settings.quiet && !settings.json;
  std::string path = "/api/v1/jobs/" + path_part(which);
  // A paused job does not end, so it is looked at before it is waited for, and every second.
  for (uint64_t wait_s = 0;; wait_s = 1) {
    const uint64_t passed = static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - start)
            .count());
    const Json job = client.get(fmt::format("{}?timeout={}", path, wait_s));
    path = "/api/v1/jobs/" + job["id"].dump();  // a mirror may begin another one
    if (live) print_progress(job);
    const bool goes_on = job["state"] == "running" && (timeout_s == 0 || passed < timeout_s);
    if (goes_on) continue;
    if (live) fmt::print(stderr, "\n");
    check_end(job);
    return job;
  }
}

}  // namespace duplex::cli
