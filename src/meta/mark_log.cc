#include "meta/mark_log.h"

#include <fmt/format.h>

#include <iterator>
#include <optional>
#include <utility>

#include "base/assert.h"
#include "base/log.h"
#include "rt/wait.h"

namespace duplex::meta {
namespace {

using format::MarkBatch;
using format::MarkRecord;

constexpr size_t kCopies = 2;

// An append that waits for its turn; lives in the coroutine of its caller.
struct Pending {
  std::vector<MarkRecord> records;
  size_t bytes = 0;
  Result<uint64_t> result = 0;
  bool done = false;
};

struct Copy {
  std::string path;
  std::unique_ptr<rt::SyncFile> file;  // null: not opened, or it could not be
};

// Makes the file at least as long: with zeroes, not with space that is merely reserved. A flush of
// what overwrites them waits for no journal of the file system, and so for nobody else's writes.
int fill(rt::SyncFile& file, uint64_t bytes) {
  const int64_t size = file.size();
  if (size < 0) return static_cast<int>(-size);
  const auto from = static_cast<uint64_t>(size);
  if (from >= bytes) return 0;
  return file.write(from, std::vector<std::byte>(bytes - from));
}

class TwoCopyMarkLog final : public MarkLog {
 public:
  TwoCopyMarkLog(rt::SyncFiles& files, rt::Executor& executor, uint64_t next_lap,
                 MarkLogKeeper& keeper, MarkLogState saved, MarkLogOptions options)
      : files_(files),
        executor_(executor),
        keeper_(keeper),
        options_(std::move(options)),
        state_(saved),
        next_lap_(next_lap),
        position_(saved.position) {
    ASSERT(options_.bytes >= kMaxBatchBytes && options_.bytes % kBlockBytes == 0);
    for (size_t c = 0; c < kCopies; ++c) {
      copies_[c].path = fmt::format("{}/marks-{}", options_.directory, c + 1);
    }
  }

  // On the store executor.
  void read(Opened& opened);
  rt::Task<Result<uint64_t>> append(std::vector<MarkRecord> records) override;
  rt::Task<Result<void>> checkpoint() override;

 private:
  using Contents = std::array<std::vector<std::byte>, kCopies>;

  std::vector<std::byte> read_copy(Copy& copy);
  std::optional<MarkBatch> next_batch(const Contents& contents) const;
  bool shows_a_gap(const std::vector<std::byte>& content) const;
  void advance(const MarkBatch& batch);

  rt::Task<> write_queued();
  rt::Task<Result<uint64_t>> write_batch(std::vector<MarkRecord> records, uint64_t bytes);
  rt::Task<Result<void>> begin_lap();
  Result<void> prepare_copy(Copy& copy);
  void end_turn();
  Error break_down(Error cause);
  Error no_copy_left();

  rt::SyncFiles& files_;
  rt::Executor& executor_;
  MarkLogKeeper& keeper_;
  const MarkLogOptions options_;
  MarkLogState state_;  // as the keeper has it
  uint64_t next_lap_;
  Copy copies_[kCopies];
  uint64_t position_;    // of the last batch
  uint64_t offset_ = 0;  // where the next one goes
  uint32_t chain_ = 0;   // the CRC it names
  bool lap_begun_ = false;
  std::optional<Error> failure_;
  std::vector<Pending*> queue_;
  bool busy_ = false;  // someone writes; others wait for turn_ (no guard: a power cut destroys
  rt::Event turn_;     // frames in any order, and a destructor must not wake the dead)
};

// A copy that cannot be read is as good as an empty one.
std::vector<std::byte> TwoCopyMarkLog::read_copy(Copy& copy) {
  int errnum = 0;
  const auto file = files_.open(copy.path, false, &errnum);
  if (file == nullptr) return {};
  std::vector<std::byte> content(options_.bytes);
  const int64_t got = file->read(0, content);
  content.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return content;
}

std::optional<MarkBatch> TwoCopyMarkLog::next_batch(const Contents& contents) const {
  for (const auto& content : contents) {
    if (offset_ >= content.size()) continue;
    uint32_t before = 0;
    auto batch = format::decode_mark_batch(std::span(content).subspan(offset_), &before);
    if (batch && batch->lap == state_.lap && batch->position == position_ + 1 && before == chain_) {
      return *std::move(batch);
    }
  }
  return std::nullopt;
}

// Whether a batch stands behind the one that ended the run: that one was acknowledged, then.
bool TwoCopyMarkLog::shows_a_gap(const std::vector<std::byte>& content) const {
  for (uint64_t at = offset_; at < content.size(); at += kBlockBytes) {
    uint32_t before = 0;
    const auto batch = format::decode_mark_batch(std::span(content).subspan(at), &before);
    if (batch && batch->lap == state_.lap && batch->position > position_ + 1) return true;
  }
  return false;
}

void TwoCopyMarkLog::advance(const MarkBatch& batch) {
  position_ = batch.position;
  offset_ += batch.bytes;
  chain_ = batch.chain;
}

void TwoCopyMarkLog::read(Opened& opened) {
  if (state_.lap == 0) return;  // the first checkpoint makes the files
  Contents contents;
  bool readable = false;
  for (size_t c = 0; c < kCopies; ++c) {
    if (!state_.out[c]) contents[c] = read_copy(copies_[c]);
    readable |= !contents[c].empty();
  }
  while (auto batch = next_batch(contents)) {
    advance(*batch);
    opened.batches.push_back(*std::move(batch));
  }
  opened.trusted = readable && !shows_a_gap(contents[0]) && !shows_a_gap(contents[1]);
  if (opened.trusted) return;
  opened.batches.clear();
  log_error("no copy of the mark log in {} can be trusted: all change maps count as full",
            options_.directory);
}

// Everyone queues, then lets all others who are on their way queue as well; whoever finds the turn
// free writes for all.
rt::Task<Result<uint64_t>> TwoCopyMarkLog::append(std::vector<MarkRecord> records) {
  rt::Executor& home = rt::Executor::current();
  Pending pending;
  for (const MarkRecord& record : records) pending.bytes += format::mark_record_bytes(record);
  pending.records = std::move(records);
  ASSERT(!pending.records.empty() && format::mark_batch_bytes(pending.bytes) <= kMaxBatchBytes);
  co_await rt::hop(executor_);
  ASSERT(lap_begun_);
  queue_.push_back(&pending);
  co_await rt::yield();
  while (!pending.done) {
    if (busy_) {
      co_await turn_.wait();
      continue;
    }
    busy_ = true;
    co_await write_queued();
    end_turn();
  }
  co_await rt::hop(home);
  co_return std::move(pending.result);
}

rt::Task<Result<void>> TwoCopyMarkLog::checkpoint() {
  rt::Executor& home = rt::Executor::current();
  co_await rt::hop(executor_);
  while (busy_) co_await turn_.wait();
  busy_ = true;
  Result<void> result = co_await begin_lap();
  end_turn();
  co_await rt::hop(home);
  co_return result;
}

void TwoCopyMarkLog::end_turn() {
  busy_ = false;
  turn_.pulse();
}

// One batch: as many of those who wait as fit, in order.
rt::Task<> TwoCopyMarkLog::write_queued() {
  std::vector<Pending*> together;
  std::vector<MarkRecord> records;
  size_t bytes = 0;
  for (Pending* pending : queue_) {
    if (format::mark_batch_bytes(bytes + pending->bytes) > kMaxBatchBytes) break;
    bytes += pending->bytes;
    together.push_back(pending);
    std::ranges::move(pending->records, std::back_inserter(records));
  }
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(together.size()));
  const auto result = co_await write_batch(std::move(records), format::mark_batch_bytes(bytes));
  for (Pending* pending : together) {
    pending->result = result;
    pending->done = true;
  }
}

rt::Task<Result<uint64_t>> TwoCopyMarkLog::write_batch(std::vector<MarkRecord> records,
                                                       uint64_t bytes) {
  if (failure_) co_return std::unexpected(*failure_);
  if (offset_ + bytes > options_.bytes) CO_TRY(co_await begin_lap());
  const auto encoded = format::encode_mark_batch(records, state_.lap, position_ + 1, chain_);
  ASSERT(encoded.size() == bytes);

  MarkLogState state = state_;
  for (size_t c = 0; c < kCopies; ++c) {
    if (!state.out[c]) state.out[c] = copies_[c].file->write(offset_, encoded) != 0;
  }
  for (size_t c = 0; c < kCopies; ++c) {
    if (!state.out[c]) state.out[c] = copies_[c].file->sync() != 0;
  }
  if (state.out[0] && state.out[1]) co_return std::unexpected(no_copy_left());
  if (state != state_) {
    log_error("a copy of the mark log failed and is left out: {}",
              copies_[state.out[0] ? 0 : 1].path);
    if (auto kept = co_await keeper_.record_out(state); !kept) {
      co_return std::unexpected(break_down(std::move(kept).error()));
    }
    state_ = state;
  }
  uint32_t before = 0;
  const auto batch = format::decode_mark_batch(encoded, &before);
  ASSERT(batch && before == chain_);
  advance(*batch);
  keeper_.appended(records, position_);
  co_return position_;
}

// Until the keeper has answered, the old lap goes on counting.
rt::Task<Result<void>> TwoCopyMarkLog::begin_lap() {
  if (failure_) co_return std::unexpected(*failure_);
  MarkLogState state{next_lap_, position_, state_.out};
  if (!lap_begun_) {
    for (size_t c = 0; c < kCopies; ++c) {
      const auto prepared = prepare_copy(copies_[c]);
      if (!prepared && prepared.error().code() == Code::kNoSpace) co_return prepared;
      state.out[c] = !prepared;
    }
  }
  if (state.out[0] && state.out[1]) co_return std::unexpected(no_copy_left());
  if (auto kept = co_await keeper_.checkpoint(state); !kept) {
    if (kept.error().code() == Code::kNoSpace) co_return kept;
    co_return std::unexpected(break_down(std::move(kept).error()));
  }
  state_ = state;
  next_lap_ = next_lap_ + 1 == 0 ? 1 : next_lap_ + 1;
  offset_ = 0;
  chain_ = 0;
  lap_begun_ = true;
  co_return Result<void>{};
}

// Opens a copy for this life, with all its space written and its directory entry durable. kNoSpace
// when there is no room for it; a flush that says so has failed like any other.
Result<void> TwoCopyMarkLog::prepare_copy(Copy& copy) {
  int errnum = 0;
  copy.file = files_.open(copy.path, true, &errnum);
  if (copy.file != nullptr) errnum = fill(*copy.file, options_.bytes);
  if (errnum != 0) {
    return std::unexpected(system_error(errnum, fmt::format("make {}", copy.path),
                                        "make room in the state directory"));
  }
  if (copy.file->sync() != 0 || files_.sync_directory(options_.directory) != 0) {
    return fail(Code::kSystem, fmt::format("cannot flush {}", copy.path));
  }
  return {};
}

Error TwoCopyMarkLog::break_down(Error cause) {
  failure_ = std::move(cause);
  log_error("the mark log failed: {}", failure_->describe());
  return *failure_;
}

Error TwoCopyMarkLog::no_copy_left() {
  return break_down(Error(
      Code::kSystem, fmt::format("both copies of the mark log in {} failed", options_.directory),
      "check the disk under it, then start duplexd again"));
}

}  // namespace

rt::Task<MarkLog::Opened> MarkLog::open(rt::SyncFiles& files, rt::Executor& executor, rt::Rng& rng,
                                        MarkLogKeeper& keeper, MarkLogState saved,
                                        MarkLogOptions options) {
  rt::Executor& home = rt::Executor::current();
  const uint64_t next_lap = rng.next() | 1;  // never 0, and of no earlier life
  co_await rt::hop(executor);
  auto log = std::make_unique<TwoCopyMarkLog>(files, executor, next_lap, keeper, saved,
                                              std::move(options));
  Opened opened;
  log->read(opened);
  opened.log = std::move(log);
  co_await rt::hop(home);
  co_return opened;
}

}  // namespace duplex::meta
