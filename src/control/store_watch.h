// StoreWatch: the store as the rooms above see it, and whether it takes changes at the moment.
//
// A store that cannot commit (its disk is full, broken or gone) refuses each change by itself; that
// the array as a whole needs attention is decided here, for status and the events.
// Owner: the array. Thread: the control core; commit() is called on the store executor as well, by
// Marks.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "base/event.h"
#include "meta/store.h"

namespace duplex::control {

class StoreWatch final : public meta::Store {
 public:
  // The sink may be one that stores its events here.
  StoreWatch(std::unique_ptr<meta::Store> store, rt::Executor& control, EventSink& events)
      : store_(std::move(store)), control_(control), events_(events) {}

  rt::Task<Result<meta::Snapshot>> load() override;
  rt::Task<Result<void>> commit(meta::Transaction transaction) override;
  rt::Task<Result<std::vector<meta::EventRow>>> events(uint64_t after_id, size_t limit) override;
  rt::Task<Result<void>> close() override;

  // Why the last change was not stored, with what to do; none when it was.
  const std::optional<Error>& trouble() const { return trouble_; }

 private:
  void note(const Result<void>& committed);

  const std::unique_ptr<meta::Store> store_;
  rt::Executor& control_;
  EventSink& events_;
  std::optional<Error> trouble_;
};

}  // namespace duplex::control
