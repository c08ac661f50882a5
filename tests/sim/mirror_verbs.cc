// MirrorScene: the verbs, and what the scene makes of the states that the array shows.
#include <fmt/format.h>

#include <algorithm>

#include "sim/mirror_scene.h"

namespace duplex::simtest {

using mirror::Mirrors;
using mirror::Relation;
using mirror::Then;

namespace {

constexpr rt::Micros kLease = 250 * rt::kMillisecond;
// A core of the simulation may be starved for a while; it opens its gate when it runs again.
constexpr rt::Micros kStarved = rt::kSecond;

}  // namespace

// A verb may be refused or fail for many reasons. What it may not do is to find itself impossible.
bool MirrorScene::done(const char* what, const Error* error) {
  simulation_.count(
      fmt::format("{} {}", what, error == nullptr ? "done" : code_name(error->code())));
  if (error == nullptr) return true;
  if (error->code() == Code::kInvalid) violate(fmt::format("{}: {}", what, error->describe()));
  // Only the next life knows whether the change at which the store failed holds.
  if (error->code() == Code::kInDoubt) verbs_stop_ = true;
  return false;
}

rt::Task<> MirrorScene::verbs() {
  for (size_t turn = 0; turn < plan_.turns && !verbs_stop_; ++turn) {
    co_await rt::sleep_for(box_->control().clock(), dice_.skewed(100, 2 * rt::kSecond));
    co_await one_verb();
    if (verbs_stop_) co_return;
    co_await refresh();
    co_await read_points();
    start_clients();
  }
}

rt::Task<> MirrorScene::one_verb() {
  const size_t one = static_cast<size_t>(dice_.below(mirrors_.size()));
  if (dice_.chance(plan_.away)) co_await trouble_a_device();
  co_await side_verb();
  if (verbs_stop_) co_return;
  const Relation state = mirrors_[one].state;
  const uint64_t kind = dice_.below(10);
  if (plan_.deletes && kind == 0) {
    co_await remove_and_create(one);
  } else if (plan_.cancels && kind == 1) {
    co_await cancel(one);
  } else if (kind == 2) {
    co_await verify(one);
  } else if (state == Relation::kSplit && plan_.restores && kind <= 5) {
    co_await restore(one);
  } else if (state == Relation::kSplit || state == Relation::kSuspended || kind == 3) {
    co_await resync(one);
  } else {
    co_await split(draw_members());
  }
}

// A verb that changes no relation, now and then before one that may.
rt::Task<> MirrorScene::side_verb() {
  const size_t one = static_cast<size_t>(side_dice_.below(mirrors_.size()));
  if (side_dice_.chance(0.15)) co_await change_job(one);
  if (side_dice_.chance(0.15)) co_await change_group(one);
}

// One mirror, some of them, or all.
std::vector<size_t> MirrorScene::draw_members() {
  const double share = dice_.chance(0.3) ? 1 : 0.4;
  std::vector<size_t> members;
  for (size_t i = 0; i < mirrors_.size(); ++i) {
    if (mirrors_[i].exists && mirrors_[i].state == Relation::kSync && dice_.chance(share))
      members.push_back(i);
  }
  if (members.empty()) members.push_back(static_cast<size_t>(dice_.below(mirrors_.size())));
  return members;
}

// The volume whose hosts write what `volume` gets, in a cut of `members`.
size_t MirrorScene::root_of(size_t volume, const std::vector<size_t>& members) const {
  for (;;) {
    const Mirror* above = upstream(volume);
    if (above == nullptr) return volume;
    const auto index = static_cast<size_t>(above - mirrors_.data());
    const bool follows = above->state == Relation::kSync || above->state == Relation::kCopying;
    if (!follows && !contains(members, index)) return volume;
    volume = above->source;
  }
}

void MirrorScene::new_point(Time asked, const std::vector<size_t>& members) {
  auto point = std::make_shared<Point>();
  std::vector<CutJudge::Source> roots;
  for (const size_t i : members) {
    const size_t root = root_of(mirrors_[i].source, members);
    // One that is suspended or copied may come back at any moment: then it leads further up.
    const Mirror* above = upstream(root);
    const bool is_certain = above == nullptr || above->state == Relation::kSplit;
    point->is_judged = point->is_judged && volumes_[root].known && is_certain;
    if (!contains(roots, volumes_[root].source)) roots.push_back(volumes_[root].source);
  }
  point->cut = cuts_.freeze(asked, moments_.next(), roots);
  for (const size_t i : members) {
    mirrors_[i].point = point;
    mirrors_[i].root = volumes_[root_of(mirrors_[i].source, members)].source;
    volumes_[mirrors_[i].target].known = false;
  }
}

// By name, by group or by pair of volumes.
rt::Task<mirror::SplitRequest> MirrorScene::ask_for(const std::vector<size_t>& members) {
  mirror::SplitRequest request{
      .names = {}, .pairs = {}, .read_only = dice_.chance(0.3), .lease = kLease};
  for (const size_t i : members) request.names.push_back(mirrors_[i].name);
  const uint64_t kind = side_dice_.below(3);
  const auto group = array_->mirrors().group(kGroup);
  if (kind == 0 && group && std::ranges::is_permutation(group->mirrors, request.names))
    request.names = {kGroup};
  if (kind != 1) co_return request;
  for (const mirror::MirrorInfo& info : co_await array_->mirrors().list()) {
    if (std::ranges::find(request.names, info.name) == request.names.end()) continue;
    request.pairs.push_back({kArray, info.source_number, kArray, info.target_number});
  }
  // One that does not exist is refused by its name.
  if (request.pairs.size() == request.names.size()) {
    request.names.clear();
  } else {
    request.pairs.clear();
  }
  co_return request;
}

rt::Task<> MirrorScene::split(std::vector<size_t> members) {
  // Since the last look a mirror may have come back by itself, and with it another root.
  co_await refresh();
  const mirror::SplitRequest request = co_await ask_for(members);
  pending_ = {moments_.next(), members};
  const auto cut = co_await array_->mirrors().split(request);
  if (!done("split", cut)) {
    if (cut.error().code() != Code::kInDoubt) pending_.reset();
    co_return;
  }
  new_point(pending_->asked, members);
  pending_.reset();
  if (cut->hold > request.lease + kStarved)
    violate(fmt::format("cut {} held writes for {} us", cut->id, cut->hold));
  for (const size_t i : members) {
    mirrors_[i].state = Relation::kSplit;
    mirrors_[i].cut = cut->id;
    mirrors_[i].frozen.reset();
    if (request.read_only) mirrors_[i].frozen.emplace();
  }
  const std::shared_ptr<Point> point = mirrors_[members.front()].point;
  for (const mirror::MirrorInfo& info : co_await array_->mirrors().list()) {
    // Meanwhile is before the cut or after it: its roots are uncertain.
    const auto is_changed = [&](const Mirror& one) {
      return one.name == info.name && one.state != info.state && info.cut != cut->id;
    };
    if (std::ranges::any_of(mirrors_, is_changed)) point->is_judged = false;
  }
}

rt::Task<> MirrorScene::resync(size_t index) {
  const Mirror& one = mirrors_[index];
  const bool disconnect = dice_.chance(0.3);
  if (!disconnect && dice_.chance(0.7)) co_await stop_clients_of(one.target);
  done("resync", co_await array_->mirrors().resync({{one.name}, disconnect}));
  // Hosts that were disconnected leave by themselves.
  if (disconnect) co_await stop_clients_of(one.target);
}

// All of the source becomes what the target holds: a write of everything, and of nothing else.
rt::Task<> MirrorScene::restore(size_t index) {
  Mirror& one = mirrors_[index];
  if (!is_served(one.target)) co_return;
  co_await stop_clients_of(one.target);
  Volume& source = volumes_[one.source];
  const bool online = source.known && dice_.chance(0.6);
  if (!online) co_await stop_clients_of(one.source);
  const std::optional<Image> image = co_await read_image(one.target, true);
  if (!image) co_return;
  // A read-only image that is itself restored is no image any more.
  for (Mirror& above : mirrors_) {
    if (above.target == one.source) above.frozen.reset();
  }
  const bool was_known = source.known;
  const Time started = moments_.next();
  const uint32_t write = source.oracle->begin_replace(started, *image);
  cuts_.begin_replace(started, source.source, *image);
  const auto restored = co_await array_->mirrors().restore(
      {.names = {one.name},
       .then = dice_.chance(0.5) ? mirror::Then::kSync : mirror::Then::kSplit,
       .online = online});
  const bool success = done("restore", restored);
  source.oracle->end_write(moments_.next(), write, success);
  cuts_.end_write(moments_.now, source.source, started, success);
  if (success && !was_known) {
    source.oracle->rebase(*image);
    cuts_.settle(source.source, *image);
    source.known = true;
  }
}

// A restore that is cancelled leaves its source half restored: until the next one nobody may open
// it, and nothing is known of it.
rt::Task<> MirrorScene::cancel(size_t index) {
  const Mirror& one = mirrors_[index];
  const bool restores = one.state == Relation::kReverse;
  if (restores) {
    co_await stop_clients_of(one.source);
    half_restored_ = one.source;
  }
  const auto job = array_->jobs().number_of(one.name);
  if (job) {
    const auto ended = co_await array_->jobs().cancel(*job, true);
    // An error other than a refusal leaves open what has happened.
    if (restores && (done("cancel", ended) || ended.error().code() != Code::kState))
      volumes_[one.source].known = false;
  }
  half_restored_.reset();
}

rt::Task<> MirrorScene::verify(size_t index) {
  const auto begun = co_await array_->mirrors().verify({mirrors_[index].name});
  done("verify", begun);
}

// Holds the job of a mirror for a while, lets it go on, or makes it slow.
rt::Task<> MirrorScene::change_job(size_t index) {
  const auto job = array_->jobs().number_of(mirrors_[index].name);
  if (!job) co_return;
  const uint64_t kind = side_dice_.below(3);
  if (kind == 0) done("pause", co_await array_->jobs().pause(*job));
  if (kind == 1) done("resume", co_await array_->jobs().resume(*job));
  if (kind == 2)
    done("rate", co_await array_->jobs().set_rate(*job, side_dice_.between(1, 32) * kMiB));
}

// What is in doubt may be as before or as asked; the next look at the group tells.
rt::Task<> MirrorScene::change_group(size_t index) {
  compare_group();
  const std::string& name = mirrors_[index].name;
  Names asked = group_.front();
  const auto in = std::ranges::find(asked, name);
  const bool leaves = in != asked.end();
  if (leaves) {
    asked.erase(in);
  } else {
    asked.push_back(name);
  }
  group_.push_back(std::move(asked));
  const auto changed = leaves ? co_await array_->mirrors().remove_from_group(kGroup, {name})
                              : co_await array_->mirrors().add_to_group(kGroup, {name});
  if (done("group", changed)) {
    group_.erase(group_.begin());
  } else if (changed.error().code() != Code::kInDoubt) {
    group_.pop_back();
  }
}

// Mutation: add_to_group() forgets who was in it.
void MirrorScene::compare_group() {
  const auto group = array_->mirrors().group(kGroup);
  const auto is_it = [&](const Names& names) {
    return group && std::ranges::is_permutation(group->mirrors, names);
  };
  const auto found = std::ranges::find_if(group_, is_it);
  if (found == group_.end()) {
    violate(fmt::format("group {} has members that nobody asked for", kGroup));
    return;
  }
  group_ = {*found};
}

// It has left its group with its mirror, and does not come back by itself.
void MirrorScene::is_gone(const Mirror& one) {
  for (Names& names : group_) std::erase(names, one.name);
}

rt::Task<> MirrorScene::remove_and_create(size_t index) {
  Mirror& one = mirrors_[index];
  if (one.exists) {
    co_await stop_clients_of(one.target);
    if (!done("delete", co_await array_->mirrors().remove(one.name, false))) co_return;
    one.exists = false;
    is_gone(one);
    one.point.reset();
    one.frozen.reset();
    // As a volume of its own it may be half a copy, or whole: nobody asks it anything.
    volumes_[one.target].known = false;
  }
  const auto made = co_await array_->mirrors().create({.name = one.name,
                                                       .source = volumes_[one.source].name,
                                                       .target = volumes_[one.target].name,
                                                       .copy = true,
                                                       .overwrite = true});
  if (done("create", made)) one.exists = true;
}

// A device vanishes for a while, or every operation on it takes long.
rt::Task<> MirrorScene::trouble_a_device() {
  static constexpr const char* kPaths[] = {"/dev/a", "/dev/b", "/dev/c"};
  const size_t device = dice_.below(plan_.devices);
  sim::DiskFile* disk = box_->disk().find(kPaths[device]);
  const bool gone = dice_.chance(0.5);
  if (gone) expect_losses(device);
  simulation_.count(gone ? "device away" : "device hangs");
  disk->faults.gone = gone;
  if (!gone) disk->faults.slow = 1;
  co_await rt::sleep_for(box_->control().clock(), dice_.skewed(rt::kMillisecond, 20 * rt::kSecond));
  disk->faults.gone = false;
  disk->faults.slow = plan_.slow;
}

// What the array shows is what counts: a mirror may have changed by itself, or by a verb that was
// cut off.
rt::Task<> MirrorScene::refresh() {
  const auto infos = co_await array_->mirrors().list();
  size_t cut_off = 0;
  for (size_t i = 0; i < mirrors_.size(); ++i) {
    Mirror& one = mirrors_[i];
    const auto info = std::ranges::find(infos, one.name, &mirror::MirrorInfo::name);
    one.exists = info != infos.end();
    if (!one.exists) is_gone(one);
    one.state = one.exists ? info->state : Relation::kSimplex;
    Volume& target = volumes_[one.target];
    if (one.state != Relation::kSplit && one.state != Relation::kReverse) {
      target.known = false;
      one.point.reset();
      one.frozen.reset();
      continue;
    }
    if (info->cut == one.cut) continue;
    one.cut = info->cut;
    if (!contains(crash_members_, i) || !crash_point_) {
      violate(fmt::format("{} is split at cut {}, for which nobody asked", one.name, info->cut));
      co_return;
    }
    ++cut_off;
    one.point = crash_point_;
    target.known = false;
    one.frozen.reset();
    if (info->read_only) one.frozen.emplace();
  }
  if (cut_off != 0 && cut_off != crash_members_.size())
    violate("a cut was decided for some of its mirrors only");
  crash_point_.reset();
  crash_members_.clear();
}

// Reads what targets hold that were split, as far as they can be read now, and judges it together
// with what was read of the same cut before. From then on hosts may use them.
rt::Task<> MirrorScene::read_points() {
  for (Mirror& one : mirrors_) {
    if (!one.point || one.state != Relation::kSplit) continue;
    std::optional<Image> image = co_await read_image(one.target, false);
    if (!image) continue;
    Volume& target = volumes_[one.target];
    target.oracle->rebase(*image);
    cuts_.settle(target.source, *image);
    target.known = true;
    const std::shared_ptr<Point> point = std::exchange(one.point, nullptr);
    if (one.frozen) one.frozen = *image;
    point->targets.push_back({target.name, one.root, std::move(*image)});
    if (!point->is_judged) continue;
    const std::string why = CutJudge::judge(point->cut, point->targets);
    if (!why.empty()) violate(why);
    simulation_.count("image of a cut judged");
  }
}

}  // namespace duplex::simtest
