// MirrorScene: one simulated run with mirrors, from a seed. Hosts write without pause, dependent
// writes among them; verbs create, split (by name, group or pair), resync, restore, verify, pause,
// cancel and delete at random, and change a group; devices fail, hang and vanish; the machine loses
// power or is killed anywhere, also inside a verb.
//
// Volumes form trees: a root, one or two targets, a target of the first target. A run is a chain
// of lives as in Scene. What hosts may use at a moment follows from the states the array shows:
// roots, and targets that are split, from the moment at which their image has been judged.
//
// Judges, by promise:
//   P1, P2   Oracle, for each volume a host uses; a restore is a write of everything, a split
//            target begins with its image
//   P3       CutJudge: each image of a cut, together with those of the others
//   P4, P12  at quiet points: a mirror in SYNC has equal bytes on both sides, read past the mirror;
//            with resync before and after, this finds a region without its bit (P5) as well
//   P5       split: no more regions differ than the maps have; a resync moves no more than that
//   P8       a cut is decided for all its mirrors or for none, over a crash too; a group is as it
//            was before a verb or after it
//   P9       no gate is closed for longer than the lease, no request hangs
//   P12      where no device fails no host sees an error
//   P10      faults gone: every mirror comes to SYNC, or to SPLIT where it was split
// mirror-states.md invariant 4 is "a read-only target holds its image for ever".
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/array.h"
#include "mirror/mirrors.h"
#include "sim/cut_judge.h"
#include "sim/machine.h"
#include "sim/scene.h"
#include "sim/volume_client.h"

namespace duplex::simtest {

inline bool contains(const std::vector<size_t>& all, size_t one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

class MirrorScene {
 public:
  explicit MirrorScene(uint64_t seed);
  ~MirrorScene();
  SceneResult run();
  std::string describe() const;

 private:
  struct Plan {
    size_t reactors = 1;
    size_t devices = 2;
    uint64_t extent_bytes = 64 * kKiB;
    uint64_t volume_bytes = kMiB;
    bool is_large = false;  // volumes of several stretches
    size_t roots = 1;
    size_t lives = 3;
    uint64_t operations = 500;  // of a client, then it closes its volume
    size_t writers = 1;         // of dependent writes over all roots
    size_t turns = 20;          // verbs of a life
    double disk_error = 0, flush_error = 0, slow = 0, away = 0;
    bool restores = false, cancels = false, deletes = false, target_hosts = false;
    RequestMix mix;
    bool has_errors() const { return disk_error > 0 || flush_error > 0 || away > 0; }
  };
  struct Volume {
    std::string name;
    size_t device = 0;
    std::unique_ptr<Oracle> oracle;
    CutJudge::Source source = 0;
    // The oracle knows what it holds. False: a mirror fills it, or its image was not read yet, or a
    // cancelled restore has left it half restored.
    bool known = true;
  };
  // A cut and what was read of it.
  struct Point {
    CutJudge::Cut cut;
    bool is_judged = true;  // false: a root was unknown
    std::vector<CutJudge::Target> targets;
  };
  struct Mirror {
    std::string name;
    size_t source = 0, target = 0;  // in volumes_
    bool exists = false;
    mirror::Relation state = mirror::Relation::kSimplex;  // as last shown
    uint64_t cut = 0;
    std::shared_ptr<Point> point;  // its image has not been read yet
    CutJudge::Source root = 0;     // of that cut
    std::optional<Image> frozen;   // split read-only: what the target holds
  };
  struct Client {
    std::vector<size_t> volumes;
    std::vector<std::unique_ptr<DirectHost>> hosts;
    std::vector<std::unique_ptr<VolumeClient>> clients;
    std::shared_ptr<sim::detail::Outcome<void>> running;
    bool is_stopped = false;
  };
  // A split that has not been answered.
  struct Pending {
    Time asked = 0;
    std::vector<size_t> members;  // in mirrors_
  };
  using Names = std::vector<std::string>;
  static constexpr ArrayId kArray{0x400104};
  static constexpr const char* kGroup = "all";

  // mirror_scene.cc: the life of the machine
  void draw();
  void draw_large();
  void draw_trees();
  void make_machine();
  bool live(size_t life, bool last);
  bool boot(size_t life);
  bool first_setup();
  rt::Task<Result<void>> set_up();
  void set_faults(bool on);
  void crash(bool power);
  void tear_down();
  bool stop_cleanly();
  template <class T>
  bool must_end(rt::Task<T> task, const char* what);
  void violate(std::string text);
  struct DeviceFault {
    MirrorScene* scene = nullptr;
    size_t device = 0;
  };
  static void on_cache_lost(void* fault);
  bool may_be_read_at(size_t volume, size_t device) const;
  void expect_losses(size_t device);

  // mirror_hosts.cc: clients, and what is read at quiet moments
  void start_clients();
  void start_client(std::vector<size_t> volumes);
  bool wait_for_clients();
  void drop_clients();
  rt::Task<> stop_clients_of(size_t volume);
  bool has_clients(size_t volume) const;
  rt::Task<bool> open_hosts(Client* client, uint64_t seed);
  rt::Task<> client_life(Client* client, uint64_t seed);
  rt::Task<std::optional<Image>> read_once(DirectHost* host, VolumeClient* client);
  rt::Task<> dependent_writer(Client* client, uint64_t seed);
  rt::Task<std::optional<Image>> read_image(size_t volume, bool is_judged);
  rt::Task<> settle_roots();
  rt::Task<> flush_all();
  bool is_served(size_t volume) const;
  const Mirror* upstream(size_t volume) const;

  // mirror_verbs.cc: verbs, states, cuts
  rt::Task<> verbs();
  rt::Task<> one_verb();
  rt::Task<> split(std::vector<size_t> members);
  rt::Task<> resync(size_t mirror);
  rt::Task<> restore(size_t mirror);
  rt::Task<> cancel(size_t mirror);
  rt::Task<> remove_and_create(size_t mirror);
  rt::Task<> verify(size_t mirror);
  rt::Task<> side_verb();
  rt::Task<> change_job(size_t mirror);
  rt::Task<> change_group(size_t mirror);
  void compare_group();
  void is_gone(const Mirror& one);
  rt::Task<mirror::SplitRequest> ask_for(const std::vector<size_t>& members);
  rt::Task<> trouble_a_device();
  rt::Task<> refresh();
  rt::Task<> read_points();
  void new_point(Time asked, const std::vector<size_t>& members);
  size_t root_of(size_t volume, const std::vector<size_t>& members) const;
  std::vector<size_t> draw_members();
  bool done(const char* what, const Error* error);
  template <class T>
  bool done(const char* what, const Result<T>& result) {
    return done(what, result ? nullptr : &result.error());
  }

  // mirror_checks.cc: quiet points
  rt::Task<> quiet();
  rt::Task<> resume_all();
  rt::Task<> bring_to_rest(bool all_in_sync);
  rt::Task<> resync_counting();
  rt::Task<> compare_sides();
  rt::Task<> compare_frozen(const Mirror& one);
  rt::Task<> last_judgement();

  const uint64_t seed_;
  Plan plan_;
  sim::Simulation simulation_;
  sim::Dice dice_;
  sim::Dice side_dice_;  // of verbs beside the others
  sim::Machine* box_ = nullptr;
  Moments moments_;
  CutJudge cuts_;
  std::vector<Volume> volumes_;
  std::vector<Mirror> mirrors_;
  std::vector<DeviceFault> device_faults_;
  std::unique_ptr<control::Array> array_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::shared_ptr<sim::detail::Outcome<void>> verbs_running_;
  bool verbs_stop_ = false;
  std::optional<Pending> pending_;
  std::optional<size_t> half_restored_;  // volume whose restore is being cancelled
  std::shared_ptr<Point> crash_point_;   // of a split that a crash cut off
  std::vector<size_t> crash_members_;
  // What the group may have: one, or while a verb on it is in doubt, before and after it.
  std::vector<Names> group_;
  bool set_up_ = false;
  SceneResult result_;
};

}  // namespace duplex::simtest
