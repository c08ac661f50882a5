// VolumesImpl: the registry of volumes. volumes.cc has the verbs, exports.cc what the front door
// calls, members.cc what mirrors call.
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
// 1. A volume is opened only in kReady and kResizing, and never when it is damaged or inconsistent.
// 2. It is dropped only in kDeleting, when no client has it open and no verb looks at it.
// 3. Names and numbers of all entries differ, those being created or deleted included.
// 4. A volume that is a member of mirrors is in kReady.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "volume/mark_store.h"
#include "volume/volume_impl.h"
#include "volume/volumes.h"

namespace duplex::volume {

class VolumesImpl final : public Volumes {
 public:
  VolumesImpl(rt::World& world, pool::Pool& pool, EventSink& events, meta::Marks& marks,
              Epoch epoch);
  ~VolumesImpl() override { abandon(); }

  // Adds a volume of the snapshot, at start.
  rt::Task<Result<void>> attach(meta::VolumeRow row);

  rt::Task<> stop() override;
  rt::Task<Result<Created>> create(CreateVolume request) override;
  rt::Task<Result<void>> remove(std::string name, bool disconnect) override;
  rt::Task<Result<VolumeInfo>> resize(std::string name, uint64_t size_bytes, bool discard) override;
  std::vector<VolumeInfo> infos() const override;
  Result<VolumeInfo> info(const std::string& name) const override;
  rt::Task<Result<std::vector<pool::ExtentRun>>> extents(std::string name) override;
  rt::Task<Result<Member*>> join(VolumeNumber number, std::string mirror) override;
  rt::Task<> leave(Member& member, std::string mirror) override;
  rt::Task<bool> is_attached(VolumeNumber number) override;
  void abandon() override;

  std::vector<VolumeSummary> list() const override;
  Result<VolumeSummary> find(const std::string& name) const override;
  std::vector<ChangedContext> contexts(const std::string& name) const override;
  Result<std::unique_ptr<OpenVolume>> open(const std::string& name, std::string client,
                                           std::function<void()> disconnect) override;
  void close(std::unique_ptr<OpenVolume> open) override;

 private:
  enum class State : uint8_t { kCreating, kReady, kResizing, kDeleting };
  class Opened;
  class Joined;
  struct Entry {
    Entry(meta::VolumeRow r, rt::Core& c);
    ~Entry();
    bool is_used() const { return !clients.empty() || lookers > 0; }

    meta::VolumeRow row;
    rt::Core& core;
    State state = State::kCreating;
    std::string device;  // restriction of the backing, or empty
    bool thick = false;
    pool::Backing* backing = nullptr;    // set from kReady on
    std::unique_ptr<Joined> member;      // while it is in mirrors
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
  // The same for a verb that changes the volume itself: kState for a member.
  Result<Entry*> ready_alone(const std::string& name) const;
  static Result<void> may_open(const Entry& entry);
  static VolumeSummary summary_of(const Entry& entry);
  // For a create with the name of an entry.
  Result<Created> created_before(const Entry& entry, const CreateVolume& request) const;
  Result<VolumeNumber> choose_number(const CreateVolume& request) const;
  rt::Core& emptiest_reactor() const;
  Entry& add(meta::VolumeRow row);
  void make_ready(Entry& entry, pool::Backing& backing);
  void erase(Entry& entry);
  static void disconnect_all(Entry& entry);
  rt::Task<Result<void>> shrink(Entry& entry, meta::VolumeRow row, bool discard);
  VolumeInfo info_of(const Entry& entry) const;
  void tell(const Entry& entry, std::string code, std::string text);

  rt::World& world_;
  pool::Pool& pool_;
  EventSink& events_;
  meta::Marks& marks_;
  const Epoch epoch_;
  bool stopping_ = false;
  std::map<VolumeNumber, std::unique_ptr<Entry>> entries_;
};

class VolumesImpl::Opened final : public OpenVolume {
 public:
  Opened(Entry& e, std::string c, bool r, std::function<void()> d)
      : entry(e), client(std::move(c)), is_read_only(r), disconnect(std::move(d)) {}
  Volume& volume() override { return *entry.volume; }
  bool read_only() const override { return is_read_only; }

  Entry& entry;
  const std::string client;
  const bool is_read_only;           // as the access was when it opened
  std::function<void()> disconnect;  // empty once called
};

// members.h has its states: kOpening and kClosing hold the turn, kOpen has a tracker.
class VolumesImpl::Joined final : public Member {
 public:
  Joined(Entry& entry, rt::Core& control) : entry_(entry), control_(control) {}

  const meta::VolumeRow& row() const override { return entry_.row; }
  void committed(Uuid content_id, bool consistent) override;
  rt::Core& core() const override { return entry_.core; }
  VolumeImpl& volume() override { return *entry_.volume; }
  Tracker& tracker() override { return *tracker_; }
  const std::vector<std::string>& mirrors() const override { return mirrors_; }
  void set_context(std::string mirror, ContextId id) override {
    contexts_.insert_or_assign(std::move(mirror), id);
  }
  void drop_context(const std::string& mirror) override { contexts_.erase(mirror); }
  std::vector<Client> clients() const override;
  const Access& access() const override { return access_; }
  void set_access(Access access) override { access_ = std::move(access); }
  rt::Task<Result<void>> disconnect() override;

 private:
  friend class VolumesImpl;
  // Called in their turn.
  rt::Task<> open_tracker(meta::Marks& marks);
  rt::Task<> close_tracker();

  Entry& entry_;
  rt::Core& control_;
  std::vector<std::string> mirrors_;
  std::map<std::string, ContextId> contexts_;
  Access access_ = Access::read_write();
  rt::Mutex turn_;
  std::optional<MarksOfVolume> marks_;
  std::unique_ptr<Tracker> tracker_;  // made, used and destroyed on the volume's core
};

}  // namespace duplex::volume
