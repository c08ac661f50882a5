// MirrorsImpl: the registry of mirrors. mirrors.cc has create, delete and what is shown; groups.cc
// the names; copies.cc resync, restore, verify; jobs.cc what they start; split.cc the way to a cut
// (cut.h); faults.cc what faults do; start.cc the start and the stop. transition.h does what a row
// of the table says.
//
// Owner: the array. Thread: control core.
//
// Invariants:
// 1. Whoever changes the state of a mirror, or the members of a group, holds `turn_`. What is read
//    before the turn may be stale in it.
// 2. A change is durable before it is seen: in one transaction with the maps it concerns. Only a
//    lost target is suspended also when the store takes no record (faults.cc).
// 3. Each wait for a device inside a turn ends after kMostWait, for a client after
//    Member::kDisconnectTime; those of one verb, and of its mirrors, add up. A commit waits for the
//    store as long as that takes.
// 4. A job that has ended takes a turn to say what follows; by then its place in the mirror is
//    empty, so a verb that ended it does not wait for its turn.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mirror/ledger.h"
#include "mirror/mirror.h"
#include "mirror/mirrors.h"
#include "mirror/transition.h"
#include "rt/task_group.h"
#include "rt/wait.h"

namespace duplex::mirror {

// What a row of the table needs to know, and names for its refusals.
struct Known {
  Facts facts;
  uint64_t cut = 0;
  std::string client = {};
  std::string other = {};
  std::string count = {};
  std::string group = {};  // as a member of which the verb was asked for it
};

// The clients of a volume, for people.
std::string names_of(const std::vector<volume::Member::Client>& clients, bool writers_only);

class MirrorsImpl final : public Mirrors {
 public:
  // For a drain, a flush, the end of a copy: longer than a device that is only slow.
  static constexpr rt::Micros kMostWait = 5 * rt::kSecond;
  static constexpr size_t kCutsKept = 1000;
  // A target that was lost is tried again after this, then after twice as long and so on.
  static constexpr rt::Micros kFirstRetry = rt::kSecond;
  static constexpr rt::Micros kLastRetry = 60 * rt::kSecond;

  MirrorsImpl(Parts parts, const meta::Snapshot& snapshot);
  ~MirrorsImpl() override;
  rt::Task<Result<void>> start(const meta::Snapshot& snapshot, meta::Marks::Found found);

  rt::Task<> stop() override;
  rt::Task<Result<Created>> create(CreateMirror request) override;
  rt::Task<std::vector<MirrorInfo>> list() override;
  rt::Task<Result<MirrorInfo>> show(std::string name) override;
  rt::Task<Result<std::vector<MirrorInfo>>> resync(Names which) override;
  rt::Task<Result<Plan>> plan_restore(Restore request) override;
  rt::Task<Result<std::vector<MirrorInfo>>> restore(Restore request) override;
  rt::Task<Result<std::vector<MirrorInfo>>> verify(std::vector<std::string> names) override;
  rt::Task<Result<Plan>> plan_remove(std::string name) override;
  rt::Task<Result<void>> remove(std::string name, bool confirmed) override;
  rt::Task<Result<CutInfo>> split(SplitRequest request) override;
  std::vector<CutInfo> cuts() const override;
  Result<CutInfo> cut(uint64_t id) const override;
  rt::Task<Result<bool>> create_group(std::string name, std::vector<std::string> mirrors) override;
  rt::Task<Result<GroupInfo>> add_to_group(std::string name,
                                           std::vector<std::string> mirrors) override;
  rt::Task<Result<GroupInfo>> remove_from_group(std::string name,
                                                std::vector<std::string> mirrors) override;
  rt::Task<Result<void>> delete_group(std::string name) override;
  std::vector<GroupInfo> groups() const override;
  Result<GroupInfo> group(const std::string& name) const override;
  bool is_group(const std::string& name) const override { return groups_.contains(name); }

 private:
  friend class Transition;
  friend class Cut;
  class JobWork;
  using Turn = rt::Mutex::Held;

  // Looking up. Mirrors do not go while a turn is held.
  Result<Mirror*> find(const std::string& name) const;
  Result<void> refuse_parting(const std::string& name) const;
  static Error parting_error(const Mirror& mirror);
  Mirror* with(MirrorId id) const;  // null: it is gone
  // Mirrors and the members of groups, each once, in the order named. kState: an empty group.
  Result<std::vector<Mirror*>> expand(const std::vector<std::string>& names) const;
  Result<volume::VolumeInfo> volume_named(const std::string& name) const;
  Mirror* upstream_of(VolumeNumber volume) const;  // whose target it is
  size_t depth_of(VolumeNumber volume) const;      // of a root: 0
  std::vector<Mirror*> below(VolumeNumber volume) const;
  // The mirror through which writes reach `volume` now; null: it is a root.
  Mirror* feeder_of(VolumeNumber volume) const;

  Error refusal(const Outcome& outcome, const Mirror& mirror, const Known& known) const;
  // Does what the table says, of all of them or of none; a refusal is returned.
  struct Happening {
    Mirror* mirror;
    Known known;
    Transition::How how;
  };
  rt::Task<Result<void>> events(RelationEvent event, std::vector<Happening> all);
  rt::Task<Result<void>> event(Mirror& mirror, RelationEvent event, Known known = {},
                               Transition::How how = {});
  volume::Access access_of(const Mirror& mirror, Relation state) const;
  void set_consistent(Ledger& ledger, volume::Member& volume, bool consistent) const;

  // mirrors.cc
  Known known_for_create(const CreateMirror& request, const volume::VolumeInfo& source,
                         const volume::VolumeInfo& target) const;
  rt::Task<Result<void>> make(const CreateMirror& request, const volume::VolumeInfo& source,
                              const volume::VolumeInfo& target);
  rt::Task<Result<Mirror*>> join(meta::MirrorRow row);
  std::function<void(ByteRange)> repaired_teller(const Mirror& mirror);
  rt::Task<> add_leg(Mirror& mirror, volume::ChangeMap bits, volume::ChangeMap missing);
  rt::Task<> drop(Mirror& mirror);  // within kMostWait
  rt::Task<bool> part_with(Mirror& mirror);
  rt::Task<bool> flush_source(Mirror& mirror);
  rt::Task<MirrorInfo> info_of(Mirror& mirror);
  rt::Task<std::vector<MirrorInfo>> infos_of(const std::vector<Mirror*>& mirrors);
  void tell(Severity severity, const char* code, const Mirror& mirror, std::string text,
            std::string next = {});

  // copies.cc
  rt::Task<Known> known_for_resync(Mirror& mirror, bool disconnect) const;
  rt::Task<Known> known_for_restore(Mirror& mirror, const Restore& request);
  rt::Task<Result<void>> resync_all(const std::vector<Mirror*>& all, bool disconnect);
  Result<void> one_restore_each(const std::vector<Mirror*>& all) const;
  rt::Task<Result<void>> restore_all(const std::vector<Mirror*>& all, const Restore& request);
  void tell_doubt(const Mirror& mirror, const Error& why);

  // jobs.cc
  void start_job(Mirror& mirror, JobKind kind);
  void copy_again(Mirror& mirror);
  rt::Task<> run_job(MirrorId id, JobKind kind, std::shared_ptr<Mirror::Running> job,
                     copy::Copier::Start start);
  rt::Task<copy::Copier::End> compare(Mirror& mirror, std::shared_ptr<Mirror::Running> job,
                                      copy::Copier::Start start);
  rt::Task<bool> is_target_there(Mirror& mirror);  // called and answered on the source core
  rt::Task<> tell_found(MirrorId id, std::shared_ptr<Mirror::Running> job);
  // Ends what does not fit the state that follows; within kMostWait.
  rt::Task<Result<void>> end_jobs_for(Mirror& mirror, const Outcome& outcome, Relation to);
  rt::Task<Result<void>> end_job(Mirror& mirror, JobKind kind, JobDesk::End end);
  rt::Task<> retry_jobs(Mirror& mirror);
  rt::Task<Result<void>> cancel_job(MirrorId id, JobKind kind, bool confirmed);
  rt::Task<> job_done(MirrorId id, JobKind kind);
  rt::Task<Result<bool>> follow(Mirror& mirror, JobKind kind, Mirror::Running& job);
  rt::Task<Result<void>> differs(Mirror& mirror, Mirror::Running& job);
  static std::string finding(const Mirror& mirror, const Mirror::Running& job);

  // faults.cc
  rt::Task<> look(MirrorId id);
  rt::Task<> lost(Mirror& mirror, const Error& why);
  rt::Task<> watch();
  rt::Task<> second_look(MirrorId id);
  rt::Task<> try_again(Mirror& mirror);

  // split.cc
  Result<std::vector<Mirror*>> members_of(const SplitRequest& request) const;
  std::string group_asked(const Mirror& mirror, const std::vector<std::string>& names) const;
  Result<Mirror*> paired(const PairId& pair, size_t entry) const;
  CutInfo info_of(const meta::CutRow& row) const;

  // start.cc
  rt::Task<Result<void>> bring_back(meta::MirrorRow row, const meta::Marks::Found& found);
  rt::Task<Result<void>> settle_start(const meta::Marks::Found& found);
  rt::Task<> choose_holders(volume::Member& source);
  const Outcome& at_start(const Mirror& mirror, const meta::Marks::Found& found, bool attached,
                          bool bits) const;
  rt::Task<> go_on(Mirror& mirror);
  rt::Task<> keep_difference(Mirror& mirror);
  rt::Task<> leave_no_marks();

  // groups.cc
  Result<std::set<MirrorId>> ids_of(const std::vector<std::string>& mirrors) const;
  rt::Task<Result<GroupInfo>> put_group(std::string name, std::set<MirrorId> members);

  // Any core: not below that of any root.
  Epoch newest_epoch() const { return Epoch(epoch_.load(std::memory_order_acquire)); }

  const Parts parts_;
  rt::Core& control_;
  uint32_t last_mirror_ = 0;
  uint64_t last_cut_ = 0;
  std::atomic<uint64_t> epoch_;  // of the last cut that was stamped
  // One in SIMPLEX is being made: nobody else looks at it.
  std::map<MirrorId, std::unique_ptr<Mirror>> mirrors_;
  // Those that have gone, until nothing of them is under way.
  std::vector<std::unique_ptr<Mirror>> parting_;
  std::map<std::string, std::set<MirrorId>> groups_;
  std::map<uint64_t, meta::CutRow> cuts_;
  rt::Mutex turn_;
  bool has_started_ = false;
  bool stopping_ = false;
  rt::Event stop_;
  std::optional<rt::TaskGroup> tasks_;
};

}  // namespace duplex::mirror
