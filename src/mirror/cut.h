// Cut: one split of any number of mirrors at one point of the write order (design of the steps:
// docs/ARCHITECTURE.md "Cut").
//
//   step      what                                                     a fault, or no answer in
//   time check     members SYNC, and every mirror from their roots to them  refused, nothing was
//   done arm       legs know the epoch: writes below it are forwarded       as stamp stamp
//   CutRound: the instant                                    void: SYNC, no bit was set finish old
//   writes end, targets flush                            void: the few bits are copied decide one
//   transaction: the cut, the states, the content ids    void; in doubt: see below apply     legs
//   stop, targets open                                  -
//
// Void is what no record says: a crash before the transaction finds SYNC, with marks, and copies.
// When the store fails over the transaction nobody knows; targets then stay as they are at the cut
// and closed, so both outcomes are right, until the next start has looked.
//
// Owner: a turn of the registry, which is held throughout: a root is in one undecided cut at a time
// (trace F26), and nothing else changes a mirror. Thread: control core. At most the lease and
// kMostWait.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "mirror/cut_round.h"
#include "mirror/mirrors_impl.h"

namespace duplex::mirror {

class Cut {
 public:
  Cut(MirrorsImpl& all, const SplitRequest& request, std::vector<Mirror*> members);
  Cut(const Cut&) = delete;
  Cut& operator=(const Cut&) = delete;

  // Once.
  rt::Task<Result<meta::CutRow>> run();

 private:
  std::vector<Mirror*> all_members() const;  // and those on the path
  rt::Task<Result<void>> check();
  rt::Task<bool> arm(Mirror& mirror);
  rt::Task<Result<void>> arm_all();
  rt::Task<Result<void>> stamp();
  rt::Task<Result<void>> finish();
  rt::Task<Result<void>> drain_roots();
  rt::Task<Result<void>> flush_targets();
  rt::Task<Result<void>> decide();
  rt::Task<> disarm_all();
  rt::Task<> void_all(const Error& why);
  rt::Task<> void_one(Mirror& mirror, const Error& why);
  rt::Task<> stay_in_doubt(const Error& why);
  static bool is_whole(const Mirror& mirror);      // source core
  static bool is_returning(const Mirror& mirror);  // source core
  meta::CutRow row() const;

  MirrorsImpl& all_;
  const rt::Micros lease_;
  const TargetAccess access_;
  const std::vector<std::string> names_;  // as they were asked for
  const uint64_t id_;
  const Epoch epoch_;
  const std::vector<Mirror*> members_;
  std::vector<Mirror*> path_;  // mirrors between roots and members that are no members
  std::set<VolumeNumber> roots_;
  rt::Micros hold_ = 0;
  int64_t wall_us_ = 0;
  std::vector<meta::CutMember> contents_;
};

}  // namespace duplex::mirror
