#include "control/store_watch.h"

#include <fmt/format.h>

#include <utility>

namespace duplex::control {

rt::Task<Result<meta::Snapshot>> StoreWatch::load() { return store_->load(); }

rt::Task<Result<std::vector<meta::EventRow>>> StoreWatch::events(uint64_t after_id, size_t limit) {
  return store_->events(after_id, limit);
}

rt::Task<Result<void>> StoreWatch::close() { return store_->close(); }

rt::Task<Result<void>> StoreWatch::commit(meta::Transaction transaction) {
  const bool writes = !transaction.empty();
  rt::Executor& home = rt::Executor::current();
  Result<void> committed = co_await store_->commit(std::move(transaction));
  if (!writes) co_return committed;
  co_await rt::hop(control_);
  note(committed);
  co_await rt::hop(home);
  co_return committed;
}

void StoreWatch::note(const Result<void>& committed) {
  const bool was_well = !trouble_;
  if (committed) {
    if (was_well) return;
    trouble_.reset();
    events_.emit({.severity = Severity::kInfo,
                  .code = "state_writable",
                  .subject = "array",
                  .text = "changes are stored again",
                  .next = {}});
    return;
  }
  // kState: the change contradicts what is stored. kShutdown: the array has ended.
  const Error& cause = committed.error();
  if (cause.code() == Code::kState || cause.code() == Code::kShutdown) return;
  // The store names the directory.
  trouble_ = Error(cause.code(), fmt::format("changes are not stored: {}", cause.message()),
                   cause.code() == Code::kNoSpace
                       ? "make room on its file system; the next change then ends this"
                       : std::string(cause.next_step()));
  if (!was_well) return;
  // The event that cannot be stored stands in the log.
  events_.emit({.severity = Severity::kError,
                .code = "state_unwritable",
                .subject = "array",
                .text = std::string(trouble_->message()),
                .next = std::string(trouble_->next())});
}

}  // namespace duplex::control
