// Scene: one simulated run from a seed. An array on a machine that is switched on and off, clients
// that never stop asking, verbs, faults, and judges.
//
// A run is a chain of *lives*. Each life starts the array, lets clients and verbs work under the
// faults drawn for the run, and ends by a clean stop, a kill, a power cut at some step, or a power
// cut inside a commit of the store. At the end faults are off: everything must open, every volume
// is read whole and judged, a flush works, and the accounts of the pool add up.
// Judges: P1, P2 (Oracle), P8 (names and sizes after a crash are those before or after the verb in
// flight), P11 (pool accounts), P13 (hash), P14 (no run is stuck), foreign data (Oracle).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/array.h"
#include "nbd/server.h"
#include "sim/machine.h"
#include "sim/volume_client.h"

namespace duplex::simtest {

struct SceneResult {
  std::string violation;  // empty: none
  uint64_t hash = 0;
  uint64_t operations = 0;
  uint64_t errors = 0;
  uint64_t faults = 0;
  uint64_t lives = 0;
  rt::Micros virtual_time = 0;
  std::map<std::string, uint64_t> counts;
};

class Scene {
 public:
  explicit Scene(uint64_t seed);
  ~Scene();
  SceneResult run();
  // What the seed has drawn, for people.
  std::string describe() const;

 private:
  struct Plan {
    size_t reactors = 1;
    size_t devices = 1;
    bool block_devices = false;
    uint64_t extent_bytes = 256 * kKiB;
    uint64_t device_bytes = 48 * kMiB;
    size_t volumes = 1;
    uint64_t volume_bytes = 4 * kMiB;
    bool thick = false;
    bool nbd = false;
    bool verbs = false;
    size_t clients = 1;          // per volume
    uint64_t operations = 1000;  // per client and life
    size_t lives = 4;
    double disk_error = 0, flush_error = 0, slow = 0, store_error = 0;
    RequestMix mix;
  };
  struct Judged {
    std::string name;
    std::unique_ptr<Oracle> oracle;
  };
  struct Client {
    std::unique_ptr<Host> host;
    std::unique_ptr<VolumeClient> client;
    std::shared_ptr<sim::detail::Outcome<void>> running;
  };
  // A verb under way: what is there if it took effect.
  struct Verb {
    std::string name;
    std::optional<uint64_t> size_after;  // nullopt: deleted
  };

  void draw();
  void make_machine();
  bool live(size_t life, bool last);
  bool boot(size_t life);
  bool first_setup();
  void set_faults(bool on);
  void start_clients(bool verify_only);
  bool wait_for_clients();
  void crash(bool power);
  void tear_down();
  bool stop_cleanly();
  void final_checks();
  void check_names();
  void check_pool();
  void collect_clients();
  void violate(std::string text);
  rt::Task<> start_server();
  rt::Task<> stop_server();
  rt::Task<> client_life(Client& client, const Judged& judged, uint64_t seed, bool verify_only);
  rt::Task<> verbs();
  rt::Task<bool> check_maps();
  static void on_cache_lost(void* scene);

  const uint64_t seed_;
  Plan plan_;
  sim::Simulation simulation_;
  sim::Dice dice_;
  sim::Machine* box_ = nullptr;
  sim::Machine* outside_ = nullptr;  // where NBD clients run
  Moments moments_;
  std::vector<Judged> judged_;
  std::unique_ptr<control::Array> array_;
  std::unique_ptr<nbd::Server> server_;
  std::vector<Client> clients_;
  std::shared_ptr<sim::detail::Outcome<void>> verbs_running_;
  bool verbs_stop_ = false;
  std::map<std::string, uint64_t> expected_;  // volumes of the verbs, name to size
  std::optional<Verb> verb_;
  bool set_up_ = false;
  bool hopeless_ = false;  // the devices drawn are too small for what was drawn to be on them
  SceneResult result_;
};

}  // namespace duplex::simtest
