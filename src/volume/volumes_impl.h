// VolumesImpl: the registry of volumes. volumes.cc has the verbs, exports.cc what the front door
// calls.
//
// Owner: the array. Thread: control core. The Volume inside an entry lives on the entry's core;
// verbs that must act there hop to it and back.
//
// States of an entry; each verb checks and sets the state without a suspension between, so two
// verbs never work on one volume:
//
//   state      entered by           left for
//   kCreating  create               kReady, or gone when the pool refuses
//   kReady     open(), end of verb  kResizing, kDeleting
//   kResizing  resize               kReady
//   kDeleting  remove               gone, or kReady when the pool refuses
//
// Invariants:
// 1. A volume is opened only in kReady and kResizing, and never when it is damaged.
// 2. It is dropped only in kDeleting, when no client has it open and no verb looks at it.
// 3. Names and numbers of all entries differ, those being created or deleted included.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "volume/volume_impl.h"
#include "volume/volumes.h"

namespace duplex::volume {

class VolumesImpl final : public Volumes {
 public:
  VolumesImpl(rt::World& world, pool::Pool& pool, EventSink& events, Epoch epoch);

  // Adds a volume of the snapshot, at start.
  rt::Task<Result<void>> attach(meta::VolumeRow row);

  rt::Task<> stop() override;
  rt::Task<Result<Created>> create(CreateVolume request) override;
  rt::Task<Result<void>> remove(std::string name, bool disconnect) override;
  rt::Task<Result<VolumeInfo>> resize(std::string name, uint64_t size_bytes, bool discard) override;
  std::vector<VolumeInfo> infos() const override;
  Result<VolumeInfo> info(const std::string& name) const override;
  rt::Task<Result<std::vector<pool::ExtentRun>>> extents(std::string name) override;

  std::vector<VolumeSummary> list() const override;
  Result<VolumeSummary> find(const std::string& name) const override;
  Result<std::unique_ptr<OpenVolume>> open(const std::string& name, std::string client,
                                           std::function<void()> disconnect) override;
  void close(std::unique_ptr<OpenVolume> open) override;

 private:
  enum class State : uint8_t { kCreating, kReady, kResizing, kDeleting };
  class Opened;
  struct Entry {
    Entry(meta::VolumeRow r, rt::Core& c) : row(std::move(r)), core(c) {}
    bool is_used() const { return !clients.empty() || lookers > 0; }

    meta::VolumeRow row;
    rt::Core& core;
    State state = State::kCreating;
    std::string device;  // restriction of the backing, or empty
    bool thick = false;
    pool::Backing* backing = nullptr;    // set from kReady on
    std::unique_ptr<VolumeImpl> volume;  // set from kReady on
    std::vector<Opened*> clients;        // in order of opening; they belong to the front door
    uint32_t lookers = 0;                // verbs that read the volume on its core
    rt::Event unused;                    // pulsed when a client or looker leaves
  };
  // Counts a verb that looks at a volume across a hop.
  class Looking {
   public:
    explicit Looking(Entry& entry) : entry_(entry) { ++entry_.lookers; }
    Looking(const Looking&) = delete;
    Looking& operator=(const Looking&) = delete;
    ~Looking() {
      --entry_.lookers;
      entry_.unused.pulse();
    }

   private:
    Entry& entry_;
  };

  Entry* entry_named(const std::string& name) const;
  // NAME or 0xNUMBER, ready for a verb: kNoVolume, kBusy, kShutdown.
  Result<Entry*> ready(const std::string& name) const;
  // For a create with the name of an entry.
  Result<Created> created_before(const Entry& entry, const CreateVolume& request) const;
  Result<VolumeNumber> choose_number(const CreateVolume& request) const;
  rt::Core& emptiest_reactor() const;
  Entry& add(meta::VolumeRow row);
  void make_ready(Entry& entry, pool::Backing& backing);
  void erase(Entry& entry);
  void disconnect_all(Entry& entry);
  rt::Task<Result<void>> shrink(Entry& entry, meta::VolumeRow row, bool discard);
  VolumeInfo info_of(const Entry& entry) const;
  void tell(const Entry& entry, std::string code, std::string text);

  rt::World& world_;
  pool::Pool& pool_;
  EventSink& events_;
  const Epoch epoch_;
  bool stopping_ = false;
  std::map<VolumeNumber, std::unique_ptr<Entry>> entries_;
};

class VolumesImpl::Opened final : public OpenVolume {
 public:
  Opened(Entry& e, std::string c, std::function<void()> d)
      : entry(e), client(std::move(c)), disconnect(std::move(d)) {}
  Volume& volume() override { return *entry.volume; }
  bool read_only() const override { return false; }

  Entry& entry;
  const std::string client;
  std::function<void()> disconnect;  // empty once called
};

}  // namespace duplex::volume
