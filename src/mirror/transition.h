// Transition: does what one row of the relation table says, in its order.
//
//   1. quiet     the gates the row names are closed, and drained; they stay so to the end
//   2. prepare   flushes; the maps as they will be, in memory
//   3. commit    one transaction: the mirror's row, those of its volumes, the maps
//   4. settle    the leg gets the mode of the new state, S is opened or shut, jobs begin and end
//
// A failure before the commit has been asked for changes nothing: the maps have what they had, or
// more. Owner: a turn of the registry. Thread: control core; it hops where the work is.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "meta/marks.h"
#include "meta/rows.h"
#include "mirror/mirror.h"
#include "rt/task.h"

namespace duplex::mirror {

class Ledger;
class MirrorsImpl;

class Transition {
 public:
  // What the caller adds to the row.
  struct How {
    Then then = Then::kSplit;
    TargetAccess access = TargetAccess::kReadWrite;  // of a split
    uint64_t cut = 0;                                // of a split
    std::string detail = {};                         // of a fault
    const volume::ChangeMap* difference = nullptr;   // of a verify
    bool confirmed = false;                          // of a delete
    bool at_start = false;                           // no leg sends yet, whatever the state says
    bool doubt = false;  // the marks were lost: nobody knows which side is newer
  };
  Transition(MirrorsImpl& all, Mirror& mirror, const Outcome& outcome, How how);
  Transition(const Transition&) = delete;
  Transition& operator=(const Transition&) = delete;

  // Several mirrors in one transaction: all of them or none. In the order of their sources, from
  // the roots down: writes that a gate above has let in still pass those below. An error: the
  // states are as before.
  using Transitions = std::vector<std::unique_ptr<Transition>>;
  static rt::Task<Result<void>> run(MirrorsImpl& all, Transitions transitions);

  // The parts of run(), for a cut and a start. open_gates() comes last.
  rt::Task<Result<void>> prepare();
  rt::Task<> record(Ledger& ledger);
  rt::Task<> settle_source();
  rt::Task<> settle_target();
  rt::Task<> open_gates();

 private:
  struct Quiet {
    std::optional<volume::Gate::Closer> source, target;  // of their cores
  };
  rt::Task<Result<void>> stop_downstream();
  rt::Task<Result<void>> wait_for(rt::Task<Result<void>> task);
  rt::Task<Result<void>> close_gate(volume::Member& member,
                                    std::optional<volume::Gate::Closer>& closer);
  rt::Task<Result<void>> do_now(Action action);
  rt::Task<Result<void>> refuse_a_holder();
  rt::Task<> mark_mapped();
  rt::Task<volume::ChangeMap> target_map();
  rt::Task<> unite_maps();
  rt::Task<> missing_from_union();
  rt::Task<> end_session();
  rt::Task<> mark_source(Action action);

  Reason next_reason() const;
  void record_volumes(Ledger& ledger);
  rt::Task<> record_maps(Ledger& ledger);
  rt::Task<> record_downstream(Ledger& ledger);

  rt::Task<> refuse_writes();
  rt::Task<> unseal();
  void go_on_as_before();
  void settle_leg();
  void adopt();

  MirrorsImpl& all_;
  Mirror& mirror_;
  const Outcome& outcome_;
  const How how_;
  const Relation to_;
  const bool begins_;  // a session of the leg
  Quiet quiet_;
  std::optional<volume::ChangeMap> next_missing_;  // of a restore
  std::optional<volume::ChangeMap> changed_;       // for readers of P, by a restore or its cancel
  std::vector<Mirror*> downstream_;                // SYNC before, COPYING by a restore
  std::vector<Mirror*> stopped_;                   // their copies: COPYING before and after it
  std::vector<volume::MapId> overwritten_;         // of missing regions, by a restore
  std::vector<volume::MapId> told_;                // of others, that readers of P find other bytes
  bool misses_ = false;                            // as it was settled
  meta::MirrorRow next_row_;
};

}  // namespace duplex::mirror
