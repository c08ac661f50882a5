#include "control/array.h"

#include <fmt/format.h>

#include <utility>

namespace duplex::control {
namespace {

meta::StoreOptions store_options(const ArrayOptions& options) {
  return {.directory = options.state_directory, .array_id = options.id, .array_name = options.name};
}

Error under_way(std::string_view kind, const std::string& name) {
  return Error(Code::kBusy,
               fmt::format("another command creates the {} {} at the moment", kind, name),
               "try again");
}

// Percent-encodes what a URI query cannot carry as it is.
std::string encoded(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       std::string_view("-._~/:").contains(c);
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

Array::Array(rt::World& world, ArrayOptions options)
    : world_(world),
      options_(std::move(options)),
      started_(world.control().clock().now()),
      events_(world.control()) {}

Array::~Array() = default;

rt::Task<Result<std::unique_ptr<Array>>> Array::open(rt::World& world, ArrayOptions options) {
  std::unique_ptr<Array> array(new Array(world, std::move(options)));
  const auto started = co_await array->start();
  if (!started) {
    co_await array->stop();
    co_return std::unexpected(started.error());
  }
  co_return array;
}

rt::Task<Result<void>> Array::start() {
  CO_TRY_ASSIGN(auto store,
                co_await meta::Store::open(world_.sync_files(), world_.store(),
                                           world_.control().rng(), store_options(options_)));
  store_ = std::make_unique<StoreWatch>(std::move(store), world_.control(), events_);
  CO_TRY_ASSIGN(const meta::Snapshot snapshot, co_await store_->load());
  events_.use_store(*store_);
  CO_TRY_ASSIGN(auto marks, co_await meta::Marks::open(world_.sync_files(), world_.store(),
                                                       world_.control().rng(), *store_, snapshot,
                                                       {.directory = options_.state_directory}));
  marks_ = std::move(marks.marks);
  CO_TRY_ASSIGN(pool_, co_await pool::Pool::open(world_, *store_, events_, snapshot));
  CO_TRY_ASSIGN(volumes_,
                co_await volume::Volumes::open(world_, *pool_, events_, *marks_, snapshot));
  jobs_ = std::make_unique<Jobs>(world_, *store_, *volumes_, events_, snapshot);
  CO_TRY_ASSIGN(mirrors_, co_await mirror::Mirrors::open({.world = world_,
                                                          .array = options_.id,
                                                          .array_name = options_.name,
                                                          .store = *store_,
                                                          .marks = *marks_,
                                                          .volumes = *volumes_,
                                                          .events = events_,
                                                          .jobs = *jobs_},
                                                         snapshot, std::move(marks.found)));
  jobs_->settle_left_over();
  co_return Result<void>();
}

void Array::release_waiters() {
  events_.release_waiters();
  jobs_->release_waiters();
}

rt::Task<> Array::stop() {
  if (jobs_) co_await jobs_->stop();
  if (mirrors_) co_await mirrors_->stop();
  if (jobs_) co_await jobs_->close_desk();
  mirrors_.reset();
  if (volumes_) co_await volumes_->stop();
  jobs_.reset();
  volumes_.reset();
  if (pool_) co_await pool_->close();
  pool_.reset();
  marks_.reset();
  co_await events_.stop();
  if (store_) static_cast<void>(co_await store_->close());  // what was committed is durable already
  store_.reset();
}

rt::Task<Result<volume::Volumes::Created>> Array::create_volume(volume::CreateVolume request) {
  const std::string name = request.name;
  if (mirrors_->is_group(name)) {
    co_return fail(Code::kExists,
                   fmt::format("there is a group {}; no volume may have its name", name),
                   fmt::format("choose another name, or: duplex group delete {}", name));
  }
  if (groups_under_way_.contains(name)) co_return std::unexpected(under_way("group", name));
  const auto mine = volumes_under_way_.insert(name);
  auto created = co_await volumes_->create(std::move(request));
  volumes_under_way_.erase(mine);
  co_return created;
}

rt::Task<Result<bool>> Array::create_group(std::string name, std::vector<std::string> mirrors) {
  if (volumes_->info(name)) {
    co_return fail(Code::kExists,
                   fmt::format("there is a volume {}; no group may have its name", name),
                   "choose another name");
  }
  if (volumes_under_way_.contains(name)) co_return std::unexpected(under_way("volume", name));
  const auto mine = groups_under_way_.insert(name);
  auto created = co_await mirrors_->create_group(name, std::move(mirrors));
  groups_under_way_.erase(mine);
  co_return created;
}

rt::Task<Result<pool::RebuildReport>> Array::rebuild(rt::World& world, ArrayOptions options,
                                                     RebuildOptions from) {
  CO_TRY_ASSIGN(const auto store,
                co_await meta::Store::open(world.sync_files(), world.store(), world.control().rng(),
                                           store_options(options)));
  auto report =
      co_await pool::Pool::rebuild(world, *store, std::move(from.devices), from.accept_missing);
  const auto closed = co_await store->close();
  if (report && !closed) co_return std::unexpected(closed.error());
  co_return report;
}

std::string Array::uri_of(const std::string& volume) const {
  return nbd_addresses_.empty() ? std::string() : nbd_uri(nbd_addresses_.front(), volume);
}

std::string nbd_uri(const rt::Address& address, const std::string& export_name) {
  if (address.kind == rt::Address::Kind::kUnix)
    return fmt::format("nbd+unix:///{}?socket={}", export_name, encoded(address.host));
  const bool v6 = address.host.contains(':');
  return fmt::format("nbd://{}{}{}:{}/{}", v6 ? "[" : "", address.host, v6 ? "]" : "", address.port,
                     export_name);
}

}  // namespace duplex::control
