// Array: one array from its state directory to its volumes. Runs unchanged in the daemon and in
// the simulator.
//
// Owner: main() or a test. Thread: control core. Start: store, snapshot, marks, pool, volumes,
// jobs, mirrors; stop: imports, mirrors, volumes and so on down. The destructor without stop() is a
// crash: nothing is written any more. The front door and the API are put in front of it by whoever
// owns it.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "base/error.h"
#include "control/events.h"
#include "control/jobs.h"
#include "control/store_watch.h"
#include "meta/marks.h"
#include "mirror/mirrors.h"
#include "pool/pool.h"
#include "rt/world.h"
#include "volume/volumes.h"

namespace duplex::control {

struct ArrayOptions {
  std::string name;
  ArrayId id;
  std::string state_directory;
  std::string engine;  // of the world, for people
};

struct RebuildOptions {
  std::vector<std::string> devices;
  bool accept_missing = false;
};

class Array {
 public:
  static rt::Task<Result<std::unique_ptr<Array>>> open(rt::World& world, ArrayOptions options);
  // Writes a new state directory from what the devices say; the array is opened afterwards.
  static rt::Task<Result<pool::RebuildReport>> rebuild(rt::World& world, ArrayOptions options,
                                                       RebuildOptions from);
  ~Array();

  // Those who wait for an event or a job come back at once from now on.
  void release_waiters();
  // No client is connected any more.
  rt::Task<> stop();

  rt::World& world() { return world_; }
  const ArrayOptions& options() const { return options_; }
  Events& events() { return events_; }
  pool::Pool& pool() { return *pool_; }
  volume::Volumes& volumes() { return *volumes_; }
  Jobs& jobs() { return *jobs_; }
  meta::Marks& marks() { return *marks_; }
  mirror::Mirrors& mirrors() { return *mirrors_; }

  // Volumes::create() and Mirrors::create_group(), and no name for both: kExists, and kBusy while
  // the other of them is under way with this name.
  rt::Task<Result<volume::Volumes::Created>> create_volume(volume::CreateVolume request);
  rt::Task<Result<bool>> create_group(std::string name, std::vector<std::string> mirrors);

  // Why changes are not stored at the moment, if so.
  const std::optional<Error>& store_trouble() const { return store_->trouble(); }
  // Where the front door listens: "unix:/…"; for the URIs shown to people.
  void set_nbd_addresses(std::vector<rt::Address> addresses) {
    nbd_addresses_ = std::move(addresses);
  }
  // NBD URI of a volume at the first address, or empty when nothing listens.
  std::string uri_of(const std::string& volume) const;
  rt::Micros started() const { return started_; }

 private:
  Array(rt::World& world, ArrayOptions options);
  rt::Task<Result<void>> start();

  rt::World& world_;
  const ArrayOptions options_;
  const rt::Micros started_;
  std::vector<rt::Address> nbd_addresses_;
  Events events_;
  std::unique_ptr<StoreWatch> store_;
  std::unique_ptr<meta::Marks> marks_;
  std::unique_ptr<pool::Pool> pool_;
  std::unique_ptr<volume::Volumes> volumes_;
  std::unique_ptr<Jobs> jobs_;
  std::unique_ptr<mirror::Mirrors> mirrors_;
  std::multiset<std::string> volumes_under_way_;  // names, while they are created
  std::multiset<std::string> groups_under_way_;
};

// "nbd+unix:///db?socket=/run/duplex/nbd.sock" or "nbd://127.0.0.1:10809/db".
std::string nbd_uri(const rt::Address& address, const std::string& export_name);

}  // namespace duplex::control
