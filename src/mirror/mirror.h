// Mirror: one mirror at run time, and the pieces of it that live on other cores.
//
// Owner: MirrorsImpl. Thread: control core, except what stands under "source core": that is made,
// used and destroyed on the core of the source volume.
//
// `state` is what the table says now; `row` what the store holds of it. They differ for ARMED and
// SPLITTING, which no store ever sees: a crash in a cut that was not decided finds SYNC.
//
// A fault shows itself on the source core first: the leg leaves, or a region becomes missing. Both
// ring the bell; the registry then looks at the leg in its turn. So nothing on the data path waits
// for the registry, and a bell that rings twice is answered once.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "copy/copier.h"
#include "copy/verifier.h"
#include "meta/rows.h"
#include "mirror/deadline.h"
#include "mirror/job_desk.h"
#include "mirror/relation.h"
#include "volume/members.h"
#include "volume/target_leg.h"

namespace duplex::mirror {

// Why a mirror is SUSPENDED; numbers of MirrorRow::reason.
enum class Reason : uint8_t { kNone, kFault, kDiffers, kOperator, kDoubt };
std::string_view reason_text(Reason reason);

// Numbers of MirrorRow::access.
enum class TargetAccess : uint8_t { kRefused, kReadOnly, kReadWrite };

// Calls the registry from any core: at most one call is on its way.
class Bell : public rt::Work {
 public:
  Bell(rt::Executor& control, std::function<void()> rung)
      : Work(&Bell::run_here), control_(control), rung_(std::move(rung)) {}
  void ring() {
    if (!posted_.exchange(true, std::memory_order_acq_rel)) control_.post(*this);
  }
  // Control core: nothing is on its way.
  bool is_quiet() const { return !posted_.load(std::memory_order_acquire); }

 private:
  static void run_here(rt::Work& work) {
    auto& bell = static_cast<Bell&>(work);
    bell.posted_.store(false, std::memory_order_release);
    bell.rung_();
  }
  rt::Executor& control_;
  const std::function<void()> rung_;
  std::atomic<bool> posted_ = false;
};

enum class JobKind : uint8_t {
  kCopy,     // P to S, where bits are
  kBack,     // S to P, where regions are missing: restore and repair
  kCompare,  // verify
};
inline constexpr size_t kJobKinds = 3;

struct Mirror {
  // One job under way. Shared with those who ask for its progress.
  struct Running {
    WorkProgress progress() const;  // source core

    uint32_t id = 0;
    JobDesk::End end_as = JobDesk::End::kStopped;  // when it is ended before it is done
    std::unique_ptr<Work> work;
    // Source core.
    std::unique_ptr<copy::Copier> copier;      // kCopy, kBack: while it runs
    std::unique_ptr<copy::Verifier> verifier;  // kCompare: while it runs
    WorkProgress last;                         // before and after that
    // Of a verify: what it has found, what of that its mirror has to take over as bits, and what
    // could not be compared. The source core's while it runs, the control core's when it waits for
    // its mirror, or has ended.
    copy::Verifier::Found found;
    volume::ChangeMap unmarked;
    uint64_t unread_bytes = 0;
    // Control core.
    uint64_t told_regions = 0;
    bool is_answered = false;  // the mirror has followed
    bool is_ending = false;
    rt::Event changed;  // pulsed when one of the two is set
  };
  // Counts those who look at it across a hop.
  class Looking {
   public:
    explicit Looking(Mirror& mirror) : mirror_(mirror) { ++mirror_.lookers; }
    Looking(const Looking&) = delete;
    Looking& operator=(const Looking&) = delete;
    ~Looking() { --mirror_.lookers; }

   private:
    Mirror& mirror_;
  };

  Mirror(rt::Executor& control, meta::MirrorRow r, volume::Member& p, volume::Member& s,
         std::function<void()> look)
      : id(r.id),
        row(std::move(r)),
        source(p),
        target(s),
        state(static_cast<Relation>(row.relation)),
        bell(control, std::move(look)) {}

  // Change maps: of P ("bits"), of the regions only S holds, and of S while it is split.
  volume::MapId bits() const { return volume::MapId(id.value() * 4); }
  volume::MapId missing() const { return volume::MapId(id.value() * 4 + 1); }
  volume::MapId behind() const { return volume::MapId(id.value() * 4 + 2); }

  Reason reason() const { return static_cast<Reason>(row.reason); }
  const std::string& source_name() const { return source.row().name; }
  const std::string& target_name() const { return target.row().name; }
  bool has_job(JobKind kind) const {
    const auto at = static_cast<size_t>(kind);
    return jobs[at] != nullptr || done_jobs[at] != nullptr;
  }
  std::shared_ptr<Running>& job(JobKind kind) { return jobs[static_cast<size_t>(kind)]; }

  const MirrorId id;  // any core
  meta::MirrorRow row;
  volume::Member& source;
  volume::Member& target;
  Relation state;
  std::string reason_detail;    // what the target said when it was lost
  std::optional<uint64_t> cut;  // the cut it is in
  rt::Micros retry_at = 0;      // SUSPENDED by a fault: when the target is tried again
  rt::Micros retry_after = 0;   // and how long after that
  // What a turn could not do when it was due is tried again then.
  std::optional<rt::Micros> look_at;
  uint64_t rate = 0;  // asked for with create
  std::array<std::shared_ptr<Running>, kJobKinds> jobs;
  // Those that have done their work and wait for a turn to say so.
  std::array<std::shared_ptr<Running>, kJobKinds> done_jobs;
  rt::Event job_ended;  // pulsed when one of them is gone
  uint32_t lookers = 0;
  std::shared_ptr<Pending> pending = std::make_shared<Pending>();
  Bell bell;

  // Source core.
  std::unique_ptr<volume::TargetLeg> leg;
  std::optional<Error> left;  // why the leg left, until the registry has seen it
};

}  // namespace duplex::mirror
