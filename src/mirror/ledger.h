// Ledger: what one change makes durable: rows of mirrors and volumes together with whole maps, in
// one transaction (trace F28).
//
// Owner: a turn of the registry. Thread: control core; it hops to the cores of the maps.
// Between the look at a map and the commit nothing asks for older words of it: what a tracker wrote
// before is in the store's queue already (marks.h).
#pragma once

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "meta/marks.h"
#include "meta/rows.h"
#include "rt/task.h"
#include "rt/world.h"
#include "volume/members.h"
#include "volume/tracker.h"

namespace duplex::mirror {

class Ledger {
 public:
  Ledger(rt::Core& control, meta::Marks& marks) : control_(control), marks_(marks) {}
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  void add(meta::Change change) { changes_.push_back(std::move(change)); }
  void set_consistent(volume::Member& volume, bool consistent);
  void set_content(volume::Member& volume, Uuid content);
  // As this transaction leaves it.
  bool is_consistent(const volume::Member& volume) const;
  Uuid content_of(const volume::Member& volume) const;

  // A map as its tracker has it now, on disk from now on. `but`: without these regions.
  rt::Task<> add_map(volume::Member& of, volume::MapId id, const volume::ChangeMap* but = nullptr);
  // A map as it will be.
  void add_map(volume::MapId id, const volume::ChangeMap& words);
  void drop_map(volume::MapId id);
  // The marks of the volume leave the disk: its maps, all of them, are in this ledger.
  void drop_marks(VolumeNumber volume) { dropped_.push_back(volume); }

  // Once. Volumes and trackers hear of the outcome before it returns.
  rt::Task<Result<void>> commit();

 private:
  struct Row {
    volume::Member* member = nullptr;
    std::optional<bool> consistent;
    std::optional<Uuid> content;
  };
  struct Taken {
    volume::Member* member = nullptr;
    volume::Tracker::Whole whole;
  };
  Row& row_of(volume::Member& volume);

  rt::Core& control_;
  meta::Marks& marks_;
  meta::Transaction changes_;
  std::map<VolumeNumber, Row> rows_;
  std::vector<Taken> taken_;
  std::vector<meta::WholeMap> maps_;
  std::vector<VolumeNumber> dropped_;
};

}  // namespace duplex::mirror
