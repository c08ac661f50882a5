// MirrorScene: the hosts, and what is read of volumes at quiet moments.
#include <fmt/format.h>

#include <algorithm>

#include "sim/mirror_scene.h"

namespace duplex::simtest {
namespace {

constexpr int kTries = 5;  // of reading a volume while disks fail
// Where dependent writers meet each other and the clients.
constexpr uint64_t kMeetingSectors = 64;

}  // namespace

const MirrorScene::Mirror* MirrorScene::upstream(size_t volume) const {
  const auto it = std::ranges::find_if(
      mirrors_, [&](const Mirror& one) { return one.exists && one.target == volume; });
  return it == mirrors_.end() ? nullptr : &*it;
}

bool MirrorScene::is_served(size_t volume) const {
  const Mirror* above = upstream(volume);
  return volumes_[volume].known &&
         (above == nullptr || (above->state == mirror::Relation::kSplit && !above->point));
}

bool MirrorScene::has_clients(size_t volume) const {
  return std::ranges::any_of(clients_, [&](const auto& client) {
    return !client->running->done && contains(client->volumes, volume);
  });
}

void MirrorScene::start_client(std::vector<size_t> volumes) {
  clients_.push_back(std::make_unique<Client>());
  Client* client = clients_.back().get();
  client->volumes = std::move(volumes);
  client->running = simulation_.start(box_->control(), client_life(client, dice_.next()));
}

// Targets that were split read-only are not written, so that they can be compared later.
void MirrorScene::start_clients() {
  std::vector<size_t> roots;
  for (size_t v = 0; v < volumes_.size(); ++v) {
    const Mirror* above = upstream(v);
    if (!is_served(v) || (above != nullptr && (above->frozen || !plan_.target_hosts))) continue;
    if (above == nullptr) roots.push_back(v);
    if (!has_clients(v)) start_client({v});
  }
  const auto writers = static_cast<size_t>(std::ranges::count_if(
      clients_, [](const auto& c) { return !c->running->done && c->volumes.size() > 1; }));
  for (size_t i = writers; i < plan_.writers && roots.size() > 1; ++i) start_client(roots);
}

rt::Task<bool> MirrorScene::open_hosts(Client* client, uint64_t seed) {
  for (const size_t v : client->volumes) {
    auto host = std::make_unique<DirectHost>(array_->volumes(), box_->control());
    if (!co_await host->open(volumes_[v].name)) co_return false;
    client->hosts.push_back(std::move(host));
    client->clients.push_back(
        std::make_unique<VolumeClient>(client->hosts.back()->core(), *client->hosts.back(),
                                       *volumes_[v].oracle, moments_, seed + v, plan_.mix));
    client->clients.back()->also_tell(cuts_, volumes_[v].source);
  }
  co_return true;
}

// A verb may have been faster: then there is nothing to open.
rt::Task<> MirrorScene::client_life(Client* client, uint64_t seed) {
  const bool is_open = co_await open_hosts(client, seed);
  if (is_open && client->volumes.size() > 1) {
    co_await dependent_writer(client, seed);
  } else if (is_open) {
    co_await rt::hop(client->hosts.front()->core());
    co_await client->clients.front()->run(plan_.operations);
  }
  for (const auto& host : client->hosts) co_await host->close();
}

// Numbered writes, one after the other over all volumes: each begins when the one before has been
// answered. Half of them read what somebody else may just be writing first, and depend on that.
rt::Task<> MirrorScene::dependent_writer(Client* client, uint64_t seed) {
  Dice dice(seed);
  const uint64_t span = std::min(kMeetingSectors, volumes_.front().oracle->sectors());
  for (uint64_t n = 0; n < plan_.operations && !client->is_stopped; ++n) {
    const auto turn = [&](uint64_t number) {
      return static_cast<size_t>(number % client->volumes.size());
    };
    if (dice.chance(0.5)) {
      const size_t other = turn(n + 1);
      co_await rt::hop(client->hosts[other]->core());
      if (co_await client->clients[other]->read_request({dice.below(span), 1}) == Outcome::kGone)
        co_return;
    }
    co_await rt::hop(client->hosts[turn(n)]->core());
    const Outcome outcome = co_await client->clients[turn(n)]->write_request({dice.below(span), 1});
    ++result_.operations;
    if (outcome == Outcome::kGone) co_return;
    if (outcome == Outcome::kError) co_await rt::sleep_for(box_->control().clock(), 200);
  }
}

bool MirrorScene::wait_for_clients() {
  if (!simulation_.finish(*verbs_running_, 4 * 3600 * rt::kSecond)) return false;
  verbs_running_.reset();
  for (const auto& client : clients_) {
    if (!simulation_.finish(*client->running, 4 * 3600 * rt::kSecond)) return false;
  }
  drop_clients();
  return true;
}

void MirrorScene::drop_clients() {
  for (const auto& client : clients_) {
    for (size_t i = 0; i < client->clients.size(); ++i) {
      const auto& stats = client->clients[i]->stats();
      result_.operations += stats.operations;
      result_.errors += stats.errors;
      // A pool may be full for a while: freed space is scrubbed before it is free again.
      if (!plan_.has_errors() && stats.errors > 0 && client->hosts[i]->had_fault())
        violate("a host saw an error, and no device has failed");
    }
  }
  clients_.clear();
}

rt::Task<> MirrorScene::stop_clients_of(size_t volume) {
  for (const auto& client : clients_) {
    if (!contains(client->volumes, volume)) continue;
    client->is_stopped = true;
    for (const auto& one : client->clients) one->stop();
  }
  while (has_clients(volume)) co_await rt::sleep_for(box_->control().clock(), rt::kMillisecond);
}

// `client`: reads through it, so that the oracle judges. Null: nobody knows yet what is there.
rt::Task<std::optional<Image>> MirrorScene::read_once(DirectHost* host, VolumeClient* client) {
  co_await rt::hop(host->core());
  if (client != nullptr) {
    Image image;
    const bool whole = co_await client->verify_all(&image);
    co_return whole ? std::optional(std::move(image)) : std::nullopt;
  }
  std::vector<std::byte> bytes(host->size_bytes());
  for (uint64_t at = 0; at < bytes.size(); at += kRegionBytes) {
    const auto piece = std::span(bytes).subspan(at, std::min(kRegionBytes, bytes.size() - at));
    if (co_await host->read(at, piece) != Outcome::kDone) co_return std::nullopt;
  }
  co_return image_of_bytes(bytes);
}

// nullopt: it cannot be opened, or not be read, at the moment.
rt::Task<std::optional<Image>> MirrorScene::read_image(size_t volume, bool is_judged) {
  DirectHost host(array_->volumes(), box_->control());
  if (!co_await host.open(volumes_[volume].name)) co_return std::nullopt;
  std::optional<Image> image;
  for (int i = 0; i < kTries && !image; ++i) {
    if (!is_judged) {
      image = co_await read_once(&host, nullptr);
      continue;
    }
    VolumeClient client(host.core(), host, *volumes_[volume].oracle, moments_, 1, plan_.mix);
    client.also_tell(cuts_, volumes_[volume].source);
    image = co_await read_once(&host, &client);
  }
  co_await host.close();
  co_return image;
}

// After a start, before anybody writes: what each volume holds is judged, and counts from now on.
rt::Task<> MirrorScene::settle_roots() {
  for (size_t v = 0; v < volumes_.size(); ++v) {
    if (!is_served(v)) continue;
    const std::optional<Image> image = co_await read_image(v, true);
    if (!image) {
      violate(fmt::format("{} cannot be read with all faults gone", volumes_[v].name));
      co_return;
    }
    DirectHost host(array_->volumes(), box_->control());
    if (!co_await host.open(volumes_[v].name)) continue;
    const bool can_flush = !host.is_read_only();
    const Time issued = moments_.next();
    if (can_flush) {
      volumes_[v].oracle->begin_flush(issued);
      co_await rt::hop(host.core());
      const Outcome outcome = co_await host.flush();
      volumes_[v].oracle->end_flush(moments_.next(), issued, outcome == Outcome::kDone);
      if (outcome == Outcome::kDone) cuts_.settle(volumes_[v].source, *image);
      if (outcome != Outcome::kDone)
        violate(fmt::format("{} cannot be flushed with all faults gone", volumes_[v].name));
    }
    co_await host.close();
  }
}

// A cache that was lost with the flush of one volume held writes of others, too: each of them
// learns so at its own next FLUSH and no earlier, and until then its own backing may be older than
// its targets. So sides are compared after one of each: a target is flushed with its source.
rt::Task<> MirrorScene::flush_all() {
  for (const Volume& volume : volumes_) {
    DirectHost host(array_->volumes(), box_->control());
    if (!co_await host.open(volume.name)) continue;
    if (!host.is_read_only()) {
      const Time issued = moments_.next();
      volume.oracle->begin_flush(issued);
      co_await rt::hop(host.core());
      const Outcome outcome = co_await host.flush();
      volume.oracle->end_flush(moments_.next(), issued, outcome == Outcome::kDone);
    }
    co_await host.close();
  }
}

}  // namespace duplex::simtest
